//! Names of members: what a person reads in a list, and what their folders are called.

use std::collections::HashMap;

use toml::Value;

use super::super::faults::{Fault, Place};
use super::{Chosen, Member};

/// Bytes of the longest name: file systems take 255, and logs and claims add an ending.
const LONGEST: usize = 200;

/// The case, `KEY=VALUE` of every axis, and the seed.
pub(super) fn of(chosen: &Chosen, seed: &Value) -> String {
    let case = chosen.case.map(|case| case.name.clone());
    let axes = chosen
        .values
        .iter()
        .map(|(axis, value)| format!("{}={}", safe(&axis.key), value_of(value)));
    let has_seed = chosen.values.iter().any(|(axis, _)| axis.key == "seed");
    let seed = (!has_seed).then(|| format!("seed={}", value_of(seed)));
    case.into_iter().chain(axes).chain(seed).collect::<Vec<_>>().join(",")
}

/// Whether a text can stand in a folder's name as it is.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(plain)
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
}

/// The text with every other character as a `-`.
fn safe(text: &str) -> String {
    text.chars().map(|c| if plain(c) { c } else { '-' }).collect()
}

/// A value in a few plain characters: a list's items are joined by `+`, a table's keys and values
/// by `-`.
fn value_of(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text),
        Value::Array(list) => list.iter().map(value_of).collect::<Vec<_>>().join("+"),
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| format!("{}-{}", safe(key), value_of(value)))
            .collect::<Vec<_>>()
            .join("+"),
        other => safe(&other.to_string()),
    }
}

/// Notes names that are too long and names that two members share, also where only the case of
/// letters differs.
pub(super) fn check(members: &[Member], faults: &mut Vec<Fault>) {
    let advice = "name the values with [[sweep.cases]]";
    let mut seen: HashMap<String, &str> = HashMap::new();
    for Member { name, .. } in members {
        if name.len() > LONGEST {
            let message = format!(
                "makes the name {name} of {} bytes, more than {LONGEST}; {advice}",
                name.len()
            );
            faults.push(Fault::new("sweep", message, Place::File));
        }
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), name) {
            let message = format!("gives two runs the name {other}; leave one out, or {advice}");
            faults.push(Fault::new("sweep", message, Place::File));
        }
    }
}
