//! SmolLM3 (Hugging Face, 2025): LLaMA whose every fourth layer turns nothing (NoPE; Yang et al.,
//! [arXiv 2501.18795](https://arxiv.org/abs/2501.18795)).

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;

/// `SmolLM3`.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "smollm3", read };

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults = Defaults {
        theta: 2e6,
        max_position_embeddings: 32_768,
        tied: true,
        kv_heads: Some(4),
        ..Defaults::default()
    };
    let config = llama::base(fields, defaults);
    let (attention, mlp_bias) =
        (fields.flag("attention_bias", false), fields.flag("mlp_bias", false));
    let interval = fields.count(&["no_rope_layer_interval"], Some(4));
    // A 1 stands for a layer that turns.
    let listed = fields.integers("no_rope_layers");
    let layers = config.num_hidden_layers;
    if listed
        .as_ref()
        .is_some_and(|list| list.len() != layers || list.iter().any(|entry| *entry > 1))
    {
        fields.fault(format!(
            "`no_rope_layers` must be a list of {layers} zeros and ones, one a layer"
        ));
    }
    let turns = |layer: usize| match &listed {
        Some(list) => list.get(layer) == Some(&1),
        None => !(layer + 1).is_multiple_of(interval),
    };
    let used = fields.flag("use_sliding_window", false);
    let window = fields.count_or_none("sliding_window", None).filter(|_| used);
    let slides = llama::layer_types(fields, layers, |layer| !turns(layer));
    let mut config =
        llama::sliding(config, window, |layer| slides.get(layer).copied().unwrap_or(false));
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.rotary = turns(index).then_some(0);
    }
    DecoderConfig {
        model_type: "smollm3",
        qkv_bias: attention,
        output_bias: attention,
        mlp_bias,
        ..config
    }
}
