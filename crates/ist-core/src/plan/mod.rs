//! The memory plan: which layers keep their graph, which keep half of it and which are run again, so that a step's predicted
//! peak stays within a budget at the least recomputation.
//!
//! A step's peak is not a sum. The graphs grow while the walk goes up and shrink while it comes down, so it is the largest
//! of its phases, with l the lowest layer that trains, h the bytes of a layer's input and g_j those of what is kept of layer
//! j's graph:
//!
//! | phase | live above what is always held |
//! |---|---|
//! | layer i runs | (i - l) h + Σ_{j<i} g_j + what running it takes |
//! | the loss | (n - l) h + Σ g_j + what loss and its backward take |
//! | layer i's backward | (i - l) h + Σ_{j<i} g_j + its own graph and its backward + the gradients of the layers above |
//!
//! The lowest layer's input is needed no longer than that layer runs where it is kept, and until its backward where it is run
//! again.
//!
//! A graph is a burden to the layers above its own only: keeping a high layer, whose graph is the first to go, costs less
//! than keeping a low one. [`within`] knows that; its search is exact.

mod search;
pub mod tape;

use crate::LayerSet;
use crate::step::{Memory, Treatment};

pub use search::{leanest, within};

/// What keeping a graph, or half of one, takes; in bytes beyond the layer's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptCost {
    /// What is kept, from the layer's forward to its backward pass.
    pub graph: u64,
    /// The most while it runs, the output included.
    pub tracked: u64,
    /// The most during its backward pass, with what is run again for it.
    pub backward: u64,
}

/// What one layer takes on one micro-batch, in bytes beyond its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerCost {
    /// Its graph, from its forward to its backward pass.
    pub graph: u64,
    /// The most while it runs without a graph, its output included.
    pub plain: u64,
    /// The most while it runs with one, graph and output included.
    pub tracked: u64,
    /// The most during its backward pass: graph, incoming and outgoing gradient, and its parameters' gradients.
    pub backward: u64,
    /// The gradients of its parameters, which stay until the optimizer has used them.
    pub gradients: u64,
    /// The same with half of the graph; `None` for a layer that does not divide.
    pub half: Option<KeptCost>,
}

/// One layer in each of its roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerFootprint {
    /// It rests above a layer that trains.
    pub resting: LayerCost,
    /// It trains, and so does something below it.
    pub chosen: LayerCost,
    /// It is the lowest that trains, so nobody asks for its input's gradient, and its input counts to itself.
    pub lowest: LayerCost,
    /// What running it once more costs, relative to the other layers.
    pub work: u32,
    /// What running its second half once more costs.
    pub half_work: u32,
}

/// What lies behind the last layer, in bytes beyond its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCost {
    /// The most without a graph.
    pub plain: u64,
    /// The most in forward and backward together.
    pub tracked: u64,
    /// The part of both that logits take.
    pub logits: u64,
    /// The gradients of the parameters outside the layers.
    pub gradients: u64,
}

/// What one micro-batch takes of memory, in bytes above the model, its adapters and the optimizer's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Held from the first layer to the last gradient: the batch and what its layers share.
    pub held: u64,
    /// A layer's input.
    pub hidden: u64,
    /// The layers, first to last.
    pub layers: Vec<LayerFootprint>,
    /// What lies behind them.
    pub loss: LossCost,
}

impl Footprint {
    /// The most that scoring that many candidates takes: a pass without graphs, and the hidden state of every candidate that
    /// waits where it parts from the others.
    pub fn scoring(&self, candidates: usize) -> u64 {
        let running = self.layers.iter().map(|layer| layer.resting.plain).max().unwrap_or_default();
        self.held + candidates as u64 * self.hidden + running.max(self.loss.plain)
    }
}

/// Threads that the CPU's operations share their work among.
pub fn threads() -> usize {
    #[cfg(feature = "flex")]
    let threads = rayon::current_num_threads();
    #[cfg(not(feature = "flex"))]
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    threads
}

/// Which layers train on a micro-batch, and what is there before it.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The layers that train.
    pub chosen: &'a LayerSet,
    /// Whether anything below layer 0 does.
    pub embedding_trains: bool,
    /// Whether gradients of earlier micro-batches are held.
    pub accumulates: bool,
    /// Whether a layer's gradients are used up as soon as its backward pass is done.
    pub updates_at_once: bool,
}

impl<'a> Draw<'a> {
    /// The first micro-batch of a step that trains `chosen` and nothing below layer 0.
    pub fn of(chosen: &'a LayerSet) -> Self {
        Self { chosen, embedding_trains: false, accumulates: false, updates_at_once: false }
    }

    /// The lowest layer that has a graph; the number of layers when none has.
    pub fn lowest(&self) -> usize {
        if self.embedding_trains {
            0
        } else {
            self.chosen.iter().next().unwrap_or(self.chosen.num_layers())
        }
    }

    /// The same treatment for every layer from the lowest that trains on.
    pub fn uniform(&self, treatment: Treatment) -> Vec<Treatment> {
        let of = |layer| if layer < self.lowest() { Treatment::Skip } else { treatment };
        (0..self.chosen.num_layers()).map(of).collect()
    }

    /// The treatment of every layer under `memory`. Under a budget that nothing meets it is the leanest. Of a model that does
    /// not tell its footprint every layer is run again; of one that does, those whose graphs would raise the peak.
    pub fn treatments(&self, memory: Memory, footprint: Option<&Footprint>) -> Vec<Treatment> {
        let again = self.uniform(Treatment::Recompute);
        match (memory, footprint) {
            (Memory::Keep, _) => self.uniform(Treatment::Keep),
            (Memory::Budget(bytes), Some(footprint)) => {
                within(footprint, self, bytes).unwrap_or_else(|| leanest(footprint, self))
            }
            (Memory::Recompute, Some(footprint)) => {
                within(footprint, self, peak(footprint, self, &again)).unwrap_or(again)
            }
            (Memory::Recompute | Memory::Budget(_), None) => again,
        }
    }
}

/// The most live bytes of one micro-batch under these treatments, above the model, its adapters and the optimizer's state.
pub fn peak(footprint: &Footprint, draw: &Draw, treatments: &[Treatment]) -> u64 {
    let phases = Phases::new(footprint, draw);
    let (mut most, mut below) = (phases.skipped(), 0);
    for (layer, treatment) in treatments.iter().enumerate().skip(phases.lowest) {
        most = most
            .max(phases.running(layer, below, *treatment))
            .max(phases.backward(layer, below, *treatment));
        below += phases.held(layer, *treatment);
    }
    most.max(phases.loss(below))
}

/// The phases of a step, each from the bytes of the graphs that are kept below its layer.
struct Phases<'a> {
    footprint: &'a Footprint,
    lowest: usize,
    embedding_trains: bool,
    costs: Vec<LayerCost>,
    /// Of every layer, the gradients held when its backward begins.
    gradients: Vec<u64>,
    /// What is held in every phase.
    base: u64,
}

impl<'a> Phases<'a> {
    fn new(footprint: &'a Footprint, draw: &Draw) -> Self {
        let lowest = draw.lowest();
        let cost = |(index, layer): (usize, &LayerFootprint)| match draw.chosen.contains(index) {
            true if index == lowest && !draw.embedding_trains => layer.lowest,
            true => layer.chosen,
            false => layer.resting,
        };
        let costs: Vec<LayerCost> = footprint.layers.iter().enumerate().map(cost).collect();
        let mut gradients = vec![0; costs.len()];
        let mut above = footprint.loss.gradients;
        for (index, cost) in costs.iter().enumerate().skip(lowest).rev() {
            // Those of a later micro-batch are added to the ones that are there.
            gradients[index] = if draw.accumulates { 0 } else { above };
            above += if draw.updates_at_once { 0 } else { cost.gradients };
        }
        let earlier = if draw.accumulates { above } else { 0 };
        // The embedded tokens have a graph of their own, which is the last to go.
        let embedded = if draw.embedding_trains { footprint.hidden } else { 0 };
        let (embedding_trains, base) = (draw.embedding_trains, footprint.held + earlier + embedded);
        Self { footprint, lowest, embedding_trains, costs, gradients, base }
    }

    /// The inputs of the layers above the lowest, up to `layer`.
    fn inputs(&self, layer: usize) -> u64 {
        self.base + (layer - self.lowest) as u64 * self.footprint.hidden
    }

    /// The input of `layer` as far as nothing else counts it: that of the lowest, unless it is the embedding's output.
    fn own_input(&self, layer: usize) -> u64 {
        if layer == self.lowest && !self.embedding_trains { self.footprint.hidden } else { 0 }
    }

    /// What keeping a graph of that layer takes; `None` where none is kept.
    fn kept(&self, layer: usize, treatment: Treatment) -> Option<KeptCost> {
        let LayerCost { graph, tracked, backward, half, .. } = self.costs[layer];
        match treatment {
            Treatment::Keep => Some(KeptCost { graph, tracked, backward }),
            Treatment::KeepHalf => half,
            Treatment::Skip | Treatment::Recompute => None,
        }
    }

    /// What stays of a layer from its forward to its backward pass.
    fn held(&self, layer: usize, treatment: Treatment) -> u64 {
        self.kept(layer, treatment).map_or(self.own_input(layer), |kept| kept.graph)
    }

    /// The layers below the lowest, one after the other.
    fn skipped(&self) -> u64 {
        let plain =
            self.costs[..self.lowest].iter().map(|cost| cost.plain).max().unwrap_or_default();
        self.base + if self.lowest > 0 { self.footprint.hidden } else { 0 } + plain
    }

    fn running(&self, layer: usize, below: u64, treatment: Treatment) -> u64 {
        let plain = self.own_input(layer) + self.costs[layer].plain;
        self.inputs(layer) + below + self.kept(layer, treatment).map_or(plain, |kept| kept.tracked)
    }

    fn loss(&self, graphs: u64) -> u64 {
        let layers = self.costs.len();
        let trains = self.lowest < layers || self.footprint.loss.gradients > 0;
        let taken = if trains { self.footprint.loss.tracked } else { self.footprint.loss.plain };
        self.inputs(layers) + self.own_input(layers) + graphs + taken
    }

    /// A layer that was not kept is run again first, beside the incoming gradient.
    fn backward(&self, layer: usize, below: u64, treatment: Treatment) -> u64 {
        let cost = &self.costs[layer];
        let again = cost.backward.max(cost.tracked + self.footprint.hidden);
        let own = self.kept(layer, treatment).map_or(again, |kept| kept.backward);
        self.inputs(layer) + below + self.gradients[layer] + own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(layers: usize) -> Footprint {
        let cost = LayerCost {
            graph: 100,
            plain: 40,
            tracked: 120,
            backward: 160,
            ..LayerCost::default()
        };
        let chosen = LayerCost { graph: 150, tracked: 170, backward: 230, gradients: 5, ..cost };
        let layer = LayerFootprint { resting: cost, chosen, lowest: chosen, work: 1, half_work: 0 };
        let loss = LossCost { plain: 30, tracked: 60, logits: 20, gradients: 0 };
        Footprint { held: 7, hidden: 10, layers: vec![layer; layers], loss }
    }

    fn set(layers: &[usize], of: usize) -> LayerSet {
        LayerSet::new(layers.iter().copied(), of).unwrap()
    }

    #[test]
    fn nothing_is_kept_below_the_lowest_chosen_layer() {
        use Treatment::{Keep, Recompute, Skip};
        let chosen = set(&[2, 3], 5);
        let draw = Draw::of(&chosen);
        assert_eq!(draw.treatments(Memory::Keep, None), [Skip, Skip, Keep, Keep, Keep]);
        assert_eq!(
            draw.treatments(Memory::Recompute, None),
            [Skip, Skip, Recompute, Recompute, Recompute]
        );
        assert_eq!(
            Draw { embedding_trains: true, ..draw }.treatments(Memory::Keep, None),
            [Keep; 5]
        );
        assert_eq!(Draw::of(&LayerSet::empty(3)).treatments(Memory::Keep, None), [Skip; 3]);
    }

    #[test]
    fn a_model_that_tells_no_footprint_is_run_again_under_a_budget() {
        let chosen = set(&[1], 3);
        assert_eq!(
            Draw::of(&chosen).treatments(Memory::Budget(u64::MAX), None),
            Draw::of(&chosen).treatments(Memory::Recompute, None)
        );
    }

    #[test]
    fn the_peak_is_the_largest_phase() {
        let (footprint, chosen) = (even(3), set(&[1], 3));
        let draw = Draw::of(&chosen);
        let keep = peak(&footprint, &draw, &draw.uniform(Treatment::Keep));
        // Under the loss: what is held, the inputs of layer 2 and of the loss, both graphs.
        assert_eq!(keep, 7 + 20 + 150 + 100 + 60);
        let recompute = peak(&footprint, &draw, &draw.uniform(Treatment::Recompute));
        assert_eq!(recompute, 7 + 230, "the backward of layer 1");
        let second = Draw { accumulates: true, ..draw };
        assert_eq!(peak(&footprint, &second, &draw.uniform(Treatment::Keep)), keep + 5);
    }

    #[test]
    fn gradients_that_are_used_at_once_are_those_of_one_layer() {
        let (footprint, chosen) = (Footprint { hidden: 0, ..even(5) }, set(&[1, 2, 3, 4], 5));
        let draw = Draw::of(&chosen);
        let of = |draw: &Draw| peak(&footprint, draw, &draw.uniform(Treatment::Recompute));
        // The backward of layer 1, under the gradients of the three above it.
        assert_eq!(of(&draw) - of(&Draw { updates_at_once: true, ..draw }), 3 * 5);
    }

    #[test]
    fn a_step_without_graphs_needs_one_layer_at_a_time() {
        let (footprint, none) = (even(4), LayerSet::empty(4));
        let draw = Draw::of(&none);
        assert_eq!(peak(&footprint, &draw, &draw.uniform(Treatment::Keep)), 7 + 10 + 40);
        assert_eq!(footprint.scoring(3), 7 + 30 + 40);
    }
}
