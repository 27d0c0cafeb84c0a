//! Why a model's files do not become a model.

use std::path::PathBuf;

use ist_files::untrusted::cut_message;

use crate::hub::checkpoint::CheckpointError;

/// Why a model folder cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `config.json` is wrong.
    #[error("{path}: {}", cut_message(message))]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault.
        message: String,
    },
    /// The weights do not fit or cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
