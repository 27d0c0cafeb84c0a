//! Gemma 3's text model (Gemma Team, [arXiv 2503.19786](https://arxiv.org/abs/2503.19786)): Gemma 2
//! with norms on queries and keys in the place of bounded scores, and of six layers five that slide
//! and turn by a base of their own.

use serde_json::Value;

use super::fields::Fields;
use super::rope::{RopeDefaults, rotary_of};
use super::{Architecture, gemma2, llama};
use crate::decoder::DecoderConfig;
use crate::decoder::config::HeadNorm;
use crate::decoder::rotary::Rotary;

/// Gemma 3.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gemma3_text", read };

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = gemma2::four_norms(fields, 131_072);
    let rotaries = rotaries(fields, &config);
    let window = fields.count_or_none("sliding_window", Some(4096));
    let pattern = fields.count(&["sliding_window_pattern", "_sliding_window_pattern"], Some(6));
    let slides =
        llama::layer_types(fields, config.num_hidden_layers, |layer| (layer + 1) % pattern != 0);
    let config = DecoderConfig {
        model_type: "gemma3_text",
        head_norm: Some(HeadNorm::Head),
        logits_soft_cap: fields.number_or_none("final_logit_softcapping", None),
        rotaries,
        ..config
    };
    let slides = |layer: usize| slides.get(layer).copied().unwrap_or(false);
    let mut config = llama::sliding(config, window, slides);
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.rotary = Some(usize::from(slides(index)));
    }
    config
}

/// The rotations of the layers that see everything and of those that slide. The older spelling
/// scales the former alone.
fn rotaries(fields: &mut Fields, config: &DecoderConfig) -> Vec<Rotary> {
    let parameters = fields.table("rope_parameters");
    let of = |kind: &str| parameters.and_then(|table| table.get(kind)).and_then(Value::as_object);
    let (head_dim, max_position_embeddings) = (config.head_dim, config.max_position_embeddings);
    let defaults = |theta| RopeDefaults {
        head_dim,
        theta,
        partial_rotary_factor: None,
        max_position_embeddings,
        original: None,
        yarn_is_longrope: false,
    };
    let mut full = of("full_attention").cloned().unwrap_or_default();
    let sliding = of("sliding_attention").cloned().unwrap_or_default();
    let (theta, local) =
        (fields.number("rope_theta", 1e6), fields.number("rope_local_base_freq", 10_000.0));
    full.extend(fields.table("rope_scaling").cloned().unwrap_or_default());
    let full = rotary_of(&full, defaults(theta), fields.faults_mut());
    vec![full, rotary_of(&sliding, defaults(local), fields.faults_mut())]
}
