//! Stand-in.
#![expect(missing_docs, reason = "stand-in")]
pub mod checkpoint { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct CheckpointError; }
