//! `[data]`: what a run trains on and what it holds out.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema::PATH;
use crate::text::records::{Columns, Format, Order};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {"required": ["validation", "validation_records"]}))]
pub struct DataConfig {
    /// The training records: a file (JSON, JSON Lines or Parquet), a folder of files, or a list of
    /// them, of which each may be a table of `path` and `weight`.
    pub train: Sources,
    /// What the records are made of.
    #[serde(default)]
    pub format: Format,
    /// The columns that are a record's fields, where they have other names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Columns>,
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
    /// A file of records that only evaluate, or a folder of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub validation: Option<PathBuf>,
    /// How many of the training records are held out to evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub validation_records: Option<usize>,
    /// How a record becomes a prompt: `auto` (the model's chat template for conversations, if it
    /// has one, else `alpaca`), `chat`, `alpaca`, `llm-adapters`, `none`, or a minijinja template.
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

/// The files and folders that a run trains on (`data.train`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(from = "Given", into = "Given")]
pub struct Sources(Vec<Source>);

/// A file or folder, and how often an epoch visits each of its records, as a mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The file or folder.
    pub path: PathBuf,
    /// Visits of each record in an epoch.
    #[serde(default = "once")]
    pub weight: f64,
}

/// The spellings of sources.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Given {
    One(PathBuf),
    List(Vec<GivenSource>),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum GivenSource {
    Path(PathBuf),
    Weighted(Source),
}

impl Sources {
    /// The files and folders; at least one.
    pub fn all(&self) -> &[Source] {
        &self.0
    }
}

impl From<PathBuf> for Sources {
    fn from(path: PathBuf) -> Self {
        Self(vec![Source { path, weight: once() }])
    }
}

impl From<Vec<Source>> for Sources {
    /// Of a list, which must not be empty.
    fn from(sources: Vec<Source>) -> Self {
        Self(sources)
    }
}

impl From<Given> for Sources {
    fn from(given: Given) -> Self {
        let source = |given| match given {
            GivenSource::Path(path) => Source { path, weight: once() },
            GivenSource::Weighted(source) => source,
        };
        match given {
            Given::One(path) => path.into(),
            Given::List(list) => Self(list.into_iter().map(source).collect()),
        }
    }
}

impl From<Sources> for Given {
    /// A single file is written as its path.
    fn from(Sources(mut sources): Sources) -> Self {
        if let [Source { weight: 1.0, .. }] = sources.as_slice() {
            return Self::One(sources.swap_remove(0).path);
        }
        Self::List(sources.into_iter().map(GivenSource::Weighted).collect())
    }
}

impl JsonSchema for Sources {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sources".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let path = json_schema!({"type": "string", "format": PATH, "minLength": 1});
        let source = json_schema!({
            "type": "object",
            "properties": {
                "path": {
                    "type": "string", "format": PATH, "minLength": 1,
                    "description": "The file or folder.",
                },
                "weight": {
                    "type": "number", "exclusiveMinimum": 0, "maximum": 1000, "default": 1.0,
                    "description": "How often an epoch visits each of its records, as a mean.",
                },
            },
            "required": ["path"],
            "additionalProperties": false,
        });
        let list = json_schema!({
            "type": "array", "minItems": 1, "items": {"anyOf": [path.clone(), source]},
        });
        json_schema!({"anyOf": [path, list]})
    }
}

fn once() -> f64 {
    1.0
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
