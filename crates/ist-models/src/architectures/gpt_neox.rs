//! GPT-NeoX (Black et al., [arXiv 2204.06745](https://arxiv.org/abs/2204.06745)), also Pythia:
//! attention and MLP side by side, each behind a norm of its own, and a part of every head turned.

use ist_peft::Roles;

use super::fields::Fields;
use super::rope::{self, RopeDefaults};
use super::{Architecture, gpt2};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{Projection, Residual};
use crate::decoder::names::Names;
use crate::ops::activation::Activation;

/// GPT-NeoX.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gpt_neox", read };

static NAMES: Names = Names {
    body: "gpt_neox",
    embed_tokens: "embed_in",
    layers: "layers",
    norm: "final_layer_norm",
    head_in_files: "embed_out",
    before_attention: Some("input_layernorm"),
    before_mlp: Some("post_attention_layernorm"),
    attention: "attention",
    query_key_value: "query_key_value",
    output: "dense",
    up: "dense_h_to_4h",
    down: "dense_4h_to_h",
    ..gpt2::GPT_NAMES
};

/// The parts that modules of these names play, BLOOM's too.
pub const NEOX_ROLES: Roles = Roles {
    usual: &["query_key_value", "dense_h_to_4h", "dense_4h_to_h"],
    query: &["query_key_value"],
    key: &["query_key_value"],
    value: &["query_key_value"],
    linear: &["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    mlp_in: &["dense_h_to_4h"],
    mlp_out: &["dense_4h_to_h"],
    norms: &["input_layernorm", "post_attention_layernorm"],
    final_norm: &["final_layer_norm"],
    attention: &["attention"],
};

static ROLES: Roles = NEOX_ROLES;

fn read(fields: &mut Fields) -> DecoderConfig {
    let mut config = gpt2::base(fields, 2048);
    let rope = RopeDefaults {
        head_dim: config.head_dim,
        theta: fields.number("rotary_emb_base", 10_000.0),
        partial_rotary_factor: Some(fields.number("rotary_pct", 0.25)),
        max_position_embeddings: config.max_position_embeddings,
        original: None,
        yarn_is_longrope: false,
    };
    config.layers.iter_mut().for_each(|layer| layer.rotary = Some(0));
    let bias = fields.flag("attention_bias", true);
    let parallel = fields.flag("use_parallel_residual", true);
    DecoderConfig {
        model_type: "gpt_neox",
        names: &NAMES,
        roles: &ROLES,
        rotaries: vec![rope::rotary(fields, rope)],
        projection: Projection::Heads,
        qkv_bias: bias,
        output_bias: bias,
        norm_eps: fields.number("layer_norm_eps", 1e-5),
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        hidden_act: fields.activation("hidden_act", Activation::Gelu),
        tie_word_embeddings: fields.flag("tie_word_embeddings", false),
        ..config
    }
}
