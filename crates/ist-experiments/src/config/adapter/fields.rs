//! The fields of each built-in method, with defaults and ranges, as our TOML spells them.
//!
//! The schema and the defaults that a run writes out come from here; the method's own reader, in
//! its crate, has the last word.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// From the given fields to all that have a value.
type Completion = fn(Map<String, Value>) -> serde_json::Result<Map<String, Value>>;

/// A built-in method as the configuration sees it.
pub(in super::super) struct MethodFields {
    /// Its name.
    pub(in super::super) name: &'static str,
    /// The given fields and the defaults of the others.
    pub(super) complete: Completion,
    /// The schema of its fields.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

const fn method<T: Serialize + DeserializeOwned + JsonSchema>(name: &'static str) -> MethodFields {
    MethodFields { name, complete: complete::<T>, schema: T::json_schema }
}

/// The built-in methods; the first is the default.
pub(in super::super) static METHODS: [MethodFields; 11] = [
    method::<Lora>("lora"),
    method::<Dora>("dora"),
    method::<Vera>("vera"),
    method::<Bottleneck>("series"),
    method::<Bottleneck>("adapterp"),
    method::<Bottleneck>("parallel"),
    method::<Ia3>("ia3"),
    method::<Prefix>("prefix-tuning"),
    method::<Norms>("layernorm"),
    method::<Whole>("bitfit"),
    method::<Whole>("full"),
];

fn complete<T: Serialize + DeserializeOwned>(
    table: Map<String, Value>,
) -> serde_json::Result<Map<String, Value>> {
    match serde_json::to_value(serde_json::from_value::<T>(Value::Object(table))?)? {
        Value::Object(map) => Ok(map),
        _ => unreachable!("a struct of numbers, strings and string-keyed maps is a JSON object"),
    }
}

/// Writes the fields of a method: `low_rank` with those that LoRA and DoRA share, and all with
/// those that say which modules it sits on: `in_layers` for modules that may be narrowed to some
/// layers, `modules` for those that may not, `model` for a method that has no choice.
macro_rules! method_fields {
    (@low_rank $name:ident { $($fields:tt)* }) => {
        method_fields!(@in_layers $name {
            /// The rank.
            #[schemars(range(min = 1))]
            r: usize = 32,
            /// The scaling's numerator: alpha / r, or alpha / √r with `use_rslora`.
            #[schemars(extend("exclusiveMinimum" = 0))]
            alpha: f64 = 64.0,
            /// Dropout on the input of the method's branch.
            #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
            dropout: f64 = 0.0,
            /// Scale by alpha / √r.
            use_rslora: bool = false,
            /// Ranks of modules whose name matches.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            #[schemars(schema_with = "ranks")]
            rank_pattern: BTreeMap<String, usize> = BTreeMap::new(),
            /// Alphas of modules whose name matches.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            #[schemars(schema_with = "alphas")]
            alpha_pattern: BTreeMap<String, f64> = BTreeMap::new(),
            /// B's learning rate beside A's (LoRA+).
            #[schemars(extend("exclusiveMinimum" = 0))]
            loraplus_lr_ratio: f64 = 1.0,
            $($fields)*
        });
    };
    (@in_layers $name:ident { $($fields:tt)* }) => {
        method_fields!(@modules $name {
            $($fields)*
            /// The layers to adapt, counted from 0. Default: all.
            #[serde(skip_serializing_if = "Option::is_none")]
            layers_to_transform: Option<Layers> = None,
            /// Where the layer's index stands in a module's path.
            #[serde(skip_serializing_if = "Option::is_none")]
            layers_pattern: Option<Names> = None,
        });
    };
    (@modules $name:ident { $($fields:tt)* }) => {
        method_fields!(@model $name {
            $($fields)*
            /// The modules to adapt: name suffixes, or one regular expression. Default: the
            /// method's usual ones.
            #[serde(skip_serializing_if = "Option::is_none")]
            targets: Option<Names> = None,
            /// Modules to leave out: name suffixes, or one regular expression.
            #[serde(skip_serializing_if = "Option::is_none")]
            exclude_modules: Option<Names> = None,
        });
    };
    (@model $name:ident { $($(#[$about:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        struct $name {
            $($(#[$about])* $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

method_fields! {
    @low_rank Lora {
        /// Whether A stays as it began (LoRA-FA).
        freeze_a: bool = false,
        /// What A and B start from.
        #[schemars(schema_with = "starts")]
        init_lora_weights: Value = Value::Bool(true),
    }
}

method_fields! { @low_rank Dora {} }

method_fields! {
    @in_layers Vera {
        /// The rank.
        #[schemars(range(min = 1))]
        r: usize = 256,
        /// What λ_d starts at.
        d_initial: f64 = 0.1,
        /// Dropout on the input of the method's branch.
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        dropout: f64 = 0.0,
        /// The seed of the random matrices that all modules share.
        #[schemars(range(min = 0))]
        projection_prng_key: u64 = 0,
    }
}

method_fields! {
    @in_layers Bottleneck {
        /// The width of the bottleneck.
        #[schemars(range(min = 1))]
        bottleneck_size: usize = 256,
        /// The activation between down and up.
        #[schemars(schema_with = "activations")]
        non_linearity: String = "tanh".to_owned(),
        /// The factor of the branch.
        #[schemars(extend("exclusiveMinimum" = 0))]
        scaling: f64 = 1.0,
        /// Dropout on the input of the method's branch.
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        dropout: f64 = 0.0,
    }
}

method_fields! {
    @modules Ia3 {
        /// The targets whose input is scaled instead of their output. Default: those that leave an
        /// MLP.
        #[serde(skip_serializing_if = "Option::is_none")]
        feedforward_modules: Option<Names> = None,
    }
}

method_fields! {
    @model Prefix {
        /// Positions of the prefix; the model's context is shorter by them.
        #[schemars(range(min = 1))]
        num_virtual_tokens: usize = 30,
        /// How the prefix begins: standard normal or at zero.
        #[schemars(schema_with = "beginnings")]
        init_weights: String = "normal".to_owned(),
    }
}

method_fields! { @modules Norms {} }

method_fields! { @in_layers Whole {} }

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
    json_schema!({"type": "object", "additionalProperties": {"type": "integer", "format": "uint", "minimum": 1}})
}

fn alphas(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}})
}

fn activations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": json!(ist_peft::methods::bottleneck::ACTIVATIONS)})
}

fn beginnings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["normal", "zero"]})
}

/// What LoRA starts from; the method's reader knows the names.
fn starts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"const": true, "type": "boolean"}, {"type": "string", "minLength": 1}]})
}
