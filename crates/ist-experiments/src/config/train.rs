//! `[train]` and `[eval]`: how long, in what portions, and what is measured on the way.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{PATH, without_default};

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{"required": ["steps"]}, {"required": ["epochs"]}]))]
pub struct TrainConfig {
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub steps: Option<usize>,
    /// Passes over the training records; a fraction is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epochs: Option<f64>,
    /// Records of one optimizer step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Records of one forward pass. Default: `batch`.
    #[schemars(range(min = 1), transform = without_default)]
    pub micro_batch: usize,
    /// Steps between two evaluations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub eval_every: Option<usize>,
    /// Steps between two checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub save_every: Option<usize>,
    /// Checkpoints that are kept, newest first.
    #[schemars(range(min = 1))]
    pub keep_last: usize,
    /// Stop after that many evaluations in a row without a lower validation loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub early_stopping: Option<usize>,
    /// Prompts that are continued at each evaluation.
    pub sample_prompts: Vec<String>,
    /// Tokens of each continuation.
    #[schemars(range(min = 1))]
    pub sample_tokens: usize,
    /// Whether the loss is scaled before the backward pass, so that gradients in float16 do not
    /// vanish.
    pub loss_scaling: LossScaling,
}

/// When the loss is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossScaling {
    /// Where gradients pass through float16: on a GPU with weights in float16.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl LossScaling {
    /// Whether a run scales whose gradients pass through float16 or not.
    pub fn applies(self, through_float16: bool) -> bool {
        match self {
            Self::Auto => through_float16,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: None,
            epochs: None,
            batch: 16,
            micro_batch: 16,
            eval_every: None,
            save_every: None,
            keep_last: 2,
            early_stopping: None,
            sample_prompts: Vec::new(),
            sample_tokens: 32,
            loss_scaling: LossScaling::Auto,
        }
    }
}

impl TrainConfig {
    /// The optimizer steps of a run whose epoch has that many batches: `steps`, or epochs · batches
    /// rounded up, at least 1.
    pub fn total_steps(&self, batches_per_epoch: usize) -> usize {
        let batches = self.epochs.unwrap_or_default() * batches_per_epoch as f64;
        // 1.1 epochs of 10 batches are 11 steps, though the product is a little more than 11.
        self.steps.unwrap_or_else(|| (batches * (1.0 - 1e-12)).ceil() as usize).max(1)
    }
}

/// `[eval]`: a task's score before and after training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// What is scored, by its name.
    #[serde(default = "task")]
    #[schemars(extend("enum" = crate::evaluate::tasks::names()))]
    pub task: String,
    /// The held-out records with their answers.
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub data: PathBuf,
    /// How many of them, from the first; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
    /// Tokens an answer may have.
    #[serde(default = "max_new_tokens")]
    #[schemars(range(min = 1))]
    pub max_new_tokens: usize,
}

fn task() -> String {
    "exact-match".to_owned()
}

fn max_new_tokens() -> usize {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_counted_in_whole_steps() {
        let train = |epochs| TrainConfig { epochs: Some(epochs), ..TrainConfig::default() };
        assert_eq!(train(3.0).total_steps(7), 21);
        assert_eq!(train(0.5).total_steps(3), 2);
        assert_eq!(train(1.1).total_steps(10), 11);
        assert_eq!(train(1e-9).total_steps(32), 1);
        assert_eq!(TrainConfig { steps: Some(7), ..TrainConfig::default() }.total_steps(100), 7);
    }
}
