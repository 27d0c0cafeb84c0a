//! Configurations as lists of values by dotted key: what differs between runs.
//!
//! A run's `config.toml` has every default written out, so it is compared as it stands; keys of
//! other versions, of methods from outside and of data that has moved are no obstacle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use ist_files::regular;
use serde_json::Value;

use crate::failure::{Failure, OrFail};

/// Every value by its dotted key; a list is one value.
pub type Flat = BTreeMap<String, Value>;

/// Tables and keys that do not bear on what a run computes.
const ASIDE: [&str; 6] = [
    "logging",
    "seed",
    "train.save_every",
    "train.keep_last",
    "train.sample_prompts",
    "train.sample_tokens",
];
/// How often a run is evaluated bears on it only where it may stop early.
const EVALUATION: &str = "train.eval_every";
const EARLY_STOPPING: &str = "train.early_stopping";
/// Keys that hold a file or a folder.
const PATHS: [&str; 6] = [
    "model.path",
    "data.train",
    "data.validation",
    "eval.data",
    "policy.path",
    "adapter.init_from",
];

/// Reads a configuration.
pub(super) fn read(path: &Path) -> Result<Flat, Failure> {
    let context = || path.display().to_string();
    let text = regular::read_to_string(path).with_context(context).or_input()?;
    let table: toml::Table = toml::from_str(&text).with_context(context).or_input()?;
    let mut flat = Flat::new();
    flatten("", &serde_json::to_value(table).with_context(context).or_input()?, &mut flat);
    Ok(flat)
}

fn flatten(key: &str, value: &Value, flat: &mut Flat) {
    let Value::Object(table) = value else {
        flat.insert(key.to_owned(), value.clone());
        return;
    };
    for (name, value) in table {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        flatten(&key, value, flat);
    }
}

/// The configuration as far as it bears on what runs of different seeds and places compute: without
/// the seed and what only shows or saves, and of a file or folder its name alone.
pub(super) fn without_seed_and_places(flat: &Flat) -> Flat {
    let stops_early = flat.get(EARLY_STOPPING).is_some_and(|patience| !patience.is_null());
    let aside = |key: &str| {
        let table = key.split('.').next().unwrap_or(key);
        ASIDE.contains(&key) || ASIDE.contains(&table) || (key == EVALUATION && !stops_early)
    };
    let common = flat.iter().filter(|(key, _)| !aside(key));
    common
        .map(|(key, value)| {
            (
                key.clone(),
                if PATHS.contains(&key.as_str()) { name_of(value) } else { value.clone() },
            )
        })
        .collect()
}

/// The last part of a path; a model's name (`builtin:x`, `org/name@revision`) as a whole. Of a
/// list, of each of its paths.
fn name_of(value: &Value) -> Value {
    if let Some(list) = value.as_array() {
        return list.iter().map(name_of).collect();
    }
    if let Some(table) = value.as_object() {
        return table.iter().map(|(key, value)| (key.clone(), name_of(value))).collect();
    }
    match value.as_str() {
        Some(text) if Path::new(text).is_absolute() => {
            Path::new(text).file_name().map_or(value.clone(), |name| name.to_string_lossy().into())
        }
        _ => value.clone(),
    }
}

/// The keys whose values are not the same in all of `configurations`, in order.
pub(super) fn differing(configurations: &[&Flat]) -> Vec<String> {
    let keys: BTreeSet<&String> = configurations.iter().flat_map(|flat| flat.keys()).collect();
    let differs = |key: &&String| {
        configurations.iter().any(|flat| flat.get(*key) != configurations[0].get(*key))
    };
    keys.into_iter().filter(differs).cloned().collect()
}

/// A value as a person reads it; `-` where there is none.
pub(super) fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn flat(text: &str) -> Flat {
        let mut flat = Flat::new();
        flatten(
            "",
            &serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap(),
            &mut flat,
        );
        flat
    }

    #[test]
    fn seeds_and_places_are_no_difference() {
        let one = flat(
            "seed = 1\ndata.train = '/a/train.jsonl'\nmodel.path = 'builtin:village'\n\
             logging.tensorboard = true",
        );
        let other = flat("seed = 2\ndata.train = '/b/train.jsonl'\nmodel.path = 'builtin:village'");
        assert_eq!(without_seed_and_places(&one), without_seed_and_places(&other));
        let another = flat("data.train = '/b/other.jsonl'\nmodel.path = 'builtin:village'");
        assert_ne!(without_seed_and_places(&one), without_seed_and_places(&another));
    }

    #[test]
    fn keys_that_only_show_or_save_are_no_difference() {
        let one = flat(
            "train.eval_every = 5\ntrain.save_every = 10\ntrain.keep_last = 1\n\
             train.sample_prompts = ['a']\n\
             train.sample_tokens = 4",
        );
        let other = flat("train.eval_every = 7");
        assert_eq!(without_seed_and_places(&one), without_seed_and_places(&other));
        let early =
            |every: u64| flat(&format!("train.eval_every = {every}\ntrain.early_stopping = 2"));
        assert_ne!(without_seed_and_places(&early(5)), without_seed_and_places(&early(7)));
    }

    #[test]
    fn only_keys_that_differ_are_told() {
        let (one, other) = (flat("a.x = 1\na.y = [1]\nb = 1"), flat("a.x = 1.0\na.y = [1]"));
        assert_eq!(differing(&[&one, &other]), ["a.x", "b"]);
        assert!(differing(&[&one, &one]).is_empty());
        assert_eq!(
            (shown(other.get("b")), shown(one.get("a.y"))),
            ("-".to_owned(), "[1]".to_owned())
        );
    }
}
