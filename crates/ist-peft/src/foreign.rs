//! Adapter folders of older programs, brought into the form that PEFT has today.
//!
//! LLM-Adapters and the DoRA programs that grew out of it write PEFT's keys with small differences: the adapter's name
//! inside a key, no prefix, the magnitude as a matrix under a name of its own, and DoRA as a type of its own.

use std::path::Path;

use ist_core::burn::tensor::TensorData;
use ist_core::untrusted;
use serde_json::{Map, Value, json};

use crate::files::{AdapterFilesError, CONFIG_FILE, PREFIX, TENSORS_FILE};
use crate::tensor_file::{TensorFile, write};
use crate::{durable, regular};

/// Fields of older files that have no meaning today.
const DROPPED: [&str; 4] =
    ["dora_simple", "Wdecompose_target_modules", "enable_lora", "merge_weights"];

/// Writes the adapter folder `from` in PEFT's form of today into `to`.
///
/// # Errors
/// Files that cannot be read or written, and tensors in a pickle, which is not read.
pub fn convert(from: &Path, to: &Path) -> Result<(), AdapterFilesError> {
    let path = from.join(CONFIG_FILE);
    let text = regular::read_to_string(&path)
        .map_err(|source| AdapterFilesError::Io { path: path.clone(), source })?;
    let fields: Map<String, Value> =
        untrusted::json::from_slice(text.as_bytes()).map_err(|error| AdapterFilesError::Json {
            path,
            message: untrusted::json::told(&error),
        })?;
    if !from.join(TENSORS_FILE).exists() && from.join("adapter_model.bin").exists() {
        return Err(AdapterFilesError::Pickle { path: from.join("adapter_model.bin") });
    }
    let file = TensorFile::open(&from.join(TENSORS_FILE))?;
    let tensors = file.names().map(|name| Ok(renamed(name, file.data(name)?)));
    let tensors = tensors.collect::<Result<Vec<_>, AdapterFilesError>>()?;
    let text = serde_json::to_string_pretty(&current(fields))
        .expect("JSON values are always written")
        + "\n";
    let path = to.join(CONFIG_FILE);
    durable::write(&path, text.as_bytes())
        .map_err(|source| AdapterFilesError::Io { path, source })?;
    write(&to.join(TENSORS_FILE), &tensors)?;
    Ok(())
}

/// The configuration as PEFT has it today.
fn current(mut fields: Map<String, Value>) -> Map<String, Value> {
    for name in DROPPED {
        fields.shift_remove(name);
    }
    if fields.get("peft_type") == Some(&json!("DORA")) {
        fields.insert("peft_type".to_owned(), json!("LORA"));
        fields.insert("use_dora".to_owned(), json!(true));
    }
    fields
}

/// A tensor under the key, and in the shape, that PEFT has today.
fn renamed(name: &str, data: TensorData) -> (String, TensorData) {
    let name = name.replace(".default.", ".");
    let name = if name.starts_with("base_model.") { name } else { format!("{PREFIX}{name}") };
    match name.strip_suffix(".weight_m_wdecomp.weight") {
        Some(module) => {
            let (elements, dtype) = (data.num_elements(), data.dtype());
            let vector = TensorData::from_bytes(data.into_bytes(), [elements], dtype);
            (format!("{module}.lora_magnitude_vector"), vector)
        }
        None => (name, data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_older_programs_become_pefts() {
        let key = |name: &str| renamed(name, TensorData::zeros::<f32, _>([3, 1]));
        assert_eq!(
            key("model.layers.0.x.lora_A.default.weight").0,
            "base_model.model.model.layers.0.x.lora_A.weight"
        );
        let (name, data) = key("base_model.model.model.layers.0.x.weight_m_wdecomp.weight");
        assert_eq!(name, "base_model.model.model.layers.0.x.lora_magnitude_vector");
        assert_eq!(data.shape().to_vec(), [3]);
    }

    #[test]
    fn dora_is_a_kind_of_lora() {
        let fields = json!({"peft_type": "DORA", "r": 4, "dora_simple": true, "enable_lora": null});
        let expected = json!({"peft_type": "LORA", "r": 4, "use_dora": true});
        assert_eq!(json!(current(fields.as_object().cloned().unwrap_or_default())), expected);
    }
}
