//! `replay`: the layer sets of an earlier run, from its `selections.jsonl`.
//!
//! Two runs on the same draws differ by nothing but what one set out to compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, parse};
use crate::LayerSet;
use ist_files::untrusted::json;

/// Trains, in step t, the layers that a selection log names for step t.
#[derive(Debug)]
pub struct Replay {
    path: String,
    sets: BTreeMap<usize, LayerSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Line {
    step: usize,
    layers: Vec<usize>,
}

impl Replay {
    /// Reads a log of lines `{"step": t, "layers": [..]}`.
    pub fn read(path: &Path, layers: &LayerSet) -> Result<Self, PolicyError> {
        let name = path.display().to_string();
        let fault = |line: Option<usize>, message: String| PolicyError::Log {
            path: name.clone(),
            line,
            message,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fault(None, error.to_string()))?;
        let mut sets = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let Line { step, layers: chosen } = json::from_slice(line.as_bytes())
                .map_err(|error| fault(Some(number + 1), json::told(&error)))?;
            let set = LayerSet::new(chosen, layers.num_layers())
                .map_err(|error| fault(Some(number + 1), error.to_string()))?;
            if !set.is_subset(layers) {
                let (found, expected) = (set.as_slice(), layers.as_slice());
                return Err(fault(
                    Some(number + 1),
                    format!("layers {found:?}, but only {expected:?} have adapters"),
                ));
            }
            if sets.insert(step, set).is_some() {
                return Err(fault(Some(number + 1), format!("step {step} stands twice")));
            }
        }
        if sets.is_empty() {
            return Err(fault(None, "no selection in it".to_owned()));
        }
        Ok(Self { path: name, sets })
    }

    pub(super) fn build(
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Self::read(&parse::<Fields>("replay", fields)?.path, layers)?))
    }
}

impl LayerPolicy for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn select(&mut self, step: usize, _rng: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        self.sets
            .get(&step)
            .cloned()
            .ok_or_else(|| PolicyError::LogEnds { path: self.path.clone(), step })
    }

    fn largest_set(&self) -> usize {
        self.sets.values().map(LayerSet::len).max().unwrap_or(0)
    }

    fn covers(&self, steps: usize) -> Result<(), PolicyError> {
        match (0..steps).find(|step| !self.sets.contains_key(step)) {
            Some(step) => Err(PolicyError::LogEnds { path: self.path.clone(), step }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn log(name: &str, text: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("ist-replay-{}-{name}.jsonl", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn steps_get_the_layers_the_log_names() {
        let path = log("good", "{\"step\":0,\"layers\":[2]}\n{\"step\":1,\"layers\":[0,3]}\n");
        let mut policy = Replay::read(&path, &LayerSet::all(4)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(policy.select(1, &mut rng).unwrap().as_slice(), [0, 3]);
        assert!(matches!(policy.select(2, &mut rng), Err(PolicyError::LogEnds { step: 2, .. })));
        assert!(
            policy.covers(2).is_ok()
                && matches!(policy.covers(5), Err(PolicyError::LogEnds { step: 2, .. }))
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_layer_the_model_lacks_is_named_with_its_line() {
        let path = log("range", "{\"step\":0,\"layers\":[2]}\n{\"step\":1,\"layers\":[9]}\n");
        let error = Replay::read(&path, &LayerSet::all(4)).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("layer 9"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
