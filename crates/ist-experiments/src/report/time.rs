//! Where a run's time went.

use std::path::Path;

use ist_core::Times;
use serde::Serialize;

use super::log;
use crate::failure::Failure;
use crate::train::costs::StepCost;

/// Seconds of a run by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Split {
    /// The steps' own parts.
    #[serde(flatten)]
    pub step: Times,
    /// Scoring the candidates of importance updates.
    pub scoring: f64,
    /// The rest: making batches, drawing layers, logging.
    pub other: f64,
}

impl Split {
    /// The names of the parts, in the order of [`Split::parts`].
    pub const NAMES: [&'static str; 6] = ["forward", "recompute", "backward", "scoring", "optimizer", "other"];

    /// Seconds by part.
    pub fn parts(&self) -> [f64; 6] {
        let Times { forward, recompute, backward, optimizer } = self.step;
        [forward, recompute, backward, self.scoring, optimizer, self.other]
    }
}

/// The sums of `costs.jsonl` in a run whose steps took `seconds`; `None` where no line tells.
pub(super) fn read(path: &Path, seconds: f64, notes: &mut Vec<String>) -> Result<Option<Split>, Failure> {
    let log = log::read(path)?;
    notes.extend(log.note);
    let (mut split, mut told) = (Split::default(), false);
    for (number, line) in log.lines {
        let cost: StepCost = serde_json::from_value(line)
            .map_err(|error| log::broken(path, number, &format!("is no step's cost: {error}")))?;
        split.scoring += cost.scoring.map_or(0.0, |scoring| scoring.seconds);
        told |= cost.times.is_some();
        split.step += cost.times.unwrap_or_default();
    }
    split.other = (seconds - split.step.total() - split.scoring).max(0.0);
    Ok(told.then_some(split))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_part_took_is_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs.jsonl");
        let line = |step: usize, scoring: &str| {
            format!(
                "{{\"step\":{step},\"predicted_peak_bytes\":null,\"scoring\":{scoring},\"times\":\
                 {{\"forward\":0.25,\"recompute\":0.0,\"backward\":0.5,\"optimizer\":0.125}}}}\n"
            )
        };
        let scoring = "{\"seconds\":0.25,\"peak_bytes\":1,\"micro_batch\":1}";
        std::fs::write(&path, line(0, "null") + &line(1, scoring)).unwrap();
        let split = read(&path, 3.0, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(split.parts(), [0.5, 0.0, 1.0, 0.25, 0.25, 1.0]);
        std::fs::write(&path, "{\"step\":0,\"predicted_peak_bytes\":null,\"scoring\":null}\n").unwrap();
        assert_eq!(read(&path, 3.0, &mut Vec::new()).unwrap(), None, "a log of an older version");
    }
}
