//! The policies there are, by the name that a configuration gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LayerPolicy, PolicyError, PolicySettings, Scoring, parse};
use crate::LayerSet;

/// Declares the built-in policies: for each its module, named after the kind, the policy and its
/// settings.
///
/// [`PolicyConfig`], the default [`Registry`] and the JSON Schema follow from the list, so a policy
/// is registered with one line.
macro_rules! policies {
    ($($kind:ident: $policy:ident($config:ident)),+ $(,)?) => {
        $(pub use super::$kind::{$config, $policy};)+

        /// The `[policy]` table of a configuration: the kind and its settings.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        pub enum PolicyConfig {
            $(
                #[doc = concat!("`kind = \"", stringify!($kind), "\"`.")]
                $policy($config),
            )+
        }

        impl PolicyConfig {
            /// The name in `policy.kind`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$policy(_) => stringify!($kind),)+
                }
            }

            fn settings(&self) -> &dyn PolicySettings {
                match self {
                    $(Self::$policy(settings) => settings,)+
                }
            }

            /// The JSON Schema of every kind's settings, under the kind's name.
            #[cfg(feature = "schema")]
            pub fn schemas(
                generator: &mut schemars::SchemaGenerator,
            ) -> Vec<(&'static str, schemars::Schema)> {
                vec![$((
                    stringify!($kind),
                    <$config as schemars::JsonSchema>::json_schema(generator),
                )),+]
            }
        }

        impl Default for Registry {
            fn default() -> Self {
                let mut registry = Self(BTreeMap::new());
                $(registry.register(stringify!($kind), |fields, layers| {
                    parse::<$config>(stringify!($kind), fields)?.build(layers)
                });)+
                registry
            }
        }
    };
}

// In the order in which the schema lists them.
policies! {
    all: All(AllConfig),
    ist: Ist(IstConfig),
    rst: Rst(RstConfig),
    lisa: Lisa(LisaConfig),
    fixed: Fixed(FixedConfig),
    replay: Replay(ReplayConfig),
}

impl PolicyConfig {
    /// The policy when none is named.
    pub const DEFAULT_KIND: &str = "ist";

    /// The policy over the layers that can train.
    ///
    /// # Errors
    /// If a setting is out of its range or does not fit the layers.
    pub fn build(&self, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError> {
        self.settings().build(layers)
    }

    /// How the policy scores candidates. `None` for a policy that scores none.
    pub fn scoring(&self) -> Option<Scoring> {
        self.settings().scoring()
    }

    /// Whether the sets are given from outside rather than drawn.
    pub fn has_given_sets(&self) -> bool {
        self.settings().has_given_sets()
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self::Ist(IstConfig::default())
    }
}

/// Builds a policy from the fields of its configuration (all but `kind`) over the layers that can
/// train: those with PEFT modules, of a model of [`LayerSet::num_layers`] layers.
pub type Builder =
    fn(fields: &Map<String, Value>, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, PolicyError>;

/// The policies that can be built by name, those from outside among them.
#[derive(Clone)]
pub struct Registry(BTreeMap<&'static str, Builder>);

impl Registry {
    /// Adds or replaces the policy of that name.
    pub fn register(&mut self, kind: &'static str, builder: Builder) {
        self.0.insert(kind, builder);
    }

    /// The policy `kind` with these fields, checked against the layers that can train.
    ///
    /// # Errors
    /// If the kind is unknown, or a field is unknown or out of its range.
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
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut drawn = std::collections::BTreeSet::new();
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
            let mut whole = build();
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            run(&mut whole, &mut rng, 0..7);
            let state = whole.state();
            let mut rng_again = rng.clone();
            let expected = run(&mut whole, &mut rng, 7..15);
            let mut resumed = build();
            resumed.restore(state).unwrap();
            assert_eq!(run(&mut resumed, &mut rng_again, 7..15), expected, "{kind}");
            assert_eq!(resumed.scores(), whole.scores(), "{kind}");
        }
    }
}
