//! One micro-batch on its way up through the layers and down again.
//!
//! Every layer above the lowest that trains has a graph of its own, cut from its neighbours: its input is a new leaf, and the
//! backward pass chains vector-Jacobian products from the loss downwards, freeing each layer's graph before the next one runs.
//! So it is with the halves of a layer of which one is kept. A layer that does not train keeps its parameters plain and only
//! passes the gradient to its input. No base weight is ever part of a graph's leaves, and below the lowest chosen layer there
//! is no graph at all.

use std::time::Instant;

use burn::tensor::Tensor;

use crate::gradients::{Gradients, OUTER, count_parameters, layer_prefix, lift, scalar};
use crate::plan::{self, Draw};
use crate::pull_back::pull_back;
use crate::step::{Memory, Treatment};
use crate::times::timed;
use crate::{Half, LayerPass, LayerSet, LayeredModel, Times, streams};

impl Treatment {
    /// The parts that a layer is run in, and whether the graph of each is kept.
    fn parts(self) -> &'static [(Option<Half>, bool)] {
        match self {
            Self::Skip | Self::Recompute => &[(None, false)],
            Self::KeepHalf => &[(Some(Half::First), true), (Some(Half::Second), false)],
            Self::Keep => &[(None, true)],
        }
    }
}

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
        Self { pass: LayerPass { value: false, ..self.pass }, ..self }
    }
}

/// A part between forward and backward.
struct Kept {
    part: Part,
    held: Held,
}

/// What is held of a part.
enum Held {
    /// Its graph.
    Graph(Box<PartGraph>),
    /// Its input, plain, and whether anything below it trains.
    Input(Box<Tensor<3>>, bool),
}

/// One part's graph.
struct PartGraph {
    /// The part's input as a leaf; absent when nothing below it trains.
    input: Option<Tensor<3>>,
    output: Tensor<3>,
}

/// The layers as the walk runs them.
struct Walk<'a, M: LayeredModel> {
    model: &'a M,
    /// Those that train, lifted.
    lifted: &'a [Option<M::Layer>],
    context: &'a M::Context,
}

impl<M: LayeredModel> Walk<'_, M> {
    /// Runs the layers upwards from the first one's input; `below_trains` says whether anything that made it does. Returns
    /// those that the gradient passes and the last layer's output without a graph.
    fn forward(
        &self,
        mut x: Tensor<3>,
        mut below_trains: bool,
        treatments: &[Treatment],
        dropout: Option<u64>,
    ) -> (Vec<Kept>, Tensor<3>) {
        let mut kept = Vec::new();
        for (index, treatment) in treatments.iter().enumerate() {
            let pass =
                LayerPass::training(dropout.map(|seed| streams::mix(seed, 1 + index as u64)));
            for &(half, keeps) in treatment.parts() {
                let part = Part { index, half, pass };
                let (held, output) = self.run_part(part, x, below_trains, keeps);
                below_trains = held.is_some();
                kept.extend(held.map(|held| Kept { part, held }));
                x = output;
            }
        }
        (kept, x)
    }

    /// Runs a part on the plain input `x`: what is held of it, nothing where no gradient passes it, and its plain output.
    fn run_part(
        &self,
        part: Part,
        x: Tensor<3>,
        below_trains: bool,
        keeps: bool,
    ) -> (Option<Held>, Tensor<3>) {
        if keeps {
            let graph = self.graph(part, x, below_trains);
            let output = graph.output.clone().inner();
            return (graph.output.is_tracked().then(|| Held::Graph(Box::new(graph))), output);
        }
        // A chosen layer without adapters of its own, with nothing below it, has no graph.
        let trains =
            || self.lifted[part.index].as_ref().is_some_and(|layer| count_parameters(layer) > 0);
        let held =
            (below_trains || trains()).then(|| Held::Input(Box::new(x.clone()), below_trains));
        (held, self.layer(&self.model.layers()[part.index], part, x))
    }

    fn layer(&self, layer: &M::Layer, part: Part, x: Tensor<3>) -> Tensor<3> {
        match part.half {
            Some(half) => self.model.half(half, layer, x, self.context, &part.pass),
            None => self.model.layer(layer, x, self.context, &part.pass),
        }
    }

    /// Runs a part on the plain input `x` with a graph of its own.
    fn graph(&self, part: Part, x: Tensor<3>, below_trains: bool) -> PartGraph {
        let layer = self.lifted[part.index].as_ref().unwrap_or(&self.model.layers()[part.index]);
        let input = below_trains.then(|| leaf(x.clone()));
        let output = self.layer(layer, part, input.clone().unwrap_or(x));
        PartGraph { input, output }
    }
}

/// A micro-batch on its way down: its loss is known, and the gradients of its layers come one after the other.
///
/// A layer that was passed is no longer looked at, so its parameters may change before the next one is.
pub(crate) struct Descent<M: LayeredModel> {
    /// The summed token loss.
    pub total: f64,
    /// The most live bytes that were predicted.
    pub predicted_bytes: Option<u64>,
    times: Times,
    outer: M::Outer,
    /// The layers that train, lifted.
    lifted: Vec<Option<M::Layer>>,
    context: M::Context,
    /// What is held of the layers that the gradient has still to pass, the lowest first.
    kept: Vec<Kept>,
    /// The first layer's input where anything that made it trains.
    embedded: Option<Tensor<3>>,
    /// The gradient of the output of the highest layer that it has still to pass.
    upstream: Option<Tensor<3>>,
}

impl<M: LayeredModel> Descent<M> {
    /// Runs the forward pass and the loss, and adds the gradients of what stands behind the layers to `gradients`.
    pub(crate) fn begin(model: &M, given: &MicroBatch<M>, gradients: &mut Gradients) -> Self {
        let MicroBatch { batch, chosen, dropout, accumulates, updates_at_once, .. } = *given;
        let (started, mut times) = (Instant::now(), Times::default());
        let outer = lift(model.outer());
        let trained = |(index, layer)| chosen.contains(index).then(|| lift::<M::Layer>(layer));
        let lifted: Vec<Option<M::Layer>> =
            model.layers().iter().enumerate().map(trained).collect();
        let pass = LayerPass::training(dropout);
        let embedded = model.embed(&outer, batch, &pass);
        let context = model.context(batch);
        let footprint = model.footprint(batch);
        let draw =
            Draw { chosen, embedding_trains: embedded.is_tracked(), accumulates, updates_at_once };
        let treatments = draw.treatments(given.memory, footprint.as_ref());
        let predicted_bytes = footprint.map(|footprint| plan::peak(&footprint, &draw, &treatments));
        let (plain, embedded) =
            (embedded.clone().inner(), embedded.is_tracked().then_some(embedded));
        let walk = Walk { model, lifted: &lifted, context: &context };
        let (kept, x) = walk.forward(plain, embedded.is_some(), &treatments, dropout);
        let below_trains = embedded.is_some() || !kept.is_empty();
        let input = below_trains.then(|| leaf(x.clone()));
        let loss = model.loss(&outer, input.clone().unwrap_or(x), batch, &pass);
        let total = scalar(loss.clone().inner());
        times.forward = started.elapsed().as_secs_f64();
        let upstream = loss.is_tracked().then(|| {
            timed(&mut times.backward, || {
                let mut graph =
                    loss.mul_scalar(given.scale / given.tokens.max(1) as f64).backward();
                gradients.collect(OUTER, &outer, &mut graph);
                input.and_then(|input| input.grad_remove(&mut graph))
            })
        });
        Self {
            total,
            predicted_bytes,
            times,
            outer,
            lifted,
            context,
            kept,
            embedded,
            upstream: upstream.flatten(),
        }
    }

    /// Adds the gradients of the next layer downwards that the gradient passes, and returns its index; `None` below the last.
    /// Its graph is gone then.
    pub(crate) fn layer(&mut self, model: &M, gradients: &mut Gradients) -> Option<usize> {
        let index = self.kept.last()?.part.index;
        while let Some(kept) = self.kept.pop_if(|kept| kept.part.index == index) {
            self.part(model, kept, gradients);
        }
        self.lifted[index] = None;
        Some(index)
    }

    /// Takes the vector-Jacobian product of a part.
    fn part(&mut self, model: &M, Kept { part, held }: Kept, gradients: &mut Gradients) {
        let Some(gradient) = self.upstream.take() else { return };
        let walk = Walk { model, lifted: &self.lifted, context: &self.context };
        let times = &mut self.times;
        let PartGraph { input, output } = match held {
            Held::Graph(graph) => *graph,
            Held::Input(x, below_trains) => {
                timed(&mut times.recompute, || walk.graph(part.again(), *x, below_trains))
            }
        };
        self.upstream = timed(&mut times.backward, || {
            let mut graph = pull_back(output, gradient);
            if let Some(module) = &self.lifted[part.index] {
                gradients.collect(&layer_prefix(part.index), module, &mut graph);
            }
            input.and_then(|input| input.grad_remove(&mut graph))
        });
    }

    /// Adds the gradients of what stands below the layers; where the time went.
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

fn leaf(x: Tensor<3>) -> Tensor<3> {
    x.autodiff().require_grad()
}
