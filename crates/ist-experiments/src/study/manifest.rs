//! `manifest.json`: the members of a study and what each runs, so that every process and machine
//! runs the same.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ist_files::untrusted::json;
use ist_files::{FileName, durable, regular};
use ist_peft::Adapter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{self, Member, RunConfig, Study};
use ist_records::record::folder::open_lock;
use ist_records::record::{digests, lines};
use ist_records::{Failure, OrFail};

/// The file in a study's folder.
pub const FILE: &str = "manifest.json";
/// The file that is locked while the manifest is changed.
const LOCK: &str = ".manifest.lock";

/// How the file is laid out.
const FORMAT: u32 = 1;
/// Members whose differences are listed.
const LISTED: usize = 10;

/// A study as its folder knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The study's name.
    pub study: FileName,
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
    pub name: FileName,
    /// Its configuration as TOML, every default written out.
    pub configuration: String,
    /// SHA-256 of the configuration; `None` in manifests of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Entry {
    fn new(member: &Member) -> Result<Self, Failure> {
        let name = FileName::try_from(member.name.clone()).or_input()?;
        let configuration = member.config.to_toml();
        let sha256 = Some(digest(&configuration));
        Ok(Self { name, configuration, sha256 })
    }

    /// Whether the configuration is the one that was written.
    fn is_whole(&self) -> bool {
        self.sha256.as_ref().is_none_or(|sha256| *sha256 == digest(&self.configuration))
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

fn digest(configuration: &str) -> String {
    digests::hex(Sha256::new_with_prefix(configuration))
}

/// The manifest of a study's folder; `None` where there is none.
pub fn read(folder: &Path) -> Result<Option<Manifest>, Failure> {
    let path = folder.join(FILE);
    let bytes = match regular::read(&path) {
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
    if let Some(entry) = manifest.members.iter().find(|entry| !entry.is_whole()) {
        return Err(Failure::input(format!(
            "{}: the configuration of {} was changed since it was written; restore the file, or \
             run the study's file \
             with another --output",
            path.display(),
            entry.name
        )));
    }
    Ok(Some(manifest))
}

/// Fails when a member that the manifest has would now run something else.
pub fn agree<A: Adapter>(folder: &Path, manifest: &Manifest, study: &Study) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for member in &study.members {
        let Some(entry) = manifest.members.iter().find(|entry| entry.name.as_str() == member.name)
        else {
            continue;
        };
        if *entry != Entry::new(member)? {
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
        "{} changed since {} was made:\n  {}{more}\n\
         new members may be added; for other changes rename the file, or name another \
         folder with --output",
        study.file.display(),
        folder.join(FILE).display(),
        faults.join("\n  ")
    )))
}

/// Puts the study's members into the manifest of its folder, beside those that are there.
pub fn register<A: Adapter>(folder: &Path, study: &Study) -> Result<(), Failure> {
    durable::create_folder(folder)
        .with_context(|| format!("{}: cannot create", folder.display()))
        .or_run()?;
    // Two that start at once add one after the other. Where files cannot be locked the loop below
    // sees what was lost.
    let lock = open_lock(&folder.join(LOCK))?;
    let _ = lock.lock();
    durable::sweep(folder).with_context(|| folder.display().to_string()).or_run()?;
    loop {
        let found = read(folder)?;
        if let Some(manifest) = &found {
            agree::<A>(folder, manifest, study)?;
        }
        let merged = merge(found.as_ref(), study)?;
        if found.as_ref() == Some(&merged) {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&merged).or_run()?;
        lines::replace(&folder.join(FILE), &text).or_run()?;
    }
}

fn merge(found: Option<&Manifest>, study: &Study) -> Result<Manifest, Failure> {
    let mut members = found.map(|manifest| manifest.members.clone()).unwrap_or_default();
    let known: HashSet<String> =
        members.iter().map(|entry| entry.name.as_str().to_owned()).collect();
    for member in study.members.iter().filter(|member| !known.contains(&member.name)) {
        members.push(Entry::new(member)?);
    }
    Ok(Manifest {
        format: FORMAT,
        study: FileName::try_from(study.name.clone()).or_input()?,
        file: study.file.clone(),
        sha256: study.digest.clone(),
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, configuration: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let members = serde_json::json!([{
            "name": name,
            "configuration": configuration,
            "sha256": digest("seed = 1"),
        }]);
        let manifest = serde_json::json!({
            "format": FORMAT, "study": "s", "file": "s.toml", "sha256": "", "members": members,
        });
        std::fs::write(folder.path().join(FILE), manifest.to_string()).unwrap();
        folder
    }

    #[test]
    fn a_member_that_would_be_written_elsewhere_is_refused() {
        for name in ["../../x", "/tmp/x", "a/b", ".."] {
            let failure = read(written(name, "seed = 1").path()).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains("not a plain file name"), "{failure}");
        }
        assert!(read(written("seed=1", "seed = 1").path()).is_ok());
    }

    #[test]
    fn a_changed_configuration_is_refused_by_its_member() {
        let failure = read(written("seed=1", "seed = 3").path()).unwrap_err().to_string();
        assert!(failure.contains("the configuration of seed=1 was changed"), "{failure}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("the user's");
        std::fs::write(&target, "text").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(LOCK)).unwrap();
        let failure = open_lock(&folder.path().join(LOCK)).unwrap_err();
        assert!(failure.to_string().contains("symbolic link"), "{failure}");
        assert_eq!(std::fs::read(&target).unwrap(), b"text");
    }
}
