//! Hugging Face checkpoints: weights on disk, and where folders come from.

mod cache;
pub mod checkpoint;
mod client;
pub mod download;
pub mod source;
#[cfg(test)]
mod tests;
mod token;
