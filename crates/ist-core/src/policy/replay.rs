//! `replay`: the layer sets of an earlier run, from its `selections.jsonl`.
//!
//! Two runs on the same draws differ only in what one set out to compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{LayerPolicy, PolicyError, PolicySettings};
use crate::LayerSet;
use ist_files::untrusted::json;

/// `kind = "replay"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// The earlier run's `selections.jsonl`.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "String", extend("format" = crate::schema::PATH), length(min = 1))
    )]
    pub path: PathBuf,
}

impl PolicySettings for ReplayConfig {
    fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        Ok(Box::new(Replay::read(&self.path, layers)?))
    }

    fn has_given_sets(&self) -> bool {
        true
    }
}

/// Trains, in step t, the layers that a selection log names for step t.
#[derive(Debug)]
pub struct Replay {
    path: String,
    sets: BTreeMap<usize, LayerSet>,
}

/// What is read of one line of the log.
#[derive(Deserialize)]
struct Line {
    step: usize,
    layers: Vec<usize>,
}

impl Replay {
    /// Reads a log of lines `{"step": t, "layers": [..]}`.
    ///
    /// # Errors
    /// If the file cannot be read, a line is not a selection of `layers`, or a step stands twice.
    pub fn read(path: &Path, layers: &LayerSet) -> Result<Self, PolicyError> {
        let name = path.display().to_string();
        let fault = |line: Option<usize>, message: String| PolicyError::Log {
            path: name.clone(),
            line,
            message,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fault(None, error.to_string()))?;
        let mut sets = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let number = Some(index + 1);
            let selection: Line = json::from_slice(line.as_bytes())
                .map_err(|error| fault(number, json::told(&error)))?;
            let set = LayerSet::new(selection.layers, layers.num_layers())
                .map_err(|error| fault(number, error.to_string()))?;
            if !set.is_subset(layers) {
                let found = set.as_slice();
                let expected = layers.as_slice();
                let message = format!("layers {found:?}, but only {expected:?} have adapters");
                return Err(fault(number, message));
            }
            let step = selection.step;
            if sets.insert(step, set).is_some() {
                return Err(fault(number, format!("step {step} stands twice")));
            }
        }
        if sets.is_empty() {
            return Err(fault(None, "no selection in it".to_owned()));
        }
        Ok(Self { path: name, sets })
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
        assert!(policy.covers(2).is_ok());
        assert!(matches!(policy.covers(5), Err(PolicyError::LogEnds { step: 2, .. })));
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
