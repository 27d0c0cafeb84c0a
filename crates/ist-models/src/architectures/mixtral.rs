//! Mixtral (Jiang et al., [arXiv 2401.04088](https://arxiv.org/abs/2401.04088)): Mistral with
//! routed experts in the place of MLPs.

use ist_peft::Roles;

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;
use crate::decoder::config::ExpertsConfig;
use crate::decoder::names::Names;

/// Mixtral.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "mixtral", read };

static NAMES: Names = Names { mlp: "block_sparse_moe", expert: ["w1", "w3", "w2"], ..Names::LLAMA };

static ROLES: Roles = Roles {
    usual: &["q_proj", "k_proj", "v_proj", "o_proj"],
    linear: &["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"],
    mlp_in: &["w1", "w3"],
    mlp_out: &["w2"],
    ..llama::ROLES
};

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults = Defaults {
        eps: 1e-5,
        theta: 1e6,
        max_position_embeddings: 4096 * 32,
        kv_heads: Some(8),
        ..Defaults::default()
    };
    let config = llama::base(fields, defaults);
    let experts = ExpertsConfig {
        num_experts: fields.count(&["num_local_experts", "num_experts"], Some(8)),
        num_experts_per_tok: fields.count(&["num_experts_per_tok"], Some(2)),
        intermediate_size: config.intermediate_size,
        norm_topk_prob: true,
    };
    let window = fields.count_or_none("sliding_window", None);
    let mut config = llama::sliding(config, window, |_| true);
    config.layers.iter_mut().for_each(|layer| layer.experts = true);
    DecoderConfig {
        model_type: "mixtral",
        names: &NAMES,
        roles: &ROLES,
        experts: Some(experts),
        ..config
    }
}
