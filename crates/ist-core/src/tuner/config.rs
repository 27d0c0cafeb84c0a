//! What a tuner does, besides its policy.

use std::collections::BTreeMap;

use crate::optimizer::{AdamWSettings, OffloadTo, RestingState};
use crate::plan::Memory;
use crate::schedule::Schedule;

/// What a tuner needs besides its policy.
#[derive(Clone, Debug)]
pub struct TunerConfig {
    /// The base learning rate.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// The fraction of the base rate the schedule falls to; 0 in the usual recipes.
    pub min_lr_ratio: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
    /// Steps the schedule spans.
    pub total_steps: usize,
    /// The global gradient norm to clip to; `None` does not clip.
    pub clip_norm: Option<f64>,
    /// How the step trades memory for time.
    pub memory: Memory,
    /// AdamW's constants.
    pub adamw: AdamWSettings,
    /// Where a resting layer's moments live.
    pub resting_state: RestingState,
    /// Where offloaded moments go.
    pub offload: OffloadTo,
    /// Factors on the learning rate by parameter name; 1 for all others.
    pub rates: BTreeMap<String, f64>,
    /// Whether the loss is scaled ([`LossScale`](crate::LossScale)), as gradients in f16 need.
    pub loss_scaling: bool,
}

impl Default for TunerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 2e-4,
            schedule: Schedule::Constant,
            min_lr_ratio: 0.0,
            warmup_steps: 0,
            total_steps: 1,
            clip_norm: Some(1.0),
            memory: Memory::Keep,
            adamw: AdamWSettings::default(),
            resting_state: RestingState::Keep,
            offload: OffloadTo::Host,
            rates: BTreeMap::new(),
            loss_scaling: false,
        }
    }
}

impl TunerConfig {
    /// Whether a step of that many micro-batches updates each layer as soon as its backward pass is
    /// done.
    ///
    /// Clipping, loss scaling and accumulation each need all gradients together.
    pub fn updates_by_layer(&self, micro_batches: usize) -> bool {
        self.clip_norm.is_none() && !self.loss_scaling && micro_batches == 1
    }

    /// The learning rate of optimizer step `step`.
    ///
    /// With the factor of [`Schedule::factor`] it is base · factor in the warm-up. After it, it is
    /// base · (r + (1 - r) · factor) with r = `min_lr_ratio`.
    pub fn rate_of(&self, step: usize) -> f64 {
        let factor = self.schedule.factor(step, self.warmup_steps, self.total_steps);
        // The floor is where the schedule ends, not where the warm-up begins.
        let floor = if step < self.warmup_steps { 0.0 } else { self.min_lr_ratio };
        self.learning_rate * (floor + (1.0 - floor) * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_from_zero_and_falls_to_its_floor() {
        let config = TunerConfig {
            learning_rate: 1.0,
            warmup_steps: 10,
            total_steps: 110,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.1,
            ..TunerConfig::default()
        };
        for (step, rate) in [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1)] {
            assert!((config.rate_of(step) - rate).abs() < 1e-12, "step {step}");
        }
    }
}
