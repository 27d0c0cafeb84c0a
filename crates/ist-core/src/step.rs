//! The layer walk: one training step over layers whose treatment is known before the forward pass.
//!
//! | treatment | forward | memory kept | backward |
//! |---|---|---|---|
//! | [`Treatment::Skip`], below the lowest layer that trains | plain tensors | nothing | nothing |
//! | [`Treatment::Recompute`] | plain tensors | the layer's input | the layer again with a graph, then its product |
//! | [`Treatment::Keep`] | with a graph of its own | that graph | its vector-Jacobian product |
//!
//! Every layer above the lowest that trains has a graph of its own, cut from its neighbours: its input is a new leaf, and the backward pass chains
//! vector-Jacobian products from the loss downwards, freeing each layer's graph before the next one runs. A layer that does
//! not train keeps its parameters plain and only passes the gradient to its input. No base weight is ever part of a graph's
//! leaves, and below the lowest chosen layer there is no graph at all.

use std::borrow::Borrow;

use burn::tensor::Tensor;

use crate::gradients::{Gradients, OUTER, count_parameters, layer_prefix, lift, scalar};
use crate::plan::{self, Draw};
use crate::pull_back::pull_back;
use crate::{LayerPass, LayerSet, LayeredModel, Responses, streams};

/// What the walk does with one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Plain forward; nothing below trains, so nothing is kept.
    Skip,
    /// Plain forward that keeps the layer's input; its graph is built and used up in the backward pass.
    Recompute,
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
}

/// How a step trades memory for time. The gradients are the same but for rounding: a backend may compute an operation
/// otherwise when it builds a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Keeps the graph of every layer that the gradient passes: the fastest.
    #[default]
    Keep,
    /// Keeps the inputs of those layers alone and runs each of them once more: the leanest.
    Recompute,
    /// Keeps as many graphs as fit into that many bytes above the model, its adapters and the optimizer's state, those that
    /// save most time ([`plan`]). Of a model that does not tell its footprint none, as under `Recompute`.
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
    let tokens: usize = micro_batches.iter().map(|batch| model.predicted_tokens(batch)).sum();
    let walk = Walk {
        model,
        outer: lift(model.outer()),
        layers: (0..model.layers().len()).map(|i| chosen.contains(i).then(|| lift(&model.layers()[i]))).collect(),
        chosen,
        memory,
        scale: 1.0 / tokens.max(1) as f64,
    };
    let mut gradients = Gradients::default();
    let (mut total, mut predicted_bytes) = (0.0, None);
    for (number, batch) in micro_batches.iter().enumerate() {
        let seed = dropout.map(|seed| streams::mix(seed, number as u64));
        let (loss, predicted) = walk.run(batch, seed, number > 0, &mut gradients);
        total += loss;
        predicted_bytes = predicted_bytes.max(predicted);
    }
    StepOutput { loss: total * walk.scale, tokens, gradients, predicted_bytes }
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
        for layer in first..self.model.layers().len() {
            let (damped, full): (Vec<usize>, Vec<usize>) =
                group.iter().partition(|&&candidate| self.candidates[candidate].contains(layer));
            if !damped.is_empty() && !full.is_empty() {
                self.ascend(&damped, layer, x.clone(), totals);
                return self.ascend(&full, layer, x, totals);
            }
            let pass = LayerPass::evaluation(if full.is_empty() { self.factor } else { 1.0 });
            x = self.model.layer(&self.model.layers()[layer], x, &self.context, &pass);
        }
        let loss = scalar(self.model.loss(self.model.outer(), x, self.batch, &LayerPass::EVALUATION));
        for &candidate in group {
            totals[candidate] += loss;
        }
    }
}

/// One step's modules: lifted where they train, the model's own plain ones elsewhere.
struct Walk<'a, M: LayeredModel> {
    model: &'a M,
    outer: M::Outer,
    layers: Vec<Option<M::Layer>>,
    chosen: &'a LayerSet,
    memory: Memory,
    scale: f64,
}

/// A layer between forward and backward.
struct Kept {
    index: usize,
    /// The factor and the seed it was run with.
    pass: LayerPass,
    held: Held,
}

/// What is held of a layer.
enum Held {
    /// Its graph.
    Graph(Box<LayerGraph>),
    /// Its input, plain, and whether anything below it trains.
    Input(Box<Tensor<3>>, bool),
}

/// One layer's graph.
struct LayerGraph {
    /// The layer's input as a leaf; absent when nothing below it trains.
    input: Option<Tensor<3>>,
    output: Tensor<3>,
}

impl<M: LayeredModel> Walk<'_, M> {
    /// Forward and backward of one micro-batch; adds to `gradients` and returns the summed token loss and the predicted
    /// bytes. `accumulates` says whether it is not the step's first.
    fn run(
        &self,
        batch: &M::Batch,
        dropout: Option<u64>,
        accumulates: bool,
        gradients: &mut Gradients,
    ) -> (f64, Option<u64>) {
        let outer_pass = LayerPass { response: 1.0, dropout };
        let embedded = self.model.embed(&self.outer, batch, &outer_pass);
        let context = self.model.context(batch);
        let footprint = self.model.footprint(batch);
        let draw = Draw { chosen: self.chosen, embedding_trains: embedded.is_tracked(), accumulates };
        let treatments = draw.treatments(self.memory, footprint.as_ref());
        let predicted = footprint.map(|footprint| plan::peak(&footprint, &draw, &treatments));
        let (plain, embedded) = (embedded.clone().inner(), embedded.is_tracked().then_some(embedded));
        let (kept, x) = self.forward(plain, embedded.is_some(), &treatments, &context, dropout);
        let below_trains = embedded.is_some() || !kept.is_empty();
        let input = below_trains.then(|| leaf(x.clone()));
        let loss = self.model.loss(&self.outer, input.clone().unwrap_or(x), batch, &outer_pass);
        let total = scalar(loss.clone().inner());
        if loss.is_tracked() {
            let mut graph = loss.mul_scalar(self.scale).backward();
            gradients.collect(OUTER, &self.outer, &mut graph);
            let upstream = input.and_then(|input| input.grad_remove(&mut graph));
            drop(graph);
            self.backward(kept, &context, embedded, upstream, gradients);
        }
        (total, predicted)
    }

    /// Runs the layers upwards from the first one's input; `below_trains` says whether anything that made it does. Returns
    /// those that the gradient passes and the last layer's output without a graph.
    fn forward(
        &self,
        mut x: Tensor<3>,
        mut below_trains: bool,
        treatments: &[Treatment],
        context: &M::Context,
        dropout: Option<u64>,
    ) -> (Vec<Kept>, Tensor<3>) {
        let mut kept = Vec::new();
        for (index, treatment) in treatments.iter().enumerate() {
            let pass = LayerPass { response: 1.0, dropout: dropout.map(|seed| streams::mix(seed, 1 + index as u64)) };
            // A chosen layer without adapters of its own, with nothing below it, has no graph to keep.
            let tracked = below_trains || self.layers[index].as_ref().is_some_and(|layer| count_parameters(layer) > 0);
            let (held, output) = match treatment {
                Treatment::Keep if tracked => {
                    let graph = self.graph(index, x, below_trains, context, &pass);
                    let output = graph.output.clone().inner();
                    (Some(Held::Graph(Box::new(graph))), output)
                }
                _ => {
                    let input = tracked.then(|| Held::Input(Box::new(x.clone()), below_trains));
                    (input, self.model.layer(&self.model.layers()[index], x, context, &pass))
                }
            };
            kept.extend(held.map(|held| Kept { index, pass, held }));
            (x, below_trains) = (output, tracked);
        }
        (kept, x)
    }

    /// Runs layer `index` on the plain input `x` with a graph of its own.
    fn graph(
        &self,
        index: usize,
        x: Tensor<3>,
        below_trains: bool,
        context: &M::Context,
        pass: &LayerPass,
    ) -> LayerGraph {
        let layer = self.layers[index].as_ref().unwrap_or(&self.model.layers()[index]);
        let input = below_trains.then(|| leaf(x.clone()));
        let output = self.model.layer(layer, input.clone().unwrap_or(x), context, pass);
        LayerGraph { input, output }
    }

    /// Chains the vector-Jacobian products downwards, dropping each graph as soon as it is used.
    fn backward(
        &self,
        kept: Vec<Kept>,
        context: &M::Context,
        embedded: Option<Tensor<3>>,
        mut upstream: Option<Tensor<3>>,
        gradients: &mut Gradients,
    ) {
        for Kept { index, pass, held } in kept.into_iter().rev() {
            let Some(gradient) = upstream.take() else { return };
            let LayerGraph { input, output } = match held {
                Held::Graph(graph) => *graph,
                Held::Input(x, below_trains) => self.graph(index, *x, below_trains, context, &pass),
            };
            let mut graph = pull_back(output, gradient);
            if let Some(module) = &self.layers[index] {
                gradients.collect(&layer_prefix(index), module, &mut graph);
            }
            upstream = input.and_then(|input| input.grad_remove(&mut graph));
        }
        if let (Some(embedded), Some(gradient)) = (embedded, upstream) {
            let mut graph = pull_back(embedded, gradient);
            gradients.collect(OUTER, &self.outer, &mut graph);
        }
    }
}

fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
