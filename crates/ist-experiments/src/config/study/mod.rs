//! One file, several runs: `[sweep]` and `seeds`.
//!
//! A run of a sweep, a member, is the file with a few keys laid over it. Every member goes through
//! the gate that a single run goes through, before anything is executed, so a sweep that would stop
//! at its last member does not begin.

mod keys;
mod name;
mod schema;

use std::path::{Path, PathBuf};

use ist_peft::Adapter;
use toml::{Table, Value};

use super::document::{Document, is_within, join};
use super::faults::{ConfigError, Fault};
use super::run::{RunConfig, files, settle};
use super::{extends, layer, method, overrides, schema as run_schema};
pub(super) use keys::spell_out;
use keys::{Axis, Case, Sweep};
pub(super) use schema::add_to as add_to_schema;

/// The keys that make several runs of one file.
const KEYS: [&str; 2] = ["sweep", "seeds"];

/// A file whose members are counted but not made yet.
pub struct Expansion {
    document: Document,
    sweep: Sweep,
    digest: String,
}

/// The checked members of one file.
#[derive(Clone, Debug)]
pub struct Study {
    /// The file's name without its ending.
    pub name: String,
    /// The file, absolute.
    pub file: PathBuf,
    /// SHA-256 of the file and those it extends.
    pub digest: String,
    /// The runs, in order; no two have the same name.
    pub members: Vec<Member>,
}

/// One run of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// What tells it from the others, such as `policy.kind=ist,seed=1`; it can name a folder.
    pub name: String,
    /// What it runs.
    pub config: RunConfig,
}

/// Reads what a file sweeps over. A file without `[sweep]` and `seeds` has one member, that of its
/// seed.
///
/// # Errors
///
/// A file that cannot be read; else all faults of `[sweep]`, `seeds` and the command line at once.
pub fn study(path: &Path, overrides: &[String]) -> Result<Expansion, ConfigError> {
    let extends::Chain { mut document, digest } = extends::read(path)?;
    overrides::apply(&mut document, &run_schema::RUN, overrides);
    not_set(&mut document);
    let sweep = keys::take(&mut document);
    not_swept_and_set(&sweep, &mut document);
    if document.faults().is_empty() {
        return Ok(Expansion { document, sweep, digest });
    }
    Err(ConfigError::invalid(path.to_owned(), document.faults().to_vec()))
}

/// Refuses the keys that make several runs of a file, for a command that takes a single one.
pub(super) fn refuse(document: &mut Document) {
    not_set(document);
    for key in KEYS {
        if document.table.remove(key).is_some() {
            document.fault(key, "makes this file several runs; `ist run FILE` executes them");
        }
    }
}

/// `extends` says how a file is read; by the time of the command line that is over.
fn not_set(document: &mut Document) {
    if document.table.remove(extends::KEY).is_some() {
        document.fault(extends::KEY, "stands in a file; it cannot be set");
    }
}

/// A key that both the sweep and the command line give would have to ignore one of them.
fn not_swept_and_set(sweep: &Sweep, document: &mut Document) {
    let varied: Vec<String> = sweep.varied().map(str::to_owned).collect();
    let set: Vec<String> = document.overridden().map(str::to_owned).collect();
    for key in set.iter().filter(|set| varied.iter().any(|key| is_within(set, key))) {
        document.override_fault(
            key,
            "is what the sweep varies; set another key, or replace the list under `sweep`",
        );
    }
}

impl Expansion {
    /// How many runs there are.
    pub fn count(&self) -> usize {
        self.sweep.count()
    }

    /// All members, each through the gate with the methods of `A`. With `needs_files` what they
    /// name must be there.
    ///
    /// # Errors
    ///
    /// All faults of all members at once, each with the members that have it.
    pub fn members<A: Adapter>(self, needs_files: bool) -> Result<Study, ConfigError> {
        let path = self.document.path().to_owned();
        let (mut members, mut faults) = (Vec::new(), Vec::new());
        for index in 0..self.count() {
            let (name, mut document) = self.member(index);
            settle(&mut document, method::reader::<A>);
            if needs_files {
                files(&mut document);
            }
            match document.finish::<RunConfig>() {
                Ok(config) => members.push(Member { name, config }),
                Err(error) => {
                    error.faults().iter().for_each(|fault| note(&mut faults, fault, &name));
                }
            }
        }
        name::check(&members, &mut faults);
        let count = self.count();
        // What all have in common is the file's own.
        faults
            .iter_mut()
            .filter(|fault| fault.members.len() == count)
            .for_each(|fault| fault.members.clear());
        if !faults.is_empty() {
            return Err(ConfigError::invalid(path, faults));
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("study").to_owned();
        let file = std::path::absolute(&path).unwrap_or(path);
        Ok(Study { name, file, digest: self.digest, members })
    }

    /// The name of a member and its document, not yet checked.
    fn member(&self, index: usize) -> (String, Document) {
        let mut document = self.document.clone();
        let chosen = self.sweep.at(index);
        let mut table = chosen.case.map(|case| case.table.clone()).unwrap_or_default();
        for (axis, value) in &chosen.values {
            let put = overrides::insert(&mut table, &axis.path, (*value).clone());
            put.expect("two swept keys of which one stands in the other were refused");
        }
        if let Some(seed) = chosen.seed {
            table.insert("seed".to_owned(), Value::Integer(seed));
        }
        // A list of adapters is no table that a key could be laid over.
        let several = document.table.get("adapter").is_some_and(Value::is_array);
        if several && table.get("adapter").is_some_and(Value::is_table) {
            document.fault(
                "adapter",
                "is a list of several adapters, of which a sweep cannot vary one; sweep over whole \
                 lists",
            );
        } else {
            layer::lay(&mut document.table, table);
        }
        chosen.places().for_each(|(key, place)| document.stands_at(key, &place));
        let seed = document.get("seed").cloned().unwrap_or(Value::Integer(0));
        (name::of(&chosen, &seed), document)
    }
}

/// Notes a member's fault, once for all members that have the same.
fn note(faults: &mut Vec<Fault>, fault: &Fault, member: &str) {
    let same = |noted: &&mut Fault| {
        (&noted.key, &noted.message, noted.place, &noted.file)
            == (&fault.key, &fault.message, fault.place, &fault.file)
    };
    match faults.iter_mut().find(same) {
        Some(noted) => noted.members.push(member.to_owned()),
        None => faults.push(Fault { members: vec![member.to_owned()], ..fault.clone() }),
    }
}

/// The dotted key of a path of names.
fn dotted(path: &[String]) -> String {
    path.iter().fold(String::new(), |parent, name| join(&parent, name))
}

/// What one member takes of the sweep.
struct Chosen<'a> {
    case: Option<&'a Case>,
    values: Vec<(&'a Axis, &'a Value)>,
    positions: Vec<usize>,
    seed: Option<i64>,
}

impl Chosen<'_> {
    /// Each key it sets, and the key under which the file gives the value.
    fn places(&self) -> impl Iterator<Item = (String, String)> {
        let case = self.case.into_iter().flat_map(|case| case.places.iter().cloned());
        let axes = self.values.iter().zip(&self.positions);
        let axes = axes
            .map(|((axis, _), position)| (axis.key.clone(), format!("{}[{position}]", axis.place)));
        let seed = self.seed.map(|_| ("seed".to_owned(), "seeds".to_owned()));
        case.chain(axes).chain(seed)
    }
}

/// The leaves of a table by their paths.
fn leaves(table: &Table, parent: &[String], found: &mut Vec<Vec<String>>) {
    for (name, value) in table {
        let path = [parent, std::slice::from_ref(name)].concat();
        match value {
            Value::Table(inner) if !inner.is_empty() => leaves(inner, &path, found),
            _ => found.push(path),
        }
    }
}
