//! The memory plan: which layers keep their graph, which keep half of it and which are run again.
//! It keeps a step's predicted peak within a budget at the least recomputation.
//!
//! A step's peak is not a sum. The graphs grow while the walk goes up and shrink while it comes
//! down, so the peak is the largest of the step's phases. With l the lowest layer that trains, h
//! the bytes of a layer's input and g_j those of what is kept of layer j's graph, they are:
//!
//! | phase | live above what is always held |
//! |---|---|
//! | layer i runs | (i - l) h + Σ_{j<i} g_j + what running it takes |
//! | the loss | (n - l) h + Σ g_j + what loss and its backward take |
//! | layer i's backward | (i - l) h + Σ_{j<i} g_j + its own graph and its backward + the gradients of the layers above |
//!
//! The lowest layer's input is needed while that layer runs. Where the layer is run again, its
//! input stays until its backward pass.
//!
//! A graph is a burden only to the layers above its own. So keeping a high layer, whose graph is
//! the first to go, costs less than keeping a low one. [`within`] knows that, and its search is
//! exact.

mod footprint;
mod phases;
mod search;
pub mod tape;
mod treatment;

pub use footprint::{Footprint, KeptCost, LayerCost, LayerFootprint, LossCost};
pub use phases::{Draw, peak};
pub use search::{leanest, within};
pub use treatment::{Below, LayerTreatment, Memory};

/// Threads that the CPU's operations share their work among.
pub fn threads() -> usize {
    #[cfg(feature = "flex")]
    let threads = rayon::current_num_threads();
    #[cfg(not(feature = "flex"))]
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    threads
}
