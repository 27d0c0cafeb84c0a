//! Memory that does not grow from step to step.

use ist_core::burn::tensor::Device;

use super::training::Run;
use super::{Check, Found, Numbers, Outcome};
use crate::memory;

/// Bytes a step may add: what a log or a map takes when it grows.
const PER_STEP: f64 = 512.0;
/// Windows of that many steps: what leaks does so in every one, what fills up once does not.
const WINDOWS: [usize; 4] = [50, 50, 50, 50];

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    let of = |whose: &str, bytes: fn(&Device) -> Option<u64>| {
        let name = format!("bytes of the {whose} that a step of IST adds");
        Check::new("growth", name, PER_STEP, move |device| added(device, bytes))
    };
    vec![of("host", on_host), of("device's pools", in_pools)]
}

/// Counted by the process's allocator; nothing where it does not count.
fn on_host(_: &Device) -> Option<u64> {
    Some(memory::live() as u64).filter(|bytes| *bytes > 0)
}

/// What the device's runtime holds of its memory; nothing on a device that has none of its own.
fn in_pools(device: &Device) -> Option<u64> {
    device.sync().ok()?;
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

/// Bytes a step adds, in the window that added least.
fn added(device: &Device, bytes: fn(&Device) -> Option<u64>) -> Found {
    if bytes(device).is_none() {
        return Ok(Outcome::Skipped("nobody counts them here".to_owned()));
    }
    // Pools, caches and compiled kernels are filled by then.
    let (numbers, mut end) = (Numbers::single(device), 20);
    let mut run = Run::begin(&numbers)?.go(&numbers, end)?;
    let mut least = f64::INFINITY;
    for steps in WINDOWS {
        let before = bytes(device).unwrap_or_default();
        end += steps;
        run = run.go(&numbers, end)?;
        let grown = bytes(device).unwrap_or_default().saturating_sub(before);
        least = least.min(grown as f64 / steps as f64);
    }
    Ok(Outcome::Distance(least))
}
