//! Hostile files and arguments: each must be refused, in time, within a bound on memory, with exit
//! code 2.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::hostile::{self, Bomb};
use super::tally::{Tally, Try};
use super::{Campaign, Kind};
use crate::dice::shuffled;
use crate::process::{End, Outcome};

/// Time that is enough to refuse anything.
const TIME: Duration = Duration::from_secs(20);
/// Address space, beyond which an allocation fails.
const ADDRESS_SPACE: u64 = 3 << 30;
/// Resident bytes that are enough to refuse anything.
const RESIDENT: u64 = 1 << 30;

/// Runs every bomb once.
pub(super) fn run(campaign: &Campaign) -> Result<Tally> {
    let bombs = hostile::all();
    let order = shuffled(bombs.len(), campaign.arguments.seed, "bombs");
    campaign.tries(Kind::Bombs, |number, name| {
        let Some(at) = order.get(number as usize) else { return Ok(None) };
        explode(campaign, &bombs[*at], &name.to_string_lossy()).map(Some)
    })
}

fn explode(campaign: &Campaign, bomb: &Bomb, name: &str) -> Result<Try> {
    let folder = campaign.bench.folder(name, bomb.needs)?;
    let case = bomb.name.clone();
    if let Err(why) = hostile::lay(&folder, bomb) {
        let outcome = format!("cannot be laid here: {why:#}");
        return Ok(Try { case, count: 1, outcome, faults: Vec::new(), folder });
    }
    let arguments = bomb.arguments.as_slice();
    let job = campaign.bench.job(arguments, &folder).within(TIME).with_address_space(ADDRESS_SPACE);
    let outcome = job.run()?;
    let faults = judge(bomb, &outcome);
    let command = |(kind, what)| (kind, format!("{}: {what}", job.shown()));
    let faults = faults.into_iter().map(command).collect();
    let word = match outcome.end {
        End::Code(0) => "taken",
        End::Code(1) => "failed",
        End::Code(_) => "refused",
        _ => "died",
    };
    remove_devices(&folder)?;
    Ok(Try { case, count: 1, outcome: word.to_owned(), faults, folder })
}

fn judge(bomb: &Bomb, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    match outcome.end {
        _ if outcome.fault().is_some() => {
            faults.extend(outcome.fault().map(|fault| (fault, outcome.shown())));
        }
        End::Code(2) => {}
        // What may work may also fail while it works, as a step with a vast learning rate does.
        End::Code(0 | 1) if bomb.may_be_taken => {}
        End::Code(0) => faults.push(("taken", outcome.shown())),
        _ => faults.push(("exit code", outcome.shown())),
    }
    if outcome.peak_bytes > RESIDENT {
        let mebibytes = outcome.peak_bytes >> 20;
        faults.push(("memory", format!("{mebibytes} MiB: {}", outcome.shown())));
    }
    if outcome.stderr.contains('\u{1b}') {
        faults.push(("control codes", outcome.shown()));
    }
    faults
}

/// A kept folder must not hold files without an end.
fn remove_devices(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        if kind.is_dir() {
            remove_devices(&path)?;
        } else if !kind.is_file() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
