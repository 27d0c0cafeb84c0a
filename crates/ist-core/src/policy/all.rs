//! `all`: every layer in every step. Plain PEFT, the baseline.

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, parse};
use crate::LayerSet;

/// Trains every layer in every step.
#[derive(Debug)]
pub struct All {
    num_layers: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {}

impl All {
    /// The policy for a model of `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self { num_layers }
    }

    pub(super) fn build(fields: &Map<String, Value>, num_layers: usize) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        parse::<Fields>("all", fields)?;
        Ok(Box::new(Self::new(num_layers)))
    }
}

impl LayerPolicy for All {
    fn name(&self) -> &'static str {
        "all"
    }

    fn select(&mut self, _step: usize, _rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        Ok(LayerSet::all(self.num_layers))
    }

    fn largest_set(&self) -> usize {
        self.num_layers
    }
}
