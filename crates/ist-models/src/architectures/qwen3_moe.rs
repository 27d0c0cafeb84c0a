//! Qwen3's mixture of experts (Yang et al., [arXiv 2505.09388](https://arxiv.org/abs/2505.09388)):
//! Qwen3 with routed experts in the place of most MLPs.

use ist_peft::Roles;

use super::fields::Fields;
use super::llama::{self, Defaults};
use super::qwen2::CONTEXT;
use super::{Architecture, qwen3};
use crate::decoder::DecoderConfig;
use crate::decoder::config::ExpertsConfig;

/// Qwen3's mixture of experts.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "qwen3_moe", read };

static ROLES: Roles = Roles { usual: &["q_proj", "k_proj", "v_proj", "o_proj"], ..llama::ROLES };

fn read(fields: &mut Fields) -> DecoderConfig {
    let defaults =
        Defaults { max_position_embeddings: CONTEXT, kv_heads: Some(4), ..Defaults::default() };
    let config = qwen3::normalised(fields, defaults);
    let experts = ExpertsConfig {
        num_experts: fields.count(&["num_experts", "num_local_experts"], Some(128)),
        num_experts_per_tok: fields.count(&["num_experts_per_tok"], Some(8)),
        intermediate_size: fields.count(&["moe_intermediate_size"], Some(768)),
        norm_topk_prob: fields.flag("norm_topk_prob", false),
    };
    let step = fields.count(&["decoder_sparse_step"], Some(1));
    let dense = fields.integers("mlp_only_layers").unwrap_or_default();
    let window = fields.flag("use_sliding_window", false);
    let window = fields.count_or_none("sliding_window", Some(4096)).filter(|_| window);
    let mut config = llama::sliding(config, window, |_| true);
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.experts = !dense.contains(&index) && (index + 1) % step == 0;
    }
    DecoderConfig { model_type: "qwen3_moe", roles: &ROLES, experts: Some(experts), ..config }
}
