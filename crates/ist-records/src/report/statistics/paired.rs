//! Two configurations compared over the seeds they have in common.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bootstrap::{Interval, mean_interval};
use super::moments::Moments;

/// The differences of a figure between two configurations, seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// (seed, value - baseline's value) of every seed that both have.
    pub by_seed: Vec<(u64, f64)>,
    /// Their mean and deviation.
    pub moments: Moments,
    /// The 95 % bootstrap interval of their mean; `None` with a single seed.
    pub interval: Option<Interval>,
}

impl Difference {
    /// Whether the interval leaves out 0: -1 where it lies below, 1 above, 0 where it does not,
    /// `None` without interval.
    pub fn sign(&self) -> Option<i8> {
        let interval = self.interval?;
        let sign = if interval.contains(0.0) { 0 } else { interval.low.signum() as i8 };
        Some(sign)
    }
}

/// `values` minus `baseline` by seed; `None` where they have no seed in common, or where a
/// difference is not finite.
pub fn differences(
    values: &BTreeMap<u64, f64>,
    baseline: &BTreeMap<u64, f64>,
) -> Option<Difference> {
    let pair = |(seed, value): (&u64, &f64)| Some((*seed, value - baseline.get(seed)?));
    let by_seed: Vec<(u64, f64)> = values.iter().filter_map(pair).collect();
    let numbers: Vec<f64> = by_seed.iter().map(|(_, difference)| *difference).collect();
    Some(Difference { moments: Moments::of(&numbers)?, interval: mean_interval(&numbers), by_seed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(values: &[(u64, f64)]) -> BTreeMap<u64, f64> {
        values.iter().copied().collect()
    }

    #[test]
    fn only_seeds_that_both_have_are_compared() {
        let one = seeds(&[(0, 1.0), (1, 2.0), (2, 4.0)]);
        let other = seeds(&[(1, 1.5), (2, 1.0), (7, 9.0)]);
        let difference = differences(&one, &other).unwrap();
        assert_eq!(difference.by_seed, [(1, 0.5), (2, 3.0)]);
        assert_eq!((difference.moments.mean, difference.interval.unwrap().low), (1.75, 0.5));
        assert_eq!(difference.sign(), Some(1));
        assert!(differences(&one, &seeds(&[(9, 1.0)])).is_none());
    }

    #[test]
    fn a_single_seed_has_a_difference_and_no_interval() {
        let difference = differences(&seeds(&[(0, 1.0)]), &seeds(&[(0, 3.0)])).unwrap();
        assert_eq!(
            (difference.moments.mean, difference.interval, difference.sign()),
            (-2.0, None, None)
        );
    }

    #[test]
    fn an_interval_that_holds_zero_shows_no_difference() {
        let (one, other) = (seeds(&[(0, 1.0), (1, 2.0)]), seeds(&[(0, 2.0), (1, 1.0)]));
        assert_eq!(differences(&one, &other).unwrap().sign(), Some(0));
    }
}
