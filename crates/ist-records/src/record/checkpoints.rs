//! The folder of checkpoints in a run's folder: which there are, and which go.
//!
//! What is inside a checkpoint is the business of whoever trains.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ist_files::durable;

/// The folder of checkpoints in a run's folder.
pub const FOLDER: &str = "checkpoints";
/// How the folders of earlier versions began that a killed process left behind.
const OLD_PARTIAL: &str = ".partial-";

/// Removes what a process that was killed while writing a checkpoint left behind.
pub fn remove_partial(folder: &Path) -> Result<()> {
    let context = || folder.display().to_string();
    durable::sweep(folder).with_context(context)?;
    for entry in std::fs::read_dir(folder).with_context(context)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(OLD_PARTIAL) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Removes all but the newest `keep` checkpoints: those that a save has made needless, also one
/// that was killed before it came to that.
pub fn remove_oldest(folder: &Path, keep: usize) -> Result<()> {
    for old in list(folder)?.iter().rev().skip(keep) {
        let old = folder.join(old.to_string());
        durable::remove_folder(&old)
            .with_context(|| format!("{}: cannot remove", old.display()))?;
    }
    Ok(())
}

/// The newest checkpoint of fewer than `steps` steps.
pub fn newest_before(folder: &Path, steps: usize) -> Result<Option<PathBuf>> {
    let newest = list(folder)?.into_iter().rfind(|&done| done < steps);
    Ok(newest.map(|done| folder.join(done.to_string())))
}

/// Renames broken checkpoints, over those that were set aside before, and says so.
pub fn set_aside(folder: &Path, broken: &[(usize, String)]) -> Result<Vec<String>> {
    let rename = |(steps, reason): &(usize, String)| {
        let target = folder.join(format!("broken-{steps}"));
        let context = || target.display().to_string();
        if target.exists() {
            durable::remove_folder(&target).with_context(context)?;
        }
        let broken = folder.join(steps.to_string());
        durable::rename(&broken, &target).with_context(context)?;
        Ok(format!("checkpoint {steps} is broken and set aside: {reason}"))
    };
    broken.iter().map(rename).collect()
}

/// The whole checkpoints by number of steps, ascending.
pub fn list(folder: &Path) -> Result<Vec<usize>> {
    let context = || folder.display().to_string();
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        steps.extend(name.to_str().and_then(|name| name.parse::<usize>().ok()));
    }
    steps.sort_unstable();
    Ok(steps)
}
