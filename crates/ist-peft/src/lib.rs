//! PEFT methods on frozen linear layers, in Hugging Face PEFT's file format.
//!
//! A method is a type that implements [`Method`], with its settings as a [`MethodConfig`]. A set of
//! methods is an enum made by [`adapter_set!`] that implements [`Adapter`], so that a crate outside
//! this one can make "the built-in ones and mine". Models are generic over the set and never know a
//! method.
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
//! linear.adapter = BuiltinAdapter::init_all(&config.settings, &[place], 7, &device).pop();
//! // B starts at zero: a fresh LoRA is the base model.
//! linear.forward(x, &LayerPass::EVALUATION).into_data().assert_eq(&base.into_data(), true);
//! ```

pub mod fields;
pub mod files;
pub mod frozen;
pub mod method;
pub mod methods;
pub mod model;
pub mod parameter;
pub mod set;
pub mod site;

#[doc(hidden)]
pub use ist_core;
#[doc(hidden)]
pub use serde_json;

pub use fields::{ConfigError, Dialect, FieldFault, Fields};
pub use files::tensor_file::{TensorFile, TensorFileError};
pub use files::{AdapterFilesError, load, read_config, restore, save};
pub use frozen::{Base, BaseMut, FrozenLinear, FrozenNorm, NormValues, Weight};
pub use method::{
    AdapterModule, Configured, EmbeddingAdapter, LinearAdapter, MergeError, Method, MethodConfig,
    MethodInfo, NormAdapter, Place, PrefixAdapter, PrefixValues, TensorSpec, TokenCost,
};
pub use methods::bitfit::{BitFit, BitFitConfig};
pub use methods::bottleneck::{Bottleneck, BottleneckConfig};
pub use methods::dora::{Dora, DoraConfig};
pub use methods::full::{Full, FullConfig};
pub use methods::ia3::{Ia3, Ia3Config};
pub use methods::layernorm::{LayerNormConfig, LayerNormTuning};
pub use methods::lora::Lora;
pub use methods::lora::config::{LoraConfig, LoraInit, LowRankConfig};
pub use methods::prefix::{PrefixConfig, PrefixModel, PrefixTuning};
pub use methods::vera::{Vera, VeraConfig};
pub use model::adapters::{Adapters, Part};
pub use model::attach::{AttachError, PeftModel, Slot, attach, matching_sites, merge};
pub use model::carried::{BaseTensor, Carried};
pub use model::modules::{PeftEmbedding, PeftLinear, PeftNorm};
pub use model::weighted::WeightedSum;
pub use set::{Adapter, BuiltinAdapter, BuiltinConfig};
pub use site::targets::{TargetFields, TargetModules, Targets};
pub use site::{Outline, Roles, Site, SiteKind};
