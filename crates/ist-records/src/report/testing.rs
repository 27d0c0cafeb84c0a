//! Runs for tests.

use std::path::Path;

use super::configuration::tests::flat;
use super::record::{RunRecord, State};

/// A run without any log.
pub(super) fn run(configuration: &str, state: State) -> RunRecord {
    RunRecord { state, ..RunRecord::of(Path::new("run"), flat(configuration)) }
}
