//! The configuration of `ist train`, whole.

use std::path::Path;

use ist_core::policy::PolicyConfig;
use ist_peft::{Adapter, BuiltinAdapter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::adapter::AdapterTables;
use super::data::DataConfig;
use super::document::Document;
use super::faults::ConfigError;
use super::logging::LoggingConfig;
use super::memory::MemoryConfig;
use super::model::ModelConfig;
use super::model_ref::ModelRef;
use super::optimizer::OptimizerConfig;
use super::train::{EvalConfig, TrainConfig};
use super::{check, extends, later, method, overrides, policy, schema, study};
use crate::text::MODEL_TEMPLATES;
use crate::text::records::Template;

/// What `ist train` runs, with every default filled in and every path absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of `ist train`")]
pub struct RunConfig {
    /// The seed of every random stream.
    #[serde(default)]
    pub seed: u64,
    /// The model that is tuned.
    pub model: ModelConfig,
    /// The records.
    pub data: DataConfig,
    /// The PEFT method; `[[adapter]]` for several, none on a module that another is on.
    #[serde(default)]
    pub adapter: AdapterTables,
    /// Which layers train in a step.
    #[serde(default)]
    #[schemars(schema_with = "policy::schema")]
    pub policy: PolicyConfig,
    /// What moves the parameters.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How long and in what portions.
    pub train: TrainConfig,
    /// How memory is traded for time.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// What other programs may look at.
    #[serde(default)]
    pub logging: LoggingConfig,
    /// A task's score before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
}

/// Reads and checks a configuration and the files it names.
///
/// # Errors
///
/// A file that cannot be read; else all faults at once, among them every file or folder that is
/// named and not there.
pub fn load(path: &Path, overrides: &[String]) -> Result<RunConfig, ConfigError> {
    load_with::<BuiltinAdapter>(path, overrides)
}

/// As [`load`], with the methods of `A`: one that is not built in is known by its own reader alone.
///
/// # Errors
///
/// As [`load`].
pub fn load_with<A: Adapter>(path: &Path, overrides: &[String]) -> Result<RunConfig, ConfigError> {
    let mut document = extends::read(path)?.document;
    gate(&mut document, overrides, method::reader::<A>);
    files(&mut document);
    document.finish()
}

/// Reads and checks a configuration without looking for the files it names, as for a run whose data
/// has moved.
///
/// # Errors
///
/// A file that cannot be read; else all faults at once.
pub fn read(path: &Path, overrides: &[String]) -> Result<RunConfig, ConfigError> {
    read_with::<BuiltinAdapter>(path, overrides)
}

/// As [`read`], with the methods of `A`.
///
/// # Errors
///
/// As [`read`].
pub fn read_with<A: Adapter>(path: &Path, overrides: &[String]) -> Result<RunConfig, ConfigError> {
    let mut document = extends::read(path)?.document;
    gate(&mut document, overrides, method::reader::<A>);
    document.finish()
}

/// The configuration that a run's [`RunConfig::to_toml`] wrote, kept in the file `path`. With
/// `files` what it names must be there.
///
/// # Errors
///
/// All faults at once.
pub fn parse_with<A: Adapter>(
    path: &Path,
    text: &str,
    files: bool,
) -> Result<RunConfig, ConfigError> {
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut document = extends::parse(path, folder, text)?;
    gate(&mut document, &[], method::reader::<A>);
    if files {
        self::files(&mut document);
    }
    document.finish()
}

/// The one gate of a single run: overrides, what makes several runs of a file, and then [`settle`].
pub(super) fn gate(document: &mut Document, overrides: &[String], reader: method::Reader) {
    overrides::apply(document, &schema::RUN, overrides);
    study::refuse(document);
    settle(document, reader);
}

/// Later work, schema, what the schema cannot say, defaults that depend on other keys.
pub(super) fn settle(document: &mut Document, reader: method::Reader) {
    method::unwrap_single(document);
    let foreign = method::take_foreign(document, reader);
    later::refuse(document);
    check::check(&schema::RUN, document);
    conflicts(document);
    method::check(document, foreign, reader);
    document.default_to("policy", "kind", Some(PolicyConfig::DEFAULT_KIND.into()));
    let batch = document.get("train.batch").cloned();
    document.default_to("train", "micro_batch", batch);
}

/// What holds between keys, and what other parts of the program know better.
fn conflicts(document: &mut Document) {
    if let Some(micro_batch) = document.count("train.micro_batch") {
        let batch = document.count("train.batch").unwrap_or(TrainConfig::default().batch as u64);
        if micro_batch > batch {
            let message =
                format!("must be at most `train.batch`, which is {batch}, found {micro_batch}");
            document.fault("train.micro_batch", message);
        }
    }
    let validates = ["data.validation", "data.validation_records"]
        .iter()
        .any(|key| document.get(key).is_some());
    if document.get("train.early_stopping").is_some() && !validates {
        let message =
            "needs a validation loss; give `data.validation` or `data.validation_records`";
        document.fault("train.early_stopping", message);
    }
    if let Some(name) = document
        .get("model.path")
        .and_then(Value::as_str)
        .and_then(|path| path.strip_prefix("builtin:"))
        && name.is_empty()
    {
        document.fault("model.path", "must name a model after `builtin:`");
    }
    template(document);
}

fn template(document: &mut Document) {
    let Some(text) =
        document.get("data.template").and_then(Value::as_str).filter(|text| !text.is_empty())
    else {
        return;
    };
    if MODEL_TEMPLATES.contains(&text) {
        return;
    }
    if let Err(error) = Template::parse(text) {
        document.fault("data.template", format!("is no template: {error}"));
    }
}

/// Files and folders that are named and not there. Paths are absolute by now.
pub(super) fn files(document: &mut Document) {
    for key in ["policy.path", "eval.data"] {
        absent(document, key, "file", Path::is_file);
    }
    for (key, path) in data_paths(document) {
        missing(document, &key, &path, "file", Path::exists);
    }
    let tables: Vec<String> = method::keyed(document).into_iter().map(|(key, _)| key).collect();
    for (index, key) in tables.iter().enumerate() {
        let (_, table) = method::keyed(document).swap_remove(index);
        if let Some(folder) = table.get("init_from").and_then(Value::as_str).map(str::to_owned) {
            missing(document, &format!("{key}.init_from"), &folder, "folder", Path::is_dir);
        }
    }
    if let Some(text) = document.get("model.path").and_then(Value::as_str)
        && matches!(ModelRef::from(text.to_owned()), ModelRef::Folder(_))
    {
        absent(document, "model.path", "folder", Path::is_dir);
    }
}

/// Every path that `data` names, with its key.
fn data_paths(document: &Document) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    let mut add = |key: &str, value: Option<&Value>| {
        if let Some(path) = value.and_then(Value::as_str) {
            paths.push((key.to_owned(), path.to_owned()));
        }
    };
    add("data.train", document.get("data.train"));
    let list = document.get("data.train").and_then(Value::as_array);
    for (index, source) in list.into_iter().flatten().enumerate() {
        let key = format!("data.train[{index}]");
        add(&key, Some(source));
        add(&format!("{key}.path"), source.get("path"));
    }
    add("data.validation", document.get("data.validation"));
    paths
}

fn absent(document: &mut Document, key: &str, what: &str, is_there: fn(&Path) -> bool) {
    if let Some(path) = document.get(key).and_then(Value::as_str).map(str::to_owned) {
        missing(document, key, &path, what, is_there);
    }
}

fn missing(
    document: &mut Document,
    key: &str,
    path: &str,
    what: &str,
    is_there: fn(&Path) -> bool,
) {
    if !document.is_faulty(key) && !is_there(Path::new(path)) {
        document.fault(key, format!("names no {what}: {path} does not exist or is not a {what}"));
    }
}

impl RunConfig {
    /// The configuration as TOML with every default written out; [`read`] gives an equal value.
    ///
    /// # Panics
    ///
    /// On a number above 2⁶³ - 1 or a path that is not UTF-8, which TOML cannot hold; the gate lets
    /// none through.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a checked configuration came from TOML, so TOML can hold it")
    }
}
