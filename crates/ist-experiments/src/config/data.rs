//! `[data]`: what a run trains on and what it holds out.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::PATH;
use crate::data::{Format, Order};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {"required": ["validation", "validation_records"]}))]
pub struct DataConfig {
    /// The training records: JSON, JSON Lines or Parquet.
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub train: PathBuf,
    /// What the records are made of.
    #[serde(default)]
    pub format: Format,
    /// Tokens a record is cut to.
    #[serde(default = "cutoff")]
    #[schemars(range(min = 2))]
    pub cutoff: usize,
    /// Whether the prompt is learned too, or the output alone.
    #[serde(default = "train_on_inputs")]
    pub train_on_inputs: bool,
    /// How an epoch visits the records.
    #[serde(default)]
    pub order: Order,
    /// A file of records that only evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub validation: Option<PathBuf>,
    /// How many of the training records are held out to evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub validation_records: Option<usize>,
    /// How a record becomes a prompt: `auto` (the model's chat template for conversations, if it has one, else `alpaca`),
    /// `chat`, `alpaca`, `llm-adapters`, `none`, or a minijinja template.
    #[serde(default = "template")]
    #[schemars(length(min = 1))]
    pub template: String,
    /// The side on which the rows of a batch are filled up.
    #[serde(default)]
    pub padding: Padding,
}

impl DataConfig {
    /// Whether anything is held out to evaluate.
    pub fn validates(&self) -> bool {
        self.validation.is_some() || self.validation_records.is_some()
    }
}

fn cutoff() -> usize {
    256
}

fn train_on_inputs() -> bool {
    true
}

fn template() -> String {
    "auto".to_owned()
}

/// The side on which a batch's shorter rows are filled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Before the record.
    #[default]
    Left,
    /// After the record.
    Right,
}
