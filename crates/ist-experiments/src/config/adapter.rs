//! `[adapter]`: the PEFT method and its fields.
//!
//! The fields stay a map, because a method's set of fields belongs to the crate that implements it; `lora`'s are listed
//! here with their ranges and defaults, and that crate's own reader has the last word.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::schema::{PATH, variants};

/// The method when none is named.
pub(super) const DEFAULT_METHOD: &str = "lora";

/// `[adapter]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct AdapterTable {
    /// The PEFT method; absent only with `init_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// An adapter in PEFT's layout to start from. Method and fields then come from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// The method's fields: all that have a default, and those given. With `init_from` those given alone.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl AdapterTable {
    /// The method and its fields as one table, in the spelling that [`ist_peft::Adapter::parse`] reads.
    pub fn method_fields(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        if let Some(method) = &self.method {
            fields.insert("method".to_owned(), Value::String(method.clone()));
        }
        fields
    }

    /// Writes `names` out as the targets where none are given; with `init_from` they come from its folder.
    pub fn name_targets(&mut self, names: &[&str]) {
        if self.init_from.is_none() && self.fields.get("targets").is_none_or(Value::is_null) {
            self.fields.insert("targets".to_owned(), json!(names));
        }
    }
}

impl Default for AdapterTable {
    fn default() -> Self {
        let fields = to_map(&LoraFields::default());
        Self { method: Some(DEFAULT_METHOD.to_owned()), init_from: None, fields }
    }
}

impl TryFrom<Map<String, Value>> for AdapterTable {
    type Error = serde_json::Error;

    fn try_from(mut table: Map<String, Value>) -> Result<Self, Self::Error> {
        let method: Option<String> = table.remove("method").map(serde_json::from_value).transpose()?;
        let init_from: Option<PathBuf> = table.remove("init_from").map(serde_json::from_value).transpose()?;
        if method.as_ref().is_some_and(|method| method != DEFAULT_METHOD) {
            // The reader of the method knows its defaults.
            return Ok(Self { method, init_from, fields: table });
        }
        let given: Vec<String> = table.keys().cloned().collect();
        let mut fields = to_map(&serde_json::from_value::<LoraFields>(Value::Object(table))?);
        if init_from.is_some() {
            fields.retain(|key, _| given.contains(key));
            return Ok(Self { method, init_from, fields });
        }
        Ok(Self { method: method.or_else(|| Some(DEFAULT_METHOD.to_owned())), init_from, fields })
    }
}

impl JsonSchema for AdapterTable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AdapterTable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut lora = LoraFields::json_schema(generator);
        if let Some(properties) = lora.get_mut("properties").and_then(Value::as_object_mut) {
            let init_from = json_schema!({
                "type": "string",
                "format": PATH,
                "minLength": 1,
                "description": "An adapter folder in PEFT's layout to start from; method and fields come from there, \
                                and a field given as well must agree."
            });
            properties.insert("init_from".to_owned(), init_from.to_value());
        }
        variants("method", DEFAULT_METHOD, vec![("lora", lora)])
    }
}

/// The fields of `lora`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LoraFields {
    /// The rank.
    #[schemars(range(min = 1))]
    r: usize,
    /// The scaling's numerator: alpha / r, or alpha / √r with `use_rslora`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    alpha: f64,
    /// Dropout on the input of the low-rank branch.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: f64,
    /// The modules to adapt: name suffixes, or one regular expression. Default: the architecture's usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<Names>,
    /// Scale by alpha / √r.
    use_rslora: bool,
    /// Ranks of modules whose name matches.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "ranks")]
    rank_pattern: BTreeMap<String, usize>,
    /// Alphas of modules whose name matches.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "alphas")]
    alpha_pattern: BTreeMap<String, f64>,
    /// The layers to adapt, counted from 0. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers_to_transform: Option<Layers>,
    /// Where the layer's index stands in a module's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers_pattern: Option<Names>,
    /// Modules to leave out: name suffixes, or one regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_modules: Option<Names>,
}

impl Default for LoraFields {
    fn default() -> Self {
        Self {
            r: 32,
            alpha: 64.0,
            dropout: 0.0,
            targets: None,
            use_rslora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            layers_to_transform: None,
            layers_pattern: None,
            exclude_modules: None,
        }
    }
}

/// A list of strings, or one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Names {
    Many(#[schemars(length(min = 1), inner(length(min = 1)))] Vec<String>),
    One(#[schemars(length(min = 1))] String),
}

/// A list of layer indices, or one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Layers {
    Many(#[schemars(length(min = 1))] Vec<usize>),
    One(usize),
}

fn ranks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}})
}

fn alphas(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}})
}

fn to_map(fields: &LoraFields) -> Map<String, Value> {
    match serde_json::to_value(fields) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("a struct of numbers, strings and string-keyed maps is a JSON object"),
    }
}
