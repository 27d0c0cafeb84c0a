//! Where a run's time went.

use serde::Serialize;

use crate::record::costs::StepTimes;

/// Seconds of a run by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Split {
    /// The steps' own parts.
    #[serde(flatten)]
    pub step: StepTimes,
    /// Scoring the candidates of importance updates.
    pub scoring: f64,
    /// The rest: making batches, drawing layers, logging.
    pub other: f64,
}

impl Split {
    /// The names of the parts, in the order of [`Split::parts`].
    pub const NAMES: [&'static str; 6] =
        ["forward", "recompute", "backward", "scoring", "optimizer", "other"];

    /// The parts of steps that took `seconds` together with scoring.
    pub fn of(step: StepTimes, scoring: f64, seconds: f64) -> Self {
        Self { step, scoring, other: (seconds - step.total() - scoring).max(0.0) }
    }

    /// Seconds by part.
    pub fn parts(&self) -> [f64; 6] {
        let StepTimes { forward, recompute, backward, optimizer } = self.step;
        [forward, recompute, backward, self.scoring, optimizer, self.other]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_part_took_is_the_rest() {
        let times = StepTimes { forward: 0.5, recompute: 0.0, backward: 1.0, optimizer: 0.25 };
        assert_eq!(Split::of(times, 0.25, 3.0).parts(), [0.5, 0.0, 1.0, 0.25, 0.25, 1.0]);
        assert_eq!(Split::of(times, 0.25, 1.0).other, 0.0, "clocks differ");
    }
}
