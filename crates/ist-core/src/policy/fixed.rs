//! `fixed`: a given list of layers in every step. Manual layer choice.

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, parse};
use crate::LayerSet;

/// Trains the same layers in every step.
#[derive(Debug)]
pub struct Fixed {
    layers: LayerSet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    layers: Vec<usize>,
}

impl Fixed {
    /// The policy that always answers `layers`.
    pub fn new(layers: LayerSet) -> Self {
        Self { layers }
    }

    pub(super) fn build(
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        let chosen = LayerSet::new(parse::<Fields>("fixed", fields)?.layers, layers.num_layers())?;
        if chosen.is_empty() || !chosen.is_subset(layers) {
            let expected =
                format!("at least one of the layers with adapters, {:?}", layers.as_slice());
            return Err(PolicyError::OutOfRange {
                key: "layers",
                expected,
                found: format!("{:?}", chosen.as_slice()),
            });
        }
        Ok(Box::new(Self::new(chosen)))
    }
}

impl LayerPolicy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn select(&mut self, _step: usize, _rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        Ok(self.layers.clone())
    }

    fn largest_set(&self) -> usize {
        self.layers.len()
    }
}
