//! PEFT methods on frozen linear layers, in Hugging Face PEFT's file format.
//!
//! A method is one type that implements [`Adapter`]; a set of methods is an enum made by [`adapter_set!`], so that a crate
//! outside this one can make "the built-in ones and mine". Models are generic over the set and never know a method.
//!
//! Weights are kept as `[in, out]` and act on rows, y = x W; files hold PyTorch's `[out, in]`.
//!
//! # Example
//!
//! ```
//! use ist_core::burn::tensor::{Device, Distribution, Tensor};
//! use ist_core::LayerPass;
//! use ist_peft::{Adapter, BuiltinAdapter, Dialect, PeftLinear, Site, Weight};
//!
//! let device = Device::flex();
//! let fields = serde_json::json!({"method": "lora", "r": 4, "alpha": 8, "targets": ["q_proj"]});
//! let config = BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
//! let site = Site::linear("model.layers.0.self_attn.q_proj", Some(0), 8, 6);
//! let weight = Tensor::<2>::random([8, 6], Distribution::Default, &device);
//! let mut linear = PeftLinear::<BuiltinAdapter>::new("self_attn.q_proj", Weight::frozen(weight), None);
//! let x = Tensor::<3>::random([1, 5, 8], Distribution::Default, &device);
//! let base = linear.forward(x.clone(), &LayerPass::EVALUATION);
//! linear.adapter = Some(BuiltinAdapter::init(&config, &site, 7, &device));
//! // B starts at zero: a fresh LoRA is the base model.
//! linear.forward(x, &LayerPass::EVALUATION).into_data().assert_eq(&base.into_data(), true);
//! ```

pub mod adapter;
pub mod attach;
pub mod dropout;
pub mod fields;
pub mod files;
pub mod frozen_matrix;
#[cfg(feature = "flex")]
pub mod frozen_product;
pub mod int8;
pub mod linear;
pub mod lora;
mod lora_linear;
pub mod peft_linear;
pub mod targets;
pub mod tensor_file;
pub mod weight;
pub mod whole_file;

#[doc(hidden)]
pub use ist_core;
#[doc(hidden)]
pub use serde_json;

pub use adapter::{Adapter, BuiltinAdapter, BuiltinConfig, Dialect, MergeError, Site, SiteKind, TensorSpec, TokenCost};
pub use attach::{AttachError, PeftModel, Slot, attach, matching_sites, merge};
pub use fields::{ConfigError, FieldFault};
pub use files::{AdapterFilesError, load, read_config, save};
pub use lora::{Lora, LoraConfig};
pub use peft_linear::{FrozenLinear, PeftEmbedding, PeftLinear};
pub use targets::{TargetModules, Targets};
pub use tensor_file::{TensorFile, TensorFileError};
pub use weight::Weight;
