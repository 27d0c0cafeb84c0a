//! The layer walk: one training step over layers whose treatment is known before the forward pass.
//!
//! | treatment | forward | memory kept | backward |
//! |---|---|---|---|
//! | [`Treatment::Skip`], below the lowest layer that trains | plain tensors | nothing | nothing |
//! | [`Treatment::Recompute`] | plain tensors | the layer's input | the layer again with a graph, then its product |
//! | [`Treatment::KeepHalf`] | half with a graph, half plain | that graph and its output | the second half again with a graph, then both products |
//! | [`Treatment::Keep`] | with a graph of its own | that graph | its vector-Jacobian product |
//!
//! The walk itself is `walk.rs`. Here are what is asked of it, and the passes without any graph: evaluation and scoring.

use std::borrow::Borrow;

use burn::tensor::Tensor;

use crate::gradients::{Gradients, scalar};
use crate::walk::{Descent, MicroBatch};
use crate::{LayerPass, LayerSet, LayeredModel, Responses, Times, streams};

/// What the walk does with one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Plain forward; nothing below trains, so nothing is kept.
    Skip,
    /// Plain forward that keeps the layer's input; its graph is built and used up in the backward pass.
    Recompute,
    /// Forward whose first half has a graph, which lives until the layer's backward; the second half is run again.
    KeepHalf,
    /// Forward with a graph of its own, which lives until the layer's backward.
    Keep,
}

/// What a step computes before the optimizer acts.
#[derive(Debug)]
pub struct StepOutput {
    /// The mean loss over the predicted tokens of all micro-batches.
    pub loss: f64,
    /// Predicted tokens of all micro-batches.
    pub tokens: usize,
    /// d loss / d parameter for the parameters of the chosen layers and of the modules outside the layers.
    pub gradients: Gradients,
    /// The most live bytes the step was predicted to need above the model, its adapters and the optimizer's state; `None`
    /// for a model that does not tell its footprint.
    pub predicted_bytes: Option<u64>,
    /// Where its time went.
    pub times: Times,
}

/// How a step trades memory for time. The gradients are the same but for rounding: a backend may compute an operation
/// otherwise when it builds a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Keeps the graph of every layer that the gradient passes: the fastest.
    #[default]
    Keep,
    /// Keeps the inputs of those layers and runs them once more, but for those, the topmost as a rule, whose graphs fit under
    /// the peak that there is anyway. Of a model that does not tell its footprint every layer is run again.
    Recompute,
    /// Keeps as many graphs as fit into that many bytes above the model, its adapters and the optimizer's state, those that
    /// save most time ([`plan`](crate::plan)). Of a model that does not tell its footprint none, as under `Recompute`.
    Budget(u64),
}

/// The gradients of the mean token loss over `micro_batches` for the layers of `chosen`.
///
/// The loss of all micro-batches is normalised by their common number of predicted tokens, so that splitting a batch does
/// not change the result. `dropout` seeds the step's dropout; `None` switches it off.
pub fn gradients<M: LayeredModel>(
    model: &M,
    micro_batches: &[M::Batch],
    chosen: &LayerSet,
    memory: Memory,
    dropout: Option<u64>,
) -> StepOutput {
    scaled_gradients(model, micro_batches, chosen, (memory, 1.0), dropout)
}

/// [`gradients`] times `scale`, by which the loss is multiplied before the backward pass.
pub(crate) fn scaled_gradients<M: LayeredModel>(
    model: &M,
    micro_batches: &[M::Batch],
    chosen: &LayerSet,
    (memory, scale): (Memory, f64),
    dropout: Option<u64>,
) -> StepOutput {
    let tokens: usize = micro_batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let mut gradients = Gradients::default();
    let (mut total, mut predicted_bytes, mut times) = (0.0, None, Times::default());
    for (number, batch) in micro_batches.iter().enumerate() {
        let dropout = dropout.map(|seed| streams::mix(seed, number as u64));
        let (accumulates, updates_at_once) = (number > 0, false);
        let micro_batch = MicroBatch {
            batch,
            tokens,
            scale,
            chosen,
            memory,
            dropout,
            accumulates,
            updates_at_once,
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

/// The summed token loss of one batch in evaluation mode, forward only, with each layer at its response factor.
pub fn evaluate<M: LayeredModel>(model: &M, batch: &M::Batch, responses: &Responses) -> f64 {
    let context = model.context(batch);
    let embedded = model.embed(model.outer(), batch, &LayerPass::EVALUATION);
    let pass = |index| LayerPass::evaluation(responses.get(index));
    let Some((last, layers)) = model.layers().split_last() else {
        return scalar(model.loss(model.outer(), embedded, batch, &LayerPass::EVALUATION));
    };
    let below = layers.iter().enumerate();
    let x = below.fold(embedded, |x, (index, layer)| model.layer(layer, x, &context, &pass(index)));
    scalar(model.last_layer_loss(last, x, batch, &context, &pass(layers.len())))
}

/// The mean token loss over `batches` as [`evaluate`] computes it, and the number of predicted tokens. Batches may be made
/// one by one: only the current one is held.
pub fn mean_loss<M: LayeredModel, B: Borrow<M::Batch>>(
    model: &M,
    batches: impl IntoIterator<Item = B>,
    responses: &Responses,
) -> (f64, usize) {
    let (mut total, mut tokens) = (0.0, 0);
    for batch in batches {
        tokens += model.predicted_tokens(batch.borrow());
        total += evaluate(model, batch.borrow(), responses);
    }
    (total / tokens.max(1) as f64, tokens)
}

/// The mean token loss over `batches` of every candidate, with the layers of its set at the response `factor`, as
/// [`mean_loss`] computes it for each.
///
/// Candidates share all layers up to the first on which they differ, so they cost less than as many passes.
pub fn candidate_losses<M: LayeredModel>(
    model: &M,
    batches: &[M::Batch],
    candidates: &[LayerSet],
    factor: f64,
) -> Vec<f64> {
    let tokens: usize = batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let mut totals = vec![0.0; candidates.len()];
    for batch in batches {
        let probe = Probe { model, batch, context: model.context(batch), candidates, factor };
        let embedded = model.embed(model.outer(), batch, &LayerPass::EVALUATION);
        probe.ascend(&(0..candidates.len()).collect::<Vec<_>>(), 0, embedded, &mut totals);
    }
    totals.into_iter().map(|total| total / tokens.max(1) as f64).collect()
}

/// The forward passes of all candidates on one batch.
struct Probe<'a, M: LayeredModel> {
    model: &'a M,
    batch: &'a M::Batch,
    context: M::Context,
    candidates: &'a [LayerSet],
    factor: f64,
}

impl<M: LayeredModel> Probe<'_, M> {
    /// Adds the loss of the candidates of `group`, which agree on every layer below `first`, whose output is `x`.
    fn ascend(&self, group: &[usize], first: usize, mut x: Tensor<3>, totals: &mut [f64]) {
        let layers = self.model.layers();
        for layer in first..layers.len() {
            let (damped, full): (Vec<usize>, Vec<usize>) =
                group.iter().partition(|&&candidate| self.candidates[candidate].contains(layer));
            if !damped.is_empty() && !full.is_empty() {
                self.ascend(&damped, layer, x.clone(), totals);
                return self.ascend(&full, layer, x, totals);
            }
            let pass = LayerPass::evaluation(if full.is_empty() { self.factor } else { 1.0 });
            if layer + 1 == layers.len() {
                let loss =
                    self.model.last_layer_loss(&layers[layer], x, self.batch, &self.context, &pass);
                return add(group, loss, totals);
            }
            x = self.model.layer(&layers[layer], x, &self.context, &pass);
        }
        add(
            group,
            self.model.loss(self.model.outer(), x, self.batch, &LayerPass::EVALUATION),
            totals,
        );
    }
}

/// Adds a loss to the total of every candidate of a group.
fn add(group: &[usize], loss: Tensor<1>, totals: &mut [f64]) {
    let loss = scalar(loss);
    for &candidate in group {
        totals[candidate] += loss;
    }
}
