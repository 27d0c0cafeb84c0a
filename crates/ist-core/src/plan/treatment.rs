//! What the walk does with a layer, and how much memory a step may use for it.

/// What the walk does with one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerTreatment {
    /// Plain forward. Nothing below trains, so nothing is kept.
    Skip,
    /// Plain forward that keeps the layer's input. The backward pass builds its graph and uses it
    /// up.
    Recompute,
    /// Forward whose first half has a graph, which lives until the layer's backward. The second
    /// half is run again.
    KeepHalf,
    /// Forward with a graph of its own, which lives until the layer's backward.
    Keep,
}

/// How a step trades memory for time.
///
/// The gradients are the same except for rounding: a backend may compute an operation differently
/// when it builds a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Keeps the graph of every layer that the gradient passes: the fastest.
    #[default]
    Keep,
    /// Stores only the input of those layers and recomputes them during the backward pass. Layers
    /// whose graph fits under the existing peak are kept, as a rule the topmost. Without a
    /// footprint of the model every layer is run again.
    Recompute,
    /// Keeps the graphs that save most time within that many bytes above the model, its adapters
    /// and the optimizer's state ([`plan`](crate::plan)). Without a footprint of the model it keeps
    /// none, as under `Recompute`.
    Budget(u64),
}

/// Whether anything below a layer trains, so that the gradient of the layer's input is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Something below trains.
    Trains,
    /// Nothing below trains.
    Rests,
}

impl Below {
    /// `Trains` if anything below does.
    pub fn of(trains: bool) -> Self {
        if trains { Self::Trains } else { Self::Rests }
    }

    /// Whether it does.
    pub fn trains(self) -> bool {
        self == Self::Trains
    }
}
