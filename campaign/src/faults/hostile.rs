//! The hostile files and arguments.

mod documents;
mod nodes;
mod numbers;
mod parquet_rows;
mod templates;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What a hostile file is.
#[derive(Debug)]
pub(super) enum Content {
    /// Those bytes.
    Bytes(Vec<u8>),
    /// A piece of text, again and again, between a beginning and an end.
    Repeated { begin: &'static str, piece: &'static str, count: usize, end: &'static str },
    /// A pipe that nobody writes to.
    Fifo,
    /// A folder.
    Folder,
    /// A link to itself.
    Loop,
    /// A device that gives zeros without an end; root alone can make one.
    Zeros,
    /// A Parquet file of that many equal rows.
    Rows(usize),
}

/// One hostile case.
#[derive(Debug)]
pub(super) struct Bomb {
    /// Its name in tables.
    pub(super) name: String,
    /// The inputs it needs beside.
    pub(super) needs: &'static [&'static str],
    /// Its files.
    pub(super) files: Vec<(String, Content)>,
    /// The command that meets them.
    pub(super) arguments: Vec<String>,
    /// Whether the command may do its work all the same.
    pub(super) may_be_taken: bool,
}

impl Bomb {
    /// A case in which one file is hostile.
    fn file(
        name: impl Into<String>,
        needs: &'static [&'static str],
        path: &str,
        content: Content,
        arguments: &[&str],
    ) -> Self {
        Self {
            name: name.into(),
            needs,
            files: vec![(path.to_owned(), content)],
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            may_be_taken: false,
        }
    }

    /// A case in which the text of one file is hostile.
    fn text(
        name: impl Into<String>,
        needs: &'static [&'static str],
        path: &str,
        text: impl Into<String>,
        arguments: &[&str],
    ) -> Self {
        Self::file(name, needs, path, Content::Bytes(text.into().into_bytes()), arguments)
    }

    /// The same, which may also work.
    fn or_taken(self) -> Self {
        Self { may_be_taken: true, ..self }
    }
}

/// All cases.
pub(super) fn all() -> Vec<Bomb> {
    let groups = [nodes::all(), documents::all(), templates::all(), numbers::all()];
    groups.into_iter().flatten().collect()
}

/// Puts the files of a case into a folder.
pub(super) fn lay(folder: &Path, bomb: &Bomb) -> Result<()> {
    for (name, content) in &bomb.files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if path.symlink_metadata().is_ok() {
            std::fs::remove_file(&path)?;
        }
        put(&path, content).with_context(|| name.clone())?;
    }
    Ok(())
}

fn put(path: &Path, content: &Content) -> Result<()> {
    match content {
        Content::Bytes(bytes) => std::fs::write(path, bytes)?,
        Content::Repeated { begin, piece, count, end } => {
            let text = [begin, piece.repeat(*count).as_str(), end].concat();
            std::fs::write(path, text)?;
        }
        Content::Fifo => make_node(path, &["p"])?,
        Content::Zeros => make_node(path, &["c", "1", "5"])?,
        Content::Folder => std::fs::create_dir(path)?,
        Content::Loop => std::os::unix::fs::symlink(path, path)?,
        Content::Rows(count) => parquet_rows::write(path, *count)?,
    }
    Ok(())
}

fn make_node(path: &Path, kind: &[&str]) -> Result<()> {
    let output = Command::new("mknod").arg(path).args(kind).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
