//! `manifest.json`: the members of a study and what each runs, so that every process and machine runs the same.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ist_core::untrusted::json;
use ist_peft::Adapter;
use serde::{Deserialize, Serialize};

use crate::config::{self, Member, RunConfig, Study};
use crate::failure::{Failure, OrFail};
use crate::run::lines;

/// The file in a study's folder.
pub const FILE: &str = "manifest.json";
/// How the file is laid out.
const FORMAT: u32 = 1;
/// Members whose differences are listed.
const LISTED: usize = 10;

/// A study as its folder knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The study's name.
    pub study: String,
    /// The file it came from.
    pub file: PathBuf,
    /// SHA-256 of the file and those it extends, as it was last run.
    pub sha256: String,
    /// Its members, in the order they were first seen.
    pub members: Vec<Entry>,
}

/// A member as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name, and the name of its folder.
    pub name: String,
    /// Its configuration as TOML, every default written out.
    pub configuration: String,
}

impl Entry {
    fn new(member: &Member) -> Self {
        Self { name: member.name.clone(), configuration: member.config.to_toml() }
    }

    /// The configuration through the gate, with the methods of `A`.
    pub fn config<A: Adapter>(
        &self,
        folder: &Path,
        needs_files: bool,
    ) -> Result<RunConfig, Failure> {
        let path = folder.join(format!("{FILE} ({})", self.name));
        config::parse_with::<A>(&path, &self.configuration, needs_files).or_input()
    }

    /// The steps it was configured with, where it says steps and not epochs.
    pub fn steps(&self) -> Option<u64> {
        let table: toml::Table = self.configuration.parse().ok()?;
        table.get("train")?.get("steps")?.as_integer().and_then(|steps| u64::try_from(steps).ok())
    }
}

/// The manifest of a study's folder; `None` where there is none.
pub fn read(folder: &Path) -> Result<Option<Manifest>, Failure> {
    let path = folder.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::input(format!("{}: cannot be read: {error}", path.display())));
        }
    };
    let manifest: Manifest = json::from_slice(&bytes)
        .map_err(|error| anyhow::Error::msg(json::told(&error)))
        .with_context(|| format!("{}: is no manifest of a study", path.display()))
        .or_input()?;
    if manifest.format != FORMAT {
        let message = format!(
            "{}: has format {}, this version reads {FORMAT}",
            path.display(),
            manifest.format
        );
        return Err(Failure::input(message));
    }
    Ok(Some(manifest))
}

/// Fails when a member that the manifest has would now run something else.
pub fn agree<A: Adapter>(folder: &Path, manifest: &Manifest, study: &Study) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for member in &study.members {
        let Some(entry) = manifest.members.iter().find(|entry| entry.name == member.name) else {
            continue;
        };
        if *entry != Entry::new(member) {
            let differences =
                config::differences(&entry.config::<A>(folder, false)?, &member.config);
            faults.extend(
                (!differences.is_empty())
                    .then(|| format!("{}: {}", member.name, differences.join("; "))),
            );
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(LISTED);
    let more = if more > 0 { format!("\n  and {more} more members") } else { String::new() };
    faults.truncate(LISTED);
    Err(Failure::input(format!(
        "{} changed since {} was made:\n  {}{more}\nnew members may be added; for other changes rename the file, or name another \
         folder with --output",
        study.file.display(),
        folder.join(FILE).display(),
        faults.join("\n  ")
    )))
}

/// Puts the study's members into the manifest of its folder, beside those that are there.
pub fn register<A: Adapter>(folder: &Path, study: &Study) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot create", folder.display()))
        .or_run()?;
    // Two that start at once add one after the other. Where files cannot be locked the loop below sees what was lost.
    let lock = File::create(folder.join(".manifest.lock")).ok();
    let _held = lock.as_ref().map(File::lock);
    loop {
        let found = read(folder)?;
        if let Some(manifest) = &found {
            agree::<A>(folder, manifest, study)?;
        }
        let merged = merge(found.as_ref(), study);
        if found.as_ref() == Some(&merged) {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&merged).or_run()?;
        lines::replace(&folder.join(FILE), &text).or_run()?;
    }
}

fn merge(found: Option<&Manifest>, study: &Study) -> Manifest {
    let mut members = found.map(|manifest| manifest.members.clone()).unwrap_or_default();
    let known: std::collections::HashSet<String> =
        members.iter().map(|entry| entry.name.clone()).collect();
    members.extend(
        study.members.iter().filter(|member| !known.contains(&member.name)).map(Entry::new),
    );
    let (name, file, sha256) = (study.name.clone(), study.file.clone(), study.digest.clone());
    Manifest { format: FORMAT, study: name, file, sha256, members }
}
