//! The bootstrap interval of a mean.
//!
//! The percentile interval: n numbers are drawn with replacement, their mean is taken, and so 10
//! 000 times; the interval leaves out 2.5 % of the means at either end. Draws come from a fixed
//! stream, so the same numbers give the same interval.
//!
//! It asks for no distribution, but it cannot invent what few numbers do not say: of two it reaches
//! from one to the other, which holds the true mean in half of all cases, and of three from the
//! least to the greatest, which does in three quarters (for any symmetric continuous distribution).
//! A report says so beside such an interval.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::moments::quantile;

/// How often is drawn.
pub const RESAMPLES: usize = 10_000;
/// What is left out at either end.
const TAIL: f64 = 0.025;
/// The stream of the draws.
const SEED: u64 = 0;

/// An interval, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether it holds `value`.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The 95 % percentile interval of the mean of `values`, from [`RESAMPLES`] draws; `None` of fewer
/// than two numbers, or where one is not finite.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut stream = ChaCha8Rng::seed_from_u64(SEED);
    let n = values.len();
    let mut mean = || (0..n).map(|_| values[stream.random_range(0..n)]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| mean()).collect();
    means.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&means, TAIL), high: quantile(&means, 1.0 - TAIL) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The interval of all n^n draws, each once.
    fn exact(values: &[f64]) -> Interval {
        let n = values.len();
        let mut means: Vec<f64> = (0..n.pow(n as u32))
            .map(|draw| {
                (0..n).map(|place| values[draw / n.pow(place as u32) % n]).sum::<f64>() / n as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        Interval { low: quantile(&means, TAIL), high: quantile(&means, 1.0 - TAIL) }
    }

    #[test]
    fn the_draws_come_near_the_interval_of_every_draw_there_is() {
        for values in [
            &[0.1, -0.4, 0.35, 0.9][..],
            &[2.0, 2.5, 1.0, 7.0, 3.25],
            &[-1.0, -2.0, 4.0, 0.5, 0.25, 3.0],
        ] {
            let (drawn, exact) = (mean_interval(values).unwrap(), exact(values));
            let spread = values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                - values.iter().copied().fold(f64::INFINITY, f64::min);
            let near = |a: f64, b: f64| (a - b).abs() < 0.02 * spread;
            assert!(
                near(drawn.low, exact.low) && near(drawn.high, exact.high),
                "{drawn:?} {exact:?}"
            );
        }
    }

    #[test]
    fn two_or_three_numbers_reach_from_the_least_to_the_greatest() {
        // The least mean has a probability of 1/4 and 1/27, both above 2.5 %.
        assert_eq!(mean_interval(&[3.0, 1.0]), Some(Interval { low: 1.0, high: 3.0 }));
        assert_eq!(mean_interval(&[3.0, 1.0, 2.0]), Some(Interval { low: 1.0, high: 3.0 }));
    }

    #[test]
    fn the_same_numbers_give_the_same_interval_and_one_number_none() {
        let values = [0.25, 0.5, 0.125, 0.875];
        assert_eq!(mean_interval(&values), mean_interval(&values));
        assert_eq!(mean_interval(&[1.0]), None);
        assert_eq!(mean_interval(&[1.0, f64::INFINITY]), None);
        assert_eq!(mean_interval(&[0.5; 4]), Some(Interval { low: 0.5, high: 0.5 }));
    }
}
