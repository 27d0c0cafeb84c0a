//! What an architecture calls its modules, in Hugging Face's files and paths.

/// The modules' names. Where an architecture has no such module, its name does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The module around all but the head.
    pub body: &'static str,
    /// The embedding.
    pub embed_tokens: &'static str,
    /// The table of positions.
    pub embed_positions: &'static str,
    /// The norm behind the embedding.
    pub embedding_norm: &'static str,
    /// The list of layers.
    pub layers: &'static str,
    /// The norm behind the last layer.
    pub norm: &'static str,
    /// The head.
    pub lm_head: &'static str,
    /// The head in weight files.
    pub head_in_files: &'static str,
    /// The norm in front of the attention; `None` without one, as for the next three.
    pub before_attention: Option<&'static str>,
    /// The norm on what the attention adds.
    pub after_attention: Option<&'static str>,
    /// The norm in front of the MLP.
    pub before_mlp: Option<&'static str>,
    /// The norm on what the MLP adds.
    pub after_mlp: Option<&'static str>,
    /// Self-attention.
    pub attention: &'static str,
    /// The projection to queries.
    pub query: &'static str,
    /// The projection to keys.
    pub key: &'static str,
    /// The projection to values.
    pub value: &'static str,
    /// The projection to all three.
    pub query_key_value: &'static str,
    /// The projection behind the attention.
    pub output: &'static str,
    /// The norm on queries.
    pub query_norm: &'static str,
    /// The norm on keys.
    pub key_norm: &'static str,
    /// The MLP, and the experts.
    pub mlp: &'static str,
    /// The projection to the gate.
    pub gate: &'static str,
    /// The projection into the MLP.
    pub up: &'static str,
    /// Both in one.
    pub gate_up: &'static str,
    /// The projection out of the MLP.
    pub down: &'static str,
    /// The router of the experts.
    pub router: &'static str,
    /// Gate, up and down of an expert.
    pub expert: [&'static str; 3],
}

impl Names {
    /// LLaMA's, which most models took over.
    pub const LLAMA: Self = Self {
        body: "model",
        embed_tokens: "embed_tokens",
        embed_positions: "",
        embedding_norm: "",
        layers: "layers",
        norm: "norm",
        lm_head: "lm_head",
        head_in_files: "lm_head",
        before_attention: Some("input_layernorm"),
        after_attention: None,
        before_mlp: Some("post_attention_layernorm"),
        after_mlp: None,
        attention: "self_attn",
        query: "q_proj",
        key: "k_proj",
        value: "v_proj",
        query_key_value: "qkv_proj",
        output: "o_proj",
        query_norm: "q_norm",
        key_norm: "k_norm",
        mlp: "mlp",
        gate: "gate_proj",
        up: "up_proj",
        gate_up: "gate_up_proj",
        down: "down_proj",
        router: "gate",
        expert: ["gate_proj", "up_proj", "down_proj"],
    };

    /// The path of a module of the body.
    pub fn in_body(&self, module: &str) -> String {
        format!("{}.{module}", self.body)
    }

    /// What the paths of a layer's modules begin with.
    pub fn layer(&self, index: usize) -> String {
        format!("{}.{}.{index}.", self.body, self.layers)
    }

    /// The path of a module of the attention within its layer.
    pub fn in_attention(&self, module: &str) -> String {
        format!("{}.{module}", self.attention)
    }

    /// The path of a module of the MLP within its layer.
    pub fn in_mlp(&self, module: &str) -> String {
        format!("{}.{module}", self.mlp)
    }

    /// The path of a module of an expert within its layer.
    pub fn in_expert(&self, expert: usize, module: &str) -> String {
        format!("{}.experts.{expert}.{module}", self.mlp)
    }
}
