//! A budget that cannot be met is refused before the run, with what would fit.

use ist_core::LayerSet;
use ist_core::step::Memory;

use super::{Planner, draws, halve_until};
use crate::config::Budget;
use ist_records::Failure;
use ist_records::terminal::human;

/// Fails when even the leanest treatment of the worst draw takes more than the run may.
pub(super) fn check(planner: &Planner) -> Result<(), Failure> {
    let Some([_, most]) = planner.limit else { return within_machine(planner) };
    let worst = draws::worst(planner, Memory::Budget(0))?;
    let (rows, sequence) = planner.micro_batch();
    let least = planner.least(&worst, rows, sequence);
    if least <= most {
        return Ok(());
    }
    let given = match planner.config.memory.budget {
        Budget::Auto => format!("is \"auto\" and the device has {} free", bytes(most)),
        _ => format!("is {}", bytes(most)),
    };
    let resident = bytes(planner.fixed.total());
    Err(Failure::input(format!(
        "`memory.budget` {given}, but a step that trains layers {:?} on {rows} records of \
         {sequence} tokens needs {} at \
         least, {resident} of it for weights, adapters, optimizer, data and workspace; {}",
        worst.as_slice(),
        bytes(least),
        advice(planner, &worst, most),
    )))
}

/// Without a budget a run takes what it takes, but no more than the machine has.
fn within_machine(planner: &Planner) -> Result<(), Failure> {
    let Some(most) = planner.machine else { return Ok(()) };
    let memory = planner.memory();
    let worst = draws::worst(planner, memory)?;
    let peak = planner.estimate(&worst, memory).peak;
    if peak <= most {
        return Ok(());
    }
    let (rows, sequence) = planner.micro_batch();
    let name = if memory == Memory::Keep { "keep" } else { "recompute" };
    Err(Failure::input(format!(
        "`memory.budget` is \"{name}\", but a step that trains layers {:?} on {rows} records of \
         {sequence} tokens needs \
         {}, and the device has {} in all; leave the budget to \"auto\", or lower \
         `train.micro_batch`, `data.cutoff` or \
         the adapter's size",
        worst.as_slice(),
        bytes(peak),
        bytes(most),
    )))
}

fn bytes(count: u64) -> String {
    human(usize::try_from(count).unwrap_or(usize::MAX))
}

/// What would bring the run under the limit.
fn advice(planner: &Planner, worst: &LayerSet, most: u64) -> String {
    let (rows, sequence) = planner.micro_batch();
    let fits = |rows, sequence| planner.least(worst, rows, sequence) <= most;
    let mut ways = vec![format!("raise it to {}", bytes(planner.least(worst, rows, sequence)))];
    let fewer = halve_until(rows, |rows| fits(rows, sequence));
    let shorter = halve_until(sequence, |sequence| sequence < 2 || fits(rows, sequence));
    let need = |rows, sequence| bytes(planner.least(worst, rows, sequence));
    if fits(fewer, sequence) {
        ways.push(format!(
            "lower `train.micro_batch` to {fewer} (needs {})",
            need(fewer, sequence)
        ));
    }
    if shorter > 1 && fits(rows, shorter) {
        ways.push(format!("lower `data.cutoff` to {shorter} (needs {})", need(rows, shorter)));
    }
    let last = ways.pop().unwrap_or_default();
    if ways.is_empty() { last } else { format!("{} or {last}", ways.join(", ")) }
}
