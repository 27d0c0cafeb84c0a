//! Relative paths become absolute, once, at the gate: what a run does never depends on the current folder.

use std::path::Path;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::model_ref::{ModelRef, absolute};
use super::schema::{MODEL, PATH, TEXT_SOURCE, property};

/// Resolves every string that the schema calls a path, a model or a source of text.
pub(super) fn resolve(schema: &Json, table: &mut Table, folder: &Path) {
    for (name, value) in table.iter_mut() {
        resolve_at(schema, std::slice::from_ref(name), value, folder);
    }
}

/// Resolves such strings in the value that stands at a path of names under the schema.
pub(super) fn resolve_at(schema: &Json, names: &[String], value: &mut Value, folder: &Path) {
    let Some(schema) = names.iter().try_fold(schema, |schema, name| property(schema, name)) else {
        return;
    };
    match value {
        Value::Table(inner) => resolve(schema, inner, folder),
        Value::Array(list) => {
            list.iter_mut()
                .filter_map(Value::as_table_mut)
                .for_each(|inner| resolve(schema, inner, folder));
        }
        Value::String(text) => resolve_text(schema["format"].as_str(), text, folder),
        _ => {}
    }
}

/// An empty string names nothing; it stays for the check to refuse.
fn resolve_text(format: Option<&str>, text: &mut String, folder: &Path) {
    match format {
        _ if text.is_empty() => {}
        Some(TEXT_SOURCE) if text == "world" => {}
        Some(PATH | TEXT_SOURCE) => *text = absolute(text, folder).to_string_lossy().into_owned(),
        Some(MODEL) => *text = ModelRef::parse(text, folder).to_string(),
        _ => {}
    }
}
