//! What the benchmarks share: models of random weights with LoRA on, and batches for them.

use ist_core::burn::tensor::Device;
use ist_models::{Example, Llama, LlamaConfig, TokenBatch};
use ist_peft::{Adapter, BuiltinAdapter, Dialect, attach};
use serde_json::json;

/// The model the benchmarks run on.
pub type Model = Llama<BuiltinAdapter>;

/// The shape of a benchmark: a decoder and a batch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// MLP width.
    pub intermediate: usize,
    /// Vocabulary.
    pub vocabulary: usize,
    /// Rows of a batch.
    pub rows: usize,
    /// Tokens of a row.
    pub sequence: usize,
}

/// Small enough that a step takes about a tenth of a second on one core.
pub const TINY: Shape =
    Shape { hidden: 128, layers: 8, heads: 4, intermediate: 344, vocabulary: 1024, rows: 4, sequence: 64 };

/// A model of random weights with LoRA of rank 32 on its usual targets.
///
/// # Panics
/// If the shape is no valid model; the shapes of this crate are.
pub fn model(shape: Shape, device: &Device) -> Model {
    let document = json!({
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": 4096,
    });
    let config = LlamaConfig::parse(&document.to_string()).expect("the shape is a valid model");
    let mut model = Model::random(config, 0, device);
    let fields = json!({"method": "lora", "r": 32, "alpha": 64});
    let fields = fields.as_object().expect("an object was written above");
    let mut adapter =
        BuiltinAdapter::parse(fields, Dialect::Toml).expect("lora is built in").expect("the fields are valid");
    attach(&mut model, &mut adapter, 0, device).expect("the usual targets exist");
    model
}

/// A batch of full rows.
pub fn batch(shape: Shape, device: &Device) -> TokenBatch {
    let row = |row: usize| (0..shape.sequence).map(|t| ((row * 31 + t * 17) % shape.vocabulary) as u32).collect();
    TokenBatch::new(&(0..shape.rows).map(|at| Example::tokens(row(at))).collect::<Vec<_>>(), device)
}
