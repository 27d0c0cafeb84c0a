//! What commands need of a decoder, whatever its architecture.

use std::path::PathBuf;

use ist_core::LayeredModel;
use ist_core::burn::tensor::{Device, Tensor, TensorData};
use ist_files::untrusted::cut_message;
use ist_peft::{Adapter, PeftModel};

use crate::TokenBatch;
use crate::hub::checkpoint::CheckpointError;

/// A decoder language model with adapters of the set `A`.
pub trait CausalLm<A: Adapter>: LayeredModel<Batch = TokenBatch> + PeftModel<A> {
    /// What a generation keeps of the tokens it has seen.
    type Cache;

    /// The device the weights are on.
    fn device(&self) -> &Device;
    /// Rows of the embedding.
    fn vocab_size(&self) -> usize;
    /// Positions there are for tokens: those the model was made for, less what an adapter puts in
    /// front.
    fn max_position_embeddings(&self) -> usize;

    /// The logits of the given rows of the flattened batch, `[rows, vocabulary]`, in evaluation
    /// mode.
    fn logits(&self, batch: &TokenBatch) -> Tensor<2>;

    /// log p of every predicted token of the batch, `[predicted]`, in evaluation mode; the logits
    /// never exist in full.
    fn token_log_probabilities(&self, batch: &TokenBatch) -> Tensor<1>;

    /// An empty cache for that many rows.
    fn new_cache(&self, rows: usize) -> Self::Cache;
    /// Feeds tokens (one list a row, equal lengths, padding on the left as `mask` says) after those
    /// in the cache; returns the logits of the last position of each row, `[batch, vocabulary]`.
    ///
    /// A row's positions count its real tokens only.
    fn extend(&self, tokens: &[Vec<u32>], mask: &[Vec<bool>], cache: &mut Self::Cache)
    -> Tensor<2>;
    /// Makes the cache hold these of its rows, in this order. A row may be named several times, or
    /// not at all.
    fn select_rows(&self, rows: &[usize], cache: &mut Self::Cache);

    /// The weights under Hugging Face's names and in its layout, in their storage type, adapters
    /// left out.
    fn weights(&self) -> Vec<(String, TensorData)>;
    /// `config.json` of this model.
    fn config_json(&self) -> serde_json::Value;
}

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
