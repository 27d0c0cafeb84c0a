//! Phi-3 (Abdin et al., [arXiv 2404.14219](https://arxiv.org/abs/2404.14219)): LLaMA with one
//! module for queries, keys and values and one for gate and up, of a head possibly a part turned.

use ist_peft::Roles;

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{Mlp, Projection};

/// Phi-3.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "phi3", read };

static ROLES: Roles = Roles {
    usual: &["qkv_proj", "gate_up_proj", "down_proj"],
    query: &["qkv_proj"],
    key: &["qkv_proj"],
    value: &["qkv_proj"],
    linear: &["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    mlp_in: &["gate_up_proj"],
    ..llama::ROLES
};

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults = Defaults {
        eps: 1e-5,
        max_position_embeddings: 4096,
        original: Some(4096),
        partial_rotary_factor: Some(1.0),
        ..Defaults::default()
    };
    let config = llama::base(fields, defaults);
    let window = fields.count_or_none("sliding_window", None);
    let config = DecoderConfig {
        model_type: "phi3",
        roles: &ROLES,
        projection: Projection::Blocks,
        mlp: Mlp::FusedGated,
        ..config
    };
    llama::sliding(config, window, |_| true)
}
