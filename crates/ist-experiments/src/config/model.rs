//! `[model]`: what is tuned, and how its frozen weights are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model_ref::ModelRef;
use super::schema::MODEL;

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The base model: a folder in Hugging Face layout, `builtin:NAME`, or a hub id
    /// `org/name[@revision]`.
    #[schemars(with = "String", extend("format" = MODEL), length(min = 1))]
    pub path: ModelRef,
    /// Storage of the frozen weights.
    #[serde(default)]
    pub dtype: Dtype,
}

/// How frozen weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    Float32,
    /// The upper half of single precision.
    Bfloat16,
    /// IEEE half precision.
    Float16,
    /// The layers' matrices in eight bits with a scale a block, all else in single precision.
    Int8,
}
