//! What a run is planned to take of memory, and its part of the records.

use ist_core::step::Memory;
use ist_records::record::costs::{BudgetUsed, StepTimes};
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::memory_plan::Fixed;

/// What a run is planned to take.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How a step trades memory for time.
    pub memory: Memory,
    /// What the whole run may take; `None` where nothing bounds it.
    pub budget: Option<u64>,
    /// What is there in every step.
    pub fixed: Fixed,
    /// All of it, as `ist plan` prints it.
    pub document: Value,
}

impl Plan {
    /// What is there in every step but the optimizer's state.
    pub fn resident(&self) -> u64 {
        self.fixed.total() - self.fixed.optimizer
    }

    /// The budget as a result tells it.
    pub fn budget_used(&self, config: &RunConfig) -> BudgetUsed {
        BudgetUsed { setting: json!(config.memory.budget), bytes: self.budget }
    }
}

/// The times of a step as the log of costs has them.
pub fn step_times(times: ist_core::Times) -> StepTimes {
    let ist_core::Times { forward, recompute, backward, optimizer } = times;
    StepTimes { forward, recompute, backward, optimizer }
}
