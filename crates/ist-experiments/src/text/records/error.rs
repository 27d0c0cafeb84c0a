//! What can be wrong with data, always with the file and the place in it.

use std::fmt;
use std::path::PathBuf;

use ist_files::untrusted::cut_message;

/// Where a record stands in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a JSON Lines file.
    Line(usize),
    /// An element of a JSON array, and the line on which it starts.
    Element {
        /// Which element.
        record: usize,
        /// The line of its first character.
        line: usize,
    },
    /// A row of a Parquet file.
    Row(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Element { record, line } => write!(f, "line {line} (record {record})"),
            Self::Row(record) => write!(f, "record {record}"),
        }
    }
}

/// A fault of a data file, of what was asked of it, or of a position in it. All of them are faults
/// of the input.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file as a whole is not usable.
    #[error("{}: {}", .path.display(), cut_message(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// One record is not usable.
    #[error("{}, {place}: {}", .path.display(), cut_message(problem))]
    Record {
        /// The file.
        path: PathBuf,
        /// Where the record stands.
        place: Place,
        /// What was found and what was expected.
        problem: String,
    },
    /// No record of the file has anything to predict.
    #[error(
        "{}: nothing to train on: none of its {records} records has a label to predict within \
         {cutoff} tokens; \
         raise data.cutoff, or give records whose labels are not all -100",
        .path.display()
    )]
    NothingToPredict {
        /// The file.
        path: PathBuf,
        /// How many records it holds.
        records: usize,
        /// The length to which records were cut.
        cutoff: usize,
    },
    /// The template's name or text is not usable.
    #[error("template: {}", cut_message(.0))]
    Template(String),
    /// More records are to be held out than can be spared.
    #[error(
        "data.validation_records = {asked}, but there are only {available} usable records and one \
         must remain for \
         training; ask for fewer"
    )]
    Split {
        /// The records asked for.
        asked: usize,
        /// The records there are.
        available: usize,
    },
    /// A saved position does not fit the data.
    #[error(
        "a saved position stands at record {offset} of an epoch of {length} records: the data has \
         changed"
    )]
    Position {
        /// The position's offset in its epoch.
        offset: usize,
        /// The records of an epoch.
        length: usize,
    },
}
