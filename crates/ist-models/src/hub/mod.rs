//! Hugging Face checkpoints: weights on disk, and where folders come from.

pub mod checkpoint;
pub mod source;
