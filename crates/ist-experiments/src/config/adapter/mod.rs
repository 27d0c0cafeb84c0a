//! `[adapter]`: the PEFT method and its fields; `[[adapter]]` for several.
//!
//! The fields stay a map, because a method's set of fields belongs to the crate that implements it.
//! `fields` asks that crate for the built-in methods' settings with their ranges and defaults, and
//! the method's own reader has the last word.

mod fields;

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::schema::{PATH, REPEATABLE, variants};

pub(super) use fields::METHODS;

/// The method when none is named.
pub(super) const DEFAULT_METHOD: &str = "lora";

/// `[adapter]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct AdapterTable {
    /// The PEFT method; absent only with `init_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The adapter's name among several, and that of its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An adapter in PEFT's layout to start from. Method and fields then come from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// The method's fields: all that have a default, and those given. With `init_from` those given
    /// alone.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl AdapterTable {
    /// The method and its fields as one table, in the spelling that [`ist_peft::Part::parse`]
    /// reads.
    pub fn method_fields(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        if let Some(method) = &self.method {
            fields.insert("method".to_owned(), Value::String(method.clone()));
        }
        fields
    }

    /// Writes `names` out as the targets where none are given; with `init_from` they come from its
    /// folder.
    pub fn name_targets(&mut self, names: &[&str]) {
        if self.init_from.is_none() && self.fields.get("targets").is_none_or(Value::is_null) {
            self.fields.insert("targets".to_owned(), json!(names));
        }
    }
}

impl Default for AdapterTable {
    fn default() -> Self {
        Map::new().try_into().expect("every field has a default")
    }
}

impl TryFrom<Map<String, Value>> for AdapterTable {
    type Error = serde_json::Error;

    fn try_from(mut table: Map<String, Value>) -> Result<Self, Self::Error> {
        let mut own =
            |key: &str| table.remove(key).map(serde_json::from_value::<String>).transpose();
        let (method, name, init_from) =
            (own("method")?, own("name")?, own("init_from")?.map(PathBuf::from));
        let named = method.as_deref().unwrap_or(DEFAULT_METHOD);
        let Some(known) = METHODS.iter().find(|known| known.name == named) else {
            // The reader of the method knows its defaults.
            return Ok(Self { method, name, init_from, fields: table });
        };
        let saved = table.remove(MODULES_TO_SAVE);
        let given: Vec<String> = table.keys().cloned().collect();
        let mut fields = known.complete(table)?;
        fields.extend(saved.map(|names| (MODULES_TO_SAVE.to_owned(), names)));
        if init_from.is_some() {
            fields.retain(|key, _| given.contains(key) || key == MODULES_TO_SAVE);
            return Ok(Self { method, name, init_from, fields });
        }
        Ok(Self { method: Some(named.to_owned()), name, init_from, fields })
    }
}

impl JsonSchema for AdapterTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AdapterTable".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let variant = |method: &fields::MethodFields| {
            let mut schema = method.schema();
            if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                properties.extend(common());
            }
            (method.name, schema)
        };
        variants("method", DEFAULT_METHOD, METHODS.iter().map(variant).collect())
    }
}

/// PEFT's field for modules that train whole beside the method; any method may have it.
const MODULES_TO_SAVE: &str = "modules_to_save";

/// The keys that every method has.
fn common() -> Map<String, Value> {
    let keys = json!({
        MODULES_TO_SAVE: {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "description": "Modules that train whole beside the method and are kept in its file, \
                            by the end of their path; \
                            outside the layers they train in every step."
        },
        "name": {
            "type": "string",
            "minLength": 1,
            "description": "The adapter's name among several, and that of its folder. Default: the \
                            method's."
        },
        "init_from": {
            "type": "string",
            "format": PATH,
            "minLength": 1,
            "description": "An adapter folder in PEFT's layout to start from; method and fields \
                            come from there, \
                            and a field given as well must agree."
        },
    });
    keys.as_object().cloned().unwrap_or_default()
}

/// `[adapter]` once, or `[[adapter]]` for several.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTables(Vec<AdapterTable>);

impl AdapterTables {
    /// The tables in order; at least one.
    pub fn tables(&self) -> &[AdapterTable] {
        &self.0
    }

    /// The same, to write out what was left open.
    pub fn tables_mut(&mut self) -> &mut [AdapterTable] {
        &mut self.0
    }
}

impl From<Vec<AdapterTable>> for AdapterTables {
    fn from(tables: Vec<AdapterTable>) -> Self {
        Self(tables)
    }
}

impl Default for AdapterTables {
    fn default() -> Self {
        Self(vec![AdapterTable::default()])
    }
}

impl Serialize for AdapterTables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AdapterTables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tables = match Value::deserialize(deserializer)? {
            Value::Array(several) => several,
            only => vec![only],
        };
        let tables = tables.into_iter().map(serde_json::from_value);
        tables.collect::<Result<_, _>>().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for AdapterTables {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AdapterTables".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = AdapterTable::json_schema(generator);
        schema.insert(REPEATABLE.to_owned(), json!(true));
        schema
    }
}
