//! What distinguishes one decoder from another: every architecture's `config.json` becomes one of
//! these.

use std::sync::Arc;

use ist_files::untrusted::json;
use ist_peft::Roles;
use serde_json::{Map, Value};

use super::names::Names;
use super::rotary::{RopeScaling, Rotary};
use crate::architectures::{self, ConfigError};
use crate::ops::activation::Activation;
use crate::ops::attention::{Scores, slopes};

/// A decoder, with Hugging Face's field names where it has one.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "fields of a file")]
pub struct DecoderConfig {
    /// The architecture.
    pub model_type: &'static str,
    /// What its modules are called.
    pub names: &'static Names,
    /// Its modules' names by the part they play.
    pub roles: &'static Roles,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// The kind of its norms.
    pub norm: Norm,
    /// Their ε.
    pub norm_eps: f64,
    /// The factor on the embedding's rows.
    pub embedding_scale: f64,
    /// Whether a norm follows the embedding.
    pub embedding_norm: bool,
    /// How positions are told apart.
    pub positions: Positions,
    /// The rotations that layers choose from.
    pub rotaries: Vec<Rotary>,
    /// How queries, keys and values are projected.
    pub projection: Projection,
    /// Whether those projections have biases.
    pub qkv_bias: bool,
    /// Whether the projection behind the attention has one.
    pub output_bias: bool,
    /// The norm on queries and keys.
    pub head_norm: Option<HeadNorm>,
    /// The bound of the attention's scores.
    pub attention_soft_cap: Option<f64>,
    /// How attention and MLP join the residual stream.
    pub residual: Residual,
    /// The form of the MLP.
    pub mlp: Mlp,
    /// Its activation.
    pub hidden_act: Activation,
    /// Whether its linear modules have biases.
    pub mlp_bias: bool,
    /// The experts of the layers that have them.
    pub experts: Option<ExpertsConfig>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// The bound of the logits.
    pub logits_soft_cap: Option<f64>,
    /// Whether the layers' matrices are stored `[in, out]`, as GPT-2's `Conv1D`.
    pub fan_in_fan_out: bool,
    /// What differs from layer to layer; as many as there are layers.
    pub layers: Vec<LayerConfig>,
    /// The document this was read from, for writing it back.
    pub document: Value,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// Positions that a query sees at most.
    pub window: Option<usize>,
    /// Which of the rotations turns its queries and keys.
    pub rotary: Option<usize>,
    /// The factor on q kᵀ.
    pub scale: f64,
    /// Whether experts take the MLP's place.
    pub experts: bool,
}

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// x / rms(x) · w.
    Rms,
    /// x / rms(x) · (1 + w), as in Gemma.
    RmsPlusOne,
    /// Mean, variance, weight and bias.
    Layer,
}

/// How a model tells positions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Queries and keys are turned.
    Rotary,
    /// A table of vectors is added to the embedding.
    Learned,
    /// Scores fall with the distance.
    LinearBiases,
}

/// How queries, keys and values come from a layer's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// By three linear modules.
    Separate,
    /// By one, which writes all queries, all keys, all values.
    Blocks,
    /// By one, which writes head by head its query, key and value.
    Heads,
}

/// A norm on queries and keys before they are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// Over each head.
    Head,
    /// Over all heads together.
    All,
}

/// How attention and MLP join the residual stream; which norms there are, [`Names`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// One after the other.
    Sequential,
    /// Both from the layer's input.
    Parallel,
    /// One after the other, and what is added to is the norm's result.
    Normalised,
}

/// The form of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// down(act(gate) ⊙ up).
    Gated,
    /// The same, where one module writes gate and up.
    FusedGated,
    /// down(act(up)).
    Plain,
}

/// Experts of which a router chooses some for every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsConfig {
    /// How many there are.
    pub num_experts: usize,
    /// How many a token gets.
    pub num_experts_per_tok: usize,
    /// The width of one.
    pub intermediate_size: usize,
    /// Whether the weights of the chosen sum to 1.
    pub norm_topk_prob: bool,
}

impl DecoderConfig {
    /// Reads the text of a `config.json`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match json::value(text.as_bytes()) {
            Ok(Value::Object(document)) => Self::from_json(document),
            Ok(_) => Err(ConfigError { faults: vec!["not a JSON object".to_owned()] }),
            Err(error) => {
                Err(ConfigError { faults: vec![format!("not JSON: {}", json::told(&error))] })
            }
        }
    }

    /// Reads the document of a `config.json`.
    pub fn from_json(document: Map<String, Value>) -> Result<Self, ConfigError> {
        architectures::read(document)
    }

    /// `config.json` again, as it was read.
    pub fn to_json(&self) -> Value {
        self.document.clone()
    }

    /// Whether it is the text model of a model that also sees.
    pub fn has_more_than_text(&self) -> bool {
        self.names.body == architectures::composite::BODY
    }

    /// Makes head and embedding one matrix or two, in the document too.
    pub(crate) fn set_tied(&mut self, tied: bool) {
        self.tie_word_embeddings = tied;
        self.document["tie_word_embeddings"] = tied.into();
        if let Some(text) = self.document.get_mut("text_config").and_then(Value::as_object_mut) {
            text.insert("tie_word_embeddings".to_owned(), tied.into());
        }
    }

    /// Makes the vocabulary that long, in the document too.
    pub(crate) fn set_vocabulary(&mut self, rows: usize) {
        self.vocab_size = rows;
        match self.document.get_mut("text_config").and_then(Value::as_object_mut) {
            Some(text) => drop(text.insert("vocab_size".to_owned(), rows.into())),
            None => self.document["vocab_size"] = rows.into(),
        }
    }

    /// Positions a text may have: those the model was made for, and more where a dynamic rotation
    /// stretches them.
    pub fn context(&self) -> usize {
        let stretched = self.rotaries.iter().filter_map(|rotary| match rotary.scaling {
            RopeScaling::Dynamic { factor, max_position_embeddings } => {
                Some((factor * max_position_embeddings) as usize)
            }
            _ => None,
        });
        stretched.max().unwrap_or(0).max(self.max_position_embeddings)
    }

    /// Numbers of all query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.head_dim)
    }

    /// Numbers of all key heads, and of all value heads.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads.saturating_mul(self.head_dim)
    }

    /// Whether attention and MLP are halves of a layer, of which the second begins where the first
    /// ends.
    pub fn divides(&self) -> bool {
        self.residual != Residual::Parallel
    }

    /// The scores of a layer's attention.
    pub(crate) fn scores(&self, layer: usize, slopes: &Arc<[f32]>) -> Scores {
        Scores {
            scale: self.layers[layer].scale,
            soft_cap: self.attention_soft_cap,
            slopes: slopes.clone(),
        }
    }

    /// The slopes of linear biases.
    pub(crate) fn slopes(&self) -> Arc<[f32]> {
        match self.positions {
            Positions::LinearBiases => slopes(self.num_attention_heads),
            Positions::Rotary | Positions::Learned => Arc::default(),
        }
    }
}
