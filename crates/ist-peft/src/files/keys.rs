//! The keys of adapters' files, as PEFT writes them today.
//!
//! Programs save a model inside wrappers, with the adapter's name inside a key, without PEFT's
//! prefix, or with it twice. The module and the tensor are the same, so such a key is read under
//! the name that PEFT gives it.

use crate::files::PREFIX;

/// Modules that programs put around another one, whose names end up in keys.
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"];
/// Modules of an adapter, whose tensors are a `weight` and perhaps a `bias`.
const MODULES: [&str; 5] = ["lora_A", "lora_B", "ln_tuning_layers", "adapter_down", "adapter_up"];
/// Tensors of an adapter that stand in no module.
const TENSORS: [&str; 9] = [
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "ia3_l",
    "vera_A",
    "vera_B",
    "vera_lambda_b",
    "vera_lambda_d",
    "trainable_tokens_delta",
];
/// DoRA's magnitudes in the program published with the paper: a module with a matrix `[out, 1]`.
const PUBLISHED_MAGNITUDE: &str = "weight_m_wdecomp";
/// PEFT's own wrapper around a module that trains whole.
const SAVED: &str = "modules_to_save";

/// A key of today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The key.
    pub(crate) name: String,
    /// What was changed, in words.
    pub(crate) changes: Vec<String>,
}

/// The key of today for one that a file has.
pub(crate) fn current(found: &str) -> Key {
    let mut changes = Vec::new();
    let parts: Vec<&str> = found.split('.').collect();
    let parts = without_wrappers(&parts, &mut changes);
    let parts = without_adapter_names(&parts, &mut changes);
    let name = with_one_prefix(&parts, &mut changes);
    Key { name, changes }
}

fn without_wrappers<'a>(parts: &[&'a str], changes: &mut Vec<String>) -> Vec<&'a str> {
    for wrapper in WRAPPERS {
        if parts.contains(&wrapper) {
            changes.push(format!("`{wrapper}.` left out"));
        }
    }
    parts.iter().copied().filter(|part| !WRAPPERS.contains(part)).collect()
}

fn without_adapter_names<'a>(parts: &[&'a str], changes: &mut Vec<String>) -> Vec<&'a str> {
    let position = |part: &&str| {
        MODULES.contains(part)
            || TENSORS.contains(part)
            || [PUBLISHED_MAGNITUDE, SAVED].contains(part)
    };
    let Some(at) = parts.iter().position(position) else { return parts.to_vec() };
    let before = &parts[..at];
    let word = parts[at];
    let behind = &parts[at + 1..];
    let last = behind.last().copied();
    if word == PUBLISHED_MAGNITUDE {
        changes.push(format!("`{PUBLISHED_MAGNITUDE}` read as `lora_magnitude_vector`"));
        return [before, &["lora_magnitude_vector"]].concat();
    }
    if word == SAVED {
        changes.push(format!("`{SAVED}.` left out"));
        return before.iter().copied().chain(last).collect();
    }
    let kept: &[&str] = match (TENSORS.contains(&word), last) {
        (false, Some(last)) => &[last],
        _ => &[],
    };
    if behind.len() > kept.len() {
        let name = behind[0];
        changes.push(format!("`.{name}` behind `{word}` left out"));
    }
    [before, &[word], kept].concat()
}

fn with_one_prefix(parts: &[&str], changes: &mut Vec<String>) -> String {
    let from = parts.iter().rposition(|part| *part == "base_model");
    match from {
        Some(0) => parts.join("."),
        Some(from) => {
            changes.push(format!("`{}.` left out", parts[..from].join(".")));
            parts[from..].join(".")
        }
        None if parts == ["prompt_embeddings"] => parts.join("."),
        None if parts.first().is_some_and(|part| part.starts_with("vera_")) => {
            changes.push("`base_model.` put in front".to_owned());
            format!("base_model.{}", parts.join("."))
        }
        None => {
            changes.push(format!("`{PREFIX}` put in front"));
            format!("{PREFIX}{}", parts.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LORA: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

    #[test]
    fn keys_of_today_stay() {
        for key in [
            LORA,
            "base_model.vera_A",
            "prompt_embeddings",
            "base_model.model.lm_head.weight",
            "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector",
        ] {
            assert_eq!(current(key), Key { name: key.to_owned(), changes: Vec::new() });
        }
    }

    #[test]
    fn wrappers_names_and_prefixes_are_brought_to_todays_key() {
        for key in [
            "_orig_mod.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "base_model.model._orig_mod.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj.lora_A.weight",
            "_fsdp_wrapped_module.base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj.lora_A.weight",
            "base_model.model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.policy.weight",
        ] {
            let found = current(key);
            assert_eq!(found.name, LORA);
            assert!(!found.changes.is_empty(), "{key}");
        }
    }

    #[test]
    fn magnitudes_have_one_name() {
        let module = "base_model.model.model.layers.0.mlp.down_proj";
        for end in [
            "lora_magnitude_vector.weight",
            "lora_magnitude_vector.default",
            "lora_magnitude_vector.default.weight",
            "weight_m_wdecomp.weight",
        ] {
            let found = current(&format!("{module}.{end}")).name;
            assert_eq!(found, format!("{module}.lora_magnitude_vector"));
        }
    }

    #[test]
    fn a_module_to_save_has_its_plain_key() {
        let found = current("base_model.model.lm_head.modules_to_save.default.weight");
        assert_eq!(found.name, "base_model.model.lm_head.weight");
    }
}
