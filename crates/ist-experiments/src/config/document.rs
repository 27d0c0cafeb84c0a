//! A configuration file as a TOML table that knows its lines and collects its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeTable, DeValue};
use toml::{Table, Value};

use super::faults::{ConfigError, Fault, Place};
use super::layer;

/// A table on its way through the gate.
#[derive(Clone)]
pub(super) struct Document {
    /// The values as they stand, overrides applied.
    pub(super) table: Table,
    /// The folder that relative paths are relative to, absolute.
    pub(super) folder: PathBuf,
    path: PathBuf,
    spots: BTreeMap<String, Spot>,
    overridden: BTreeSet<String>,
    faults: Vec<Fault>,
}

/// Where a value stands.
#[derive(Clone)]
struct Spot {
    /// A file that the configuration extends; `None` is the configuration itself.
    file: Option<Arc<Path>>,
    /// Counted from 1.
    line: usize,
}

impl Document {
    /// The file's content.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML; then its first syntax errors are listed.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let absolute = std::path::absolute(path).map_err(failed)?;
        let folder = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
        Self::parse(path, folder, &text)
    }

    /// The content `text` of the file `path`.
    pub(super) fn parse(path: &Path, folder: PathBuf, text: &str) -> Result<Self, ConfigError> {
        let (spanned, errors) = DeTable::parse_recoverable(text);
        let starts = LineStarts::of(text);
        let invalid = |errors: Vec<toml::de::Error>| {
            ConfigError::invalid(path.to_owned(), syntax_faults(&errors, &starts))
        };
        if !errors.is_empty() {
            return Err(invalid(errors));
        }
        let deserializer = toml::Deserializer::parse(text).map_err(|error| invalid(vec![error]))?;
        let table = Table::deserialize(deserializer).map_err(|error| invalid(vec![error]))?;
        let mut lines = BTreeMap::new();
        table_lines(spanned.get_ref(), &starts, "", &mut lines);
        let spots = lines.into_iter().map(|(key, line)| (key, Spot { file: None, line })).collect();
        let overridden = BTreeSet::new();
        let mut document =
            Self { table, folder, path: path.to_owned(), spots, overridden, faults: Vec::new() };
        if document.folder.to_str().is_none() {
            let folder = document.folder.display();
            let message = format!(
                "the folder {folder} has a name that is not UTF-8, which TOML cannot hold; rename \
                 it"
            );
            document.faults.push(Fault::new("", message, Place::File));
        }
        Ok(document)
    }

    /// The file, as it was named.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lays this document over the one it extends: its keys win, and what is told of the others
    /// names their file.
    pub(super) fn lay_over(&mut self, base: Self) {
        let file: Arc<Path> = base.path.into();
        let mut table = base.table;
        layer::lay(&mut table, std::mem::take(&mut self.table));
        self.table = table;
        for (key, spot) in base.spots {
            let there =
                Spot { file: spot.file.or_else(|| Some(Arc::clone(&file))), line: spot.line };
            self.spots.entry(key).or_insert(there);
        }
        let mark =
            |fault: Fault| Fault { file: fault.file.or_else(|| Some(file.to_path_buf())), ..fault };
        self.faults.extend(base.faults.into_iter().map(mark));
    }

    /// Lets faults of the value at a dotted key be told of the place of another key.
    pub(super) fn stands_at(&mut self, key: String, of: &str) {
        if self.overridden.contains(of) {
            self.overridden.insert(key);
        } else if let Some(spot) = self.spots.get(of).cloned() {
            self.spots.insert(key, spot);
        }
    }

    /// The keys that the command line sets.
    pub(super) fn overridden(&self) -> impl Iterator<Item = &str> {
        self.overridden.iter().map(String::as_str)
    }

    /// The faults so far.
    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Notes a fault of the value at a dotted key.
    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        let (place, file) = self.place(key);
        self.faults.push(Fault { file, ..Fault::new(key, message, place) });
    }

    /// Notes a fault of the command line.
    pub(super) fn override_fault(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(key, message, Place::Override));
    }

    /// Notes that the value at a dotted key comes from the command line.
    pub(super) fn mark_overridden(&mut self, key: String) {
        self.overridden.insert(key);
    }

    /// Whether the value at a dotted key, or one inside it, is faulty.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| is_within(&fault.key, key))
    }

    /// The value at a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut names = key.split('.');
        let first = self.table.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_table()?.get(name))
    }

    /// The integer at a dotted key, when there is one and it is not negative.
    pub(super) fn count(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_integer).and_then(|count| u64::try_from(count).ok())
    }

    /// Gives `key` of a section that is there a value when it has none: one that a type's own
    /// default cannot express.
    pub(super) fn default_to(&mut self, section: &str, key: &str, value: Option<Value>) {
        if let (Some(Value::Table(section)), Some(value)) = (self.table.get_mut(section), value) {
            section.entry(key.to_owned()).or_insert(value);
        }
    }

    /// The checked value, or all the faults.
    pub(super) fn finish<T: DeserializeOwned>(mut self) -> Result<T, ConfigError> {
        if self.faults.is_empty() {
            match T::deserialize(Value::Table(self.table)) {
                Ok(value) => return Ok(value),
                // The schema has passed all of it, so this is a gap of the schema; it is told
                // rather than hidden.
                Err(error) => {
                    self.faults.push(Fault::new("", error.message(), Place::File));
                }
            }
        }
        Err(ConfigError::invalid(self.path, self.faults))
    }

    /// The line of the key, or of the nearest table around it that a file has, and that file.
    fn place(&self, key: &str) -> (Place, Option<PathBuf>) {
        let mut key = key;
        loop {
            if self.overridden.contains(key) {
                return (Place::Override, None);
            }
            if let Some(spot) = self.spots.get(key) {
                return (Place::Line(spot.line), spot.file.as_deref().map(Path::to_path_buf));
            }
            if self.overridden.iter().any(|set| is_within(set, key)) {
                return (Place::Override, None);
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return (Place::File, None),
            }
        }
    }
}

/// Whether a dotted key is `table` or stands in it.
pub(super) fn is_within(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The dotted key of `name` inside `parent`, quoted where TOML needs it.
pub(super) fn join(parent: &str, name: &str) -> String {
    let bare =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if parent.is_empty() { name } else { format!("{parent}.{name}") }
}

/// Syntax errors that are listed. A file that is no TOML at all has one a line.
const SYNTAX_ERRORS: usize = 50;

fn syntax_faults(errors: &[toml::de::Error], starts: &LineStarts) -> Vec<Fault> {
    let listed = errors.iter().take(SYNTAX_ERRORS);
    let mut faults: Vec<Fault> = listed.map(|error| syntax(error, starts)).collect();
    let more = errors.len().saturating_sub(SYNTAX_ERRORS);
    if more > 0 {
        let message = format!("not valid TOML: there are {more} more such errors");
        faults.push(Fault::new("", message, Place::File));
    }
    faults
}

fn syntax(error: &toml::de::Error, starts: &LineStarts) -> Fault {
    let place = error.span().map_or(Place::File, |span| Place::Line(starts.line_of(span.start)));
    let message = error.message().trim().replace('\n', "; ");
    Fault::new("", format!("not valid TOML: {message}"), place)
}

/// Where the lines of a text begin. To count them anew for every key would take the square of a
/// large file's time.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        let behind = |(at, byte)| (byte == b'\n').then_some(at + 1);
        Self(text.bytes().enumerate().filter_map(behind).collect())
    }

    /// The line, counted from 1, of a byte.
    fn line_of(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|start| *start <= offset)
    }
}

fn table_lines(
    table: &DeTable,
    starts: &LineStarts,
    parent: &str,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let key = join(parent, name.get_ref());
        lines.insert(key.clone(), starts.line_of(name.span().start));
        value_lines(value.get_ref(), starts, &key, lines);
    }
}

fn list_lines(
    list: &DeArray,
    starts: &LineStarts,
    parent: &str,
    lines: &mut BTreeMap<String, usize>,
) {
    for (index, value) in list.iter().enumerate() {
        let key = format!("{parent}[{index}]");
        lines.insert(key.clone(), starts.line_of(value.span().start));
        value_lines(value.get_ref(), starts, &key, lines);
    }
}

fn value_lines(
    value: &DeValue,
    starts: &LineStarts,
    key: &str,
    lines: &mut BTreeMap<String, usize>,
) {
    match value {
        DeValue::Table(table) => table_lines(table, starts, key, lines),
        DeValue::Array(list) => list_lines(list, starts, key, lines),
        _ => {}
    }
}
