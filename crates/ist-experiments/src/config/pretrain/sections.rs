//! The sections of a configuration of `ist pretrain`.

use std::path::PathBuf;

use ist_core::optimizer::AdamWSettings;
use ist_core::schedule::Schedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::model::Dtype;
use crate::config::optimizer::OptimizerKind;
use crate::config::schema::{TEXT_SOURCE, without_default};

/// `[model]`: the shape, under the names of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Decoder layers.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: usize,
    /// Query heads.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Key and value heads. Default: `num_attention_heads`.
    #[serde(default)]
    #[schemars(range(min = 1), transform = without_default)]
    pub num_key_value_heads: usize,
    /// The longest context.
    #[schemars(range(min = 2))]
    pub max_position_embeddings: usize,
    /// The base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rope_theta: f64,
    /// Added to the mean square before a norm divides by its root.
    #[serde(default = "rms_norm_eps")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    #[serde(default = "tie_word_embeddings")]
    pub tie_word_embeddings: bool,
    /// How the weights are saved.
    #[serde(default)]
    pub dtype: SavedDtype,
}

fn rope_theta() -> f64 {
    10_000.0
}

fn rms_norm_eps() -> f64 {
    1e-5
}

fn tie_word_embeddings() -> bool {
    true
}

/// How a checkpoint's weights are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SavedDtype {
    /// IEEE single precision.
    Float32,
    /// The upper half of single precision.
    #[default]
    Bfloat16,
    /// IEEE half precision.
    Float16,
}

impl From<SavedDtype> for Dtype {
    fn from(dtype: SavedDtype) -> Self {
        match dtype {
            SavedDtype::Float32 => Self::Float32,
            SavedDtype::Bfloat16 => Self::Bfloat16,
            SavedDtype::Float16 => Self::Float16,
        }
    }
}

/// `[tokenizer]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Entries of the vocabulary, special tokens included.
    #[schemars(range(min = 2))]
    pub vocab_size: usize,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainData {
    /// `world`, the built-in generator of text, or a text file.
    #[schemars(with = "String", extend("format" = TEXT_SOURCE), length(min = 1))]
    pub source: TextSource,
    /// Training tokens: as many are generated, or at most as many read. Required with `world`; a
    /// file is read whole without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens: Option<usize>,
    /// Tokens held out to evaluate; default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub validation_tokens: Option<usize>,
    /// Tokens of one training row.
    #[schemars(range(min = 2))]
    pub sequence_length: usize,
}

impl Default for PretrainData {
    fn default() -> Self {
        Self {
            source: TextSource::World,
            tokens: None,
            validation_tokens: None,
            sequence_length: 128,
        }
    }
}

/// Where text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum TextSource {
    /// The built-in generator.
    World,
    /// A text file.
    File(PathBuf),
}

impl From<PathBuf> for TextSource {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "world" { Self::World } else { Self::File(path) }
    }
}

impl From<TextSource> for PathBuf {
    fn from(source: TextSource) -> Self {
        match source {
            TextSource::World => "world".into(),
            TextSource::File(path) => path,
        }
    }
}

/// `[optimizer]`: defaults for training from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainOptimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// The base learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// The schedule falls to this fraction of `lr` instead of to 0.
    #[schemars(range(min = 0, max = 1))]
    pub min_lr_ratio: f64,
    /// The rule's constants.
    #[serde(flatten)]
    pub adamw: AdamWSettings,
    /// The global gradient norm to clip to; 0 does not clip.
    #[schemars(range(min = 0))]
    pub clip_norm: f64,
    /// How the learning rate moves after the warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
}

impl Default for PretrainOptimizer {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr: 3e-3,
            min_lr_ratio: 0.1,
            adamw: AdamWSettings::default(),
            clip_norm: 1.0,
            schedule: Schedule::Cosine,
            warmup_steps: 0,
        }
    }
}

impl PretrainOptimizer {
    /// The norm to clip to, if any.
    pub fn clip(&self) -> Option<f64> {
        (self.clip_norm > 0.0).then_some(self.clip_norm)
    }
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSteps {
    /// Optimizer steps.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Rows of one optimizer step.
    #[serde(default = "batch")]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Steps between two evaluations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub eval_every: Option<usize>,
    /// Prompts that are continued at each evaluation.
    #[serde(default)]
    pub sample_prompts: Vec<String>,
    /// Tokens of each continuation.
    #[serde(default = "sample_tokens")]
    #[schemars(range(min = 1))]
    pub sample_tokens: usize,
}

fn batch() -> usize {
    16
}

fn sample_tokens() -> usize {
    32
}
