//! `[optimizer]`: what moves the parameters.

use ist_core::optimizer::{AdamWSettings, RestingState};
use ist_core::schedule::Schedule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema::choice;

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The rule.
    pub kind: OptimizerKind,
    /// The base learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// Decoupled weight decay.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    #[schemars(schema_with = "betas")]
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// The global gradient norm to clip to; 0 does not clip.
    #[schemars(range(min = 0))]
    pub clip_norm: f64,
    /// How the learning rate moves after the warm-up.
    #[schemars(schema_with = "schedule")]
    pub schedule: Schedule,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
    /// What happens to the moments of a layer while it rests; `drop` departs from IST.
    #[schemars(schema_with = "resting_state")]
    pub resting_state: RestingState,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        let AdamWSettings { betas, eps, weight_decay } = AdamWSettings::default();
        Self {
            kind: OptimizerKind::AdamW,
            lr: 2e-4,
            weight_decay,
            betas,
            eps,
            clip_norm: 1.0,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            resting_state: RestingState::Keep,
        }
    }
}

impl OptimizerConfig {
    /// The rule's constants.
    pub fn adamw(&self) -> AdamWSettings {
        AdamWSettings { betas: self.betas, eps: self.eps, weight_decay: self.weight_decay }
    }

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

pub(super) fn betas(_: &mut SchemaGenerator) -> Schema {
    let beta = json_schema!({"type": "number", "minimum": 0, "exclusiveMaximum": 1});
    json_schema!({"type": "array", "items": beta, "minItems": 2, "maxItems": 2})
}

pub(super) fn schedule(_: &mut SchemaGenerator) -> Schema {
    choice(&[Schedule::Linear, Schedule::Cosine, Schedule::Constant])
}

fn resting_state(_: &mut SchemaGenerator) -> Schema {
    choice(&[RestingState::Keep, RestingState::Offload, RestingState::Drop])
}
