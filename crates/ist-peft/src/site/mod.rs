//! The modules of a model that an adapter can sit on, and what part each kind of name plays.

pub mod targets;

/// What a module is that an adapter can sit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// A linear layer.
    Linear,
    /// An embedding table.
    Embedding,
    /// A normalisation with a weight.
    Norm,
    /// Self-attention as a whole.
    Attention {
        /// Key-value heads.
        kv_heads: usize,
        /// Numbers of a head.
        head_dim: usize,
    },
}

/// One module of a model that an adapter can sit on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The Hugging Face module path, such as `model.layers.3.self_attn.q_proj`.
    pub path: String,
    /// The layer; `None` outside the layers.
    pub layer: Option<usize>,
    /// What it is.
    pub kind: SiteKind,
    /// Input features; the vocabulary for an embedding.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether files hold its matrix `[in, out]`, as of GPT-2's `Conv1D`, and not `[out, in]`.
    pub fan_in_fan_out: bool,
}

impl Site {
    fn new(
        path: impl Into<String>,
        layer: Option<usize>,
        kind: SiteKind,
        [d_in, d_out]: [usize; 2],
    ) -> Self {
        Self { path: path.into(), layer, kind, d_in, d_out, bias: false, fan_in_fan_out: false }
    }

    /// A linear layer without a bias.
    pub fn linear(
        path: impl Into<String>,
        layer: Option<usize>,
        d_in: usize,
        d_out: usize,
    ) -> Self {
        Self::new(path, layer, SiteKind::Linear, [d_in, d_out])
    }

    /// An embedding table of `vocabulary` rows.
    pub fn embedding(path: impl Into<String>, vocabulary: usize, d_out: usize) -> Self {
        Self::new(path, None, SiteKind::Embedding, [vocabulary, d_out])
    }

    /// A normalisation of `width` features without a bias.
    pub fn norm(path: impl Into<String>, layer: Option<usize>, width: usize) -> Self {
        Self::new(path, layer, SiteKind::Norm, [width; 2])
    }

    /// The self-attention of a layer on `hidden` features.
    pub fn attention(
        path: impl Into<String>,
        layer: usize,
        hidden: usize,
        [kv_heads, head_dim]: [usize; 2],
    ) -> Self {
        Self::new(path, Some(layer), SiteKind::Attention { kv_heads, head_dim }, [hidden; 2])
    }

    /// The same module with a bias or without.
    #[must_use]
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// The same module with its matrix the other way round in files, or not.
    #[must_use]
    pub fn with_fan_in_fan_out(self, fan_in_fan_out: bool) -> Self {
        Self { fan_in_fan_out, ..self }
    }

    /// The last part of the path, such as `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// The module names of an architecture by the part they play, from which methods take their usual
/// targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// What people usually adapt with LoRA.
    pub usual: &'static [&'static str],
    /// The projection to queries.
    pub query: &'static [&'static str],
    /// The projection to keys.
    pub key: &'static [&'static str],
    /// The projection to values.
    pub value: &'static [&'static str],
    /// Every linear module of a layer.
    pub linear: &'static [&'static str],
    /// The modules that the MLP's input enters.
    pub mlp_in: &'static [&'static str],
    /// The module that the MLP's output leaves.
    pub mlp_out: &'static [&'static str],
    /// The normalisations of a layer.
    pub norms: &'static [&'static str],
    /// The normalisation behind the last layer.
    pub final_norm: &'static [&'static str],
    /// Self-attention as a whole.
    pub attention: &'static [&'static str],
}

/// What a model tells of itself to whoever puts adapters on it.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The architecture, as `model_type` in its `config.json` has it.
    pub model_type: &'static str,
    /// The names of its modules by the part they play.
    pub roles: &'static Roles,
    /// Layers.
    pub num_layers: usize,
    /// The head, where it shares the embedding's table and so is no module of its own yet.
    pub shared_head: Option<Site>,
}
