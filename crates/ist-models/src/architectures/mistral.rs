//! Mistral (Jiang et al., [arXiv 2310.06825](https://arxiv.org/abs/2310.06825)): LLaMA with a
//! sliding window.

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;

/// Mistral.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "mistral", read };

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults =
        Defaults { max_position_embeddings: 4096 * 32, kv_heads: Some(8), ..Defaults::default() };
    let config = llama::base(fields, defaults);
    let window = fields.count_or_none("sliding_window", Some(4096));
    llama::sliding(DecoderConfig { model_type: "mistral", ..config }, window, |_| true)
}
