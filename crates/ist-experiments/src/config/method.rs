//! `[adapter]` as the crate of its method sees it.
//!
//! The schema knows the built-in methods. A method that a crate outside brings along is known by its own reader, which
//! then judges all of its fields; of a built-in one the reader has the last word: regular expressions, fields that exclude
//! each other.

use ist_peft::adapters::DEFAULT_NAME;
use ist_peft::fields::FieldFault;
use ist_peft::{Adapter, Dialect, Part};
use serde_json::Map;
use toml::{Table, Value};

use super::adapter::DEFAULT_METHOD;
use super::document::{Document, join};
use super::{check as schema_check, later, schema};

/// The faults that a set of methods finds in the fields of one; `None` when the method is not of the set.
pub(super) type Reader = fn(&Map<String, serde_json::Value>) -> Option<Vec<FieldFault>>;

/// The reader of the methods of `A`.
pub(super) fn reader<A: Adapter>(fields: &Map<String, serde_json::Value>) -> Option<Vec<FieldFault>> {
    Part::<A>::parse(DEFAULT_NAME, fields, Dialect::Toml)
        .map(|read| read.err().map(|error| error.faults).unwrap_or_default())
}

/// Takes out an adapter table whose method is not built in but known to `reader`, so that no schema judges it.
pub(super) fn take_foreign(document: &mut Document, reader: Reader) -> Option<Table> {
    later::one_adapter(document);
    let table = document.get("adapter").and_then(Value::as_table)?;
    let method = table.get("method").and_then(Value::as_str)?;
    reader(&fields(table)).filter(|_| method != DEFAULT_METHOD)?;
    document.table.remove("adapter").and_then(|adapter| adapter.try_into().ok())
}

/// Puts a foreign table back and notes what the method's own reader finds, unless the schema found faults already.
pub(super) fn check(document: &mut Document, foreign: Option<Table>, reader: Reader) {
    if let Some(table) = foreign {
        if let Some((init_from, schema)) = table.get("init_from").zip(init_from_schema()) {
            schema_check::value(schema, init_from, "adapter.init_from", document);
        }
        document.table.insert("adapter".to_owned(), Value::Table(table));
    }
    if document.is_faulty("adapter") {
        return;
    }
    let faults = document.get("adapter").and_then(Value::as_table).and_then(|table| reader(&fields(table)));
    for fault in faults.unwrap_or_default() {
        document.fault(&join("adapter", &fault.field), fault.message);
    }
}

fn init_from_schema() -> Option<&'static serde_json::Value> {
    schema::property(schema::property(&schema::RUN, "adapter")?, "init_from")
}

/// The table without our own `init_from`, as JSON.
fn fields(table: &Table) -> Map<String, serde_json::Value> {
    let own = table.iter().filter(|(key, _)| *key != "init_from");
    own.map(|(key, value)| (key.clone(), serde_json::json!(value))).collect()
}
