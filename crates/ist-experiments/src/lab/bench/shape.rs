//! The shapes of published LLaMAs.

use clap::ValueEnum;
use ist_models::DecoderConfig;
use serde_json::{Value, json};

/// A published model's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Llama 3.2 1B.
    #[value(name = "1b")]
    OneBillion,
    /// LLaMA 7B, of the paper's runs.
    #[value(name = "7b")]
    SevenBillion,
    /// Llama 3 8B.
    #[value(name = "8b")]
    EightBillion,
}

impl Shape {
    /// As the model's `config.json` has it.
    pub fn config(self) -> DecoderConfig {
        let document = match self {
            Self::OneBillion => llama([2048, 16, 32, 8, 8192, 128_256], true),
            Self::SevenBillion => llama([4096, 32, 32, 32, 11_008, 32_000], false),
            Self::EightBillion => llama([4096, 32, 32, 8, 14_336, 128_256], false),
        };
        DecoderConfig::parse(&document.to_string()).expect("a published shape is a valid one")
    }
}

/// Width, layers, heads, key-value heads, MLP width and vocabulary.
fn llama(
    [hidden, layers, heads, kv_heads, intermediate, vocabulary]: [usize; 6],
    tied: bool,
) -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ist_models::decoder::layout::parameter_count;

    #[test]
    fn the_shapes_have_the_published_counts() {
        let shapes = [Shape::OneBillion, Shape::SevenBillion, Shape::EightBillion];
        let counts = shapes.map(|shape| parameter_count(&shape.config()));
        assert_eq!(counts, [1_235_814_400, 6_738_415_616, 8_030_261_248]);
    }
}
