//! One micro-batch on its way up through the layers and down again.
//!
//! Every layer above the lowest that trains has a graph of its own, cut from its neighbours: its
//! input is a new leaf. The backward pass chains vector-Jacobian products from the loss downwards
//! and frees each layer's graph before the next one runs. The halves of a layer of which one is
//! kept are treated alike.
//!
//! A layer that does not train keeps its parameters plain and only passes the gradient to its
//! input. No base weight is ever a leaf of a graph, and below the lowest chosen layer there is no
//! graph at all.

use std::time::Instant;

use burn::tensor::Tensor;

use super::pull_back::pull_back;
use crate::gradients::{Gradients, OUTER, count_parameters, layer_prefix, lift, scalar};
use crate::plan::{self, Below, Draw, LayerTreatment, Memory};
use crate::times::timed;
use crate::{Half, LayerPass, LayerSet, LayeredModel, Times, streams};

/// One micro-batch of a step, and how it is run.
pub(crate) struct MicroBatch<'a, M: LayeredModel> {
    /// The batch.
    pub batch: &'a M::Batch,
    /// Predicted tokens of the whole step.
    pub tokens: usize,
    /// What the gradients are multiplied by ([`LossScale`](crate::LossScale)).
    pub scale: f64,
    /// The layers that train.
    pub chosen: &'a LayerSet,
    /// How memory is traded for time.
    pub memory: Memory,
    /// The seed of this micro-batch's dropout.
    pub dropout: Option<u64>,
    /// Whether gradients of earlier micro-batches are held.
    pub accumulates: bool,
    /// Whether every layer's gradients are used up before the next layer's are asked for.
    pub updates_at_once: bool,
}

/// Which part of a layer is run at once, and whether its graph is kept.
#[derive(Clone, Copy)]
struct PartTreatment {
    /// The half, or `None` for the whole layer.
    half: Option<Half>,
    keeps_graph: bool,
}

const WITHOUT_GRAPH: [PartTreatment; 1] = [PartTreatment { half: None, keeps_graph: false }];
const WITH_GRAPH: [PartTreatment; 1] = [PartTreatment { half: None, keeps_graph: true }];
const FIRST_WITH_GRAPH: [PartTreatment; 2] = [
    PartTreatment { half: Some(Half::First), keeps_graph: true },
    PartTreatment { half: Some(Half::Second), keeps_graph: false },
];

/// The parts that a layer is run in.
fn parts(treatment: LayerTreatment) -> &'static [PartTreatment] {
    match treatment {
        LayerTreatment::Skip | LayerTreatment::Recompute => &WITHOUT_GRAPH,
        LayerTreatment::KeepHalf => &FIRST_WITH_GRAPH,
        LayerTreatment::Keep => &WITH_GRAPH,
    }
}

/// A layer or half of one, and the factor and the seed it is run with.
#[derive(Clone, Copy)]
struct Part {
    index: usize,
    half: Option<Half>,
    pass: LayerPass,
}

impl Part {
    /// The same once more, for its graph alone.
    fn again(self) -> Self {
        Self { pass: LayerPass { needs_output: false, ..self.pass }, ..self }
    }
}

/// A part between forward and backward.
struct KeptPart {
    part: Part,
    held: Held,
}

/// What is held of a part.
enum Held {
    /// Its graph.
    Graph(Box<PartGraph>),
    /// Its input, from which its graph is made in the backward pass.
    Input(Box<PartInput>),
}

/// One part's graph.
struct PartGraph {
    /// The part's input as a leaf; absent when nothing below it trains.
    input: Option<Tensor<3>>,
    output: Tensor<3>,
}

/// One part's input, plain.
struct PartInput {
    x: Tensor<3>,
    below: Below,
}

/// What a part leaves behind when it has run forward.
struct PartRun {
    /// What its backward pass needs; nothing where no gradient passes it.
    held: Option<Held>,
    /// Its plain output.
    output: Tensor<3>,
}

/// The layers as the walk runs them.
struct Walk<'a, M: LayeredModel> {
    model: &'a M,
    /// Those that train, lifted.
    lifted: &'a [Option<M::Layer>],
    context: &'a M::Context,
}

/// What a walk upwards leaves behind.
struct Ascent {
    /// The parts that the gradient passes, the lowest first.
    kept: Vec<KeptPart>,
    /// The last layer's plain output.
    output: Tensor<3>,
}

impl<M: LayeredModel> Walk<'_, M> {
    /// Runs the layers upwards from `x`, the first one's input; `below` says whether anything that
    /// made it trains.
    fn forward(
        &self,
        mut x: Tensor<3>,
        mut below: Below,
        treatments: &[LayerTreatment],
        dropout: Option<u64>,
    ) -> Ascent {
        let mut kept = Vec::new();
        for (index, treatment) in treatments.iter().enumerate() {
            // The embedding has the micro-batch's own seed, so layers are counted from 1 here.
            let seed = dropout.map(|seed| streams::mix(seed, 1 + index as u64));
            let pass = LayerPass::training(seed);
            for part_treatment in parts(*treatment) {
                let part = Part { index, half: part_treatment.half, pass };
                let run = if part_treatment.keeps_graph {
                    self.run_with_graph(part, x, below)
                } else {
                    self.run_plain(part, x, below)
                };
                // Once the gradient has to pass one part, it has to pass all parts above it.
                below = Below::of(run.held.is_some());
                kept.extend(run.held.map(|held| KeptPart { part, held }));
                x = run.output;
            }
        }
        Ascent { kept, output: x }
    }

    /// Runs a part on the plain input `x` and keeps its graph.
    fn run_with_graph(&self, part: Part, x: Tensor<3>, below: Below) -> PartRun {
        let graph = self.graph(part, x, below);
        // The output leaves the graph, so that the next part's graph does not reach into this one.
        let output = graph.output.clone().inner();
        // A part without adapters above nothing that trains is plain even here.
        let tracked = graph.output.is_tracked();
        PartRun { held: tracked.then(|| Held::Graph(Box::new(graph))), output }
    }

    /// Runs a part on the plain input `x` without a graph and keeps that input.
    fn run_plain(&self, part: Part, x: Tensor<3>, below: Below) -> PartRun {
        // A chosen layer may have no adapter of its own. With nothing below it, it has no graph.
        let trains =
            || self.lifted[part.index].as_ref().is_some_and(|layer| count_parameters(layer) > 0);
        let held = (below.trains() || trains())
            .then(|| Held::Input(Box::new(PartInput { x: x.clone(), below })));
        // The plain layer and not the lifted one: it builds no graph.
        let output = self.run_layer(&self.model.layers()[part.index], part, x);
        PartRun { held, output }
    }

    fn run_layer(&self, layer: &M::Layer, part: Part, x: Tensor<3>) -> Tensor<3> {
        match part.half {
            Some(half) => self.model.half(half, layer, x, self.context, &part.pass),
            None => self.model.layer(layer, x, self.context, &part.pass),
        }
    }

    /// Runs a part on the plain input `x` with a graph of its own.
    fn graph(&self, part: Part, x: Tensor<3>, below: Below) -> PartGraph {
        let layer = self.lifted[part.index].as_ref().unwrap_or(&self.model.layers()[part.index]);
        // Where nothing below trains the input stays a constant, and its gradient is never
        // computed.
        let input = below.trains().then(|| leaf(x.clone()));
        let output = self.run_layer(layer, part, input.clone().unwrap_or(x));
        PartGraph { input, output }
    }
}

/// A micro-batch on its way down: its loss is known, and the gradients of its layers come one after
/// the other.
///
/// The descent never looks at a layer again once it has passed it. So that layer's parameters may
/// change before the next one's gradients are asked for.
pub(crate) struct Descent<M: LayeredModel> {
    /// The summed token loss.
    pub total: f64,
    /// The predicted peak of live bytes.
    pub predicted_bytes: Option<u64>,
    times: Times,
    outer: M::Outer,
    /// The layers that train, lifted.
    lifted: Vec<Option<M::Layer>>,
    context: M::Context,
    /// What is held of the layers that the gradient has still to pass, the lowest first.
    kept: Vec<KeptPart>,
    /// The first layer's input where anything that made it trains.
    embedded: Option<Tensor<3>>,
    /// The gradient of the output of the highest layer that it has still to pass.
    upstream: Option<Tensor<3>>,
}

impl<M: LayeredModel> Descent<M> {
    /// Runs the forward pass and the loss, and adds the gradients of the modules behind the layers
    /// to `gradients`.
    pub(crate) fn begin(model: &M, given: &MicroBatch<M>, gradients: &mut Gradients) -> Self {
        let started = Instant::now();
        let outer = lift(model.outer());
        let lifted = lift_chosen(model, given.chosen);
        let pass = LayerPass::training(given.dropout);
        let embedded = model.embed(&outer, given.batch, &pass);
        let context = model.context(given.batch);
        let embedding = Below::of(embedded.is_tracked());
        let footprint = model.footprint(given.batch);
        let draw = Draw {
            chosen: given.chosen,
            embedding_trains: embedding.trains(),
            accumulates: given.accumulates,
            updates_at_once: given.updates_at_once,
        };
        let treatments = draw.treatments(given.memory, footprint.as_ref());
        let predicted_bytes = footprint.map(|footprint| plan::peak(&footprint, &draw, &treatments));
        let first_input = embedded.clone().inner();
        // A plain embedding is let go here, because layer 0 has its value.
        let embedded = embedding.trains().then_some(embedded);
        let walk = Walk { model, lifted: &lifted, context: &context };
        let ascent = walk.forward(first_input, embedding, &treatments, given.dropout);
        let below = Below::of(embedding.trains() || !ascent.kept.is_empty());
        let input = below.trains().then(|| leaf(ascent.output.clone()));
        let x = input.clone().unwrap_or(ascent.output);
        let loss = model.loss(&outer, x, given.batch, &pass);
        // Reading the number waits for the device, so the forward pass is over here.
        let total = scalar(loss.clone().inner());
        let mut times = Times { forward: started.elapsed().as_secs_f64(), ..Times::default() };
        let mut upstream = None;
        if loss.is_tracked() {
            // The mean over the step's tokens, and the loss scale, enter the gradients here.
            let factor = given.scale / given.tokens.max(1) as f64;
            upstream = timed(&mut times.backward, || {
                let mut graph = loss.mul_scalar(factor).backward();
                gradients.collect(OUTER, &outer, &mut graph);
                input.and_then(|input| input.grad_remove(&mut graph))
            });
        }
        Self {
            total,
            predicted_bytes,
            times,
            outer,
            lifted,
            context,
            kept: ascent.kept,
            embedded,
            upstream,
        }
    }

    /// Adds the gradients of the next layer downwards that the gradient passes, and returns its
    /// index. `None` below the last. The layer's graph is gone afterwards.
    pub(crate) fn layer(&mut self, model: &M, gradients: &mut Gradients) -> Option<usize> {
        let index = self.kept.last()?.part.index;
        while let Some(kept) = self.kept.pop_if(|kept| kept.part.index == index) {
            self.part(model, kept, gradients);
        }
        // The lifted copy shares its values with the model. While it lives, they stay in memory
        // beside the updated ones.
        self.lifted[index] = None;
        Some(index)
    }

    /// Takes the vector-Jacobian product of a part.
    fn part(&mut self, model: &M, kept: KeptPart, gradients: &mut Gradients) {
        let Some(gradient) = self.upstream.take() else { return };
        let part = kept.part;
        let walk = Walk { model, lifted: &self.lifted, context: &self.context };
        let times = &mut self.times;
        let PartGraph { input, output } = match kept.held {
            Held::Graph(graph) => *graph,
            Held::Input(input) => timed(&mut times.recompute, || {
                let PartInput { x, below } = *input;
                walk.graph(part.again(), x, below)
            }),
        };
        self.upstream = timed(&mut times.backward, || {
            let mut graph = pull_back(output, gradient);
            if let Some(module) = &self.lifted[part.index] {
                gradients.collect(&layer_prefix(part.index), module, &mut graph);
            }
            input.and_then(|input| input.grad_remove(&mut graph))
        });
    }

    /// Adds the gradients of the modules below the layers. Returns where the time went.
    pub(crate) fn finish(self, gradients: &mut Gradients) -> Times {
        let mut times = self.times;
        if let (Some(embedded), Some(gradient)) = (self.embedded, self.upstream) {
            timed(&mut times.backward, || {
                let mut graph = pull_back(embedded, gradient);
                gradients.collect(OUTER, &self.outer, &mut graph);
            });
        }
        times
    }
}

/// The layers of `chosen` with their parameters as leaves of new graphs.
fn lift_chosen<M: LayeredModel>(model: &M, chosen: &LayerSet) -> Vec<Option<M::Layer>> {
    let layers = model.layers().iter().enumerate();
    layers.map(|(index, layer)| chosen.contains(index).then(|| lift(layer))).collect()
}

fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
