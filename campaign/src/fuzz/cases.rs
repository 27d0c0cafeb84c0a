//! The cases of a target: small folders, of which each execution mutates a file or two.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Arguments;
use super::mutate::mutate;
use super::targets::Target;
use crate::dice::{Dice, fnv};

/// The files of a case, by their paths in its folder.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// All cases of a target.
#[derive(Debug)]
pub(crate) struct Cases {
    purpose: String,
    names: Vec<String>,
    all: Vec<Files>,
}

/// One execution's input.
#[derive(Debug)]
pub(crate) struct Input {
    /// Which case it came from.
    pub(crate) case: usize,
    /// Which of its files were changed, and to what.
    pub(crate) changed: Files,
}

impl Cases {
    /// Reads the cases of a target.
    pub(crate) fn open(corpus: &Path, target: &Target) -> Result<Self> {
        let folder = corpus.join(target.corpus);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        folders.sort();
        let mut all = Vec::new();
        let mut names = Vec::new();
        for folder in folders {
            let mut files = Files::new();
            read(&folder, "", &mut files)?;
            files.sort();
            ensure!(!files.is_empty(), "{}: an empty case", folder.display());
            names.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
            all.push(files);
        }
        ensure!(!all.is_empty(), "{}: no case", folder.display());
        Ok(Self { purpose: target.name.to_owned(), names, all })
    }

    /// The cases as they are, with their names.
    pub(crate) fn whole(&self) -> impl Iterator<Item = (&str, &Files)> {
        self.names.iter().map(String::as_str).zip(&self.all)
    }

    /// The files of a case.
    pub(crate) fn files(&self, case: usize) -> &Files {
        &self.all[case]
    }

    /// The input of an execution.
    pub(crate) fn input(&self, seed: u64, number: u64) -> Input {
        let mut dice = Dice::new(seed, &self.purpose, number);
        let case = dice.below(self.all.len());
        let files = &self.all[case];
        let mut changed = Files::new();
        for _ in 0..if dice.one_in(8) { 2 } else { 1 } {
            let (name, bytes) = dice.pick(files);
            if changed.iter().any(|(other, _)| other == name) {
                continue;
            }
            // Pieces come from files of the same name.
            let others: Vec<&[u8]> = self
                .all
                .iter()
                .filter_map(|files| files.iter().find(|(other, _)| other == name))
                .map(|(_, bytes)| bytes.as_slice())
                .collect();
            changed.push((name.clone(), mutate(name, bytes, &others, &mut dice)));
        }
        Input { case, changed }
    }

    /// Keeps the input of an execution as a folder that may become a case; the folder.
    pub(crate) fn keep(
        &self,
        arguments: &Arguments,
        target: &Target,
        number: u64,
    ) -> Result<PathBuf> {
        self.keep_in(&arguments.found, target, arguments.seed, number)
    }

    /// As [`Cases::keep`], with all it needs by itself.
    pub(crate) fn keep_in(
        &self,
        found: &Path,
        target: &Target,
        seed: u64,
        number: u64,
    ) -> Result<PathBuf> {
        let input = self.input(seed, number);
        let mut files = self.files(input.case).clone();
        for (name, bytes) in input.changed {
            if let Some(file) = files.iter_mut().find(|(other, _)| *other == name) {
                file.1 = bytes;
            }
        }
        let all: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let folder = found.join(target.corpus).join(format!("found-{:016x}", fnv(&all)));
        write(&folder, &files)?;
        Ok(folder)
    }
}

fn read(folder: &Path, inside: &str, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = format!("{inside}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, fs::read(entry.path())?));
        }
    }
    Ok(())
}

/// Writes files into a folder.
pub(crate) fn write(folder: &Path, files: &Files) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in files {
        let path = folder.join(name);
        if name.contains('/')
            && let Some(parent) = path.parent()
        {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
