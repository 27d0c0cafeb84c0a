//! Adapter folders of other programs, brought into the form that PEFT has today.
//!
//! LLM-Adapters and the DoRA programs that grew out of it write PEFT's keys with small differences:
//! the adapter's name inside a key, no prefix, the magnitude as a matrix under a name of its own,
//! and DoRA as a type of its own. mlx-lm has a form of its own.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files::contents::Contents;
use crate::files::tensor_file::write;
use crate::files::{AdapterFilesError, CONFIG_FILE, TENSORS_FILE, mlx, read_fields};
use ist_files::durable;

/// Fields of older files that have no meaning today.
const DROPPED: [&str; 4] =
    ["dora_simple", "Wdecompose_target_modules", "enable_lora", "merge_weights"];

/// Writes the adapter folder `from` in PEFT's form of today into `to`. Returns what was read
/// otherwise than it stands there, in sentences.
///
/// # Errors
/// Files that cannot be read or written, tensors in a pickle, which is not read, and what PEFT has
/// no place for.
pub fn convert(from: &Path, to: &Path) -> Result<Vec<String>, AdapterFilesError> {
    let fields = read_fields(&from.join(CONFIG_FILE))?;
    let mut notes = Vec::new();
    let (fields, tensors) = if mlx::is_adapter(&fields) {
        let converted = mlx::read(from, &fields)?;
        (converted.fields, converted.tensors)
    } else {
        let file = Contents::open(from)?;
        notes.extend(file.notes().to_vec());
        let tensors = file.names().map(|name| Ok((name.to_owned(), file.data(name)?)));
        (current(fields), tensors.collect::<Result<Vec<_>, AdapterFilesError>>()?)
    };
    let text =
        serde_json::to_string_pretty(&fields).expect("JSON values are always written") + "\n";
    let path = to.join(CONFIG_FILE);
    durable::write(&path, text.as_bytes())
        .map_err(|source| AdapterFilesError::Io { path, source })?;
    write(&to.join(TENSORS_FILE), &tensors)?;
    Ok(notes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dora_is_a_kind_of_lora() {
        let fields = json!({"peft_type": "DORA", "r": 4, "dora_simple": true, "enable_lora": null});
        let expected = json!({"peft_type": "LORA", "r": 4, "use_dora": true});
        assert_eq!(json!(current(fields.as_object().cloned().unwrap_or_default())), expected);
    }
}
