//! The layer walk: one training step over layers whose treatment is known before the forward pass.
//!
//! | treatment | forward | memory kept | backward |
//! |---|---|---|---|
//! | [`LayerTreatment::Skip`], below the lowest layer that trains | plain tensors | nothing | nothing |
//! | [`LayerTreatment::Recompute`] | plain tensors | the layer's input | the layer again with a graph, then its product |
//! | [`LayerTreatment::KeepHalf`] | half with a graph, half plain | that graph and its output | the second half again with a graph, then both products |
//! | [`LayerTreatment::Keep`] | with a graph of its own | that graph | its vector-Jacobian product |
//!
//! This file says what a caller can ask of a step. The walk itself is `walk.rs`. `probe.rs` has the
//! passes without any graph: evaluation, and the scores of candidates.

mod probe;
mod pull_back;
pub(crate) mod walk;

use crate::gradients::Gradients;
use crate::{LayerSet, LayeredModel, Times, streams};
use walk::{Descent, MicroBatch};

pub use crate::plan::{LayerTreatment, Memory};
pub use probe::{candidate_losses, evaluate, mean_loss};

/// What a step computes before the optimizer acts.
#[derive(Debug)]
pub struct StepOutput {
    /// The mean loss over the predicted tokens of all micro-batches.
    pub loss: f64,
    /// Predicted tokens of all micro-batches.
    pub tokens: usize,
    /// d loss / d parameter for the parameters of the chosen layers and of the modules outside the
    /// layers.
    pub gradients: Gradients,
    /// The predicted peak of live bytes above the model, its adapters and the optimizer's state.
    /// `None` for a model without a footprint.
    pub predicted_bytes: Option<u64>,
    /// Where its time went.
    pub times: Times,
}

/// What is asked of a step, besides the model and its data.
#[derive(Clone, Copy)]
pub(crate) struct StepRequest<'a> {
    /// The layers that train.
    pub chosen: &'a LayerSet,
    /// How memory is traded for time.
    pub memory: Memory,
    /// What the loss is multiplied by before the backward pass.
    pub scale: f64,
    /// The seed of the step's dropout. `None` switches it off.
    pub dropout: Option<u64>,
}

/// The gradients of the mean token loss over `micro_batches` for the layers of `chosen`.
///
/// The loss of all micro-batches is normalised by their common number of predicted tokens, so that
/// splitting a batch does not change the result. `dropout` seeds the step's dropout. `None`
/// switches it off.
pub fn gradients<M: LayeredModel>(
    model: &M,
    micro_batches: &[M::Batch],
    chosen: &LayerSet,
    memory: Memory,
    dropout: Option<u64>,
) -> StepOutput {
    let request = StepRequest { chosen, memory, scale: 1.0, dropout };
    scaled_gradients(model, micro_batches, &request)
}

/// [`gradients`] times the scale of the request.
pub(crate) fn scaled_gradients<M: LayeredModel>(
    model: &M,
    micro_batches: &[M::Batch],
    request: &StepRequest,
) -> StepOutput {
    let tokens: usize = micro_batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let mut gradients = Gradients::default();
    let mut total = 0.0;
    let mut predicted_bytes = None;
    let mut times = Times::default();
    for (number, batch) in micro_batches.iter().enumerate() {
        let micro_batch = MicroBatch {
            batch,
            tokens,
            scale: request.scale,
            chosen: request.chosen,
            memory: request.memory,
            // Every micro-batch drops other activations, whatever the step's seed.
            dropout: request.dropout.map(|seed| streams::mix(seed, number as u64)),
            accumulates: number > 0,
            updates_at_once: false,
        };
        let mut descent = Descent::begin(model, &micro_batch, &mut gradients);
        while descent.layer(model, &mut gradients).is_some() {}
        total += descent.total;
        predicted_bytes = predicted_bytes.max(descent.predicted_bytes);
        times += descent.finish(&mut gradients);
    }
    StepOutput {
        loss: total * (1.0 / tokens.max(1) as f64),
        tokens,
        gradients,
        predicted_bytes,
        times,
    }
}
