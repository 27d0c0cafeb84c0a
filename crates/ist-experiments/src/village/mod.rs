//! The built-in model and the world it speaks of: texts, a task, and the pre-training that made it.

pub mod builtin;
pub mod pretrain;
pub mod world;
