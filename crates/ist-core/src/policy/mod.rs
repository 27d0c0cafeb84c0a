//! Which layers train in a step: one policy a file, no tensor anywhere.
//!
//! A policy sees step numbers, random numbers and losses, and answers with layer sets. That keeps
//! it independent of models and devices, and lets a run be replayed from its log alone.
//!
//! To add a policy, write one file here with the policy and its settings, and register it with one
//! line in `registry.rs`. From outside, call [`Registry::register`].

mod all;
mod error;
mod fixed;
mod ist;
mod lisa;
mod registry;
mod replay;
mod rst;
pub mod sampling;
mod share;

use std::fmt::Debug;

use rand::Rng;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::LayerSet;

pub use error::PolicyError;
pub use ist::Reward;
pub use registry::*;
pub use share::Share;

/// Chooses the layers of each optimizer step and, if it learns, the candidates it wants scored.
pub trait LayerPolicy: Send + Debug {
    /// The name in a configuration's `policy.kind`.
    fn name(&self) -> &'static str;

    /// The layers that train in optimizer step `step` (t = 0, 1, 2, …).
    ///
    /// # Errors
    /// If the policy has no answer for that step.
    fn select(&mut self, step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError>;

    /// Sets of layers to suppress, one forward pass each, before step `step`. Empty when no scoring
    /// is due.
    fn candidates(&mut self, _step: usize, _rng: &mut dyn Rng) -> Vec<LayerSet> {
        Vec::new()
    }

    /// β, the response factor of a suppressed layer while candidates are scored.
    fn suppression(&self) -> f64 {
        1.0
    }

    /// Learns from the mean token loss of every candidate, in order. Returns the rewards
    /// exp(-loss).
    ///
    /// # Errors
    /// If there is not one finite loss for each candidate.
    fn observe(
        &mut self,
        _candidates: &[LayerSet],
        _losses: &[f64],
    ) -> Result<Vec<f64>, PolicyError> {
        Ok(Vec::new())
    }

    /// The importance scores of all layers, for policies that have them. A high score means that
    /// suppression is tolerated, so the layer is less important.
    fn scores(&self) -> Option<&[f64]> {
        None
    }

    /// The number of layers that a step trains at most. A plan of memory counts with it.
    fn largest_set(&self) -> usize;

    /// Fails when the policy cannot answer for each of the steps 0 to `steps` - 1, so that a run
    /// knows before it begins.
    fn covers(&self, _steps: usize) -> Result<(), PolicyError> {
        Ok(())
    }

    /// Everything [`LayerPolicy::restore`] needs to continue exactly, as JSON.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes over a state that [`LayerPolicy::state`] of the same policy wrote.
    fn restore(&mut self, _state: Value) -> Result<(), PolicyError> {
        Ok(())
    }
}

/// What a configuration says of one kind of policy: the keys of `[policy]` besides `kind`.
pub trait PolicySettings: Debug {
    /// The policy with these settings over the layers that can train: those with PEFT modules, of a
    /// model of [`LayerSet::num_layers`] layers.
    ///
    /// # Errors
    /// If a setting is out of its range or does not fit the layers.
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError>;

    /// How the policy scores candidates. `None` for a policy that scores none.
    fn scoring(&self) -> Option<Scoring> {
        None
    }

    /// Whether the sets are given from outside rather than drawn. A plan of memory then looks at
    /// those sets instead of at all that could be drawn.
    fn has_given_sets(&self) -> bool {
        false
    }
}

/// What one scoring of candidates takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scoring {
    /// Candidates that are scored together.
    pub candidates: usize,
    /// Records of the batch that scores them.
    pub records: usize,
}

/// Refuses a setting that is out of its range.
fn out_of_range(key: &'static str, expected: &str, found: &dyn ToString) -> PolicyError {
    PolicyError::OutOfRange { key, expected: expected.to_owned(), found: found.to_string() }
}

/// The fields of a policy as its own settings.
fn parse<T: DeserializeOwned>(
    kind: &'static str,
    fields: &Map<String, Value>,
) -> Result<T, PolicyError> {
    serde_json::from_value(Value::Object(fields.clone()))
        .map_err(|source| PolicyError::Fields { kind, source })
}

/// A saved state as the policy's own type.
fn parse_state<T: DeserializeOwned>(kind: &'static str, state: &Value) -> Result<T, PolicyError> {
    T::deserialize(state).map_err(|error| PolicyError::State { kind, message: error.to_string() })
}
