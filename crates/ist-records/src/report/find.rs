//! The runs among the folders that were named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::failure::{Failure, OrFail};
use crate::record::{checkpoints, plan};

/// What a run's folder holds beside `config.toml`, whatever became of it; committed records may
/// lack the checkpoints.
const SIGNS: [&str; 4] = ["metrics.jsonl", "result.json", plan::FILE, checkpoints::FOLDER];

/// The folders of runs, in the order they were named and by path within a named folder, and what to
/// say of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) folders: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
    seen: BTreeSet<PathBuf>,
}

/// Finds the runs in `named`: run folders, and folders with run folders somewhere in them.
pub(super) fn runs(named: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    for path in named {
        let shown = path.display();
        if !path.is_dir() {
            let what = if path.exists() { "is no folder" } else { "does not exist" };
            return Err(Failure::input(format!(
                "{shown} {what}; name folders of runs, or folders that hold some"
            )));
        }
        let (before, noted) = (found.folders.len(), found.notes.len());
        collect(path, &mut found)?;
        if (before, noted) == (found.folders.len(), found.notes.len()) {
            let signs = SIGNS.join(", ");
            return Err(Failure::input(format!(
                "{shown} holds no run: no folder in it has a config.toml and one of {signs}"
            )));
        }
    }
    Ok(found)
}

fn collect(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    let context = || format!("{}: cannot read", folder.display());
    let place = folder.canonicalize().with_context(context).or_input()?;
    let is_run = holds_run(folder);
    if !found.seen.insert(place) {
        if is_run {
            found
                .notes
                .push(format!("{} was named more than once; it counts once", folder.display()));
        }
        return Ok(());
    }
    if is_run {
        found.folders.push(folder.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).with_context(context).or_input()?;
    let hidden = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    };
    let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    inside.retain(|path| path.is_dir() && !hidden(path));
    inside.sort();
    inside.iter().try_for_each(|path| collect(path, found))
}

/// Whether the folder is a run's.
pub fn holds_run(folder: &Path) -> bool {
    folder.join("config.toml").is_file() && SIGNS.iter().any(|sign| folder.join(sign).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(folder: &Path) {
        std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
        std::fs::write(folder.join("config.toml"), "").unwrap();
    }

    #[test]
    fn runs_are_found_at_any_depth_and_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b/run", "a/deep/run", ".hidden/run"] {
            run(&path(name));
        }
        std::fs::write(path("a/config.toml"), "").unwrap();
        let found = runs(&[folder.path().to_owned(), path("a/deep/../deep/run")]).unwrap();
        assert_eq!(found.folders, [path("a/deep/run"), path("b/run")]);
        assert!(
            found.notes.len() == 1 && found.notes[0].contains("more than once"),
            "{:?}",
            found.notes
        );
    }

    #[test]
    fn a_folder_without_a_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            runs(&[folder.path().to_owned()]).unwrap_err().to_string().contains("holds no run")
        );
        let missing = runs(&[folder.path().join("none")]).unwrap_err();
        assert!(missing.exit_code() == 2 && missing.to_string().contains("does not exist"));
    }
}
