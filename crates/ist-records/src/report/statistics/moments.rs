//! Mean, sample standard deviation and quantiles.

use serde::Serialize;

/// What is told of several numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moments {
    /// How many there are.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation, with n - 1 in the denominator; `None` of a single number.
    pub deviation: Option<f64>,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Moments {
    /// Those of `values`; `None` of no number, or where one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { n, mean, deviation, least, greatest })
    }
}

/// The quantile at `share` (0 to 1) of numbers in ascending order, linear between neighbours:
/// NumPy's default.
///
/// `sorted` must not be empty.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let moments = Moments::of(&[2.0, 4.0, 9.0]).unwrap();
        // Squares about the mean 5: 9 + 1 + 16 = 26, over 2.
        assert_eq!((moments.n, moments.mean, moments.deviation), (3, 5.0, Some(13.0_f64.sqrt())));
        assert_eq!((moments.least, moments.greatest), (2.0, 9.0));
        assert_eq!(Moments::of(&[7.0]).unwrap().deviation, None);
        assert!(Moments::of(&[]).is_none() && Moments::of(&[1.0, f64::NAN]).is_none());
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.5, 1.0].map(|share| quantile(&sorted, share)), [1.0, 3.0, 8.0]);
        assert_eq!(quantile(&[5.0], 0.975), 5.0);
    }
}
