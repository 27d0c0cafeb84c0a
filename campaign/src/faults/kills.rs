//! Kills at random moments: a command is killed and started again until it is done.

use std::time::Duration;

use anyhow::Result;

use super::scenario::{self, Reference, Scenario};
use super::tally::{Tally, Try};
use super::{Campaign, Kind};
use crate::dice::Dice;
use crate::process::{End, Kill};

/// The commands, in the order in which they take turns: half of the kills hit training.
const TURNS: [&Scenario; 14] = [
    &scenario::TRAIN,
    &scenario::RUN,
    &scenario::TRAIN,
    &scenario::EVAL,
    &scenario::TRAIN,
    &scenario::MERGE,
    &scenario::TRAIN,
    &scenario::GGUF,
    &scenario::TRAIN,
    &scenario::PEFT,
    &scenario::TRAIN,
    &scenario::REPORT,
    &scenario::TRAIN,
    &scenario::PRETRAIN,
];
/// Kills after which a command is left alone.
const KILLS: u64 = 12;
/// How much later than its end a kill may be aimed.
const BEYOND: f64 = 1.1;

/// Runs the kills.
pub(super) fn run(campaign: &Campaign) -> Result<Tally> {
    let references = campaign.references()?;
    campaign.tries(Kind::Kills, |number, name| {
        let turn = TURNS[number as usize % TURNS.len()];
        let reference = references.iter().find(|reference| reference.scenario.name == turn.name);
        let Some(reference) = reference else { return Ok(None) };
        let mut dice = Dice::new(campaign.arguments.seed, "kills", number);
        chain(campaign, reference, &mut dice, &name.to_string_lossy()).map(Some)
    })
}

/// Kills a command and starts it again until it is done.
fn chain(campaign: &Campaign, reference: &Reference, dice: &mut Dice, name: &str) -> Result<Try> {
    let Reference { scenario, right, took } = reference;
    let folder = scenario.folder(campaign.bench, name)?;
    let mut kills = 0;
    let mut faults = Vec::new();
    let mut job = Some(scenario.first(campaign.bench, &folder));
    while let Some(next) = job.take() {
        if kills == KILLS {
            faults = scenario.finish(campaign.bench, &folder, right)?;
            break;
        }
        let moment = moment(dice, *took);
        let kill = if scenario.has_children && dice.one_in(2) {
            Kill::Alone(moment)
        } else {
            Kill::WithChildren(moment)
        };
        let outcome = next.killed(kill).run()?;
        if outcome.end != End::Signal(KILLED) {
            let fault = outcome.fault();
            if outcome.end != End::Code(0) || fault.is_some() {
                faults.push((fault.unwrap_or("not restarted"), outcome.shown()));
            } else {
                faults = scenario.compare(&folder, right)?;
            }
            break;
        }
        kills += 1;
        job = scenario.again(campaign.bench, &folder);
        if job.is_none() {
            faults = scenario.compare(&folder, right)?;
        }
    }
    let outcome = format!("done after {}", if kills == 0 { "no kill" } else { "kills" });
    Ok(Try { case: scenario.name.to_owned(), count: kills, outcome, faults, folder })
}

/// SIGKILL.
const KILLED: i32 = 9;

fn moment(dice: &mut Dice, took: Duration) -> Duration {
    took.mul_f64(dice.share() * BEYOND)
}
