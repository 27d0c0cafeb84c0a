//! Memory that does not grow from step to step.

use ist_core::burn::tensor::Device;

use super::training::Endless;
use super::{Check, Found, Outcome};
use crate::memory;

/// Bytes a step may add: what a log or a map takes when it grows.
const PER_STEP: f64 = 512.0;

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    vec![Check::new("growth", "bytes of the host that 200 steps of IST add, a step", PER_STEP, host)]
}

/// Counted by the process's allocator; nothing where it does not count.
fn host(device: &Device) -> Found {
    if memory::live() == 0 {
        return Ok(Outcome::Skipped("this program's allocator does not count".to_owned()));
    }
    // Pools, caches and compiled kernels are filled by then.
    let warm = Endless::begin(device)?.steps(100)?;
    let before = memory::live();
    let after = warm.steps(200)?;
    let grown = memory::live().saturating_sub(before);
    Ok(Outcome::Distance(if after.layers() > 0 { grown as f64 / 200.0 } else { 0.0 }))
}
