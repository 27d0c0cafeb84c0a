//! How two configurations differ: what decides whether a run may be resumed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::join;
use super::run::RunConfig;

/// One key whose values differ.
struct Difference {
    key: String,
    old: Option<Value>,
    new: Option<Value>,
}

impl Difference {
    fn line(&self) -> String {
        let words =
            |value: &Option<Value>| value.as_ref().map_or("absent".to_owned(), Value::to_string);
        format!("`{}` was {}, is {}", self.key, words(&self.old), words(&self.new))
    }

    /// Whether a resumed run may differ in it: it makes the run longer, or does not bear on what it
    /// computes.
    fn may_differ(&self, new: &RunConfig) -> bool {
        match self.key.as_str() {
            "train.save_every" => true,
            // A run that may stop early looks for it at its evaluations.
            "train.eval_every" => new.train.early_stopping.is_none(),
            _ => self.grows(),
        }
    }

    /// Whether it only makes the run longer.
    fn grows(&self) -> bool {
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
        ["train.steps", "train.epochs"].contains(&self.key.as_str())
            && number(&self.old).zip(number(&self.new)).is_some_and(|(old, new)| new > old)
    }
}

/// The dotted keys in which two configurations differ, each with both values.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<String> {
    compare(old, new).iter().map(Difference::line).collect()
}

/// The differences that forbid to continue a run of configuration `old` under `new`: all but a run
/// that grows in `train.steps` or `train.epochs`, and another `train.save_every` or
/// `train.eval_every`. (`train.micro_batch` is not among these: sums over other batches are rounded
/// otherwise.)
pub fn resume_faults(old: &RunConfig, new: &RunConfig) -> Vec<String> {
    compare(old, new)
        .iter()
        .filter(|difference| !difference.may_differ(new))
        .map(Difference::line)
        .collect()
}

fn compare(old: &RunConfig, new: &RunConfig) -> Vec<Difference> {
    let (mut old, mut new) = (flat(old), flat(new));
    let keys: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    let mut differences: Vec<Difference> = Vec::new();
    for key in keys {
        let (old, new) = (old.remove(&key), new.remove(&key));
        if old != new {
            differences.push(Difference { key, old, new });
        }
    }
    differences
}

/// Every value by its dotted key; a list is one value.
fn flat(config: &RunConfig) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let whole = serde_json::to_value(config)
        .expect("a checked configuration holds numbers, strings, lists and tables");
    flatten("", whole, &mut values);
    values
}

fn flatten(key: &str, value: Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            table.into_iter().for_each(|(name, value)| flatten(&join(key, &name), value, values));
        }
        value => drop(values.insert(key.to_owned(), value)),
    }
}
