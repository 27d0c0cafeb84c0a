//! `[adapter]` as the crate of its method sees it, and what holds between several.
//!
//! The schema knows the built-in methods. A method that a crate outside brings along is known by
//! its own reader, which then judges all of its fields; of a built-in one the reader has the last
//! word: regular expressions, fields that exclude each other.

use ist_peft::fields::FieldFault;
use ist_peft::model::adapters::DEFAULT_NAME;
use ist_peft::{Adapter, Dialect, Part};
use serde_json::Map;
use toml::{Table, Value};

use super::adapter::{DEFAULT_METHOD, METHODS};
use super::document::{Document, join};
use super::{check as schema_check, schema};

/// The faults that a set of methods finds in the fields of one; `None` when the method is not of
/// the set.
pub(super) type Reader = fn(&Map<String, serde_json::Value>) -> Option<Vec<FieldFault>>;

/// The reader of the methods of `A`.
pub(super) fn reader<A: Adapter>(
    fields: &Map<String, serde_json::Value>,
) -> Option<Vec<FieldFault>> {
    let read = Part::<A>::parse(DEFAULT_NAME, fields, Dialect::Toml)?;
    Some(read.err().map(|error| error.faults).unwrap_or_default())
}

/// A table that no schema judges: where it stands, and what it is.
pub(super) struct Foreign {
    index: usize,
    table: Table,
}

/// The adapter tables by their keys, `adapter` or `adapter[0]`, `adapter[1]`, ...
pub(super) fn keyed(document: &mut Document) -> Vec<(String, &mut Table)> {
    match document.table.get_mut("adapter") {
        Some(Value::Table(only)) => vec![("adapter".to_owned(), only)],
        Some(Value::Array(list)) => {
            let tables = list.iter_mut().enumerate();
            tables
                .filter_map(|(at, table)| Some((format!("adapter[{at}]"), table.as_table_mut()?)))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// `[[adapter]]` once is the same as `[adapter]`.
pub(super) fn unwrap_single(document: &mut Document) {
    if let Some(Value::Array(list)) = document.table.get_mut("adapter")
        && list.len() == 1
        && let Some(only @ Value::Table(_)) = list.pop()
    {
        document.table.insert("adapter".to_owned(), only);
    }
}

/// Takes out the adapter tables whose method is not built in but known to `reader`, so that no
/// schema judges them.
pub(super) fn take_foreign(document: &mut Document, reader: Reader) -> Vec<Foreign> {
    let mut taken = Vec::new();
    for (index, (_, table)) in keyed(document).into_iter().enumerate() {
        let method = table.get("method").and_then(Value::as_str).unwrap_or(DEFAULT_METHOD);
        let built_in = METHODS.iter().any(|known| known.name == method);
        if !built_in && reader(&fields(table)).is_some() {
            taken.push(Foreign { index, table: std::mem::take(table) });
        }
    }
    taken
}

/// Puts foreign tables back and notes what each method's own reader finds, unless the schema found
/// faults already.
pub(super) fn check(document: &mut Document, foreign: Vec<Foreign>, reader: Reader) {
    for Foreign { index, table } in foreign {
        let Some((key, place)) = keyed(document).into_iter().nth(index) else { continue };
        *place = table.clone();
        for own in ["init_from", "name"] {
            if let Some((value, schema)) = table.get(own).zip(own_schema(own)) {
                schema_check::value(schema, value, &join(&key, own), document);
            }
        }
    }
    let tables: Vec<(String, Table)> =
        keyed(document).into_iter().map(|(key, table)| (key, table.clone())).collect();
    for (key, table) in &tables {
        if !document.is_faulty(key) {
            for fault in reader(&fields(table)).unwrap_or_default() {
                document.fault(&join(key, &fault.field), fault.message);
            }
        }
    }
    names(document, &tables);
}

/// Several adapters need names that differ and can be folders; one needs none.
fn names(document: &mut Document, tables: &[(String, Table)]) {
    let mut taken: Vec<&str> = Vec::new();
    for (key, table) in tables {
        let given = table.get("name").and_then(Value::as_str);
        let key = join(key, "name");
        if document.is_faulty(&key) {
            continue;
        }
        if let (Some(_), [_]) = (given, tables) {
            document.fault(&key, "has no effect on a single adapter; remove it");
            continue;
        }
        let method = || table.get("method").and_then(Value::as_str).unwrap_or(DEFAULT_METHOD);
        let name = given.unwrap_or_else(method);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !name.chars().all(plain) {
            document.fault(
                &key,
                format!(
                    "must be of letters, digits, - and _, as it names a folder; found \"{name}\""
                ),
            );
        } else if taken.contains(&name) {
            document.fault(
                &key,
                format!("must differ from those of the other adapters; \"{name}\" is taken"),
            );
        }
        taken.push(name);
    }
}

fn own_schema(key: &str) -> Option<&'static serde_json::Value> {
    schema::property(schema::property(&schema::RUN, "adapter")?, key)
}

/// The table without our own keys, as JSON.
fn fields(table: &Table) -> Map<String, serde_json::Value> {
    let own = table.iter().filter(|(key, _)| !["init_from", "name"].contains(&key.as_str()));
    own.map(|(key, value)| (key.clone(), serde_json::json!(value))).collect()
}
