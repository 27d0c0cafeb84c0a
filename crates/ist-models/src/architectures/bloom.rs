//! BLOOM (Le Scao et al., [arXiv 2211.05100](https://arxiv.org/abs/2211.05100)) and BLOOMZ: scores
//! that fall with the distance ("ALiBi") instead of positions, and a norm behind the embedding.

use ist_peft::Roles;
use serde_json::json;

use super::fields::Fields;
use super::gpt_neox::NEOX_ROLES;
use super::{Architecture, gpt2};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{Positions, Projection, Residual};
use crate::decoder::names::Names;
use crate::ops::activation::Activation;

/// BLOOM.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "bloom", read };

static NAMES: Names = Names {
    embed_tokens: "word_embeddings",
    embedding_norm: "word_embeddings_layernorm",
    before_attention: Some("input_layernorm"),
    before_mlp: Some("post_attention_layernorm"),
    attention: "self_attention",
    query_key_value: "query_key_value",
    output: "dense",
    up: "dense_h_to_4h",
    down: "dense_4h_to_h",
    ..gpt2::GPT_NAMES
};

static ROLES: Roles = Roles { final_norm: &["ln_f"], attention: &["self_attention"], ..NEOX_ROLES };

fn read(fields: &mut Fields) -> DecoderConfig {
    // It has no table of positions; 2048 is what it was trained with.
    let config = gpt2::base(fields, 2048);
    // It sums in slices then, and leaves a bias out.
    if fields.index("pretraining_tp", 1) > 1 {
        fields.expect("slow_but_exact", &json!(false));
    }
    let normalised = fields.flag("apply_residual_connection_post_layernorm", false);
    DecoderConfig {
        model_type: "bloom",
        names: &NAMES,
        roles: &ROLES,
        intermediate_size: config.hidden_size.saturating_mul(4),
        embedding_norm: true,
        positions: Positions::LinearBiases,
        projection: Projection::Heads,
        residual: if normalised { Residual::Normalised } else { Residual::Sequential },
        hidden_act: Activation::GeluTanh,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true),
        ..config
    }
}
