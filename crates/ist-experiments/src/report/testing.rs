//! Runs for tests.

use serde_json::Value;

use super::configuration::tests::flat;
use super::record::{RunRecord, State};

/// A run without any log.
pub(super) fn run(configuration: &str, state: State) -> RunRecord {
    RunRecord {
        name: "run".to_owned(),
        folder: "run".into(),
        state,
        configuration: flat(configuration),
        steps: Vec::new(),
        evaluations: Vec::new(),
        updates: Vec::new(),
        selected: Vec::new(),
        accuracies: Vec::new(),
        plan: Value::Null,
        result: Value::Null,
        times: None,
        scoring_seconds: 0.0,
        notes: Vec::new(),
    }
}
