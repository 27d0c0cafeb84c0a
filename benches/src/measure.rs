//! Bytes and times of one piece of work.
//!
//! Live bytes are counted by the allocator, which the benchmark that asks for them has to declare:
//! `#[global_allocator] static ALLOCATOR: PeakAlloc = PeakAlloc;`.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ist_experiments::machine::live_bytes;

/// Bytes in a MiB.
pub const MIB: f64 = 1_048_576.0;

/// What `work` makes, and by how many bytes the live ones exceeded those before it while it ran.
pub fn peak_above<T>(work: impl FnOnce() -> T) -> (T, usize) {
    live_bytes::reset_peak();
    let before = live_bytes::live();
    let result = work();
    (result, live_bytes::peak().saturating_sub(before))
}

/// The middle value; the mean of the two middle ones of an even count, and 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    match values.len() {
        0 => 0.0,
        _ if odd => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// The median milliseconds of `repetitions` runs of `work` after one that does not count.
pub fn milliseconds<T>(repetitions: usize, mut work: impl FnMut() -> T) -> f64 {
    drop(black_box(work()));
    let times = (0..repetitions).map(|_| {
        let start = Instant::now();
        drop(black_box(work()));
        start.elapsed().as_secs_f64() * 1e3
    });
    median(times.collect())
}

/// The times of one piece of work as a harness asks for them, kept so that they can be set against
/// those of another.
#[derive(Debug, Default)]
pub struct Times(RefCell<Vec<f64>>);

impl Times {
    /// Runs `work` `count` times and notes the mean; the answer is the time of all, as criterion's
    /// `iter_custom` wants it.
    pub fn run<T>(&self, count: u64, mut work: impl FnMut() -> T) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            drop(black_box(work()));
        }
        let elapsed = start.elapsed();
        self.0.borrow_mut().push(elapsed.as_secs_f64() * 1e3 / count.max(1) as f64);
        elapsed
    }

    /// The median milliseconds; `None` when the harness left the work out.
    pub fn median(&self) -> Option<f64> {
        let times = self.0.borrow();
        (!times.is_empty()).then(|| median(times.clone()))
    }

    /// The fewest milliseconds; `None` when the harness left the work out.
    pub fn least(&self) -> Option<f64> {
        self.0.borrow().iter().copied().reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn work_that_never_ran_has_no_time() {
        let times = Times::default();
        assert_eq!(times.median(), None);
        times.run(2, || std::hint::black_box(1 + 1));
        assert!(times.least().unwrap() >= 0.0);
    }
}
