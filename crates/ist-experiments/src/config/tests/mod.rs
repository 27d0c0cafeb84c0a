//! The gate as a whole.

mod defaults;
mod drift;
mod extends;
mod faults;
mod foreign;
mod pretrain;
mod refusals;
mod resume;
mod round_trip;
mod study;

use std::path::Path;

use ist_peft::BuiltinAdapter;

use super::document::Document;
use super::{ConfigError, PretrainConfig, RunConfig};

/// The least a configuration must say.
const LEAST: &str = "model.path = 'builtin:tiny'\ndata.train = 'train.jsonl'\ntrain.steps = 10\n";

/// A configuration as if it stood in `/base/run.toml`.
fn read(text: &str) -> Result<RunConfig, ConfigError> {
    read_with(text, &[])
}

fn read_with(text: &str, overrides: &[&str]) -> Result<RunConfig, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let mut document = super::extends::parse(Path::new("run.toml"), "/base".into(), text)?;
    super::run::gate(&mut document, &overrides, super::method::reader::<BuiltinAdapter>);
    document.finish()
}

/// The same for `ist pretrain`.
fn read_pretrain(text: &str) -> Result<PretrainConfig, ConfigError> {
    let mut document = Document::parse(Path::new("pretrain.toml"), "/base".into(), text)?;
    super::pretrain::gate(&mut document, &[]);
    document.finish()
}

/// The least configuration with more keys behind it.
fn least_and(more: &str) -> Result<RunConfig, ConfigError> {
    read(&format!("{LEAST}{more}"))
}

/// The message of the faults that the least configuration gets with more keys behind it.
fn faults_of(more: &str) -> String {
    least_and(more).expect_err(more).to_string()
}
