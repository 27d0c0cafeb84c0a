//! Memory that does not grow from step to step.

use ist_core::burn::tensor::Device;

use super::training::Run;
use super::{Check, Found, Numbers, Outcome};
use crate::memory;

/// Bytes a step may add: what a log or a map takes when it grows.
const PER_STEP: f64 = 512.0;
/// Windows of that many steps: what leaks does so in every one, what fills up once does not.
const WINDOWS: [usize; 4] = [100, 100, 100, 100];

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    vec![Check::new("growth", "bytes of the host that a step of IST adds", PER_STEP, host)]
}

/// Counted by the process's allocator; nothing where it does not count.
fn host(device: &Device) -> Found {
    if memory::live() == 0 {
        return Ok(Outcome::Skipped("this program's allocator does not count".to_owned()));
    }
    // Pools, caches and compiled kernels are filled by then.
    let (numbers, mut end) = (Numbers::single(device), 20);
    let mut run = Run::begin(&numbers)?.go(&numbers, end)?;
    let mut least = f64::INFINITY;
    for steps in WINDOWS {
        let before = memory::live();
        end += steps;
        run = run.go(&numbers, end)?;
        let grown = memory::live().saturating_sub(before);
        least = least.min(grown as f64 / steps as f64);
    }
    Ok(Outcome::Distance(least))
}
