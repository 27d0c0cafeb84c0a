//! Runs of one configuration, whatever their seeds and places.

use std::collections::BTreeMap;

use serde_json::Value;

use super::configuration::{self, Flat};
use super::record::RunRecord;
use crate::failure::Failure;

/// The runs of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What tells it from the other groups.
    pub name: String,
    /// Its runs, as places in the list of all runs.
    pub runs: Vec<usize>,
}

/// What a run is, but for its seed: configuration, and digests of data and model where they are
/// known.
struct Identity {
    configuration: Flat,
    digests: [Value; 3],
}

impl Identity {
    fn of(run: &RunRecord) -> Self {
        let (data, model) = (&run.result["data"], &run.result["model"]);
        let digests = [&data["train"]["sha256"], &data["validation"]["sha256"], &model["sha256"]]
            .map(Value::clone);
        Self { configuration: configuration::without_seed_and_places(&run.configuration), digests }
    }

    fn agrees(&self, other: &Self) -> bool {
        let unknown_or_same =
            |(one, other): (&Value, &Value)| one.is_null() || other.is_null() || one == other;
        self.configuration == other.configuration
            && self.digests.iter().zip(&other.digests).all(unknown_or_same)
    }
}

/// The groups in the order of their first runs.
pub(super) fn group(runs: &[RunRecord]) -> Vec<Group> {
    let identities: Vec<Identity> = runs.iter().map(Identity::of).collect();
    let mut groups: Vec<Group> = Vec::new();
    for (index, identity) in identities.iter().enumerate() {
        let same =
            |group: &&mut Group| group.runs.iter().all(|run| identities[*run].agrees(identity));
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(index),
            None => groups.push(Group { name: String::new(), runs: vec![index] }),
        }
    }
    let flats: Vec<&Flat> =
        groups.iter().map(|group| &identities[group.runs[0]].configuration).collect();
    let names = names(&flats);
    groups.iter_mut().zip(names).for_each(|(group, name)| group.name = name);
    groups
}

/// The key that decides which other keys a table has.
const TAGS: [(&str, &str); 2] = [("policy.", "policy.kind"), ("adapter.", "adapter.method")];

/// A name for each configuration: its policy where that differs, and every other key that differs.
fn names(flats: &[&Flat]) -> Vec<String> {
    let differing = configuration::differing(flats);
    // Keys of two variants of a table differ as a matter of course; they tell something where they
    // differ in one variant.
    let telling = |key: &&String| {
        let Some((_, tag)) = TAGS.iter().find(|(table, tag)| key.starts_with(table) && key != tag)
        else {
            return true;
        };
        flats.iter().any(|one| {
            flats
                .iter()
                .any(|other| one.get(*tag) == other.get(*tag) && one.get(*key) != other.get(*key))
        })
    };
    let telling: Vec<&String> = differing.iter().filter(telling).collect();
    let of = |flat: &&Flat| {
        let value = |key: &&&String| flat.get(**key).map(|value| word(key, value));
        let mut words: Vec<String> =
            telling.iter().filter(|key| value_first(key)).filter_map(|key| value(&key)).collect();
        words.extend(telling.iter().filter(|key| !value_first(key)).filter_map(|key| value(&key)));
        if words.is_empty() {
            configuration::shown(flat.get("policy.kind"))
        } else {
            words.join(" ")
        }
    };
    unique(flats.iter().map(of).collect())
}

/// Keys whose value alone says it.
fn value_first(key: &str) -> bool {
    TAGS.iter().any(|(_, tag)| key == *tag)
}

/// A value's longest spelling in a name.
const LONGEST: usize = 24;

fn word(key: &str, value: &Value) -> String {
    let mut value = configuration::shown(Some(value));
    if value.chars().count() > LONGEST {
        value = value.chars().take(LONGEST - 1).chain(['…']).collect();
    }
    let short = key.rsplit('.').next().unwrap_or(key);
    if TAGS.iter().any(|(_, tag)| *tag == key) { value } else { format!("{short}={value}") }
}

/// The names, with a number behind one that stands before it already.
pub(super) fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let number = |name: String| {
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 { format!("{name} ({count})") } else { name }
    };
    names.into_iter().map(number).collect()
}

/// The group that others are compared with: the one of that name, else the one that trains all
/// layers, else the first.
pub(super) fn baseline(
    groups: &[Group],
    runs: &[RunRecord],
    named: Option<&str>,
) -> Result<usize, Failure> {
    let place = |wanted: &dyn Fn(&Group) -> bool| groups.iter().position(wanted);
    match named {
        Some(name) => place(&|group| group.name == name).ok_or_else(|| {
            let known: Vec<String> =
                groups.iter().map(|group| format!("\"{}\"", group.name)).collect();
            Failure::input(format!(
                "--baseline \"{name}\" is none of the groups, which are {}",
                known.join(", ")
            ))
        }),
        None => {
            Ok(place(&|group| runs[group.runs[0]].setting("policy.kind") == "all").unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::configuration::tests::flat;
    use super::*;

    fn names_of(texts: &[&str]) -> Vec<String> {
        let flats: Vec<Flat> = texts.iter().map(|text| flat(text)).collect();
        names(&flats.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_group_is_called_after_what_differs() {
        let policies = ["policy.kind = 'ist'\npolicy.interval = 10", "policy.kind = 'all'"];
        assert_eq!(names_of(&policies), ["ist", "all"]);
        let rates = [
            "policy.kind = 'ist'\noptimizer.lr = 1e-3",
            "policy.kind = 'ist'\noptimizer.lr = 2e-3",
        ];
        assert_eq!(names_of(&rates), ["lr=0.001", "lr=0.002"]);
        let both = [
            "policy.kind = 'ist'\npolicy.interval = 10",
            "policy.kind = 'ist'\npolicy.interval = 5",
            "policy.kind = 'all'",
        ];
        assert_eq!(names_of(&both), ["ist interval=10", "ist interval=5", "all"]);
        assert_eq!(names_of(&["policy.kind = 'rst'"]), ["rst"]);
        assert_eq!(names_of(&["a = 1", "a = 1"]), ["-", "- (2)"]);
    }

    #[test]
    fn a_long_value_is_cut() {
        let [one, _] =
            &names_of(&["a.template = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'", "a.template = 'b'"])
                [..]
        else {
            panic!("two names")
        };
        assert_eq!(one, "template=aaaaaaaaaaaaaaaaaaaaaaa…");
    }
}
