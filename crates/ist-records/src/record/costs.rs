//! `costs.jsonl`: what the steps of a run cost. Predicted bytes stand beside measured ones, and
//! scoring apart from the rest.
//!
//! The figures differ from one run of a configuration to the next, so they stand in a log of their
//! own.

use std::ops::AddAssign;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lines;

/// The log in a run's folder.
pub const LOG: &str = "costs.jsonl";

/// Seconds of the parts of one step, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// The forward pass up to the loss.
    pub forward: f64,
    /// The second forward pass of layers, or halves of layers, whose graph was not kept.
    pub recompute: f64,
    /// The vector-Jacobian products.
    pub backward: f64,
    /// The gradient norm, clipping, the updates, and moments that come and go.
    pub optimizer: f64,
}

impl StepTimes {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.forward + self.recompute + self.backward + self.optimizer
    }
}

impl AddAssign for StepTimes {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.recompute += other.recompute;
        self.backward += other.backward;
        self.optimizer += other.optimizer;
    }
}

/// Scoring the candidates of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// Seconds it took.
    pub seconds: f64,
    /// The most live bytes meanwhile.
    pub peak_bytes: u64,
    /// Records of one forward pass.
    pub micro_batch: usize,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// The step.
    pub step: usize,
    /// The most live bytes that were predicted; `None` for a model that does not tell its
    /// footprint.
    pub predicted_peak_bytes: Option<u64>,
    /// Where candidates were scored before it.
    pub scoring: Option<Scoring>,
    /// Where the rest of its time went; `None` in a log of an older version.
    #[serde(default)]
    pub times: Option<StepTimes>,
}

/// The memory budget that a run had.
#[derive(Clone, Debug)]
pub struct BudgetUsed {
    /// As its configuration says it.
    pub setting: Value,
    /// In bytes; `None` where nothing bounds it.
    pub bytes: Option<u64>,
}

/// The sums of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    predicted: Option<u64>,
    updates: usize,
    scoring_seconds: f64,
    scoring_peak: u64,
    times: Option<StepTimes>,
}

impl Costs {
    /// Reads the log.
    pub fn read(path: &Path) -> Result<Self> {
        let mut costs = Self::default();
        for line in lines::read(path)? {
            costs.add(serde_json::from_value(line)?);
        }
        Ok(costs)
    }

    fn add(&mut self, step: StepCost) {
        self.predicted = self.predicted.max(step.predicted_peak_bytes);
        if let Some(scoring) = step.scoring {
            self.updates += 1;
            self.scoring_seconds += scoring.seconds;
            self.scoring_peak = self.scoring_peak.max(scoring.peak_bytes);
        }
        if let Some(times) = step.times {
            *self.times.get_or_insert_default() += times;
        }
    }

    /// The `time` part of a result, of a run whose steps took that many seconds together; null
    /// where no step tells.
    pub fn time(&self, seconds: f64) -> Value {
        let Some(times) = self.times else { return Value::Null };
        let other = (seconds - times.total() - self.scoring_seconds).max(0.0);
        json!({
            "forward": times.forward,
            "recompute": times.recompute,
            "backward": times.backward,
            "optimizer": times.optimizer,
            "scoring": self.scoring_seconds,
            "other": other,
        })
    }

    /// The `memory` part of a result: the setting of the budget, the bytes it came to, and the
    /// measured peak beside the predicted one.
    pub fn memory(&self, budget: &BudgetUsed, measured: u64) -> Value {
        let ratio = self
            .predicted
            .filter(|_| measured > 0)
            .map(|predicted| predicted as f64 / measured as f64);
        json!({
            "budget": budget.setting,
            "budget_bytes": budget.bytes,
            "predicted_peak_bytes": self.predicted,
            "measured_peak_bytes": measured,
            "predicted_to_measured": ratio,
        })
    }

    /// The `scoring` part of a result, of a run whose steps took that many seconds together with
    /// it.
    pub fn scoring(&self, seconds: f64) -> Value {
        json!({
            "updates": self.updates,
            "seconds": self.scoring_seconds,
            "share": if seconds > 0.0 { self.scoring_seconds / seconds } else { 0.0 },
            "peak_bytes": self.scoring_peak,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scoring_is_summed_apart_and_the_largest_prediction_counts() {
        let mut costs = Costs::default();
        let scoring = Scoring { seconds: 0.5, peak_bytes: 70, micro_batch: 4 };
        let times =
            Some(StepTimes { forward: 0.25, recompute: 0.125, backward: 0.5, optimizer: 0.125 });
        costs.add(StepCost { step: 0, predicted_peak_bytes: Some(100), scoring: None, times });
        costs.add(StepCost {
            step: 1,
            predicted_peak_bytes: Some(90),
            scoring: Some(scoring),
            times,
        });
        let scoring = Some(Scoring { peak_bytes: 60, ..scoring });
        costs.add(StepCost { step: 2, predicted_peak_bytes: Some(95), scoring, times: None });
        assert_eq!(costs.predicted, Some(100));
        let part = costs.scoring(4.0);
        assert_eq!(
            (&part["updates"], &part["seconds"], &part["share"]),
            (&json!(2), &json!(1.0), &json!(0.25))
        );
        assert_eq!(part["peak_bytes"], 70);
        let time = costs.time(4.0);
        let kinds = ["forward", "recompute", "backward", "optimizer", "scoring", "other"];
        assert_eq!(
            kinds.map(|kind| time[kind].as_f64().unwrap()),
            [0.5, 0.25, 1.0, 0.25, 1.0, 1.0]
        );
        assert_eq!(Costs::default().time(1.0), Value::Null);
    }
}
