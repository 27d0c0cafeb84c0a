//! Keys and values of later work: refused by name, never "unknown" and never ignored.
//!
//! What becomes available is taken out of here and put into the schema, nothing else.

use toml::Value;

use super::document::Document;

/// Tables and keys of the top level.
const KEYS: [&str; 4] = ["extends", "sweep", "seeds", "logging"];

/// PEFT methods that have a name already.
const METHODS: [&str; 15] = [
    "adalora",
    "adapterp",
    "bitfit",
    "dora",
    "full",
    "ia3",
    "layernorm",
    "loha",
    "lokr",
    "oft",
    "parallel",
    "prefix-tuning",
    "prompt-tuning",
    "series",
    "vera",
];

/// Refuses what of a run belongs to later work and takes it out, so that nothing else judges it.
pub(super) fn refuse(document: &mut Document) {
    refuse_keys(document);
    method(document);
}

/// Refuses the keys of the top level that belong to later work, in any configuration.
pub(super) fn refuse_keys(document: &mut Document) {
    for key in KEYS {
        if document.table.contains_key(key) {
            document.fault(key, "is not yet available; remove it");
            document.table.remove(key);
        }
    }
}

/// `[[adapter]]` once is the same as `[adapter]`; more are later work.
pub(super) fn one_adapter(document: &mut Document) {
    let Some(Value::Array(list)) = document.table.get_mut("adapter") else { return };
    if list.len() > 1 && list.iter().all(Value::is_table) {
        let count = list.len();
        document.table.remove("adapter");
        document.fault("adapter", format!("is given {count} times; several adapters are not yet available, keep one"));
    } else if list.len() == 1
        && let Some(Value::Table(only)) = list.pop()
    {
        document.table.insert("adapter".to_owned(), Value::Table(only));
    }
}

/// The fields of another method are not judged: they are right or wrong only when it is there.
fn method(document: &mut Document) {
    if let Some(adapter) = document.table.get_mut("adapter").and_then(Value::as_table_mut)
        && adapter.remove("use_dora").is_some()
    {
        document.fault("adapter.use_dora", "is not yet available; remove it");
    }
    let Some(method) = document.get("adapter.method").and_then(Value::as_str) else { return };
    if METHODS.contains(&method) {
        let message = format!("= \"{method}\" is not yet available; available is \"lora\"");
        document.fault("adapter.method", message);
        document.table.remove("adapter");
    }
}
