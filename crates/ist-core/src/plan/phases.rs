//! The phases of a step, from which its peak follows.

use super::footprint::{Footprint, KeptCost, LayerCost, LayerFootprint};
use super::treatment::LayerTreatment;
use crate::LayerSet;

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

    /// The lowest layer that has a graph, or the number of layers when none has.
    pub fn lowest(&self) -> usize {
        if self.embedding_trains {
            0
        } else {
            self.chosen.iter().next().unwrap_or(self.chosen.num_layers())
        }
    }

    /// The same treatment for every layer from the lowest that trains on.
    pub fn uniform(&self, treatment: LayerTreatment) -> Vec<LayerTreatment> {
        let of = |layer| if layer < self.lowest() { LayerTreatment::Skip } else { treatment };
        (0..self.chosen.num_layers()).map(of).collect()
    }
}

/// The peak of live bytes of one micro-batch under these treatments, above the model, its adapters
/// and the optimizer's state.
pub fn peak(footprint: &Footprint, draw: &Draw, treatments: &[LayerTreatment]) -> u64 {
    let phases = Phases::new(footprint, draw);
    let mut most = phases.skipped();
    // Bytes of the graphs kept below the layer at hand.
    let mut below = 0;
    for (layer, treatment) in treatments.iter().enumerate().skip(phases.lowest) {
        most = most
            .max(phases.running(layer, below, *treatment))
            .max(phases.backward(layer, below, *treatment));
        below += phases.held(layer, *treatment);
    }
    most.max(phases.loss(below))
}

/// The phases of a step, each from the bytes of the graphs that are kept below its layer.
pub(super) struct Phases<'a> {
    pub footprint: &'a Footprint,
    /// The lowest layer that has a graph.
    pub lowest: usize,
    embedding_trains: bool,
    /// The cost of every layer in the role it has.
    pub costs: Vec<LayerCost>,
    /// Of every layer, the gradients held when its backward begins.
    gradients: Vec<u64>,
    /// What is held in every phase.
    base: u64,
}

impl<'a> Phases<'a> {
    pub(super) fn new(footprint: &'a Footprint, draw: &Draw) -> Self {
        let lowest = draw.lowest();
        let cost = |(index, layer): (usize, &LayerFootprint)| match draw.chosen.contains(index) {
            true if index == lowest && !draw.embedding_trains => layer.lowest,
            true => layer.chosen,
            false => layer.resting,
        };
        let costs: Vec<LayerCost> = footprint.layers.iter().enumerate().map(cost).collect();
        let mut gradients = vec![0; costs.len()];
        // From the loss downwards, as the backward pass finds them.
        let mut above = footprint.loss.gradients;
        for (index, cost) in costs.iter().enumerate().skip(lowest).rev() {
            // Those of a later micro-batch are added to the ones that are there.
            gradients[index] = if draw.accumulates { 0 } else { above };
            above += if draw.updates_at_once { 0 } else { cost.gradients };
        }
        // After the loop `above` is the gradients of all layers, which an earlier micro-batch left.
        let earlier = if draw.accumulates { above } else { 0 };
        // The embedded tokens have a graph of their own, which is the last to go.
        let embedded = if draw.embedding_trains { footprint.hidden } else { 0 };
        Self {
            footprint,
            lowest,
            embedding_trains: draw.embedding_trains,
            costs,
            gradients,
            base: footprint.held + earlier + embedded,
        }
    }

    /// The inputs of the layers above the lowest, up to `layer`.
    fn inputs(&self, layer: usize) -> u64 {
        self.base + (layer - self.lowest) as u64 * self.footprint.hidden
    }

    /// The input of `layer` where nothing else counts it: that of the lowest, unless it is the
    /// embedding's output.
    fn own_input(&self, layer: usize) -> u64 {
        if layer == self.lowest && !self.embedding_trains { self.footprint.hidden } else { 0 }
    }

    /// What keeping a graph of that layer takes. `None` where none is kept.
    fn kept(&self, layer: usize, treatment: LayerTreatment) -> Option<KeptCost> {
        let LayerCost { graph, tracked, backward, half, .. } = self.costs[layer];
        match treatment {
            LayerTreatment::Keep => Some(KeptCost { graph, tracked, backward }),
            LayerTreatment::KeepHalf => half,
            LayerTreatment::Skip | LayerTreatment::Recompute => None,
        }
    }

    /// What stays of a layer from its forward to its backward pass.
    pub(super) fn held(&self, layer: usize, treatment: LayerTreatment) -> u64 {
        // Where no graph is kept the input is: above the lowest layer `inputs` has counted it.
        self.kept(layer, treatment).map_or(self.own_input(layer), |kept| kept.graph)
    }

    /// The layers below the lowest, one after the other.
    pub(super) fn skipped(&self) -> u64 {
        let skipped = self.costs[..self.lowest].iter();
        let plain = skipped.map(|cost| cost.plain).max().unwrap_or_default();
        let input = if self.lowest > 0 { self.footprint.hidden } else { 0 };
        self.base + input + plain
    }

    /// A layer's forward pass.
    pub(super) fn running(&self, layer: usize, below: u64, treatment: LayerTreatment) -> u64 {
        let plain = self.own_input(layer) + self.costs[layer].plain;
        let own = self.kept(layer, treatment).map_or(plain, |kept| kept.tracked);
        self.inputs(layer) + below + own
    }

    /// The loss, forward and backward.
    pub(super) fn loss(&self, graphs: u64) -> u64 {
        let layers = self.costs.len();
        let trains = self.lowest < layers || self.footprint.loss.gradients > 0;
        let taken = if trains { self.footprint.loss.tracked } else { self.footprint.loss.plain };
        self.inputs(layers) + self.own_input(layers) + graphs + taken
    }

    /// A layer's backward pass.
    pub(super) fn backward(&self, layer: usize, below: u64, treatment: LayerTreatment) -> u64 {
        let cost = &self.costs[layer];
        // A layer that was not kept is run again first, beside the incoming gradient.
        let again = cost.backward.max(cost.tracked + self.footprint.hidden);
        let own = self.kept(layer, treatment).map_or(again, |kept| kept.backward);
        self.inputs(layer) + below + self.gradients[layer] + own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LossCost;

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
    fn the_peak_is_the_largest_phase() {
        let footprint = even(3);
        let chosen = set(&[1], 3);
        let draw = Draw::of(&chosen);
        let keep = peak(&footprint, &draw, &draw.uniform(LayerTreatment::Keep));
        // Under the loss: what is held, the inputs of layer 2 and of the loss, both graphs.
        assert_eq!(keep, 7 + 20 + 150 + 100 + 60);
        let recompute = peak(&footprint, &draw, &draw.uniform(LayerTreatment::Recompute));
        assert_eq!(recompute, 7 + 230, "the backward of layer 1");
        let second = Draw { accumulates: true, ..draw };
        assert_eq!(peak(&footprint, &second, &draw.uniform(LayerTreatment::Keep)), keep + 5);
    }

    #[test]
    fn gradients_that_are_used_at_once_are_those_of_one_layer() {
        let footprint = Footprint { hidden: 0, ..even(5) };
        let chosen = set(&[1, 2, 3, 4], 5);
        let draw = Draw::of(&chosen);
        let of = |draw: &Draw| peak(&footprint, draw, &draw.uniform(LayerTreatment::Recompute));
        // The backward of layer 1, under the gradients of the three above it.
        assert_eq!(of(&draw) - of(&Draw { updates_at_once: true, ..draw }), 3 * 5);
    }

    #[test]
    fn a_step_without_graphs_needs_one_layer_at_a_time() {
        let footprint = even(4);
        let none = LayerSet::empty(4);
        let draw = Draw::of(&none);
        assert_eq!(peak(&footprint, &draw, &draw.uniform(LayerTreatment::Keep)), 7 + 10 + 40);
        assert_eq!(footprint.scoring(3), 7 + 30 + 40);
    }
}
