//! GPT-J (Wang & Komatsuzaki, 2021): attention and MLP side by side behind one norm, neighbouring
//! features of a part of every head turned, and a head with a bias.

use ist_peft::Roles;
use serde_json::json;

use super::fields::Fields;
use super::{Architecture, gpt2};
use crate::decoder::DecoderConfig;
use crate::decoder::config::{Projection, Residual};
use crate::decoder::names::Names;
use crate::decoder::rotary::{RopeScaling, Rotary};
use crate::ops::activation::Activation;
use crate::ops::rope::Pairs;

/// GPT-J.
pub const ARCHITECTURE: Architecture = Architecture { model_type: "gptj", read };

static NAMES: Names = Names {
    before_mlp: None,
    query: "q_proj",
    key: "k_proj",
    value: "v_proj",
    output: "out_proj",
    up: "fc_in",
    down: "fc_out",
    ..gpt2::GPT_NAMES
};

static ROLES: Roles = Roles {
    usual: &["q_proj", "k_proj", "v_proj", "fc_in", "fc_out"],
    query: &["q_proj"],
    key: &["k_proj"],
    value: &["v_proj"],
    linear: &["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
    mlp_in: &["fc_in"],
    mlp_out: &["fc_out"],
    norms: &["ln_1"],
    final_norm: &["ln_f"],
    attention: &["attn"],
};

fn read(fields: &mut Fields) -> DecoderConfig {
    let mut config = gpt2::base(fields, 2048);
    let dims = fields.count_or_none("rotary_dim", Some(64)).unwrap_or(0);
    if dims == 0 {
        fields.fault(
            "`rotary_dim` is null, expected the number of a head's features that are turned",
        );
    }
    if !dims.is_multiple_of(2) || dims > config.head_dim {
        fields.fault(format!(
            "rotary_dim is {dims}, expected an even number up to a head's {}",
            config.head_dim
        ));
    }
    // A tied head would have a bias beside a matrix that is not its own.
    fields.expect("tie_word_embeddings", &json!(false));
    let scaling = RopeScaling::Default;
    config.layers.iter_mut().for_each(|layer| layer.rotary = Some(0));
    DecoderConfig {
        model_type: "gptj",
        names: &NAMES,
        roles: &ROLES,
        rotaries: vec![Rotary { dims, theta: 10_000.0, scaling, pairs: Pairs::Neighbours }],
        projection: Projection::Separate,
        qkv_bias: false,
        output_bias: false,
        residual: Residual::Parallel,
        hidden_act: fields.activation("activation_function", Activation::GeluTanh),
        tie_word_embeddings: false,
        head_bias: true,
        ..config
    }
}
