//! Gemma 2 (Gemma Team, [arXiv 2408.00118](https://arxiv.org/abs/2408.00118)): Gemma with a second
//! norm behind attention and MLP, bounded scores and logits, and a sliding window in every other
//! layer.

use ist_peft::Roles;

use super::fields::Fields;
use super::{Architecture, gemma, llama};
use crate::decoder::DecoderConfig;
use crate::decoder::names::Names;
use crate::ops::activation::Activation;

/// Gemma 2.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gemma2", read };

/// The names of modules with four norms a layer.
pub static NAMES: Names = Names {
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
    ..Names::LLAMA
};

/// The parts they play.
pub static ROLES: Roles = Roles {
    norms: &[
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ],
    ..llama::ROLES
};

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = four_norms(fields, 8192);
    let window = fields.count_or_none("sliding_window", Some(4096));
    let slides = llama::layer_types(fields, config.num_hidden_layers, |layer| layer % 2 == 0);
    let config = DecoderConfig {
        model_type: "gemma2",
        attention_soft_cap: fields.number_or_none("attn_logit_softcapping", Some(50.0)),
        logits_soft_cap: fields.number_or_none("final_logit_softcapping", Some(30.0)),
        ..config
    };
    llama::sliding(config, window, |layer| slides.get(layer).copied().unwrap_or(false))
}

/// Gemma with four norms a layer and scores scaled by `query_pre_attn_scalar`.
pub fn four_norms(fields: &mut Fields, max_position_embeddings: usize) -> DecoderConfig {
    let mut config = gemma::base(fields, max_position_embeddings, 4);
    let scale = 1.0 / fields.number("query_pre_attn_scalar", 256.0).sqrt();
    config.layers.iter_mut().for_each(|layer| layer.scale = scale);
    let hidden_act = fields.activation("hidden_activation", Activation::GeluTanh);
    DecoderConfig { names: &NAMES, roles: &ROLES, hidden_act, ..config }
}
