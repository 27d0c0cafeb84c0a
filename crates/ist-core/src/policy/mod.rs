//! Which layers train in a step: one policy a file, no tensor anywhere.
//!
//! A policy sees step numbers, random numbers and losses, and answers with layer sets. That keeps
//! it independent of models and devices, and lets a run be replayed from its log alone.
//!
//! To add a policy, write one file here and one line in [`Registry::default`]; from outside, call
//! [`Registry::register`].

mod all;
mod fixed;
mod ist;
mod lisa;
mod replay;
mod rst;
mod share;

use std::collections::BTreeMap;
use std::fmt::Debug;

use rand::Rng;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{LayerSet, LayerSetError};
use ist_files::untrusted::cut;

pub use all::All;
pub use fixed::Fixed;
pub use ist::{Ist, IstConfig, Reward};
pub use lisa::Lisa;
pub use replay::Replay;
pub use rst::Rst;
pub use share::Share;

/// Chooses the layers of each optimizer step and, if it learns, the candidates it wants scored.
pub trait LayerPolicy: Send + Debug {
    /// The name in a configuration's `policy.kind`.
    fn name(&self) -> &'static str;

    /// The layers that train in optimizer step `step` (t = 0, 1, 2, …).
    fn select(&mut self, step: usize, rng: &mut dyn Rng) -> Result<LayerSet, PolicyError>;

    /// Sets of layers to suppress, one forward pass each, before step `step`. Empty when no scoring
    /// is due.
    fn candidates(&mut self, _step: usize, _rng: &mut dyn Rng) -> Vec<LayerSet> {
        Vec::new()
    }

    /// β, the response factor of a suppressed layer while candidates are scored.
    fn suppression(&self) -> f64 {
        1.0
    }

    /// Learns from the mean token loss of every candidate, in order. Returns the rewards
    /// exp(-loss).
    fn observe(
        &mut self,
        _candidates: &[LayerSet],
        _losses: &[f64],
    ) -> Result<Vec<f64>, PolicyError> {
        Ok(Vec::new())
    }

    /// The importance scores of all layers, for policies that have them. High = suppression is
    /// tolerated = less important.
    fn scores(&self) -> Option<&[f64]> {
        None
    }

    /// The layers each step trains at most; what a plan of memory counts with.
    fn largest_set(&self) -> usize;

    /// Fails when the policy cannot answer for each of the steps 0 to `steps` - 1, so that a run
    /// knows before it begins.
    fn covers(&self, _steps: usize) -> Result<(), PolicyError> {
        Ok(())
    }

    /// Everything [`LayerPolicy::restore`] needs to go on exactly, as JSON.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes over a state that [`LayerPolicy::state`] of the same policy wrote.
    fn restore(&mut self, _state: Value) -> Result<(), PolicyError> {
        Ok(())
    }
}

/// Why a policy cannot be built, cannot select or cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No policy of that name is registered.
    #[error("`policy.kind` is \"{}\"; known are {}", cut(found), known.join(", "))]
    UnknownKind {
        /// The name asked for.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A field is unknown, missing or of the wrong type.
    #[error("`policy` of kind \"{kind}\": {source}")]
    Fields {
        /// The policy.
        kind: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
    /// A field's value is out of its range.
    #[error("`policy.{key}` must be {expected}, but is {found}")]
    OutOfRange {
        /// The field.
        key: &'static str,
        /// The allowed range in words.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A layer index names no layer.
    #[error("`policy.layers`: {0}")]
    Layers(#[from] LayerSetError),
    /// The selection log cannot be read.
    #[error("selection log {path}{}: {message}", line.map_or(String::new(), |line| format!(", line {line}")))]
    Log {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// The selection log holds no entry for a step.
    #[error(
        "selection log {path} has no entry for step {step}; replay at most as many steps as the log holds"
    )]
    LogEnds {
        /// The file.
        path: String,
        /// The step asked for.
        step: usize,
    },
    /// The number of losses differs from the number of candidates, or a loss is not finite.
    #[error(
        "scoring gave losses {losses:?} for {candidates} candidates; expected one finite loss each"
    )]
    Losses {
        /// Candidates that were to be scored.
        candidates: usize,
        /// The losses received.
        losses: Vec<f64>,
    },
    /// A saved state does not fit this policy.
    #[error("the saved state of policy \"{kind}\" does not fit: {message}")]
    State {
        /// The policy.
        kind: &'static str,
        /// What does not fit.
        message: String,
    },
}

/// Builds a policy from the fields of its configuration (all but `kind`) over the layers that can
/// train: those with PEFT modules, of a model of [`LayerSet::num_layers`] layers.
pub type Builder =
    fn(fields: &Map<String, Value>, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError>;

/// The policies a configuration can name.
#[derive(Clone)]
pub struct Registry(BTreeMap<&'static str, Builder>);

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self(BTreeMap::new());
        registry.register("all", All::build);
        registry.register("fixed", Fixed::build);
        registry.register("ist", Ist::build);
        registry.register("lisa", Lisa::build);
        registry.register("replay", Replay::build);
        registry.register("rst", Rst::build);
        registry
    }
}

impl Registry {
    /// Adds or replaces the policy of that name.
    pub fn register(&mut self, kind: &'static str, builder: Builder) {
        self.0.insert(kind, builder);
    }

    /// The policy `kind` with these fields, checked against the layers that can train.
    pub fn build(
        &self,
        kind: &str,
        fields: &Map<String, Value>,
        layers: &LayerSet,
    ) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        let builder = self.0.get(kind).ok_or_else(|| PolicyError::UnknownKind {
            found: kind.to_owned(),
            known: self.0.keys().map(ToString::to_string).collect(),
        })?;
        builder(fields, layers)
    }
}

/// The fields of a policy as its own configuration type.
fn parse<T: DeserializeOwned>(
    kind: &'static str,
    fields: &Map<String, Value>,
) -> Result<T, PolicyError> {
    serde_json::from_value(Value::Object(fields.clone()))
        .map_err(|source| PolicyError::Fields { kind, source })
}

/// A saved state as the policy's own type.
fn parse_state<T: DeserializeOwned>(kind: &'static str, state: &Value) -> Result<T, PolicyError> {
    T::deserialize(state).map_err(|error| PolicyError::State { kind, message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_unknown_kind_lists_what_exists() {
        let error = Registry::default()
            .build("isst", &Map::new(), &LayerSet::all(4))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "`policy.kind` is \"isst\"; known are all, fixed, ist, lisa, replay, rst"
        );
    }

    #[test]
    fn an_unknown_field_is_refused_by_every_policy() {
        for kind in ["all", "fixed", "ist", "lisa", "replay", "rst"] {
            let error = Registry::default()
                .build(kind, &fields(&json!({"gamma": 1})), &LayerSet::all(4))
                .unwrap_err();
            assert!(error.to_string().contains("gamma"), "{kind}: {error}");
        }
    }

    #[test]
    fn a_policy_registered_from_outside_can_be_named() {
        let mut registry = Registry::default();
        registry.register("mine", |_, layers| Ok(Box::new(All::new(layers))));
        let mut policy = registry.build("mine", &Map::new(), &LayerSet::all(3)).unwrap();
        assert_eq!(policy.select(0, &mut ChaCha8Rng::seed_from_u64(0)).unwrap().len(), 3);
    }

    #[test]
    fn only_layers_that_can_train_are_drawn() {
        let layers = LayerSet::new([2, 3, 5, 7], 9).unwrap();
        let cases = [
            ("all", json!({})),
            ("ist", json!({})),
            ("rst", json!({})),
            ("lisa", json!({"interval": 1})),
        ];
        for (kind, config) in cases {
            let mut policy = Registry::default().build(kind, &fields(&config), &layers).unwrap();
            let (mut rng, mut drawn) =
                (ChaCha8Rng::seed_from_u64(1), std::collections::BTreeSet::new());
            for step in 0..60 {
                let candidates = policy.candidates(step, &mut rng);
                assert!(
                    candidates.iter().all(|set| set.is_subset(&layers) && set.len() == 2),
                    "{kind}: {candidates:?}"
                );
                policy.observe(&candidates, &[0.5, 5.0, 9.0][..candidates.len()]).unwrap();
                let set = policy.select(step, &mut rng).unwrap();
                assert!(set.is_subset(&layers) && set.num_layers() == 9, "{kind}: {set:?}");
                drawn.extend(set.iter());
            }
            assert!(drawn.into_iter().eq(layers.iter()), "{kind}");
        }
        let fixed = |chosen| {
            Registry::default().build("fixed", &fields(&json!({"layers": chosen})), &layers)
        };
        assert!(fixed([2, 7]).is_ok());
        assert!(fixed([2, 4]).unwrap_err().to_string().contains("[2, 3, 5, 7], but is [2, 4]"));
    }

    #[test]
    fn every_policy_goes_on_from_its_saved_state() {
        let cases = [
            ("all", json!({})),
            ("ist", json!({"interval": 2})),
            ("ist", json!({"interval": 2, "reward": "normalized", "importance_lr": 0.5})),
            ("rst", json!({"layers_updated": 2})),
            ("lisa", json!({"layers_updated": 2, "interval": 3})),
            ("fixed", json!({"layers": [1, 2]})),
        ];
        for (kind, config) in cases {
            let build =
                || Registry::default().build(kind, &fields(&config), &LayerSet::all(6)).unwrap();
            let run = |policy: &mut Box<dyn LayerPolicy>,
                       rng: &mut ChaCha8Rng,
                       steps: std::ops::Range<usize>| {
                steps
                    .map(|step| {
                        let candidates = policy.candidates(step, rng);
                        let losses: Vec<f64> =
                            (0..candidates.len()).map(|k| 1.0 + 0.1 * k as f64).collect();
                        policy.observe(&candidates, &losses).unwrap();
                        policy.select(step, rng).unwrap()
                    })
                    .collect::<Vec<_>>()
            };
            let (mut whole, mut rng) = (build(), ChaCha8Rng::seed_from_u64(5));
            run(&mut whole, &mut rng, 0..7);
            let (state, mut rng_again) = (whole.state(), rng.clone());
            let expected = run(&mut whole, &mut rng, 7..15);
            let mut resumed = build();
            resumed.restore(state).unwrap();
            assert_eq!(run(&mut resumed, &mut rng_again, 7..15), expected, "{kind}");
            assert_eq!(resumed.scores(), whole.scores(), "{kind}");
        }
    }
}
