//! Faults of a configuration: collected, placed, and told all at once.
//!
//! Whoever edits a file wants the whole list, so nothing here stops at the first fault.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ist_files::untrusted::{cut, cut_message};

/// Where a faulty value comes from. The order is the one in which faults are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// The file as a whole: something is missing from it.
    File,
    /// A `--set KEY=VALUE` of the command line.
    Override,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, such as `policy.interval`; empty when the fault has none, as a syntax error.
    pub key: String,
    /// What was found, what was expected, what to do; it reads on from the key.
    pub message: String,
    /// Where the value stands.
    pub place: Place,
    /// The file of that line, where it is one that the configuration extends.
    pub file: Option<PathBuf>,
    /// The runs of a sweep that have it; empty when it is the file's own.
    pub members: Vec<String>,
}

impl Fault {
    /// A fault of the configuration itself.
    pub(super) fn new(key: &str, message: impl Into<String>, place: Place) -> Self {
        Self {
            key: cut(key).into_owned(),
            message: cut_message(&message.into()).into_owned(),
            place,
            file: None,
            members: Vec::new(),
        }
    }

    fn line(&self, path: &Path) -> String {
        let path = self.file.as_deref().unwrap_or(path);
        let mut text = match self.place {
            Place::Line(line) => format!("{}:{line}: ", path.display()),
            Place::File => format!("{}: ", path.display()),
            Place::Override => "--set: ".to_owned(),
        };
        if !self.key.is_empty() {
            let _ = write!(text, "`{}` ", self.key);
        }
        text + &self.message + &self.in_members()
    }

    /// The runs it is a fault of, the first few by name.
    fn in_members(&self) -> String {
        let named = self.members.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        match self.members.len() {
            0 => String::new(),
            count if count <= NAMED => format!(" (in {named})"),
            count => format!(" (in {named}; and {} more runs)", count - NAMED),
        }
    }
}

/// Runs of a sweep that a fault names.
const NAMED: usize = 3;

/// Why a configuration is not usable. Always a fault of the input.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: the configuration cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Its content is not usable; every fault is listed, one a line.
    #[error("{}", faults.iter().map(|fault| fault.line(path)).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The faults, in the order of the file's lines.
        faults: Vec<Fault>,
    },
}

impl ConfigError {
    /// Faults in the order they are told: those of the file by line, then those of the files it
    /// extends.
    pub(super) fn invalid(path: PathBuf, mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
        // The command line's come last, as they always did.
        faults.sort_by_key(|fault| fault.place == Place::Override);
        Self::Invalid { path, faults }
    }

    /// The faults of the content; none when the file could not be read.
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { faults, .. } => faults,
        }
    }
}
