//! A model's adapters: where they can sit, which of those modules they take, attaching and merging.

pub mod adapters;
pub mod attach;
pub mod carried;
pub mod modules;
mod peft_defaults;
pub mod weighted;
