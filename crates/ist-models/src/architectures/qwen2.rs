//! Qwen2 and Qwen2.5 (Yang et al., [arXiv 2407.10671](https://arxiv.org/abs/2407.10671)): LLaMA
//! with biases on queries, keys and values, and a sliding window in the upper layers where that is
//! switched on.

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;

/// Qwen2.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "qwen2", read };

/// Positions a Qwen is made for unless its file says otherwise.
pub const CONTEXT: usize = 32_768;

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults =
        Defaults { max_position_embeddings: CONTEXT, kv_heads: Some(32), ..Defaults::default() };
    let config = llama::base(fields, defaults);
    windows(fields, DecoderConfig { model_type: "qwen2", qkv_bias: true, ..config })
}

/// The same with Qwen's windows: with `use_sliding_window` the layers that `layer_types` names or,
/// without it, those from `max_window_layers` on.
pub fn windows(fields: &mut Fields, config: DecoderConfig) -> DecoderConfig {
    let used = fields.flag("use_sliding_window", false);
    let window = fields.count_or_none("sliding_window", Some(4096)).filter(|_| used);
    let first = fields.index("max_window_layers", 28);
    let slides = llama::layer_types(fields, config.num_hidden_layers, |layer| layer >= first);
    llama::sliding(config, window, |layer| slides.get(layer).copied().unwrap_or(false))
}
