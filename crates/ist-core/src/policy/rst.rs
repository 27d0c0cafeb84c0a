//! `rst`: random sparse tuning, the IST paper's own control (arXiv 2410.11772).

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{LayerPolicy, PolicyError, PolicySettings, Share, sampling};
use crate::LayerSet;

/// `kind = "rst"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RstConfig {
    /// Layers that receive gradients in one optimizer step: a count, or a fraction of the model's.
    pub layers_updated: Share,
}

impl Default for RstConfig {
    fn default() -> Self {
        Self { layers_updated: Share::Fraction(0.25) }
    }
}

impl PolicySettings for RstConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Rst::new(layers, *self)?))
    }
}

/// Trains N_u layers drawn uniformly in every step.
#[derive(Debug)]
pub struct Rst {
    layers: LayerSet,
    layers_updated: usize,
}

impl Rst {
    /// The policy that draws of `layers`.
    ///
    /// # Errors
    /// If there are not as many layers as are to be drawn.
    pub fn new(layers: &LayerSet, config: RstConfig) -> Result<Self, PolicyError> {
        let layers_updated = config.layers_updated.checked("layers_updated", layers.len())?;
        Ok(Self { layers: layers.clone(), layers_updated })
    }
}

impl LayerPolicy for Rst {
    fn name(&self) -> &'static str {
        "rst"
    }

    fn select(&mut self, _step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        Ok(sampling::uniform(&self.layers, self.layers_updated, rng))
    }

    fn largest_set(&self) -> usize {
        self.layers_updated
    }
}
