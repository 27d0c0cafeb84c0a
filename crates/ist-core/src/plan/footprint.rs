//! What layers and loss take of memory on one micro-batch, as a model tells it.

/// What keeping a graph, or half of one, takes, in bytes beyond the layer's input.
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
    /// The most during its backward pass: graph, incoming and outgoing gradient, and its
    /// parameters' gradients.
    pub backward: u64,
    /// The gradients of its parameters, which stay until the optimizer has used them.
    pub gradients: u64,
    /// The same with half of the graph. `None` for a layer that does not divide.
    pub half: Option<KeptCost>,
}

/// One layer in each of its roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerFootprint {
    /// It rests above a layer that trains.
    pub resting: LayerCost,
    /// It trains, and so does something below it.
    pub chosen: LayerCost,
    /// It is the lowest that trains, so nobody asks for its input's gradient, and its input counts
    /// to itself.
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

/// What one micro-batch takes of memory, in bytes above the model, its adapters and the optimizer's
/// state.
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
    /// The most that scoring that many candidates takes: a pass without graphs, and the hidden
    /// state of every candidate that waits where it parts from the others.
    pub fn scoring(&self, candidates: usize) -> u64 {
        let running = self.layers.iter().map(|layer| layer.resting.plain).max().unwrap_or_default();
        self.held + candidates as u64 * self.hidden + running.max(self.loss.plain)
    }
}
