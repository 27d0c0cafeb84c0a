//! `all`: every layer that can train in every step. Plain PEFT, the baseline.

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, parse};
use crate::LayerSet;

/// Trains every layer that can train in every step.
#[derive(Debug)]
pub struct All {
    layers: LayerSet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {}

impl All {
    /// The policy that always answers `layers`.
    pub fn new(layers: &LayerSet) -> Self {
        Self { layers: layers.clone() }
    }

    pub(super) fn build(
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        parse::<Fields>("all", fields)?;
        Ok(Box::new(Self::new(layers)))
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
