//! Forward passes without any graph: evaluation, and the scores of candidates.

use std::borrow::Borrow;

use burn::tensor::Tensor;

use crate::gradients::scalar;
use crate::{LayerPass, LayerSet, LayeredModel, Responses};

/// The summed token loss of one batch in evaluation mode, forward only, with each layer at its
/// response factor.
pub fn evaluate<M: LayeredModel>(model: &M, batch: &M::Batch, responses: &Responses) -> f64 {
    let context = model.context(batch);
    let embedded = model.embed(model.outer(), batch, &LayerPass::EVALUATION);
    let pass = |index| LayerPass::evaluation(responses.get(index));
    let Some((last, below)) = model.layers().split_last() else {
        return scalar(model.loss(model.outer(), embedded, batch, &LayerPass::EVALUATION));
    };
    let mut x = embedded;
    for (index, layer) in below.iter().enumerate() {
        x = model.layer(layer, x, &context, &pass(index));
    }
    scalar(model.last_layer_loss(last, x, batch, &context, &pass(below.len())))
}

/// The mean token loss over `batches` as [`evaluate`] computes it, and the number of predicted
/// tokens.
///
/// Batches may be made one by one: only the current one is held.
pub fn mean_loss<M: LayeredModel, B: Borrow<M::Batch>>(
    model: &M,
    batches: impl IntoIterator<Item = B>,
    responses: &Responses,
) -> (f64, usize) {
    let mut total = 0.0;
    let mut tokens = 0;
    for batch in batches {
        tokens += model.predicted_tokens(batch.borrow());
        total += evaluate(model, batch.borrow(), responses);
    }
    (total / tokens.max(1) as f64, tokens)
}

/// The mean token loss of every candidate over `batches`, with the layers of its set at the
/// response `factor`.
///
/// Each is the loss that [`mean_loss`] computes. Candidates share all layers up to the first on
/// which they differ, so they cost less than as many passes.
pub fn candidate_losses<M: LayeredModel>(
    model: &M,
    batches: &[M::Batch],
    candidates: &[LayerSet],
    factor: f64,
) -> Vec<f64> {
    let tokens: usize = batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let mut totals = vec![0.0; candidates.len()];
    for batch in batches {
        let context = model.context(batch);
        let probe = Probe { model, batch, context, candidates, factor };
        let embedded = model.embed(model.outer(), batch, &LayerPass::EVALUATION);
        let everyone: Vec<usize> = (0..candidates.len()).collect();
        probe.ascend(&everyone, 0, embedded, &mut totals);
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
    /// Adds the loss of the candidates of `group`, which agree on every layer below `first`, whose
    /// output is `x`.
    fn ascend(&self, group: &[usize], first: usize, mut x: Tensor<3>, totals: &mut [f64]) {
        let layers = self.model.layers();
        for (layer, module) in layers.iter().enumerate().skip(first) {
            let (damped, full): (Vec<usize>, Vec<usize>) =
                group.iter().partition(|&&candidate| self.candidates[candidate].contains(layer));
            if !damped.is_empty() && !full.is_empty() {
                // Here the group parts: both branches go on from the same hidden state, one after
                // the other, so that only one of them runs at a time.
                self.ascend(&damped, layer, x.clone(), totals);
                return self.ascend(&full, layer, x, totals);
            }
            let response = if full.is_empty() { self.factor } else { 1.0 };
            let pass = LayerPass::evaluation(response);
            if layer + 1 == layers.len() {
                let loss = self.model.last_layer_loss(module, x, self.batch, &self.context, &pass);
                return add(group, loss, totals);
            }
            x = self.model.layer(module, x, &self.context, &pass);
        }
        // Only a model without layers gets here.
        let loss = self.model.loss(self.model.outer(), x, self.batch, &LayerPass::EVALUATION);
        add(group, loss, totals);
    }
}

/// Adds a loss to the total of every candidate of a group.
fn add(group: &[usize], loss: Tensor<1>, totals: &mut [f64]) {
    let loss = scalar(loss);
    for &candidate in group {
        totals[candidate] += loss;
    }
}
