//! Decoder language models layer by layer, and real Hugging Face checkpoints.
//!
//! Every architecture is a file in [`architectures`], named after `model_type` in `config.json`,
//! that says which decoder it is; [`decoder`] computes it. It is a
//! [`LayeredModel`](ist_core::LayeredModel), so all of IST works on it, and a
//! [`PeftModel`](ist_peft::PeftModel), so all of PEFT does.
//!
//! # Example
//!
//! ```
//! use ist_core::burn::tensor::Device;
//! use ist_models::{Decoder, DecoderConfig, Example, TokenBatch, generate};
//! use ist_peft::BuiltinAdapter;
//!
//! let config = DecoderConfig::parse(r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
//!     "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#).unwrap();
//! let model = Decoder::<BuiltinAdapter>::random(config, 1, &Device::flex());
//! let batch = TokenBatch::new(&[Example::tokens(vec![3, 5, 7, 9])], &Device::flex());
//! let (loss, tokens) = ist_core::step::mean_loss(&model, &[batch], &ist_core::Responses::full(2));
//! assert!(loss.is_finite() && tokens == 3);
//! let settings = generate::Settings { max_new_tokens: 5, ..generate::Settings::default() };
//! assert_eq!(generate::generate(&model, &[vec![3, 5, 7]], &settings).unwrap()[0].len(), 5);
//! ```

pub mod architectures;
pub mod batch;
pub mod decoder;
pub mod generate;
pub mod gguf;
pub mod hub;
mod load_error;
pub mod model_files;
pub mod ops;
pub mod registry;
pub mod shape;
mod spelling;
pub mod text;

pub use batch::{Example, IGNORED_LABEL, TokenBatch};
pub use decoder::{Decoder, DecoderConfig};
pub use load_error::LoadError;
pub use model_files::ModelFiles;
pub use shape::{BatchShape, Shape};
