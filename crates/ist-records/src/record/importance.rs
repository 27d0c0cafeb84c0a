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

/// 1 / (1 + e^-x). σ(-I) of a layer's score I is its weight for being updated, before the weights
/// are normalized.
pub fn sigmoid(x: f64) -> f64 {
    // The form whose exponential cannot overflow.
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sigmoid_is_its_definition_and_does_not_overflow() {
        for x in [-30.0, -1.5, 0.0, 0.25, 30.0] {
            assert!((sigmoid(x) - 1.0 / (1.0 + f64::exp(-x))).abs() < 1e-15, "{x}");
        }
        assert_eq!((sigmoid(-1e4), sigmoid(1e4)), (0.0, 1.0));
    }

    #[test]
    fn a_line_has_the_keys_of_the_log_in_their_order() {
        let line = ImportanceLine {
            step: 10,
            records: vec![3, 1],
            suppressed: vec![vec![0, 2]],
            losses: vec![1.5],
            rewards: vec![0.25],
            scores: vec![0.5, -0.5],
        };
        let expected = r#"{"step":10,"records":[3,1],"suppressed":[[0,2]],"losses":[1.5],"rewards":[0.25],"scores":[0.5,-0.5]}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), expected);
    }
}
