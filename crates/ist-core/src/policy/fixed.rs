//! `fixed`: a given list of layers in every step. Manual layer choice.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{LayerPolicy, PolicyError, PolicySettings, out_of_range};
use crate::LayerSet;

/// `kind = "fixed"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FixedConfig {
    /// The layers that train, counted from 0.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), extend("uniqueItems" = true)))]
    pub layers: Vec<usize>,
}

impl PolicySettings for FixedConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        let chosen = LayerSet::new(self.layers.iter().copied(), layers.num_layers())?;
        if chosen.is_empty() || !chosen.is_subset(layers) {
            let expected =
                format!("at least one of the layers with adapters, {:?}", layers.as_slice());
            return Err(out_of_range("layers", &expected, &format!("{:?}", chosen.as_slice())));
        }
        Ok(Box::new(Fixed::new(chosen)))
    }

    fn has_given_sets(&self) -> bool {
        true
    }
}

/// Trains the same layers in every step.
#[derive(Debug)]
pub struct Fixed {
    layers: LayerSet,
}

impl Fixed {
    /// The policy that always answers `layers`.
    pub fn new(layers: LayerSet) -> Self {
        Self { layers }
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
