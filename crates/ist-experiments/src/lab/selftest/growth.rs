//! Memory that does not grow from step to step.

use ist_core::burn::tensor::Device;

use super::training::Run;
use super::{Check, Found, Numbers, Outcome};
use crate::machine::live_bytes;

/// Bytes a step may add: what a log or a map takes when it grows.
const PER_STEP: f64 = 512.0;
/// Windows of that many steps: what leaks does so in every one, what fills up once does not.
const WINDOWS: [usize; 4] = [50, 50, 50, 50];

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    vec![Check::new(
        "growth",
        "bytes of the host and of the device's pools that a step adds",
        PER_STEP,
        added,
    )]
}

/// What the host has allocated, and what the device's runtime holds of its memory; 0 where nobody
/// counts.
fn held(device: &Device) -> Result<[u64; 2], String> {
    device.sync().map_err(|error| error.to_string())?;
    let pools = device.memory_pool_usage().map_or(0, |usage| usage.bytes_reserved);
    Ok([live_bytes::live() as u64, pools])
}

/// Bytes a step of IST adds to either, in the window that added least.
fn added(device: &Device) -> Found {
    if held(device)? == [0, 0] {
        return Ok(Outcome::Skipped("nobody counts them here".to_owned()));
    }
    // Pools, caches and compiled kernels are filled by then.
    let (numbers, mut end) = (Numbers::single(device), 20);
    let mut run = Run::begin(&numbers)?.go(&numbers, end)?;
    let mut least = [f64::INFINITY; 2];
    for steps in WINDOWS {
        let before = held(device)?;
        end += steps;
        run = run.go(&numbers, end)?;
        for ((least, before), after) in least.iter_mut().zip(before).zip(held(device)?) {
            *least = least.min(after.saturating_sub(before) as f64 / steps as f64);
        }
    }
    Ok(Outcome::Distance(least[0].max(least[1])))
}
