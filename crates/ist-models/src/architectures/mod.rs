//! The architectures, one a file named after `model_type`: how its `config.json` becomes a
//! [`DecoderConfig`], and what its modules are called.
//!
//! To add one, write its file and its line in [`ARCHITECTURES`].

pub mod bloom;
pub mod composite;
mod fields;
pub mod gemma;
pub mod gemma2;
pub mod gemma3;
pub mod gemma3_text;
pub mod gpt2;
pub mod gpt_neox;
pub mod gptj;
pub mod llama;
pub mod mistral;
pub mod mistral3;
pub mod mixtral;
pub mod olmo2;
pub mod phi3;
pub mod qwen2;
pub mod qwen2_5_vl;
pub mod qwen3;
pub mod qwen3_moe;
mod rope;
pub mod smollm3;

use serde_json::{Map, Value};

use crate::decoder::DecoderConfig;

pub use fields::{ConfigError, Fields};

/// One architecture.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// Its name in `config.json`.
    pub model_type: &'static str,
    /// Reads its `config.json`, noting every fault.
    pub read: fn(&mut Fields) -> DecoderConfig,
}

/// Every architecture.
pub const ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    mistral3::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen2_5_vl::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    qwen3_moe::ARCHITECTURE,
    gemma::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3_text::ARCHITECTURE,
    gemma3::ARCHITECTURE,
    phi3::ARCHITECTURE,
    mixtral::ARCHITECTURE,
    olmo2::ARCHITECTURE,
    smollm3::ARCHITECTURE,
    gpt2::ARCHITECTURE,
    gptj::ARCHITECTURE,
    gpt_neox::ARCHITECTURE,
    bloom::ARCHITECTURE,
];

/// The architecture of that name.
pub fn find(model_type: &str) -> Option<Architecture> {
    ARCHITECTURES.iter().copied().find(|architecture| architecture.model_type == model_type)
}

/// The names of all architectures.
pub fn names() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|architecture| architecture.model_type).collect()
}

/// Reads the document of a `config.json` of whatever architecture.
pub fn read(document: Map<String, Value>) -> Result<DecoderConfig, ConfigError> {
    let Some(architecture) = document.get("model_type").and_then(Value::as_str).and_then(find)
    else {
        return Err(ConfigError { faults: vec![unknown(document.get("model_type"))] });
    };
    let mut fields = Fields::new(&document);
    let config = (architecture.read)(&mut fields);
    fields.refuse_quantised();
    let mut faults = fields.into_faults();
    if faults.is_empty() {
        faults = inconsistencies(&config);
    }
    if faults.is_empty() {
        Ok(DecoderConfig { document: Value::Object(document), ..config })
    } else {
        Err(ConfigError { faults })
    }
}

/// What is wrong with a `model_type`.
fn unknown(found: Option<&Value>) -> String {
    let found = found.map_or("missing".to_owned(), Value::to_string);
    format!("`model_type` is {found}; supported are {}", names().join(", "))
}

/// What no architecture can have.
fn inconsistencies(config: &DecoderConfig) -> Vec<String> {
    let DecoderConfig {
        num_attention_heads: heads,
        num_key_value_heads: shared,
        head_dim,
        num_hidden_layers,
        ..
    } = config;
    let mut faults = Vec::new();
    if heads % shared != 0 {
        faults.push(format!(
            "num_key_value_heads {shared} does not divide num_attention_heads {heads}"
        ));
    }
    if *head_dim == 0 {
        let hidden = config.hidden_size;
        faults.push(format!(
            "head_dim is 0: num_attention_heads {heads} is more than hidden_size {hidden}"
        ));
    }
    if *head_dim > fields::WIDEST_HEAD {
        faults.push(format!("head_dim is {head_dim}, expected at most {}", fields::WIDEST_HEAD));
    }
    if let Some(experts) = config.experts {
        let all = experts.num_experts.saturating_mul(*num_hidden_layers);
        if all > fields::MOST_EXPERTS {
            let (experts, most) = (experts.num_experts, fields::MOST_EXPERTS);
            faults.push(format!(
                "{experts} experts in each of {num_hidden_layers} layers, expected at most {most} \
                 in all"
            ));
        }
    }
    if let Some(experts) =
        config.experts.filter(|experts| experts.num_experts_per_tok > experts.num_experts)
    {
        let (chosen, all) = (experts.num_experts_per_tok, experts.num_experts);
        faults.push(format!("num_experts_per_tok {chosen} is more than the {all} experts"));
    }
    if *num_hidden_layers > fields::MOST_LAYERS {
        faults.push(format!(
            "num_hidden_layers is {num_hidden_layers}, expected at most {}",
            fields::MOST_LAYERS
        ));
    }
    faults
}

#[cfg(test)]
mod tests;
