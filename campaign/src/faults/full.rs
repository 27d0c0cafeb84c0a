//! A disk that is full: a small file system in memory with room for a part of what a command
//! writes, and then for all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::scenario::Reference;
use super::tally::{Tally, Try};
use super::workbench::copy;
use super::{Campaign, Kind};
use crate::dice::Dice;
use crate::process::End;

/// Room that every command has enough of.
const ALL: usize = 256 << 20;
/// Pages of memory, in which such a file system counts.
const PAGE: usize = 4096;

/// A mounted file system, which is gone when this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={ALL}"), "ist-campaign"])
            .arg(folder)
            .output()?;
        ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr).trim());
        Ok(Self(folder.to_owned()))
    }

    /// Changes its size.
    fn resize(&self, bytes: usize) -> Result<()> {
        let size = format!("remount,size={bytes}");
        let status = Command::new("mount").args(["-o", &size]).arg(&self.0).output()?;
        ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr).trim());
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing can be done about one that stays.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Fills the disk at random places.
pub(super) fn run(campaign: &Campaign) -> Result<Tally> {
    let probe = campaign.bench.folder("mounted", &[])?;
    if let Err(error) = Mount::new(&probe) {
        let why = format!("no file system can be mounted here (root can): {error:#}");
        return Ok(Tally::skipped(Kind::Full.name(), why));
    }
    let references = campaign.references()?;
    campaign.tries(Kind::Full, |number, name| {
        let reference = &references[number as usize % references.len()];
        let mut dice = Dice::new(campaign.arguments.seed, "full", number);
        attempt(campaign, reference, &mut dice, &name.to_string_lossy()).map(Some)
    })
}

fn attempt(campaign: &Campaign, reference: &Reference, dice: &mut Dice, name: &str) -> Result<Try> {
    let Reference { scenario, right, .. } = reference;
    let kept = campaign.bench.folder(name, &[])?;
    let mounted = Mount::new(&kept.with_extension("mount"))?;
    let folder = mounted.0.clone();
    campaign.bench.fill(&folder, scenario.needs)?;
    let written = right.values().map(|bytes| pages(bytes.len())).sum::<usize>() + 8;
    let room = PAGE * (used(&folder)? + dice.below(written));
    mounted.resize(room.max(PAGE))?;
    let outcome = scenario.first(campaign.bench, &folder).run()?;
    mounted.resize(ALL)?;
    let mut faults = Vec::new();
    let result = match (outcome.fault(), outcome.end) {
        (Some(fault), _) => {
            faults.push((fault, outcome.shown()));
            "fault"
        }
        (None, End::Code(0)) => {
            faults = scenario.compare(&folder, right)?;
            "had room"
        }
        (None, _) => {
            if !outcome.stderr.contains("No space left on device") {
                faults.push(("no reason", outcome.shown()));
            }
            faults.extend(scenario.finish(campaign.bench, &folder, right)?);
            "refused, then done"
        }
    };
    if !faults.is_empty() {
        copy(&folder, &kept)?;
    }
    drop(mounted);
    std::fs::remove_dir(&folder)?;
    let case = scenario.name.to_owned();
    Ok(Try { case, count: 1, outcome: result.to_owned(), faults, folder: kept })
}

fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE).max(1)
}

/// Pages that the files below a folder take.
fn used(folder: &Path) -> Result<usize> {
    let mut sum = 1;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        sum += if path.is_dir() { used(&path)? } else { pages(path.metadata()?.len() as usize) };
    }
    Ok(sum)
}
