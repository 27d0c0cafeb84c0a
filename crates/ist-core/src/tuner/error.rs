//! Why a tuner stopped.

use crate::PolicyError;
use crate::optimizer::OptimizerError;

/// Why a tuner stopped.
#[derive(Debug, thiserror::Error)]
pub enum TunerError {
    /// The policy cannot go on.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The optimizer cannot go on.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// A loss or a gradient is not a finite number. Nothing was updated.
    #[error(
        "{what} is {value} in step {step} (layers {layers:?}); no parameter was changed by this \
         step. Try a lower learning rate or clip_norm"
    )]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: usize,
        /// The layers that were to train.
        layers: Vec<usize>,
    },
    /// A gradient is not a finite number after parameters above it were updated, in a step that
    /// updates layer by layer.
    #[error(
        "the gradient norm of {place} is {value} in step {step}, when layers {updated:?} were \
         updated already: the model is that of no step. Go on from a checkpoint, with a lower \
         learning rate or clip_norm"
    )]
    NotFiniteBelow {
        /// The layer, or what stands outside the layers.
        place: String,
        /// The norm.
        value: f64,
        /// The step.
        step: usize,
        /// The layers that were updated.
        updated: Vec<usize>,
    },
    /// A saved state is not one of this tuner.
    #[error("the saved state of the run does not fit: {0}")]
    State(String),
}
