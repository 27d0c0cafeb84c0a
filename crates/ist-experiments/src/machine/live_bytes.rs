//! Live bytes of the process, counted by the allocator.
//!
//! The program that is to be measured declares it, as `bin/ist.rs` does:
//! `#[global_allocator] static ALLOCATOR: PeakAlloc = PeakAlloc;` with this module's [`PeakAlloc`].
//! Without it all counts are 0.
//!
//! On CPU devices a tensor's memory is the host's, so the most live bytes during a step are the
//! device's peak, weights included.

use ist_core::burn::tensor::Device;

pub use peak_alloc::PeakAlloc;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Forgets the peak so far: the next [`peak`] counts from here.
pub fn reset_peak() {
    PeakAlloc.reset_peak_usage();
}

/// The most live bytes since [`reset_peak`].
pub fn peak() -> usize {
    PeakAlloc.peak_usage()
}

/// The most bytes of the device since [`reset_peak`]: on a processor the live ones of the host; on
/// a GPU what its runtime's pools hold, which is at least the peak so far and never falls.
pub fn peak_on(device: &Device) -> usize {
    device.memory_pool_usage().map_or_else(peak, |usage| usage.bytes_reserved as usize)
}

/// The bytes of the device that are in use now.
pub fn used_on(device: &Device) -> usize {
    device.memory_pool_usage().map_or_else(live, |usage| usage.bytes_in_use as usize)
}

/// Live bytes of the host now.
pub fn live() -> usize {
    PeakAlloc.current_usage()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_what_was_freed_again() {
        reset_peak();
        let before = live();
        drop(vec![1u8; 8 << 20]);
        assert!(peak() >= before.saturating_sub(1 << 20) + (8 << 20));
    }
}
