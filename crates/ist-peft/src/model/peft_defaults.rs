//! The modules that PEFT adapts where `target_modules` is null: its tables by method and
//! architecture, for the architectures that are read here.

/// What PEFT does where no module is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It adapts these.
    Names(&'static [&'static str]),
    /// It asks for names: its table lacks the architecture.
    Unknown,
    /// PEFT does not have the method.
    NotInPeft,
}

const QUERY_VALUE: &[&str] = &["q_proj", "v_proj"];
const QUERY_KEY_VALUE: &[&str] = &["query_key_value"];
const NORMS: &[&str] = &["input_layernorm", "post_attention_layernorm", "norm"];
const GEMMA2_NORMS: &[&str] = &[
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "norm",
];

/// PEFT's choice for a `peft_type` on a `model_type`.
pub(crate) fn targets(peft_type: &str, model_type: &str) -> Choice {
    let names = match peft_type {
        "LORA" | "VERA" => lora(model_type),
        "IA3" => ia3(model_type),
        "LN_TUNING" => norms(model_type),
        _ => return Choice::NotInPeft,
    };
    names.map_or(Choice::Unknown, Choice::Names)
}

fn lora(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "mixtral" | "gemma" | "gemma2" | "gemma3_text" | "qwen2"
        | "qwen3" | "gptj" => Some(QUERY_VALUE),
        "gpt2" => Some(&["c_attn"]),
        "gpt_neox" | "bloom" => Some(QUERY_KEY_VALUE),
        _ => None,
    }
}

fn ia3(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" => Some(&["k_proj", "v_proj", "down_proj"]),
        "mixtral" => Some(&["k_proj", "v_proj", "w2"]),
        "gemma" | "gemma2" | "gemma3_text" | "qwen2" | "qwen3" => {
            Some(&["q_proj", "v_proj", "down_proj"])
        }
        "gpt2" => Some(&["c_attn", "mlp.c_proj"]),
        "gptj" => Some(&["q_proj", "v_proj", "fc_out"]),
        "gpt_neox" => Some(&["query_key_value", "dense_4h_to_h"]),
        "bloom" => Some(&["query_key_value", "mlp.dense_4h_to_h"]),
        _ => None,
    }
}

fn norms(model_type: &str) -> Option<&'static [&'static str]> {
    match model_type {
        "llama" | "mistral" | "gemma" => Some(NORMS),
        "gemma2" | "gemma3_text" => Some(GEMMA2_NORMS),
        "qwen2" | "qwen3" => Some(&["post_attention_layernorm"]),
        "gpt2" => Some(&["ln_1", "ln_2", "ln_f"]),
        "gptj" => Some(&["ln_1", "ln_f"]),
        "bloom" => Some(&["input_layernorm", "post_attention_layernorm", "ln_f"]),
        _ => None,
    }
}
