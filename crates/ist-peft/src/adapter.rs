//! The trait of a PEFT method, and the set of the built-in ones.
//!
//! burn's modules are closed types, so a set of methods is an enum. [`adapter_set!`](crate::adapter_set) writes it, with one line a method; an
//! outside crate calls the same macro with its own types.

use std::fmt::Debug;

use ist_core::LayerPass;
use ist_core::burn::module::{Module, ModuleDisplay};
use ist_core::burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};

use crate::{ConfigError, FrozenLinear, Lora, Targets};

/// Where fields come from, and so how they are spelt and how strictly they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Our `[adapter]` table: `method`, `r`, `alpha`, `dropout`, `targets`, other fields under PEFT's names. Unknown keys
    /// are refused.
    Toml,
    /// PEFT's `adapter_config.json`. Unknown or unsupported fields pass when their value is neutral.
    Peft,
}

/// What a module is that an adapter can sit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// A linear layer.
    Linear,
    /// An embedding table.
    Embedding,
}

/// One module of a model that an adapter can sit on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The Hugging Face module path, such as `model.layers.3.self_attn.q_proj`.
    pub path: String,
    /// The layer; `None` outside the layers.
    pub layer: Option<usize>,
    /// Linear or embedding.
    pub kind: SiteKind,
    /// Input features; the vocabulary for an embedding.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
}

impl Site {
    /// A linear layer.
    pub fn linear(path: impl Into<String>, layer: Option<usize>, d_in: usize, d_out: usize) -> Self {
        Self { path: path.into(), layer, kind: SiteKind::Linear, d_in, d_out }
    }

    /// An embedding table of `vocabulary` rows.
    pub fn embedding(path: impl Into<String>, vocabulary: usize, d_out: usize) -> Self {
        Self { path: path.into(), layer: None, kind: SiteKind::Embedding, d_in: vocabulary, d_out }
    }
}

/// One tensor of an adapter as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// What follows the module path in the key, such as `lora_A.weight`.
    pub suffix: &'static str,
    /// The shape in PEFT's layout.
    pub shape: Vec<usize>,
}

/// What an adapted linear module takes of memory for one token, in numbers of the model's arithmetic, where its adapter
/// trains. The memory plan counts with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Whether its input stays for the backward pass; modules with the same input share one copy.
    pub keeps_input: bool,
    /// What stays besides.
    pub keeps: usize,
    /// What either pass needs for a moment, beside its results; also where the adapter rests.
    pub scratch: usize,
}

impl TokenCost {
    /// What is counted for a method that does not say: input and output stay, in copies of their own.
    pub fn unknown(site: &Site) -> Self {
        Self { keeps_input: false, keeps: site.d_in + site.d_out, scratch: site.d_out }
    }
}

/// Why an adapter cannot be folded into a weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The method is no linear map of its input.
    #[error("{method} is non-linear in its input and cannot be merged into a weight")]
    NonLinear {
        /// The method.
        method: &'static str,
    },
}

/// A PEFT method on one frozen module, or a set of such methods.
pub trait Adapter: Module + ModuleDisplay {
    /// The checked configuration.
    type Config: Clone + Debug + Send + Sync;

    /// Reads the fields of a configuration; `None` when they name a method that is not this one.
    fn parse(fields: &Map<String, Value>, dialect: Dialect) -> Option<Result<Self::Config, ConfigError>>;
    /// The method's name in our TOML.
    fn method(config: &Self::Config) -> &'static str;
    /// The fields of PEFT's `adapter_config.json`, `peft_type` included.
    fn peft_fields(config: &Self::Config) -> Map<String, Value>;
    /// The modules to adapt.
    fn targets(config: &Self::Config) -> &Targets;
    /// Sets which modules to adapt where the configuration left it open.
    fn set_targets(config: &mut Self::Config, targets: Targets);

    /// The tensors of one adapter on `site`, in the order of [`Adapter::tensors`].
    fn layout(config: &Self::Config, site: &Site) -> Vec<TensorSpec>;
    /// A fresh adapter on `site`; `seed` fixes its random numbers.
    fn init(config: &Self::Config, site: &Site, seed: u64, device: &Device) -> Self;
    /// An adapter from its tensors, in the order and shapes of [`Adapter::layout`], as f32.
    fn from_tensors(config: &Self::Config, site: &Site, tensors: Vec<TensorData>, device: &Device) -> Self;
    /// The tensors in PEFT's layout.
    fn tensors(&self) -> Vec<TensorData>;

    /// What an adapter of that configuration takes on a linear `site`, before it exists.
    fn token_cost(_config: &Self::Config, site: &Site) -> TokenCost {
        TokenCost::unknown(site)
    }
    /// The same of this adapter.
    fn token_cost_of(&self, site: &Site) -> TokenCost {
        TokenCost::unknown(site)
    }

    /// The adapted output of a linear module, `[batch, sequence, in]` to `[batch, sequence, out]`.
    ///
    /// `pass.response` scales what the method adds; `pass.dropout` is this module's own seed.
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3>;
    /// The adapted output of an embedding, from the frozen output and the token ids.
    fn embed(&self, base: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3>;
    /// The weight `[in, out]` with the adapter folded in.
    fn merge(&self, weight: Tensor<2>) -> Result<Tensor<2>, MergeError>;
}

/// Writes an enum of PEFT methods and its configuration enum, and implements [`Adapter`] for it by dispatch.
///
/// `burn` must be in scope (`use ist_core::burn;`), as for every module.
///
/// ```
/// use ist_peft::ist_core::burn;
/// ist_peft::adapter_set! {
///     /// Every method this program knows.
///     pub enum MyAdapter, MyConfig { Lora(ist_peft::Lora) }
/// }
/// ```
#[macro_export]
macro_rules! adapter_set {
    ($(#[$meta:meta])* $vis:vis enum $name:ident, $config:ident { $($variant:ident($method:ty)),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(burn::module::Module, Debug)]
        #[allow(missing_docs, reason = "a variant's documentation is its method's")]
        $vis enum $name { $($variant($method)),+ }

        /// The configuration of one of the methods.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "a variant's documentation is its method's")]
        $vis enum $config { $($variant(<$method as $crate::Adapter>::Config)),+ }

        // With a single method every pattern below is irrefutable.
        #[allow(unreachable_patterns, reason = "the fallback arms are dead in a set of one")]
        impl $crate::Adapter for $name {
            type Config = $config;

            fn parse(
                fields: &$crate::serde_json::Map<String, $crate::serde_json::Value>,
                dialect: $crate::Dialect,
            ) -> Option<Result<$config, $crate::ConfigError>> {
                None$(.or_else(|| {
                    <$method as $crate::Adapter>::parse(fields, dialect).map(|config| config.map($config::$variant))
                }))+
            }

            fn method(config: &$config) -> &'static str {
                match config { $($config::$variant(config) => <$method as $crate::Adapter>::method(config)),+ }
            }

            fn peft_fields(config: &$config) -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                match config { $($config::$variant(config) => <$method as $crate::Adapter>::peft_fields(config)),+ }
            }

            fn targets(config: &$config) -> &$crate::Targets {
                match config { $($config::$variant(config) => <$method as $crate::Adapter>::targets(config)),+ }
            }

            fn set_targets(config: &mut $config, targets: $crate::Targets) {
                match config {
                    $($config::$variant(config) => <$method as $crate::Adapter>::set_targets(config, targets)),+
                }
            }

            fn layout(config: &$config, site: &$crate::Site) -> Vec<$crate::TensorSpec> {
                match config { $($config::$variant(config) => <$method as $crate::Adapter>::layout(config, site)),+ }
            }

            fn init(config: &$config, site: &$crate::Site, seed: u64, device: &burn::tensor::Device) -> Self {
                match config {
                    $($config::$variant(config) => {
                        Self::$variant(<$method as $crate::Adapter>::init(config, site, seed, device))
                    })+
                }
            }

            fn from_tensors(
                config: &$config,
                site: &$crate::Site,
                tensors: Vec<burn::tensor::TensorData>,
                device: &burn::tensor::Device,
            ) -> Self {
                match config {
                    $($config::$variant(config) => {
                        Self::$variant(<$method as $crate::Adapter>::from_tensors(config, site, tensors, device))
                    })+
                }
            }

            fn tensors(&self) -> Vec<burn::tensor::TensorData> {
                match self { $(Self::$variant(adapter) => $crate::Adapter::tensors(adapter)),+ }
            }

            fn token_cost(config: &$config, site: &$crate::Site) -> $crate::TokenCost {
                match config { $($config::$variant(config) => <$method as $crate::Adapter>::token_cost(config, site)),+ }
            }

            fn token_cost_of(&self, site: &$crate::Site) -> $crate::TokenCost {
                match self { $(Self::$variant(adapter) => $crate::Adapter::token_cost_of(adapter, site)),+ }
            }

            fn forward(
                &self,
                base: &$crate::FrozenLinear,
                x: burn::tensor::Tensor<3>,
                pass: &$crate::ist_core::LayerPass,
            ) -> burn::tensor::Tensor<3> {
                match self { $(Self::$variant(adapter) => $crate::Adapter::forward(adapter, base, x, pass)),+ }
            }

            fn embed(
                &self,
                base: burn::tensor::Tensor<3>,
                ids: burn::tensor::Tensor<2, burn::tensor::Int>,
                pass: &$crate::ist_core::LayerPass,
            ) -> burn::tensor::Tensor<3> {
                match self { $(Self::$variant(adapter) => $crate::Adapter::embed(adapter, base, ids, pass)),+ }
            }

            fn merge(&self, weight: burn::tensor::Tensor<2>) -> Result<burn::tensor::Tensor<2>, $crate::MergeError> {
                match self { $(Self::$variant(adapter) => $crate::Adapter::merge(adapter, weight)),+ }
            }
        }
    };
}

use ist_core::burn;

adapter_set! {
    /// The methods of this crate.
    pub enum BuiltinAdapter, BuiltinConfig {
        Lora(Lora),
    }
}
