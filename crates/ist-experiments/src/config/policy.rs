//! `[policy]`: which layers train in a step.
//!
//! A key of another kind is refused rather than ignored, so a file never suggests a setting that
//! has no effect.

use std::borrow::Cow;
use std::path::PathBuf;

use ist_core::policy::{IstConfig, Reward, Share};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema::{PATH, choice, share, variants};

/// The policy when none is named.
pub(super) const DEFAULT_KIND: &str = "ist";

/// `[policy]`: the kind and its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PolicyConfig {
    /// Every layer.
    All,
    /// Importance-aware sparse tuning.
    Ist(IstPolicy),
    /// Uniformly drawn layers, anew in every step.
    Rst(RstPolicy),
    /// Uniformly drawn layers, kept for some steps.
    Lisa(LisaPolicy),
    /// A given list.
    Fixed(FixedPolicy),
    /// The sets of an earlier run.
    Replay(ReplayPolicy),
}

/// `kind = "ist"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IstPolicy {
    /// Layers that receive gradients in one optimizer step: a count, or a fraction of the model's.
    #[schemars(schema_with = "share")]
    pub layers_updated: Share,
    /// Layers suppressed in one candidate: a count, or a fraction of the model's.
    #[schemars(schema_with = "share")]
    pub layers_suppressed: Share,
    /// Candidate sets per importance update; with 1 the scores never move.
    #[schemars(range(min = 1, max = 4096))]
    pub candidates: usize,
    /// The factor on a suppressed layer's PEFT response.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub suppression: f64,
    /// Optimizer steps between two importance updates.
    #[schemars(range(min = 1))]
    pub interval: usize,
    /// The step size of the importance update.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub importance_lr: f64,
    /// Records of the batch that scores the candidates.
    #[schemars(range(min = 1))]
    pub score_batch: usize,
    /// What a candidate's loss l is worth: exp(-l), or -l in standard deviations over the
    /// candidates.
    #[schemars(schema_with = "reward")]
    pub reward: Reward,
}

fn reward(_: &mut SchemaGenerator) -> Schema {
    choice(&[Reward::Exp, Reward::Normalized])
}

/// Those of the policy itself.
impl Default for IstPolicy {
    fn default() -> Self {
        let policy = IstConfig::default();
        Self {
            layers_updated: policy.layers_updated,
            layers_suppressed: policy.layers_suppressed,
            candidates: policy.candidates,
            suppression: policy.suppression,
            interval: policy.interval,
            importance_lr: policy.importance_lr,
            score_batch: policy.score_batch,
            reward: policy.reward,
        }
    }
}

/// `kind = "rst"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RstPolicy {
    /// Layers that receive gradients in one optimizer step: a count, or a fraction of the model's.
    #[schemars(schema_with = "share")]
    pub layers_updated: Share,
}

impl Default for RstPolicy {
    fn default() -> Self {
        Self { layers_updated: Share::Fraction(0.25) }
    }
}

/// `kind = "lisa"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LisaPolicy {
    /// Layers that receive gradients: a count, or a fraction of the model's.
    #[schemars(schema_with = "share")]
    pub layers_updated: Share,
    /// Optimizer steps between two draws.
    #[schemars(range(min = 1))]
    pub interval: usize,
}

impl Default for LisaPolicy {
    fn default() -> Self {
        Self { layers_updated: Share::Count(2), interval: 50 }
    }
}

/// `kind = "fixed"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedPolicy {
    /// The layers that train, counted from 0.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub layers: Vec<usize>,
}

/// `kind = "replay"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayPolicy {
    /// The earlier run's `selections.jsonl`.
    #[schemars(with = "String", extend("format" = PATH), length(min = 1))]
    pub path: PathBuf,
}

/// `kind = "all"` has no fields.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AllPolicy {}

impl PolicyConfig {
    /// The name in `policy.kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Ist(_) => "ist",
            Self::Rst(_) => "rst",
            Self::Lisa(_) => "lisa",
            Self::Fixed(_) => "fixed",
            Self::Replay(_) => "replay",
        }
    }

    /// The fields without `kind`, as [`ist_core::policy::Registry::build`] takes them.
    pub fn fields(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            unreachable!("a struct of numbers, lists and UTF-8 paths is a JSON object")
        };
        fields.remove("kind");
        fields
    }

    /// Records of the batch that scores candidates, for a policy that scores any.
    pub fn score_batch(&self) -> Option<usize> {
        if let Self::Ist(ist) = self { Some(ist.score_batch) } else { None }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self::Ist(IstPolicy::default())
    }
}

impl JsonSchema for PolicyConfig {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PolicyConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = vec![
            ("all", AllPolicy::json_schema(generator)),
            ("ist", IstPolicy::json_schema(generator)),
            ("rst", RstPolicy::json_schema(generator)),
            ("lisa", LisaPolicy::json_schema(generator)),
            ("fixed", FixedPolicy::json_schema(generator)),
            ("replay", ReplayPolicy::json_schema(generator)),
        ];
        variants("kind", DEFAULT_KIND, kinds)
    }
}
