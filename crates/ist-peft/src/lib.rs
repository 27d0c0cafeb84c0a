//! PEFT methods on frozen linear layers, in Hugging Face PEFT's file format.
//!
//! A method is one type that implements [`Method`]; a set of methods is an enum made by
//! [`adapter_set!`] that implements [`Adapter`], so that a crate outside this one can make "the
//! built-in ones and mine". Models are generic over the set and never know a method.
//!
//! Weights are kept as `[in, out]` and act on rows, y = x W; files hold PyTorch's `[out, in]`.
//!
//! # Example
//!
//! ```
//! use ist_core::burn::tensor::{Device, Distribution, Tensor};
//! use ist_core::LayerPass;
//! use ist_peft::{Adapter, Base, BuiltinAdapter, Dialect, PeftLinear, Place, Site, Weight};
//!
//! let device = Device::flex();
//! let fields = serde_json::json!({"method": "lora", "r": 4, "alpha": 8, "targets": ["q_proj"]});
//! let config = BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
//! let site = Site::linear("model.layers.0.self_attn.q_proj", Some(0), 8, 6);
//! let weight = Tensor::<2>::random([8, 6], Distribution::Default, &device);
//! let mut linear = PeftLinear::<BuiltinAdapter>::new("self_attn.q_proj", Weight::frozen(weight), None);
//! let x = Tensor::<3>::random([1, 5, 8], Distribution::Default, &device);
//! let base = linear.forward(x.clone(), &LayerPass::EVALUATION);
//! let place = Place { site, base: Base::Linear(linear.base.clone()) };
//! linear.adapter = BuiltinAdapter::init_all(&config, &[place], 7, &device).pop();
//! // B starts at zero: a fresh LoRA is the base model.
//! linear.forward(x, &LayerPass::EVALUATION).into_data().assert_eq(&base.into_data(), true);
//! ```

pub mod adapter;
mod adapter_set;
pub mod adapters;
pub mod attach;
pub mod bitfit;
pub mod blended;
pub mod bodies;
pub mod bottleneck;
pub mod carried;
mod contents;
pub mod dora;
mod dora_linear;
mod dora_norm;
pub mod dropout;
pub mod fields;
pub mod files;
pub mod foreign;
pub mod frozen;
pub mod frozen_matrix;
#[cfg(feature = "flex")]
pub mod frozen_product;
pub mod full;
pub mod gguf;
pub mod half_product;
pub mod ia3;
pub mod int8;
mod keys;
pub mod layernorm;
pub mod linear;
pub mod lookup;
pub mod lora;
pub mod lora_config;
pub mod lora_init;
mod lora_linear;
pub mod method;
mod mlx;
pub mod parameter;
mod part_tensors;
mod peft_defaults;
pub mod peft_modules;
pub mod prefix;
pub mod site;
pub mod targets;
pub mod tensor_file;
pub mod usable;
pub mod vera;
pub mod weight;
pub mod weighted;

#[doc(hidden)]
pub use ist_core;
#[doc(hidden)]
pub use serde_json;

pub use adapter::{Adapter, BuiltinAdapter, BuiltinConfig};
pub use adapters::{Adapters, Part};
pub use attach::{AttachError, PeftModel, Slot, attach, matching_sites, merge};
pub use bitfit::{BitFit, BitFitConfig};
pub use bottleneck::{Bottleneck, BottleneckConfig};
pub use carried::{BaseTensor, Carried};
pub use dora::Dora;
pub use fields::{ConfigError, FieldFault, Fields};
pub use files::{AdapterFilesError, load, read_config, restore, save};
pub use frozen::{Base, BaseMut, FrozenLinear, FrozenNorm, NormValues};
pub use full::{Full, FullConfig};
pub use ia3::{Ia3, Ia3Config};
pub use layernorm::{LayerNormConfig, LayerNormTuning};
pub use lora::Lora;
pub use lora_config::{LoraConfig, LoraInit};
pub use method::{Dialect, MergeError, Method, Place, TensorSpec, TokenCost};
pub use peft_modules::{PeftEmbedding, PeftLinear, PeftNorm};
pub use prefix::{PrefixConfig, PrefixModel, PrefixTuning};
pub use site::{Outline, Roles, Site, SiteKind};
pub use targets::{TargetModules, Targets};
pub use tensor_file::{TensorFile, TensorFileError};
pub use vera::{Vera, VeraConfig};
pub use weight::Weight;
pub use weighted::WeightedSum;
