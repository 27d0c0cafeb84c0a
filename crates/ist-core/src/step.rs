//! The layer walk: one training step over layers whose treatment is known before the forward pass.
//!
//! | treatment | forward | memory kept | backward |
//! |---|---|---|---|
//! | [`Treatment::Skip`], below the lowest layer that trains | plain tensors | nothing | nothing |
//! | [`Treatment::Keep`] | with a graph of its own | that graph | its vector-Jacobian product |
//!
//! Every kept layer has a graph of its own, cut from its neighbours: its input is a new leaf, and the backward pass chains
//! vector-Jacobian products from the loss downwards, freeing each layer's graph before the next one runs. A layer that does
//! not train keeps its parameters plain and only passes the gradient to its input. No base weight is ever part of a graph's
//! leaves, and below the lowest chosen layer there is no graph at all.

use std::borrow::Borrow;

use burn::tensor::Tensor;

use crate::gradients::{Gradients, OUTER, layer_prefix, lift, scalar};
use crate::{LayerPass, LayerSet, LayeredModel, Responses, streams};

/// What the walk does with one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Plain forward; nothing below trains, so nothing is kept.
    Skip,
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
}

/// The treatment of every layer when `chosen` train and `embedding_trains` says whether anything below layer 0 does.
pub fn treatments(chosen: &LayerSet, embedding_trains: bool) -> Vec<Treatment> {
    let lowest = if embedding_trains { 0 } else { chosen.iter().next().unwrap_or(chosen.num_layers()) };
    (0..chosen.num_layers()).map(|layer| if layer < lowest { Treatment::Skip } else { Treatment::Keep }).collect()
}

/// The gradients of the mean token loss over `micro_batches` for the layers of `chosen`.
///
/// The loss of all micro-batches is normalised by their common number of predicted tokens, so that splitting a batch does
/// not change the result. `dropout` seeds the step's dropout; `None` switches it off.
pub fn gradients<M: LayeredModel>(
    model: &M,
    micro_batches: &[M::Batch],
    chosen: &LayerSet,
    dropout: Option<u64>,
) -> StepOutput {
    let tokens: usize = micro_batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let walk = Walk {
        model,
        outer: lift(model.outer()),
        layers: (0..model.layers().len()).map(|i| chosen.contains(i).then(|| lift(&model.layers()[i]))).collect(),
        chosen,
        scale: 1.0 / tokens.max(1) as f64,
    };
    let mut gradients = Gradients::default();
    let mut total = 0.0;
    for (number, batch) in micro_batches.iter().enumerate() {
        total += walk.run(batch, dropout.map(|seed| streams::mix(seed, number as u64)), &mut gradients);
    }
    StepOutput { loss: total * walk.scale, tokens, gradients }
}

/// The summed token loss of one batch in evaluation mode, forward only, with each layer at its response factor.
pub fn evaluate<M: LayeredModel>(model: &M, batch: &M::Batch, responses: &Responses) -> f64 {
    let context = model.context(batch);
    let embedded = model.embed(model.outer(), batch, &LayerPass::EVALUATION);
    let x = model.layers().iter().enumerate().fold(embedded, |x, (index, layer)| {
        model.layer(layer, x, &context, &LayerPass::evaluation(responses.get(index)))
    });
    scalar(model.loss(model.outer(), x, batch, &LayerPass::EVALUATION))
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

/// One step's modules: lifted where they train, the model's own plain ones elsewhere.
struct Walk<'a, M: LayeredModel> {
    model: &'a M,
    outer: M::Outer,
    layers: Vec<Option<M::Layer>>,
    chosen: &'a LayerSet,
    scale: f64,
}

/// A kept layer between forward and backward.
struct Kept {
    index: usize,
    /// The layer's input as a leaf; absent when nothing below it trains.
    input: Option<Tensor<3>>,
    output: Tensor<3>,
}

impl<M: LayeredModel> Walk<'_, M> {
    /// Forward and backward of one micro-batch; adds to `gradients` and returns the summed token loss.
    fn run(&self, batch: &M::Batch, dropout: Option<u64>, gradients: &mut Gradients) -> f64 {
        let outer_pass = LayerPass { response: 1.0, dropout };
        let embedded = self.model.embed(&self.outer, batch, &outer_pass);
        let (kept, x) = self.forward(&embedded, batch, dropout);
        let below_trains = embedded.is_tracked() || !kept.is_empty();
        let input = below_trains.then(|| leaf(x.clone()));
        let loss = self.model.loss(&self.outer, input.clone().unwrap_or(x), batch, &outer_pass);
        let total = scalar(loss.clone().inner());
        if loss.is_tracked() {
            let mut graph = loss.mul_scalar(self.scale).backward();
            gradients.collect(OUTER, &self.outer, &mut graph);
            let upstream = input.and_then(|input| input.grad_remove(&mut graph));
            drop(graph);
            self.backward(kept, embedded, upstream, gradients);
        }
        total
    }

    /// Runs the layers upwards. Returns those with a graph and the last layer's output without one.
    fn forward(&self, embedded: &Tensor<3>, batch: &M::Batch, dropout: Option<u64>) -> (Vec<Kept>, Tensor<3>) {
        let context = self.model.context(batch);
        let mut below_trains = embedded.is_tracked();
        let mut x = embedded.clone().inner();
        let mut kept = Vec::new();
        for (index, treatment) in treatments(self.chosen, below_trains).into_iter().enumerate() {
            let layer = self.layers[index].as_ref().unwrap_or(&self.model.layers()[index]);
            let pass = LayerPass { response: 1.0, dropout: dropout.map(|seed| streams::mix(seed, 1 + index as u64)) };
            let input = (treatment == Treatment::Keep && below_trains).then(|| leaf(x.clone()));
            let output = self.model.layer(layer, input.clone().unwrap_or(x), &context, &pass);
            x = output.clone().inner();
            // A chosen layer without adapters of its own, with nothing below it, has no graph to keep.
            if output.is_tracked() {
                below_trains = true;
                kept.push(Kept { index, input, output });
            }
        }
        (kept, x)
    }

    /// Chains the vector-Jacobian products downwards, dropping each graph as soon as it is used.
    fn backward(
        &self,
        kept: Vec<Kept>,
        embedded: Tensor<3>,
        mut upstream: Option<Tensor<3>>,
        gradients: &mut Gradients,
    ) {
        for layer in kept.into_iter().rev() {
            let Some(gradient) = upstream.take() else { return };
            let mut graph = (layer.output * gradient).backward();
            if let Some(module) = &self.layers[layer.index] {
                gradients.collect(&layer_prefix(layer.index), module, &mut graph);
            }
            upstream = layer.input.and_then(|input| input.grad_remove(&mut graph));
        }
        if let (true, Some(gradient)) = (embedded.is_tracked(), upstream) {
            let mut graph = (embedded * gradient).backward();
            gradients.collect(OUTER, &self.outer, &mut graph);
        }
    }
}

fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_below_the_lowest_chosen_layer() {
        use Treatment::{Keep, Skip};
        let chosen = LayerSet::new([2, 3], 5).unwrap();
        assert_eq!(treatments(&chosen, false), [Skip, Skip, Keep, Keep, Keep]);
        assert_eq!(treatments(&chosen, true), [Keep; 5]);
        assert_eq!(treatments(&LayerSet::empty(3), false), [Skip; 3]);
    }
}
