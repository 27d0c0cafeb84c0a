//! `importance.jsonl`: a line for each importance update.

use serde::{Deserialize, Serialize};

/// The log in a run's folder.
pub const LOG: &str = "importance.jsonl";

/// One importance update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportanceLine {
    /// The step before which candidates were scored.
    pub step: usize,
    /// The records they were scored on, by their place in the file.
    pub records: Vec<usize>,
    /// The layers whose response each candidate damps.
    pub suppressed: Vec<Vec<usize>>,
    /// Each candidate's loss.
    pub losses: Vec<f64>,
    /// Each candidate's reward.
    pub rewards: Vec<f64>,
    /// Every layer's score after the update.
    pub scores: Vec<f64>,
}

/// 1 / (1 + e^-x). The probability that a layer is suppressed in a candidate is that of its score,
/// before normalization.
pub fn sigmoid(x: f64) -> f64 {
    // The form whose exponential cannot overflow.
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}
