//! Relative paths become absolute, once, at the gate: what a run does never depends on the current
//! folder.

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
    resolve_value(schema, value, folder);
}

fn resolve_value(schema: &Json, value: &mut Value, folder: &Path) {
    match value {
        Value::Table(inner) => {
            let schema = alternative(schema, "object").unwrap_or(schema);
            resolve(schema, inner, folder);
        }
        Value::Array(list) => {
            // A table that may be given several times has no list in its schema.
            let items = alternative(schema, "array").map(|schema| &schema["items"]);
            let items = items.unwrap_or(schema);
            for inner in list {
                resolve_value(items, inner, folder);
            }
        }
        Value::String(text) => {
            let schema = alternative(schema, "string").unwrap_or(schema);
            resolve_text(schema["format"].as_str(), text, folder);
        }
        _ => {}
    }
}

/// The schema itself, or the one of its alternatives, that is of a type.
fn alternative<'a>(schema: &'a Json, wanted: &str) -> Option<&'a Json> {
    let branches = schema["anyOf"].as_array().into_iter().flatten();
    std::iter::once(schema).chain(branches).find(|schema| schema["type"] == wanted)
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
