//! The configuration of `ist pretrain`: a small LLaMA-layout model from scratch.

mod sections;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::faults::ConfigError;
use super::schema::PATH;
use super::{check, later, overrides, paths, schema};
pub use sections::{
    ModelShape, PretrainData, PretrainOptimizer, PretrainSteps, SavedDtype, TextSource,
    TokenizerConfig,
};

/// What `ist pretrain` runs, with every default filled in and every path absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of `ist pretrain`")]
pub struct PretrainConfig {
    /// The seed of every random stream.
    #[serde(default)]
    pub seed: u64,
    /// The folder that the model is written to.
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub output: PathBuf,
    /// The model's shape.
    pub model: ModelShape,
    /// The tokenizer that is trained first.
    pub tokenizer: TokenizerConfig,
    /// The text.
    #[serde(default)]
    pub data: PretrainData,
    /// What moves the parameters.
    #[serde(default)]
    pub optimizer: PretrainOptimizer,
    /// How long and in what portions.
    pub train: PretrainSteps,
}

/// Reads and checks a configuration of `ist pretrain`, and that a text file it names is there.
///
/// # Errors
///
/// A file that cannot be read; else all faults at once.
pub fn load_pretrain(path: &Path, overrides: &[String]) -> Result<PretrainConfig, ConfigError> {
    let mut document = Document::read(path)?;
    gate(&mut document, overrides);
    if let Some(text) = document.get("data.source").and_then(toml::Value::as_str).map(str::to_owned)
        && text != "world"
        && !Path::new(&text).is_file()
    {
        document.fault(
            "data.source",
            format!("must be \"world\" or a text file; there is no file {text}"),
        );
    }
    document.finish()
}

pub(super) fn gate(document: &mut Document, overrides: &[String]) {
    overrides::apply(document, &schema::PRETRAIN, overrides);
    later::refuse_in_pretraining(document);
    check::check(&schema::PRETRAIN, document);
    shape(document);
    text(document);
    let folder = document.folder.clone();
    paths::resolve(&schema::PRETRAIN, &mut document.table, &folder);
    let heads = document.get("model.num_attention_heads").cloned();
    document.default_to("model", "num_key_value_heads", heads);
}

/// Heads that divide evenly, and an even width for the rotary pairs.
fn shape(document: &mut Document) {
    let positive = |key| document.count(key).filter(|count| *count > 0);
    let heads = positive("model.num_attention_heads");
    let (width, key_value_heads) =
        (positive("model.hidden_size"), positive("model.num_key_value_heads"));
    if let (Some(width), Some(heads)) = (width, heads)
        && width % (2 * heads) != 0
    {
        let message = format!(
            "must give each of the {heads} heads an even width, so a multiple of {}, found {width}",
            2 * heads
        );
        document.fault("model.hidden_size", message);
    }
    if let (Some(heads), Some(shared)) = (heads, key_value_heads)
        && heads % shared != 0
    {
        document.fault(
            "model.num_key_value_heads",
            format!("must divide the {heads} query heads, found {shared}"),
        );
    }
}

/// Rows that fit the context, and enough tokens for one.
fn text(document: &mut Document) {
    let length = document
        .count("data.sequence_length")
        .unwrap_or(PretrainData::default().sequence_length as u64);
    if let Some(context) =
        document.count("model.max_position_embeddings").filter(|context| length > *context)
    {
        let message = format!(
            "must be at most `model.max_position_embeddings`, which is {context}, found {length}"
        );
        document.fault("data.sequence_length", message);
    }
    for key in ["data.tokens", "data.validation_tokens"] {
        if let Some(tokens) = document.count(key).filter(|tokens| *tokens < length) {
            let message = format!(
                "must be at least one row of `data.sequence_length` = {length} tokens, found \
                 {tokens}"
            );
            document.fault(key, message);
        }
    }
    let from_world =
        document.get("data.source").is_none_or(|source| source.as_str() == Some("world"));
    if from_world && document.get("data.tokens").is_none() {
        document.fault(
            "data.tokens",
            "is missing; it says how many training tokens of the world are generated",
        );
    }
}

impl PretrainConfig {
    /// The configuration as TOML with every default written out.
    ///
    /// # Panics
    ///
    /// On a number above 2⁶³ - 1 or a path that is not UTF-8, which TOML cannot hold; the gate lets
    /// none through.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a checked configuration came from TOML, so TOML can hold it")
    }
}
