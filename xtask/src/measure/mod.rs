//! `measure`: what the sources and the prose of a checkout look like, in figures.
//!
//! The figures are those by which this repository was compared with others, so that a change can be
//! held against them. `--check` makes some of them limits.

mod check;
mod comments;
mod files;
mod functions;
mod lexer;
mod markdown;
mod names;
mod prose;
mod rooms;
mod sources;
mod style;
mod summary;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use self::sources::Sources;
use crate::table::Table;

/// `xtask measure`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The checkout; without it, this repository
    path: Option<PathBuf>,
    /// Writes all figures, with every place, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder of the book's pages within the checkout
    #[arg(long, value_name = "DIR", default_value = "docs/src")]
    book: PathBuf,
    /// Exits with code 1 where a limit is broken, and lists what breaks it
    #[arg(long)]
    check: bool,
}

/// All figures of a checkout.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    files: files::Files,
    functions: functions::Functions,
    comments: comments::Comments,
    style: style::Style,
    names: names::Names,
    rooms: rooms::Rooms,
    prose: prose::Prose,
}

impl Report {
    /// Measures a checkout whose book stands in the folder `book`.
    fn of(root: &Path, book: &Path) -> Result<Self> {
        let sources = Sources::read(root)?;
        ensure!(!sources.files.is_empty(), "{}: no package with Rust sources", root.display());
        Ok(Self {
            files: files::measure(&sources),
            functions: functions::measure(&sources),
            comments: comments::measure(&sources),
            style: style::measure(&sources),
            names: names::measure(&sources),
            rooms: rooms::measure(&sources),
            prose: prose::measure(root, book, &sources)?,
        })
    }

    fn show(&self) -> String {
        let mut table = Table::default();
        self.files.show(&mut table);
        self.functions.show(&mut table);
        self.comments.show(&mut table);
        self.style.show(&mut table);
        self.names.show(&mut table);
        self.rooms.show(&mut table);
        self.prose.show(&mut table);
        table.finish()
    }
}

/// Measures and prints; `false` where `--check` found a broken limit.
///
/// # Errors
///
/// A checkout that cannot be read, and a file that cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let root = arguments.path.as_deref().unwrap_or(own);
    let report = Report::of(root, &arguments.book)?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if !arguments.check {
        crate::print(&report.show())?;
        return Ok(true);
    }
    let broken = check::broken_limits(&report);
    crate::print(&check::show(&broken))?;
    Ok(broken.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_can_be_measured() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let report = Report::of(root, Path::new("docs/src")).unwrap();
        assert!(report.files.unread.is_empty(), "{:?}", report.files.unread);
        assert!(report.files.code > 1000 && report.prose.readme_and_book.words > 1000);
        assert!(report.show().contains("Prose of doc comments"));
    }
}
