//! OLMo 2 (OLMo Team, [arXiv 2501.00656](https://arxiv.org/abs/2501.00656)): LLaMA with its norms
//! behind attention and MLP instead of in front, and norms over all queries and all keys.

use ist_peft::Roles;

use super::Architecture;
use super::fields::Fields;
use super::llama::{self, Defaults};
use crate::decoder::DecoderConfig;
use crate::decoder::config::HeadNorm;
use crate::decoder::names::Names;

/// `OLMo` 2.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "olmo2", read };

static NAMES: Names = Names {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
    ..Names::LLAMA
};

static ROLES: Roles =
    Roles { norms: &["post_attention_layernorm", "post_feedforward_layernorm"], ..llama::ROLES };

fn read(fields: &mut Fields) -> DecoderConfig {
    let config = llama::base(fields, Defaults { eps: 1e-5, ..Defaults::default() });
    let bias = fields.flag("attention_bias", false);
    DecoderConfig {
        model_type: "olmo2",
        names: &NAMES,
        roles: &ROLES,
        head_norm: Some(HeadNorm::All),
        qkv_bias: bias,
        output_bias: bias,
        ..config
    }
}
