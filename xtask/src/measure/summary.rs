//! Median, nine tenths and maximum of some counts.

use serde::Serialize;

/// What is said of a list of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// How many there are.
    pub(crate) count: usize,
    /// The middle one.
    pub(crate) median: usize,
    /// The one that nine in ten do not exceed.
    pub(crate) p90: usize,
    /// The largest.
    pub(crate) max: usize,
}

impl Summary {
    /// Summarises counts in any order.
    pub(crate) fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut sorted: Vec<usize> = counts.into_iter().collect();
        sorted.sort_unstable();
        // The nearest rank: every figure is one of the counts.
        let rank = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(place).copied().unwrap_or(0)
        };
        Self { count: sorted.len(), median: rank(50), p90: rank(90), max: rank(100) }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {}, p90 {}, max {}", self.median, self.p90, self.max)
    }
}

/// `part` of `whole`, in `per`; zero where there is nothing.
pub(crate) fn share(part: usize, whole: usize, per: f64) -> f64 {
    if whole == 0 { 0.0 } else { per * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_ranks_of_the_sorted_counts() {
        let summary = Summary::of([10, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(summary, Summary { count: 10, median: 5, p90: 9, max: 10 });
        assert_eq!(Summary::of([7]), Summary { count: 1, median: 7, p90: 7, max: 7 });
        assert_eq!(Summary::of([]), Summary::default());
    }

    #[test]
    fn a_share_of_nothing_is_zero() {
        assert!(share(1, 4, 100.0) == 25.0 && share(0, 0, 100.0) == 0.0);
    }
}
