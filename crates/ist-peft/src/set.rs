//! A set of PEFT methods, which is what models, files and commands work with, and the set of the
//! built-in ones.
//!
//! burn's modules are closed types, so a set of methods is an enum.
//! [`adapter_set!`](crate::set) writes it, with one line a method; an outside crate calls
//! the same macro with its own types.

use std::fmt::Debug;

use ist_core::LayerPass;
use ist_core::burn;
use ist_core::burn::module::{Module, ModuleDisplay, ParamId};
use ist_core::burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};

use crate::fields::Dialect;
use crate::method::{MergeError, Place, TokenCost};
use crate::{
    Base, BitFit, Bottleneck, ConfigError, Dora, FrozenLinear, FrozenNorm, Full, Ia3,
    LayerNormTuning, Lora, NormValues, PrefixTuning, Roles, Site, Targets, Vera,
};

/// A set of PEFT methods. Each function does what [`Method`](crate::Method)'s of the same name
/// does, for the method that the configuration or the adapter is of.
pub trait Adapter: Module + ModuleDisplay {
    /// The checked configuration of one of the methods.
    type Config: Clone + Debug + Send + Sync;

    /// Reads the fields of a configuration; `None` when they name a method that is not of the set.
    fn parse(
        fields: &Map<String, Value>,
        dialect: Dialect,
    ) -> Option<Result<Self::Config, ConfigError>>;
    /// The method's name in our TOML.
    fn method(config: &Self::Config) -> &'static str;
    /// The fields of PEFT's `adapter_config.json`, `peft_type` and targets included.
    fn peft_fields(config: &Self::Config) -> Map<String, Value>;
    /// The modules to adapt.
    fn targets(config: &Self::Config) -> &Targets;
    /// The same, to fill in what the configuration left open.
    fn targets_mut(config: &mut Self::Config) -> &mut Targets;
    /// The modules the method usually adapts on an architecture.
    fn usual_targets(config: &Self::Config, roles: &Roles) -> Vec<&'static str>;
    /// Whether the method can sit on that module.
    fn fits(config: &Self::Config, site: &Site) -> bool;
    /// The modules the method can sit on, in words.
    fn takes(config: &Self::Config) -> &'static str;
    /// Takes over what the model decides, once the modules are known; fails on what contradicts it.
    fn settle(config: &mut Self::Config, sites: &[Site]) -> Result<(), ConfigError>;
    /// Takes over from `given` what only training knows; nothing from that of another method.
    fn train_as(config: &mut Self::Config, given: &Self::Config) -> Result<(), ConfigError>;
    /// The keys of its patterns that match none of these modules.
    fn unmatched_patterns(config: &Self::Config, sites: &[Site]) -> Vec<String>;
    /// Positions that the method puts in front of all tokens.
    fn positions_in_front(config: &Self::Config) -> usize;
    /// Whether a fresh adapter leaves the model what it is.
    fn starts_at_base(config: &Self::Config) -> bool;
    /// Scalars that train on `site`.
    fn parameters(config: &Self::Config, site: &Site) -> usize;
    /// What an adapter takes on a linear `site`, before it exists.
    fn token_cost(config: &Self::Config, site: &Site) -> TokenCost;

    /// Key and shape of every tensor in the file of adapters on all `sites`.
    fn file_layout(config: &Self::Config, sites: &[Site]) -> Vec<(String, Vec<usize>)>;
    /// Fresh adapters on all places.
    fn init_all(config: &Self::Config, places: &[Place], seed: u64, device: &Device) -> Vec<Self>;
    /// Adapters on all places from the tensors of their file.
    fn from_file(
        config: &Self::Config,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self>;
    /// The tensors of the file of these adapters.
    fn to_file(config: &Self::Config, adapters: &[(&Site, &Self)]) -> Vec<TensorData>;

    /// What this adapter takes on a linear `site`.
    fn token_cost_of(&self, site: &Site) -> TokenCost;
    /// Parameters that do not learn at the base rate, each with its factor.
    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)>;
    /// The adapted output of a linear module.
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3>;
    /// The adapted output of an embedding, from the frozen output and the token ids.
    fn embed(&self, base: Tensor<3>, ids: Tensor<2, Int>, pass: &LayerPass) -> Tensor<3>;
    /// The adapted weight and bias of a normalisation.
    fn norm(&self, base: &FrozenNorm, dtype: DType, pass: &LayerPass) -> NormValues;
    /// Keys and values in front of all tokens of self-attention.
    fn prefix(&self, pass: &LayerPass) -> [Tensor<3>; 2];
    /// Positions that a prefix has.
    fn prefix_length(&self) -> usize;
    /// The frozen module with the adapter folded in.
    fn merge(&self, base: Base) -> Result<Base, MergeError>;
}

/// Writes an enum of PEFT methods and its configuration enum, and implements
/// [`Adapter`](crate::Adapter) for it by dispatch.
///
/// Each type implements [`Method`](crate::Method). `burn` must be in scope (`use ist_core::burn;`),
/// as for every module. The first method that claims a configuration gets it.
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
        #[allow(clippy::large_enum_variant, reason = "handles, beside megabytes of weights; a module cannot be boxed")]
        $vis enum $name { $($variant($method)),+ }

        /// The configuration of one of the methods.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "a variant's documentation is its method's")]
        $vis enum $config { $($variant(<$method as $crate::Method>::Config)),+ }

        // With a single method every pattern below is irrefutable.
        #[allow(unreachable_patterns, irrefutable_let_patterns, reason = "the fallback arms are dead in a set of one")]
        impl $crate::Adapter for $name {
            type Config = $config;

            fn parse(
                fields: &$crate::serde_json::Map<String, $crate::serde_json::Value>,
                dialect: $crate::Dialect,
            ) -> Option<Result<$config, $crate::ConfigError>> {
                None$(.or_else(|| {
                    $crate::method::parse::<$method>(fields, dialect).map(|config| config.map($config::$variant))
                }))+
            }

            fn peft_fields(config: &$config) -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                match config { $($config::$variant(config) => $crate::method::peft_fields::<$method>(config)),+ }
            }

            fn method(config: &$config) -> &'static str {
                match config { $($config::$variant(config) => <$method as $crate::Method>::name(config)),+ }
            }

            fn targets(config: &$config) -> &$crate::Targets {
                match config { $($config::$variant(config) => <$method as $crate::Method>::targets(config)),+ }
            }

            fn targets_mut(config: &mut $config) -> &mut $crate::Targets {
                match config { $($config::$variant(config) => <$method as $crate::Method>::targets_mut(config)),+ }
            }

            fn usual_targets(config: &$config, roles: &$crate::Roles) -> Vec<&'static str> {
                match config { $($config::$variant(config) => <$method as $crate::Method>::usual_targets(config, roles)),+ }
            }

            fn fits(config: &$config, site: &$crate::Site) -> bool {
                match config { $($config::$variant(config) => <$method as $crate::Method>::fits(config, site)),+ }
            }

            fn takes(config: &$config) -> &'static str {
                match config { $($config::$variant(_) => <$method as $crate::Method>::TAKES),+ }
            }

            fn settle(config: &mut $config, sites: &[$crate::Site]) -> Result<(), $crate::ConfigError> {
                match config { $($config::$variant(config) => <$method as $crate::Method>::settle(config, sites)),+ }
            }

            fn train_as(config: &mut $config, given: &$config) -> Result<(), $crate::ConfigError> {
                match (config, given) {
                    $(($config::$variant(config), $config::$variant(given)) => {
                        <$method as $crate::Method>::train_as(config, given)
                    })+
                    // Another method: whoever asked compares the fields and says so.
                    _ => Ok(()),
                }
            }

            fn unmatched_patterns(config: &$config, sites: &[$crate::Site]) -> Vec<String> {
                match config { $($config::$variant(config) => <$method as $crate::Method>::unmatched_patterns(config, sites)),+ }
            }

            fn positions_in_front(config: &$config) -> usize {
                match config { $($config::$variant(config) => <$method as $crate::Method>::positions_in_front(config)),+ }
            }

            fn starts_at_base(config: &$config) -> bool {
                match config { $($config::$variant(config) => <$method as $crate::Method>::starts_at_base(config)),+ }
            }

            fn parameters(config: &$config, site: &$crate::Site) -> usize {
                match config { $($config::$variant(config) => <$method as $crate::Method>::parameters(config, site)),+ }
            }

            fn token_cost(config: &$config, site: &$crate::Site) -> $crate::TokenCost {
                match config { $($config::$variant(config) => <$method as $crate::Method>::token_cost(config, site)),+ }
            }

            fn file_layout(config: &$config, sites: &[$crate::Site]) -> Vec<(String, Vec<usize>)> {
                match config { $($config::$variant(config) => <$method as $crate::Method>::file_layout(config, sites)),+ }
            }

            fn init_all(
                config: &$config,
                places: &[$crate::Place],
                seed: u64,
                device: &burn::tensor::Device,
            ) -> Vec<Self> {
                match config {
                    $($config::$variant(config) => {
                        let adapters = <$method as $crate::Method>::init_all(config, places, seed, device);
                        adapters.into_iter().map(Self::$variant).collect()
                    })+
                }
            }

            fn from_file(
                config: &$config,
                places: &[$crate::Place],
                tensors: Vec<burn::tensor::TensorData>,
                device: &burn::tensor::Device,
            ) -> Vec<Self> {
                match config {
                    $($config::$variant(config) => {
                        let adapters = <$method as $crate::Method>::from_file(config, places, tensors, device);
                        adapters.into_iter().map(Self::$variant).collect()
                    })+
                }
            }

            fn to_file(config: &$config, adapters: &[(&$crate::Site, &Self)]) -> Vec<burn::tensor::TensorData> {
                match config {
                    $($config::$variant(config) => {
                        let own = adapters.iter().filter_map(|(site, adapter)| match adapter {
                            Self::$variant(adapter) => Some((*site, adapter)),
                            _ => None,
                        });
                        <$method as $crate::Method>::to_file(config, &own.collect::<Vec<_>>())
                    })+
                }
            }

            fn token_cost_of(&self, site: &$crate::Site) -> $crate::TokenCost {
                match self { $(Self::$variant(adapter) => $crate::Method::token_cost_of(adapter, site)),+ }
            }

            fn learning_rate_ratios(&self) -> Vec<(burn::module::ParamId, f64)> {
                match self { $(Self::$variant(adapter) => $crate::Method::learning_rate_ratios(adapter)),+ }
            }

            fn forward(
                &self,
                base: &$crate::FrozenLinear,
                x: burn::tensor::Tensor<3>,
                pass: &$crate::ist_core::LayerPass,
            ) -> burn::tensor::Tensor<3> {
                match self { $(Self::$variant(adapter) => $crate::Method::forward(adapter, base, x, pass)),+ }
            }

            fn embed(
                &self,
                base: burn::tensor::Tensor<3>,
                ids: burn::tensor::Tensor<2, burn::tensor::Int>,
                pass: &$crate::ist_core::LayerPass,
            ) -> burn::tensor::Tensor<3> {
                match self { $(Self::$variant(adapter) => $crate::Method::embed(adapter, base, ids, pass)),+ }
            }

            fn norm(
                &self,
                base: &$crate::FrozenNorm,
                dtype: burn::tensor::DType,
                pass: &$crate::ist_core::LayerPass,
            ) -> $crate::NormValues {
                match self { $(Self::$variant(adapter) => $crate::Method::norm(adapter, base, dtype, pass)),+ }
            }

            fn prefix(&self, pass: &$crate::ist_core::LayerPass) -> [burn::tensor::Tensor<3>; 2] {
                match self { $(Self::$variant(adapter) => $crate::Method::prefix(adapter, pass)),+ }
            }

            fn prefix_length(&self) -> usize {
                match self { $(Self::$variant(adapter) => $crate::Method::prefix_length(adapter)),+ }
            }

            fn merge(&self, base: $crate::Base) -> Result<$crate::Base, $crate::MergeError> {
                match self { $(Self::$variant(adapter) => $crate::Method::merge(adapter, base)),+ }
            }
        }
    };
}

adapter_set! {
    /// The methods of this crate.
    pub enum BuiltinAdapter, BuiltinConfig {
        Lora(Lora),
        Dora(Dora),
        Vera(Vera),
        Bottleneck(Bottleneck),
        Ia3(Ia3),
        LayerNorm(LayerNormTuning),
        BitFit(BitFit),
        Full(Full),
        Prefix(PrefixTuning),
    }
}
