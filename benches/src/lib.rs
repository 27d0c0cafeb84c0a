//! What the benchmarks share: models of random weights with LoRA on, batches for them, and the ways
//! to measure.

pub mod arithmetic;
pub mod measure;
pub mod process;
pub mod table;

use ist_core::LayerSet;
use ist_core::burn::tensor::{DType, Device};
use ist_models::{Decoder, DecoderConfig, Example, TokenBatch};
use ist_peft::{Adapter, Adapters, BuiltinAdapter, Dialect, attach};
use serde_json::{Value, json};

/// The model the benchmarks run on.
pub type Model = Decoder<BuiltinAdapter>;

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

impl Shape {
    /// Tokens of a batch.
    pub fn tokens(&self) -> usize {
        self.rows * self.sequence
    }
}

/// Small enough that a step takes about a tenth of a second on one core.
pub const TINY: Shape = Shape {
    hidden: 128,
    layers: 8,
    heads: 4,
    intermediate: 344,
    vocabulary: 1024,
    rows: 4,
    sequence: 64,
};

/// The smaller of the two shapes that are compared with PyTorch: a step takes about a second on one
/// core.
pub const SMALL: Shape = Shape {
    hidden: 512,
    layers: 8,
    heads: 8,
    intermediate: 1376,
    vocabulary: 2048,
    rows: 4,
    sequence: 256,
};

/// The larger of them, with a vocabulary as real models have it.
pub const MEDIUM: Shape = Shape {
    hidden: 768,
    layers: 12,
    heads: 12,
    intermediate: 2048,
    vocabulary: 32000,
    rows: 4,
    sequence: 256,
};

/// The shape that the variable `IST_BENCH_SHAPE` names (`tiny`, `small` or `medium`), else
/// [`TINY`].
///
/// # Panics
/// If it names another.
pub fn shape() -> Shape {
    match std::env::var("IST_BENCH_SHAPE").as_deref() {
        Err(_) | Ok("tiny") => TINY,
        Ok("small") => SMALL,
        Ok("medium") => MEDIUM,
        Ok(other) => panic!("IST_BENCH_SHAPE is \"{other}\"; known are tiny, small and medium"),
    }
}

/// LoRA's rank in every benchmark that does not ask for another.
pub const RANK: usize = 32;

/// What a model needs besides its shape.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// `lora` or another method with its fields.
    pub method: &'static str,
    /// LoRA's rank.
    pub rank: usize,
    /// LoRA's alpha.
    pub alpha: f64,
    /// The type in which the frozen weights lie.
    pub storage: DType,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { method: "lora", rank: RANK, alpha: 64.0, storage: DType::F32 }
    }
}

/// A model of random weights with LoRA on its usual targets.
///
/// # Panics
/// If the shape is no valid model; the shapes of this crate are.
pub fn model(shape: Shape, recipe: Recipe, device: &Device) -> Model {
    let fields = json!({"method": recipe.method, "r": recipe.rank, "alpha": recipe.alpha});
    adapted_model(shape, recipe.storage, &fields, device)
}

/// A model of random weights with the adapter of those fields, as a configuration's `[adapter]` has
/// them.
///
/// # Panics
/// If the shape is no valid model or the fields are no valid adapter of it.
pub fn adapted_model(shape: Shape, storage: DType, fields: &Value, device: &Device) -> Model {
    let document = json!({
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.sequence.max(2048),
    });
    let config = DecoderConfig::parse(&document.to_string()).expect("the shape is a valid model");
    let mut model = Model::random(config, 0, device);
    if storage != DType::F32 {
        model = model.store_as(storage);
    }
    let fields = fields.as_object().expect("an adapter's fields are an object");
    let adapter = BuiltinAdapter::parse(fields, Dialect::Toml)
        .expect("the method is built in")
        .expect("the fields are valid");
    let mut adapter = Adapters::one(adapter);
    attach(&mut model, &mut adapter, 0, device).expect("the usual targets exist");
    model
}

/// A batch of full rows.
pub fn batch(shape: Shape, device: &Device) -> TokenBatch {
    let row = |row: usize| {
        (0..shape.sequence).map(|t| ((row * 31 + t * 17) % shape.vocabulary) as u32).collect()
    };
    TokenBatch::new(&(0..shape.rows).map(|at| Example::tokens(row(at))).collect::<Vec<_>>(), device)
}

/// The kinds of draw that a policy can make, by name: all layers, and a quarter of them where the
/// step's cost is in the middle, highest and lowest. A step costs what lies above the lowest layer
/// of its draw, whichever policy made it.
///
/// # Panics
/// If there are fewer than four layers.
pub fn draws(layers: usize) -> [(&'static str, LayerSet); 4] {
    let count = layers / 4;
    let set = |first: usize, apart: usize| {
        LayerSet::new((0..count).map(|at| first + at * apart), layers)
            .expect("a quarter fits into the model")
    };
    let spread = set(layers / 4, (layers - layers / 4) / count);
    [
        ("all", LayerSet::all(layers)),
        ("spread", spread),
        ("worst", set(0, 1)),
        ("best", set(layers - count, 1)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_layers_are_drawn_in_four_ways() {
        let drawn = draws(8).map(|(_, set)| set.as_slice().to_vec());
        assert_eq!(drawn, [(0..8).collect(), vec![2, 5], vec![0, 1], vec![6, 7]]);
        assert!(draws(12)[1].1.as_slice() == [3, 6, 9]);
    }
}
