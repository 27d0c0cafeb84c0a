//! `[optimizer]`: what moves the parameters.

use ist_core::optimizer::{AdamWSettings, RestingState};
use ist_core::schedule::Schedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The rule.
    pub kind: OptimizerKind,
    /// The base learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// The rule's constants.
    #[serde(flatten)]
    pub adamw: AdamWSettings,
    /// The global gradient norm to clip to; 0 does not clip.
    #[schemars(range(min = 0))]
    pub clip_norm: f64,
    /// How the learning rate moves after the warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
    /// What happens to the moments of a layer while it rests; `drop` departs from IST.
    pub resting_state: RestingState,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr: 2e-4,
            adamw: AdamWSettings::default(),
            clip_norm: 1.0,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            resting_state: RestingState::Keep,
        }
    }
}

impl OptimizerConfig {
    /// The norm to clip to, if any.
    pub fn clip(&self) -> Option<f64> {
        (self.clip_norm > 0.0).then_some(self.clip_norm)
    }
}

/// The rules there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
}
