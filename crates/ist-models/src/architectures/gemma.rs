//! Gemma (Gemma Team, [arXiv 2403.08295](https://arxiv.org/abs/2403.08295)): LLaMA with `GeGLU`,
//! norms of weight 1 + w and an embedding times √hidden.

use serde_json::json;

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;
use crate::decoder::config::Norm;
use crate::ops::activation::Activation;

/// Gemma.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gemma", read };

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = base(fields, 8192, 16);
    // Its first files say "gelu" where the model was trained with the tanh form.
    let named = fields.activation("hidden_act", Activation::GeluTanh);
    let hidden_act = if named == Activation::Gelu { Activation::GeluTanh } else { named };
    DecoderConfig { model_type: "gemma", hidden_act, ..config }
}

/// What all Gemmas share, for that many positions and key-value heads where the file does not say.
pub fn base(fields: &mut Fields, max_position_embeddings: usize, kv_heads: usize) -> DecoderConfig {
    fields.expect("use_bidirectional_attention", &json!(false));
    let (head_dim, kv_heads) = (Some(256), Some(kv_heads));
    let defaults =
        Defaults { max_position_embeddings, tied: true, head_dim, kv_heads, ..Defaults::default() };
    let config = llama::base(fields, defaults);
    let bias = fields.flag("attention_bias", false);
    DecoderConfig {
        norm: Norm::RmsPlusOne,
        embedding_scale: (config.hidden_size as f64).sqrt(),
        qkv_bias: bias,
        output_bias: bias,
        ..config
    }
}
