//! The keys that stand in a file and in no run: what `ist schema` adds for editors.
//!
//! A file that extends another or sweeps need not say everything itself, so what is required of a
//! file holds only where it does neither. The gate judges each run by the whole.

use serde_json::{Map, Value, json};

/// Adds `extends`, `seeds` and `sweep` to the schema of a run's configuration.
pub(in super::super) fn add_to(schema: &mut Value) {
    let strict = strictness(schema);
    let Some(properties) = schema["properties"].as_object_mut() else { return };
    properties.extend(keys());
    schema["anyOf"] = json!([{"required": ["extends"]}, {"required": ["sweep"]}, strict]);
}

fn keys() -> Map<String, Value> {
    let seed = json!({"type": "integer", "minimum": 0});
    let values =
        json!({"type": "array", "minItems": 1, "description": "The values that the key takes."});
    let nested =
        json!({"type": "object", "additionalProperties": {}, "description": "The key, undotted."});
    let name =
        json!({"type": "string", "minLength": 1, "description": "What its runs are called."});
    let case = json!({
        "type": "object", "properties": {"name": name}, "required": ["name"],
        "additionalProperties": {},
        "description": "Keys that change together.",
    });
    let Value::Object(keys) = json!({
        "extends": {
            "type": "string", "format": super::run_schema::PATH, "minLength": 1,
            "description": "A configuration whose keys hold where this file has none; relative to \
                            this file.",
        },
        "seeds": {
            "description": "The seeds of the runs that this file makes, or their number, counted \
                            from 0; for `ist run`.",
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "array", "items": seed, "minItems": 1, "uniqueItems": true},
            ],
        },
        "sweep": {
            "type": "object",
            "description": "Dotted keys and the lists of their values: one run for each \
                            combination; for `ist run`.",
            "properties": {"cases": {
                "type": "array", "items": case, "minItems": 1,
                "description": "Sets of keys that change together, combined with every combination \
                                of the others.",
            }},
            "additionalProperties": {"anyOf": [values, nested]},
        },
    }) else {
        unreachable!("an object was written")
    };
    keys
}

/// Takes out what a run must say, of the whole and of its tables, and returns it as a schema of its
/// own.
fn strictness(schema: &mut Value) -> Value {
    let mut strict = Map::new();
    if let Some(required) =
        schema.as_object_mut().and_then(|schema| schema.shift_remove("required"))
    {
        strict.insert("required".to_owned(), required);
    }
    let mut inner = Map::new();
    for (name, table) in schema["properties"].as_object_mut().into_iter().flatten() {
        let chosen_by_tag = table.get("discriminator").is_some();
        let Some(table) = table
            .as_object_mut()
            .filter(|table| table.contains_key("properties") && !chosen_by_tag)
        else {
            continue;
        };
        let keys = ["required", "oneOf"];
        let taken: Map<String, Value> = keys
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), table.shift_remove(*key)?)))
            .collect();
        if !taken.is_empty() {
            inner.insert(name.clone(), Value::Object(taken));
        }
    }
    strict.insert("properties".to_owned(), Value::Object(inner));
    Value::Object(strict)
}
