//! `all`: every layer that can train in every step. Plain PEFT, the baseline.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{LayerPolicy, PolicyError, PolicySettings};
use crate::LayerSet;

/// `kind = "all"` has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AllConfig {}

impl PolicySettings for AllConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(All::new(layers)))
    }
}

/// Trains every layer that can train in every step.
#[derive(Debug)]
pub struct All {
    layers: LayerSet,
}

impl All {
    /// The policy that always answers `layers`.
    pub fn new(layers: &LayerSet) -> Self {
        Self { layers: layers.clone() }
    }
}

impl LayerPolicy for All {
    fn name(&self) -> &'static str {
        "all"
    }

    fn select(&mut self, _step: usize, _rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        Ok(self.layers.clone())
    }

    fn largest_set(&self) -> usize {
        self.layers.len()
    }
}
