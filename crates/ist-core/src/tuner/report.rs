//! What a tuner tells of a step and of an importance update.

use crate::LayerSet;

/// What one optimizer step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step, counted from 0.
    pub step: usize,
    /// The layers that trained.
    pub layers: LayerSet,
    /// The mean loss over the predicted tokens, before the update.
    pub loss: f64,
    /// Predicted tokens.
    pub tokens: usize,
    /// The global gradient norm before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// The most live bytes the step was predicted to need above the model and its adapters; `None`
    /// for a model that does not tell its footprint.
    pub predicted_bytes: Option<u64>,
    /// What the loss was multiplied by; `None` without loss scaling.
    pub loss_scale: Option<f64>,
    /// Whether gradients overflowed under that scale, so that no parameter was changed.
    pub skipped: bool,
}

/// What one importance update saw and did.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportanceUpdate {
    /// The step before which it happened.
    pub step: usize,
    /// The suppressed set of each candidate.
    pub suppressed: Vec<LayerSet>,
    /// The mean token loss of each candidate.
    pub losses: Vec<f64>,
    /// exp(-loss) of each candidate.
    pub rewards: Vec<f64>,
    /// All scores after the update.
    pub scores: Vec<f64>,
}
