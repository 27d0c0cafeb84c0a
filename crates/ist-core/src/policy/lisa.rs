//! `lisa`: γ layers drawn uniformly, kept for K steps (Pan et al., *LISA*, arXiv 2403.17919).
//!
//! LISA proper trains the layers' own weights, the embedding and the head. Here it sits on PEFT
//! modules, and trains those of the drawn layers.

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerPolicy, PolicyError, PolicySettings, Share, out_of_range, parse_state, sampling};
use crate::LayerSet;

/// `kind = "lisa"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LisaConfig {
    /// Layers that receive gradients: a count, or a fraction of the model's.
    pub layers_updated: Share,
    /// Optimizer steps between two draws.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub interval: usize,
}

impl Default for LisaConfig {
    fn default() -> Self {
        Self { layers_updated: Share::Count(2), interval: 50 }
    }
}

impl PolicySettings for LisaConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Lisa::new(layers, *self)?))
    }
}

/// Trains γ uniformly drawn layers, drawn anew every K steps.
#[derive(Debug)]
pub struct Lisa {
    layers: LayerSet,
    layers_updated: usize,
    interval: usize,
    current: Option<LayerSet>,
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "struct State")]
struct LisaState {
    current: Option<LayerSet>,
}

impl Lisa {
    /// The policy that draws of `layers`, with γ the layers updated and K the interval.
    ///
    /// # Errors
    /// If the interval is 0, or there are not as many layers as are to be drawn.
    pub fn new(layers: &LayerSet, config: LisaConfig) -> Result<Self, PolicyError> {
        if config.interval == 0 {
            return Err(out_of_range("interval", "an integer of at least 1", &0));
        }
        let layers_updated = config.layers_updated.checked("layers_updated", layers.len())?;
        Ok(Self {
            layers: layers.clone(),
            layers_updated,
            interval: config.interval,
            current: None,
        })
    }
}

impl LayerPolicy for Lisa {
    fn name(&self) -> &'static str {
        "lisa"
    }

    fn select(&mut self, step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        match &self.current {
            Some(current) if !step.is_multiple_of(self.interval) => Ok(current.clone()),
            // A new period, or the first step after a start without a saved state.
            _ => {
                let drawn = sampling::uniform(&self.layers, self.layers_updated, rng);
                self.current = Some(drawn.clone());
                Ok(drawn)
            }
        }
    }

    fn largest_set(&self) -> usize {
        self.layers_updated
    }

    fn state(&self) -> Value {
        serde_json::to_value(LisaState { current: self.current.clone() })
            .expect("a layer set is plain JSON")
    }

    fn restore(&mut self, state: Value) -> Result<(), PolicyError> {
        self.current = parse_state::<LisaState>("lisa", &state)?.current;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_set_changes_only_at_the_interval() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let config = LisaConfig { layers_updated: Share::Count(4), interval: 5 };
        let mut policy = Lisa::new(&LayerSet::all(16), config).unwrap();
        let sets: Vec<LayerSet> =
            (0..20).map(|step| policy.select(step, &mut rng).unwrap()).collect();
        for period in sets.chunks(5) {
            assert!(period.iter().all(|set| set == &period[0] && set.len() == 4));
        }
        assert!(sets.iter().step_by(5).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
