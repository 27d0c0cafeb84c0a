//! `lisa`: γ layers drawn uniformly, kept for K steps (Pan et al., *LISA*, arXiv 2403.17919).
//!
//! LISA proper trains the layers' own weights, the embedding and the head; on PEFT modules, as here, it trains those of
//! the drawn layers.

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, Share, parse, parse_state};
use crate::{LayerSet, sampling};

/// Trains γ uniformly drawn layers, drawn anew every K steps.
#[derive(Debug)]
pub struct Lisa {
    layers: LayerSet,
    layers_updated: usize,
    interval: usize,
    current: Option<LayerSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    layers_updated: Share,
    interval: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self { layers_updated: Share::Count(2), interval: 50 }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    current: Option<LayerSet>,
}

impl Lisa {
    /// The policy that draws `layers_updated` (γ) of `layers` every `interval` (K) steps.
    pub fn new(
        layers: &LayerSet,
        layers_updated: Share,
        interval: usize,
    ) -> Result<Self, PolicyError> {
        if interval == 0 {
            let expected = "an integer of at least 1".to_owned();
            return Err(PolicyError::OutOfRange {
                key: "interval",
                expected,
                found: "0".to_owned(),
            });
        }
        let layers_updated = layers_updated.checked("layers_updated", layers.len())?;
        Ok(Self { layers: layers.clone(), layers_updated, interval, current: None })
    }

    pub(super) fn build(
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        let Fields { layers_updated, interval } = parse("lisa", fields)?;
        Ok(Box::new(Self::new(layers, layers_updated, interval)?))
    }
}

impl LayerPolicy for Lisa {
    fn name(&self) -> &'static str {
        "lisa"
    }

    fn select(&mut self, step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        match &self.current {
            Some(current) if !step.is_multiple_of(self.interval) => Ok(current.clone()),
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
        serde_json::to_value(State { current: self.current.clone() })
            .expect("a layer set is plain JSON")
    }

    fn restore(&mut self, state: Value) -> Result<(), PolicyError> {
        self.current = parse_state::<State>("lisa", &state)?.current;
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
        let mut policy = Lisa::new(&LayerSet::all(16), Share::Count(4), 5).unwrap();
        let sets: Vec<LayerSet> =
            (0..20).map(|step| policy.select(step, &mut rng).unwrap()).collect();
        assert!(
            sets.chunks(5)
                .all(|period| period.iter().all(|set| set == &period[0] && set.len() == 4))
        );
        assert!(sets.iter().step_by(5).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
