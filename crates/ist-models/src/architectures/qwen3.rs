//! Qwen3 (Yang et al., [arXiv 2505.09388](https://arxiv.org/abs/2505.09388)): LLaMA with a norm on
//! the queries and keys of every head.

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2::{self, CONTEXT};
use crate::decoder::DecoderConfig;
use crate::decoder::config::HeadNorm;

/// Qwen3.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "qwen3", read };

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults = Defaults {
        max_position_embeddings: CONTEXT,
        head_dim: Some(128),
        kv_heads: Some(32),
        ..Defaults::default()
    };
    let config = normalised(fields, defaults);
    qwen2::windows(fields, DecoderConfig { model_type: "qwen3", ..config })
}

/// LLaMA with norms on queries and keys.
pub fn normalised(fields: &mut Fields, defaults: Defaults) -> DecoderConfig {
    let config = llama::base(fields, defaults);
    let bias = fields.flag("attention_bias", false);
    DecoderConfig { head_norm: Some(HeadNorm::Head), qkv_bias: bias, output_bias: bias, ..config }
}
