//! A budget that cannot be met is refused before the run, with what would fit.

use ist_core::LayerSet;
use ist_core::step::Memory;

use super::{Planner, draws, halve_until};
use crate::config::Budget;
use crate::failure::Failure;
use crate::memory::human;

/// Fails when even the leanest treatment of the worst draw takes more than the run may.
pub(super) fn check(planner: &Planner) -> Result<(), Failure> {
    let Some([_, most]) = planner.limit else { return Ok(()) };
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
        "`memory.budget` {given}, but a step that trains layers {:?} on {rows} records of {sequence} tokens needs {} at \
         least, {resident} of it for weights, adapters, optimizer, data and workspace; {}",
        worst.as_slice(),
        bytes(least),
        advice(planner, &worst, most),
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
