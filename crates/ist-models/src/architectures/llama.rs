//! LLaMA (Touvron et al., [arXiv 2302.13971](https://arxiv.org/abs/2302.13971)): pre-norm decoder
//! with rotary positions, grouped-query attention and a SwiGLU MLP. Also LLaMA 2 and 3.
//!
//! Per layer, with h the input: h' = h + o(attention(rope(q), rope(k), v)) of rms(h), then
//! h'' = h' + down(silu(gate) ⊙ up) of rms(h'). Most later models are this one with a few changes,
//! so their files begin with [`base`].

use ist_peft::Roles;
use serde_json::Value;

use super::Architecture;
use super::fields::{Fields, MOST_LAYERS};
use super::rope::{self, RopeDefaults};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{LayerConfig, Mlp, Norm, Positions, Projection, Residual};
use crate::decoder::names::Names;
use crate::ops::activation::Activation;

/// LLaMA.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "llama", read };

static NAMES: Names = Names::LLAMA;

/// The names of LLaMA's modules by the part they play.
pub const ROLES: Roles = Roles {
    usual: &["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    query: &["q_proj"],
    key: &["k_proj"],
    value: &["v_proj"],
    linear: &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    mlp_in: &["gate_proj", "up_proj"],
    mlp_out: &["down_proj"],
    norms: &["input_layernorm", "post_attention_layernorm"],
    final_norm: &["norm"],
    attention: &["self_attn"],
};

static LLAMA_ROLES: Roles = ROLES;

/// What an architecture of LLaMA's kind takes for a field that its file lacks.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Of `rms_norm_eps`.
    pub eps: f64,
    /// Of `rope_theta`.
    pub theta: f64,
    /// Of `max_position_embeddings`.
    pub max_position_embeddings: usize,
    /// Of `tie_word_embeddings`.
    pub tied: bool,
    /// Of `head_dim`; the hidden size divided by the heads without one.
    pub head_dim: Option<usize>,
    /// Of `num_key_value_heads`; as many as there are heads without one, or when the file says
    /// null.
    pub kv_heads: Option<usize>,
    /// The part of a head that is turned; `None` where the architecture turns all of it.
    pub partial_rotary_factor: Option<f64>,
    /// Of `original_max_position_embeddings`, where an architecture has a default outside the
    /// scaling's table.
    pub original: Option<usize>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            eps: 1e-6,
            theta: 10_000.0,
            max_position_embeddings: 2048,
            tied: false,
            head_dim: None,
            kv_heads: None,
            partial_rotary_factor: None,
            original: None,
        }
    }
}

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = base(fields, Defaults::default());
    let (attention, mlp_bias) =
        (fields.flag("attention_bias", false), fields.flag("mlp_bias", false));
    DecoderConfig { qkv_bias: attention, output_bias: attention, mlp_bias, ..config }
}

/// A decoder with LLaMA's fields, modules and arithmetic, and no biases.
pub fn base(fields: &mut Fields, defaults: Defaults) -> DecoderConfig {
    let (hidden_size, heads) =
        (fields.count(&["hidden_size"], None), fields.count(&["num_attention_heads"], None));
    let head_dim =
        fields.count(&["head_dim"], Some(defaults.head_dim.unwrap_or(hidden_size / heads)));
    let max_position_embeddings =
        fields.count(&["max_position_embeddings"], Some(defaults.max_position_embeddings));
    let rope = RopeDefaults {
        head_dim,
        theta: defaults.theta,
        partial_rotary_factor: defaults.partial_rotary_factor,
        max_position_embeddings,
        original: defaults.original,
        yarn_is_longrope: defaults.original.is_some(),
    };
    let layers = fields.count(&["num_hidden_layers"], None);
    let layer = LayerConfig {
        window: None,
        rotary: Some(0),
        scale: 1.0 / (head_dim as f64).sqrt(),
        experts: false,
    };
    DecoderConfig {
        model_type: "llama",
        names: &NAMES,
        roles: &LLAMA_ROLES,
        vocab_size: fields.count(&["vocab_size"], None),
        hidden_size,
        intermediate_size: fields.count(&["intermediate_size"], None),
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: fields
            .count_or_none("num_key_value_heads", defaults.kv_heads)
            .unwrap_or(heads),
        head_dim,
        max_position_embeddings,
        norm: Norm::Rms,
        norm_eps: fields.number("rms_norm_eps", defaults.eps),
        embedding_scale: 1.0,
        embedding_norm: false,
        positions: Positions::Rotary,
        rotaries: vec![rope::rotary(fields, rope)],
        projection: Projection::Separate,
        qkv_bias: false,
        output_bias: false,
        head_norm: None,
        attention_soft_cap: None,
        residual: Residual::Sequential,
        mlp: Mlp::Gated,
        hidden_act: fields.activation("hidden_act", Activation::Silu),
        mlp_bias: false,
        experts: None,
        tie_word_embeddings: fields.flag("tie_word_embeddings", defaults.tied),
        head_bias: false,
        logits_soft_cap: None,
        fan_in_fan_out: false,
        layers: vec![layer; layers.min(MOST_LAYERS + 1)],
        document: Value::Null,
    }
}

/// The same with every query of the layers of which `slides` holds seeing `window` positions.
pub fn sliding(
    mut config: DecoderConfig,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> DecoderConfig {
    for (_, layer) in config.layers.iter_mut().enumerate().filter(|(index, _)| slides(*index)) {
        layer.window = window;
    }
    config
}

/// Which layers slide: as `layer_types` says, or else as `otherwise` does.
pub fn layer_types(
    fields: &mut Fields,
    layers: usize,
    otherwise: impl Fn(usize) -> bool,
) -> Vec<bool> {
    match fields.words("layer_types", layers) {
        Some(types) => {
            let known = ["full_attention", "sliding_attention"];
            if let Some(kind) = types.iter().find(|kind| !known.contains(&kind.as_str())) {
                fields.fault(format!(
                    "`layer_types` may name full_attention and sliding_attention, found \"{kind}\""
                ));
            }
            types.iter().map(|kind| kind == "sliding_attention").collect()
        }
        None => (0..layers.min(MOST_LAYERS + 1)).map(otherwise).collect(),
    }
}
