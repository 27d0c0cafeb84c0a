//! `rst`: random sparse tuning, the IST paper's own control (arXiv 2410.11772).

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, Share, parse};
use crate::{LayerSet, sampling};

/// Trains N_u layers drawn uniformly in every step.
#[derive(Debug)]
pub struct Rst {
    layers: LayerSet,
    layers_updated: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    layers_updated: Share,
}

impl Default for Fields {
    fn default() -> Self {
        Self { layers_updated: Share::Fraction(0.25) }
    }
}

impl Rst {
    /// The policy that draws `layers_updated` of `layers`.
    pub fn new(layers: &LayerSet, layers_updated: Share) -> Result<Self, PolicyError> {
        let layers_updated = layers_updated.checked("layers_updated", layers.len())?;
        Ok(Self { layers: layers.clone(), layers_updated })
    }

    pub(super) fn build(
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Self::new(layers, parse::<Fields>("rst", fields)?.layers_updated)?))
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
