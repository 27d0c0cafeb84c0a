//! A set of PEFT methods, which is what models, files and commands work with, and the set of the
//! built-in ones.
//!
//! burn's modules are closed types, so a set of methods is an enum.
//! [`adapter_set!`](crate::adapter_set) writes it, with one line a method. An outside crate calls
//! the same macro with its own types.

use std::fmt::Debug;
use std::ops::DerefMut;

use ist_core::burn;
use ist_core::burn::module::{Module, ModuleDisplay};
use ist_core::burn::tensor::{Device, TensorData};
use serde_json::{Map, Value};

use crate::fields::{ConfigError, Dialect};
use crate::method::{AdapterModule, Configured, MethodConfig, MethodInfo, Place};
use crate::methods::bitfit::BitFit;
use crate::methods::bottleneck::Bottleneck;
use crate::methods::dora::Dora;
use crate::methods::full::Full;
use crate::methods::ia3::Ia3;
use crate::methods::layernorm::LayerNormTuning;
use crate::methods::lora::Lora;
use crate::methods::prefix::PrefixTuning;
use crate::methods::vera::Vera;

/// A set of PEFT methods: an adapter of any of them on one module.
///
/// What differs between methods is asked through [`view`](Self::view) and, before an adapter
/// exists, through the settings, which dereference to [`MethodConfig`].
pub trait Adapter: Module + ModuleDisplay {
    /// The checked settings of one of the methods.
    type Config: Clone + Debug + Send + Sync + DerefMut<Target = dyn MethodConfig>;

    /// The methods of the set.
    fn methods() -> Vec<&'static MethodInfo>;
    /// Reads the fields of a configuration. `None` when they name a method that is not of the set.
    fn parse(
        fields: &Map<String, Value>,
        dialect: Dialect,
    ) -> Option<Result<Configured<Self::Config>, ConfigError>>;
    /// Fresh adapters on all places.
    fn init_all(config: &Self::Config, places: &[Place], seed: u64, device: &Device) -> Vec<Self>;
    /// Adapters on all places from the tensors of [`MethodConfig::file_layout`], in its order.
    fn from_file(
        config: &Self::Config,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self>;
    /// The tensors of [`MethodConfig::file_layout`] of those adapters that are of the method.
    fn to_file(config: &Self::Config, adapters: &[Self]) -> Vec<TensorData>;
    /// The adapter, whatever its method.
    fn view(&self) -> &dyn AdapterModule;
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
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident, $config:ident { $($variant:ident($method:ty)),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(burn::module::Module, Debug)]
        #[allow(missing_docs, reason = "a variant's documentation is its method's")]
        #[allow(
            clippy::large_enum_variant,
            reason = "handles, beside megabytes of weights; a module cannot be boxed"
        )]
        $vis enum $name { $($variant($method)),+ }

        /// The settings of one of the methods.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "a variant's documentation is its method's")]
        $vis enum $config { $($variant(<$method as $crate::Method>::Config)),+ }

        impl ::std::ops::Deref for $config {
            type Target = dyn $crate::MethodConfig;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$variant(config) => config),+ }
            }
        }

        impl ::std::ops::DerefMut for $config {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self { $(Self::$variant(config) => config),+ }
            }
        }

        impl $crate::Adapter for $name {
            type Config = $config;

            fn methods() -> Vec<&'static $crate::MethodInfo> {
                vec![$(const { &<$method as $crate::Method>::INFO }),+]
            }

            fn parse(
                fields: &$crate::serde_json::Map<String, $crate::serde_json::Value>,
                dialect: $crate::Dialect,
            ) -> Option<Result<$crate::Configured<$config>, $crate::ConfigError>> {
                $(if let Some(found) = $crate::method::parse::<$method>(fields, dialect) {
                    return Some(found.map(|found| found.map($config::$variant)));
                })+
                None
            }

            fn init_all(
                config: &$config,
                places: &[$crate::Place],
                seed: u64,
                device: &burn::tensor::Device,
            ) -> Vec<Self> {
                match config {
                    $($config::$variant(config) => {
                        <$method as $crate::Method>::init_all(config, places, seed, device)
                            .into_iter()
                            .map(Self::$variant)
                            .collect()
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
                        <$method as $crate::Method>::from_file(config, places, tensors, device)
                            .into_iter()
                            .map(Self::$variant)
                            .collect()
                    })+
                }
            }

            fn to_file(config: &$config, adapters: &[Self]) -> Vec<burn::tensor::TensorData> {
                match config {
                    $($config::$variant(_) => {
                        let own = adapters.iter().filter_map(|adapter| match adapter {
                            Self::$variant(adapter) => Some(adapter),
                            #[allow(unreachable_patterns, reason = "a set may have one method")]
                            _ => None,
                        });
                        <$method as $crate::Method>::to_file(&own.collect::<Vec<_>>())
                    })+
                }
            }

            fn view(&self) -> &dyn $crate::AdapterModule {
                match self { $(Self::$variant(adapter) => adapter),+ }
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
        Prefix(PrefixTuning),
        LayerNorm(LayerNormTuning),
        BitFit(BitFit),
        Full(Full),
    }
}
