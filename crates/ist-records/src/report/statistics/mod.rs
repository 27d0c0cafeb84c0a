//! What a few runs can say: means, paired differences with intervals, shares with intervals. Plain
//! functions over numbers.
//!
//! Runs of one configuration differ by their seeds, and two configurations are compared seed by
//! seed, because what a seed does to a run (the data's order, the adapters' first values) it does
//! to both. A difference is told with an interval or not at all.

mod bootstrap;
mod moments;
mod paired;
mod wilson;

pub use bootstrap::{Interval, RESAMPLES, mean_interval};
pub use moments::{Moments, quantile};
pub use paired::{Difference, differences};
pub use wilson::wilson;
