//! GPT-2 (Radford et al., 2019): pre-norm decoder with learned positions and a GELU MLP; its
//! matrices are stored `[in, out]`.
//!
//! Also what GPT-J, GPT-NeoX and BLOOM share with it: [`base`].

use ist_peft::Roles;
use serde_json::{Value, json};

use super::Architecture;
use super::fields::{Fields, MOST_LAYERS};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{LayerConfig, Mlp, Norm, Positions, Projection, Residual};
use crate::decoder::names::Names;
use crate::ops::activation::Activation;

/// GPT-2.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gpt2", read };

/// GPT-2's names.
pub const GPT_NAMES: Names = Names {
    body: "transformer",
    embed_tokens: "wte",
    embed_positions: "wpe",
    layers: "h",
    norm: "ln_f",
    before_attention: Some("ln_1"),
    before_mlp: Some("ln_2"),
    attention: "attn",
    query_key_value: "c_attn",
    output: "c_proj",
    up: "c_fc",
    down: "c_proj",
    ..Names::LLAMA
};

static NAMES: Names = GPT_NAMES;

static ROLES: Roles = Roles {
    usual: &["c_attn", "c_fc", "mlp.c_proj"],
    query: &["c_attn"],
    key: &["c_attn"],
    value: &["c_attn"],
    linear: &["c_attn", "c_proj", "c_fc"],
    mlp_in: &["c_fc"],
    mlp_out: &["mlp.c_proj"],
    norms: &["ln_1", "ln_2"],
    final_norm: &["ln_f"],
    attention: &["attn"],
};

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = base(fields, 1024);
    let scaled = fields.flag("scale_attn_weights", true);
    let by_layer = fields.flag("scale_attn_by_inverse_layer_idx", false);
    fields.expect("add_cross_attention", &json!(false));
    let mut config = DecoderConfig {
        model_type: "gpt2",
        names: &NAMES,
        roles: &ROLES,
        positions: Positions::Learned,
        hidden_act: fields.activation("activation_function", Activation::GeluTanh),
        tie_word_embeddings: fields.flag("tie_word_embeddings", true),
        fan_in_fan_out: true,
        ..config
    };
    let scale = if scaled { 1.0 / (config.head_dim as f64).sqrt() } else { 1.0 };
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.scale = if by_layer { scale / (index + 1) as f64 } else { scale };
    }
    config
}

/// A decoder of GPT's kind: layer norms, biases everywhere, one module for queries, keys and
/// values, an MLP without a gate.
pub fn base(fields: &mut Fields, context: usize) -> DecoderConfig {
    let hidden_size = fields.count(&["n_embd", "hidden_size", "n_embed"], None);
    let heads = fields.count(&["n_head", "num_attention_heads"], None);
    let layers = fields.count(&["n_layer", "num_hidden_layers"], None);
    if !hidden_size.is_multiple_of(heads) {
        fields.fault(format!("{heads} heads do not divide the hidden size of {hidden_size}"));
    }
    let head_dim = hidden_size / heads;
    let layer = LayerConfig {
        window: None,
        rotary: None,
        scale: 1.0 / (head_dim as f64).sqrt(),
        experts: false,
    };
    DecoderConfig {
        model_type: "gpt2",
        names: &NAMES,
        roles: &ROLES,
        vocab_size: fields.count(&["vocab_size"], None),
        hidden_size,
        intermediate_size: fields
            .count(&["n_inner", "intermediate_size"], Some(hidden_size.saturating_mul(4))),
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim,
        max_position_embeddings: fields
            .count(&["n_positions", "max_position_embeddings"], Some(context)),
        norm: Norm::Layer,
        norm_eps: fields.number("layer_norm_epsilon", 1e-5),
        embedding_scale: 1.0,
        embedding_norm: false,
        positions: Positions::Rotary,
        rotaries: Vec::new(),
        projection: Projection::Blocks,
        qkv_bias: true,
        output_bias: true,
        head_norm: None,
        attention_soft_cap: None,
        residual: Residual::Sequential,
        mlp: Mlp::Plain,
        hidden_act: Activation::GeluTanh,
        mlp_bias: true,
        experts: None,
        tie_word_embeddings: false,
        head_bias: false,
        logits_soft_cap: None,
        fan_in_fan_out: false,
        layers: vec![layer; layers.min(MOST_LAYERS + 1)],
        document: Value::Null,
    }
}
