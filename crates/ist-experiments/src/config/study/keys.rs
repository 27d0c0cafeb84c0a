//! What `[sweep]` and `seeds` say, read and checked.

use toml::{Table, Value};

use super::super::document::{Document, is_within, join};
use super::super::words::found;
use super::super::{layer, overrides, paths, schema};
use super::{Chosen, dotted, leaves, name};

/// More seeds than anybody runs: a larger number is a slip.
const MOST_SEEDS: i64 = 100_000;

/// What a study varies.
#[derive(Default)]
pub(super) struct Sweep {
    cases: Vec<Case>,
    axes: Vec<Axis>,
    seeds: Option<Vec<i64>>,
}

/// `"KEY" = [VALUE, ..]`: one key and the values it takes.
pub(super) struct Axis {
    pub(super) path: Vec<String>,
    pub(super) key: String,
    values: Vec<Value>,
    /// The key under which the file has it.
    pub(super) place: String,
}

/// `[[sweep.cases]]`: several keys that change together, and a name for them.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) table: Table,
    /// Each key and where the file has it.
    pub(super) places: Vec<(String, String)>,
}

impl Sweep {
    /// Cases times values of every axis times seeds.
    pub(super) fn count(&self) -> usize {
        let axes = self.axes.iter().map(|axis| axis.values.len());
        let all = axes.chain([self.cases.len().max(1), self.seeds.as_ref().map_or(1, Vec::len)]);
        all.fold(1, usize::saturating_mul)
    }

    /// The keys that differ between members.
    pub(super) fn varied(&self) -> impl Iterator<Item = &str> {
        let cases =
            self.cases.iter().flat_map(|case| case.places.iter().map(|(key, _)| key.as_str()));
        let seed = self.seeds.iter().map(|_| "seed");
        self.axes.iter().map(|axis| axis.key.as_str()).chain(cases).chain(seed)
    }

    /// The member of that index: seeds change fastest, then the last axis.
    pub(super) fn at(&self, index: usize) -> Chosen<'_> {
        let mut rest = index;
        let mut digit = |base: usize| {
            let digit = rest % base;
            rest /= base;
            digit
        };
        let seed = self.seeds.as_ref().map(|seeds| seeds[digit(seeds.len())]);
        let mut positions: Vec<usize> =
            self.axes.iter().rev().map(|axis| digit(axis.values.len())).collect();
        positions.reverse();
        let values = self
            .axes
            .iter()
            .zip(&positions)
            .map(|(axis, &position)| (axis, &axis.values[position]))
            .collect();
        Chosen { case: self.cases.get(rest), values, positions, seed }
    }
}

/// Brings the quoted dotted keys of `[sweep]` to the tables that bare ones make, so that one
/// replaces the other where files are laid over each other.
pub(in super::super) fn spell_out(document: &mut Document) {
    let Some(Value::Table(sweep)) = document.table.get_mut("sweep") else { return };
    let mut sweep = std::mem::take(sweep);
    let dotted_keys: Vec<String> = sweep.keys().filter(|key| key.contains('.')).cloned().collect();
    for key in dotted_keys {
        let Some(path) = overrides::key(&key) else { continue };
        let value = sweep.remove(&key).expect("the key is one of the table's");
        let items = value.as_array().map_or(0, Vec::len);
        if !is_free(&sweep, &path) || overrides::insert(&mut sweep, &path, value.clone()).is_err() {
            // Given twice: both stay for the fault that says so.
            sweep.insert(key, value);
            continue;
        }
        let (quoted, bare) = (join("sweep", &key), format!("sweep.{}", dotted(&path)));
        (0..items).for_each(|item| {
            document.stands_at(format!("{bare}[{item}]"), &format!("{quoted}[{item}]"));
        });
        document.stands_at(bare, &quoted);
    }
    document.table.insert("sweep".to_owned(), Value::Table(sweep));
}

/// Whether nothing stands at a path of names, nor anything but tables on the way to it.
fn is_free(table: &Table, path: &[String]) -> bool {
    match (path.first().and_then(|name| table.get(name)), path.len()) {
        (None, _) => true,
        (Some(Value::Table(inner)), 2..) => is_free(inner, &path[1..]),
        _ => false,
    }
}

/// Takes `[sweep]` and `seeds` out of the document, noting their faults.
pub(super) fn take(document: &mut Document) -> Sweep {
    let seeds = document.table.remove("seeds").and_then(|value| seeds(&value, document));
    let mut sweep = Sweep { seeds, ..Sweep::default() };
    match document.table.remove("sweep") {
        None => {}
        Some(Value::Table(mut table)) => {
            if let Some(cases) = table.remove("cases") {
                sweep.cases = self::cases(&cases, document);
            }
            axes(table, &[], "sweep", document, &mut sweep.axes);
            sweep.axes.sort_by(|a, b| a.key.cmp(&b.key));
            if sweep.axes.is_empty() && sweep.cases.is_empty() && document.faults().is_empty() {
                document.fault(
                    "sweep",
                    "varies nothing; give keys with the lists of their values, or \
                                     `[[sweep.cases]]`",
                );
            }
        }
        Some(other) => document
            .fault("sweep", format!("must be a table of keys and lists, found {}", found(&other))),
    }
    apart(&sweep, document);
    sweep
}

/// The seeds of a list, or 0 to N - 1 of a count.
fn seeds(value: &Value, document: &mut Document) -> Option<Vec<i64>> {
    let expected = "must be a number of seeds of at least 1 or a non-empty list of distinct \
                    integers of at least 0";
    let list = match value {
        Value::Integer(count) if *count > MOST_SEEDS => {
            let message = format!("must be at most {MOST_SEEDS} seeds, found {count}");
            document.fault("seeds", message);
            return None;
        }
        Value::Integer(count) if *count >= 1 => return Some((0..*count).collect()),
        Value::Array(list) => list.iter().map(Value::as_integer).collect::<Option<Vec<i64>>>(),
        _ => None,
    };
    let distinct = |list: &Vec<i64>| {
        !list.is_empty()
            && list.iter().enumerate().all(|(at, seed)| *seed >= 0 && !list[..at].contains(seed))
    };
    let seeds = list.filter(distinct);
    if seeds.is_none() {
        document.fault("seeds", format!("{expected}, found {}", found(value)));
    }
    seeds
}

/// The keys of a table of lists. Quoted keys may be dotted, and so may bare ones, which TOML makes
/// tables of.
fn axes(
    table: Table,
    parent: &[String],
    place: &str,
    document: &mut Document,
    axes: &mut Vec<Axis>,
) {
    for (name, value) in table {
        let place = join(place, &name);
        let Some(path) = overrides::key(&name).map(|names| [parent, &names].concat()) else {
            document.fault(&place, "is not a dotted key");
            continue;
        };
        match value {
            Value::Table(inner) => self::axes(inner, &path, &place, document, axes),
            Value::Array(list) if list.is_empty() => {
                document.fault(&place, "lists no value, so there is no run");
            }
            Value::Array(mut values) => {
                let folder = document.folder.clone();
                for value in &mut values {
                    paths::resolve_at(&schema::RUN, &path, value, &folder);
                }
                axes.push(Axis { key: dotted(&path), path, values, place });
            }
            other => document.fault(
                &place,
                format!("must be the list of the key's values, found {}", found(&other)),
            ),
        }
    }
}

/// The cases of `[[sweep.cases]]`.
fn cases(value: &Value, document: &mut Document) -> Vec<Case> {
    let expected = "must be a non-empty list of tables, each with a `name` and the keys it sets";
    let tables: Option<Vec<Table>> = match value {
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(|case| case.as_table().cloned()).collect()
        }
        _ => None,
    };
    let Some(tables) = tables else {
        document.fault("sweep.cases", format!("{expected}, found {}", found(value)));
        return Vec::new();
    };
    let mut cases: Vec<Case> = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let place = format!("sweep.cases[{index}]");
        if let Some(case) = case(table, &place, document) {
            if cases.iter().any(|other| other.name.eq_ignore_ascii_case(&case.name)) {
                document.fault(
                    &join(&place, "name"),
                    format!("repeats \"{}\"; names of cases must differ", case.name),
                );
            }
            cases.push(case);
        }
    }
    cases
}

fn case(mut table: Table, place: &str, document: &mut Document) -> Option<Case> {
    let name = match table.remove("name") {
        Some(Value::String(name)) if name::is_plain(&name) => name,
        other => {
            let found = other.map_or("none".to_owned(), |value| found(&value));
            let message = format!(
                "must be of letters, digits and . _ + -, as it names folders; found {found}"
            );
            document.fault(&join(place, "name"), message);
            return None;
        }
    };
    let (mut whole, mut places) = (Table::new(), Vec::new());
    for (key, mut value) in table {
        let place = join(place, &key);
        let Some(path) = overrides::key(&key) else {
            document.fault(&place, "is not a dotted key");
            continue;
        };
        paths::resolve_at(&schema::RUN, &path, &mut value, &document.folder);
        let mut one = Table::new();
        overrides::insert(&mut one, &path, value).expect("the table is empty");
        let mut set = Vec::new();
        leaves(&one, &[], &mut set);
        places.extend(set.iter().map(|leaf| (dotted(leaf), place.clone())));
        layer::lay(&mut whole, one);
    }
    Some(Case { name, table: whole, places })
}

/// No key is given twice to one member, and none that says how files are read or expanded is
/// varied.
fn apart(sweep: &Sweep, document: &mut Document) {
    let axes: Vec<&Axis> = sweep.axes.iter().collect();
    for (at, axis) in axes.iter().enumerate() {
        if ["extends", "sweep", "seeds"].contains(&axis.path[0].as_str()) {
            document.fault(&axis.place, "cannot be varied");
        }
        let within = |key: &str| is_within(key, &axis.key) || is_within(&axis.key, key);
        let others = axes[..at].iter().map(|other| (other.key.as_str(), other.place.as_str()));
        let of_cases = sweep
            .cases
            .iter()
            .flat_map(|case| &case.places)
            .map(|(key, place)| (key.as_str(), place.as_str()));
        let seeds = sweep.seeds.iter().map(|_| ("seed", "seeds"));
        if let Some((_, place)) = others.chain(of_cases).chain(seeds).find(|(key, _)| within(key)) {
            document
                .fault(&axis.place, format!("is given by `{place}` too; leave one of them out"));
        }
    }
    let seed = |case: &&Case| case.places.iter().any(|(key, _)| key == "seed");
    if let (Some(case), true) = (sweep.cases.iter().find(seed), sweep.seeds.is_some()) {
        document.fault(
            "seeds",
            format!("is given by the case \"{}\" too, as `seed`; leave one of them out", case.name),
        );
    }
}
