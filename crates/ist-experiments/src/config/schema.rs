//! The JSON Schema of a configuration, and what is read out of it.
//!
//! The schema is derived from the typed sections and is the only list of keys, types, ranges and
//! defaults there is: the gate checks against it and editors complete from it, so the two cannot
//! drift.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use super::document::join;
use super::pretrain::PretrainConfig;
use super::run::RunConfig;
use super::study;

/// The schema of `ist train`'s configuration.
pub(super) static RUN: LazyLock<Value> = LazyLock::new(of::<RunConfig>);
/// The schema of `ist pretrain`'s configuration.
pub(super) static PRETRAIN: LazyLock<Value> = LazyLock::new(of::<PretrainConfig>);

/// The JSON Schema (draft 2020-12) of the configuration that `ist train` and `ist run` read.
pub fn json_schema() -> Value {
    let mut schema = RUN.clone();
    repeat(&mut schema);
    study::add_to_schema(&mut schema);
    schema
}

/// Spells out that a table may be given several times.
fn repeat(schema: &mut Value) {
    for property in schema["properties"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        let Some(table) = property.as_object_mut() else { continue };
        if table.remove(REPEATABLE).is_some() {
            let about = ["description", "default"]
                .map(|key| (key.to_owned(), table.remove(key).unwrap_or_default()));
            let list = json!({"type": "array", "items": table, "minItems": 1});
            *property = json!({"anyOf": [table, list]});
            property
                .as_object_mut()
                .into_iter()
                .for_each(|property| property.extend(about.clone()));
        }
    }
}

/// The JSON Schema (draft 2020-12) of the configuration that `ist pretrain` reads.
pub fn pretrain_json_schema() -> Value {
    PRETRAIN.clone()
}

/// Our own word for a table that may be given several times, `[[name]]`; [`json_schema`] spells it
/// out.
pub(super) const REPEATABLE: &str = "repeatable";
/// A string that names a file or folder. The gate makes it absolute.
pub(super) const PATH: &str = ist_core::schema::PATH;
/// A string that names a model; the gate makes a folder absolute.
pub(super) const MODEL: &str = "model";
/// A string that is `world` or names a text file; the gate makes the file absolute.
pub(super) const TEXT_SOURCE: &str = "text-source";

/// An integer that counts something; seeds are none.
pub(super) const COUNT: &str = "uint";

/// A string that is a number of bytes, with a unit or without.
pub(super) const SIZE: &str = "size";

fn of<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(without_null));
    let settings = settings.with_transform(RecursiveTransform(with_paragraphs_as_lines));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// TOML has no null: an optional value is a key that is absent.
fn without_null(schema: &mut Schema) {
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.retain(|branch| branch["type"] != "null");
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            only.into_iter().for_each(|(key, value)| drop(schema.insert(key, value)));
        }
    }
}

/// Where a line of documentation ends in the source is no matter of the schema's.
fn with_paragraphs_as_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
}

/// Takes out a default that depends on another key.
pub(super) fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

/// A table whose `tag` says which of several sets of keys it takes; without the tag it is
/// `default`.
pub(super) fn variants(tag: &str, default: &str, variants: Vec<(&str, Schema)>) -> Schema {
    let variant = |(name, schema): (&str, Schema)| {
        let mut schema = schema.to_value();
        let fixed = if name == default {
            json!({"const": name, "default": name})
        } else {
            json!({"const": name})
        };
        let mut properties = Map::from_iter([(tag.to_owned(), fixed)]);
        properties.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        schema["properties"] = Value::Object(properties);
        if name != default {
            let mut required = schema["required"].as_array().cloned().unwrap_or_default();
            required.push(json!(tag));
            schema["required"] = json!(required);
        }
        schema["title"] = json!(name);
        schema
    };
    let variants: Vec<Value> = variants.into_iter().map(variant).collect();
    json_schema!({"type": "object", "discriminator": {"propertyName": tag}, "oneOf": variants})
}

/// The variants of a table with a tag: the tag, and each variant's name and schema.
pub(super) fn variants_of(schema: &Value) -> Option<(&str, Vec<(&str, &Value)>)> {
    let tag = schema["discriminator"]["propertyName"].as_str()?;
    let variants = schema["oneOf"].as_array()?;
    Some((
        tag,
        variants
            .iter()
            .map(|variant| (variant["title"].as_str().unwrap_or_default(), variant))
            .collect(),
    ))
}

/// Whether a variant is the one that holds when the tag is absent.
pub(super) fn is_default(variant: &Value, tag: &str) -> bool {
    variant["properties"][tag].get("default").is_some()
}

/// The keys that a table of this schema takes, of any variant, each once.
pub(super) fn names(schema: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let variants = variants_of(schema).map(|(_, variants)| variants).unwrap_or_default();
    for table in std::iter::once(schema).chain(variants.into_iter().map(|(_, variant)| variant)) {
        let properties = table["properties"].as_object().into_iter().flatten();
        names.extend(properties.map(|(name, _)| name.as_str()));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

/// The schema of a key in a table of this schema, in the first variant that has it.
pub(super) fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let variants = variants_of(schema).map(|(_, variants)| variants).unwrap_or_default();
    std::iter::once(schema)
        .chain(variants.into_iter().map(|(_, variant)| variant))
        .find_map(|table| table.get("properties")?.get(name))
}

/// Every dotted key under a schema, tables included.
pub(super) fn keys(schema: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    collect(schema, "", &mut keys);
    keys
}

fn collect(schema: &Value, parent: &str, keys: &mut Vec<String>) {
    for name in names(schema) {
        let key = join(parent, name);
        keys.push(key.clone());
        if let Some(inner) = property(schema, name) {
            collect(inner, &key, keys);
        }
    }
}
