//! What a PEFT method is: how it is configured, which tensors it has on one module, and what it
//! computes there.
//!
//! A method is three things. Its settings implement [`MethodConfig`] and tell what can be known
//! before an adapter exists. Its adapter on one module implements [`AdapterModule`], with a view
//! for each kind of module it serves, such as [`LinearAdapter`]. [`Method`] makes the one from the
//! other.
//!
//! Models and files work with *sets* of methods, [`Adapter`](crate::Adapter), which
//! [`adapter_set!`](crate::adapter_set) writes from types that implement [`Method`].

mod config;
mod module;

pub use config::{Configured, MethodConfig, PREFIX, TensorSpec, TokenCost, key_of};
pub use module::{
    AdapterModule, EmbeddingAdapter, LinearAdapter, MergeError, NormAdapter, PrefixAdapter,
    PrefixValues,
};

use ist_core::burn::module::{Module, ModuleDisplay};
use ist_core::burn::tensor::{Device, TensorData};
use serde_json::{Map, Value};

use crate::fields::setting::Described;
use crate::fields::{ConfigError, Dialect, Fields};
use crate::frozen::Base;
use crate::site::Site;
use crate::site::targets::TargetFields;

/// A module that gets an adapter, with what is frozen there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The module.
    pub site: Site,
    /// Its frozen part.
    pub base: Base,
}

/// What holds of a method whatever its settings.
#[derive(Clone, Copy, Debug)]
pub struct MethodInfo {
    /// Its names in our TOML: one, or several that its settings tell apart.
    pub names: &'static [&'static str],
    /// The `peft_type` in PEFT's file.
    pub peft_type: &'static str,
    /// The modules it can sit on, in words.
    pub takes: &'static str,
    /// The fields that choose among those modules.
    pub target_fields: TargetFields,
    /// Fields of PEFT's file with a documented default that is not neutral by itself, as JSON.
    pub documented_defaults: &'static [(&'static str, &'static str)],
    /// Its settings as our TOML has them, in the order in which a run writes them out. A method
    /// outside this crate may leave them out: no schema knows it.
    pub settings: &'static [&'static dyn Described],
}

impl MethodInfo {
    /// A method on linear modules of any layers, whose file has nothing unusual.
    pub const fn new(names: &'static [&'static str], peft_type: &'static str) -> Self {
        Self {
            names,
            peft_type,
            takes: "linear modules",
            target_fields: TargetFields::WithLayers,
            documented_defaults: &[],
            settings: &[],
        }
    }
}

/// A PEFT method: makes an adapter from its settings, or from its file.
pub trait Method: Module + ModuleDisplay + AdapterModule {
    /// Its names, and what else holds whatever its settings.
    const INFO: MethodInfo;
    /// The checked settings.
    type Config: MethodConfig + Clone;

    /// Reads the settings. The reader notes faults. The targets are read apart.
    fn read(fields: &mut Fields) -> Self::Config;
    /// A fresh adapter. `seed` fixes its random numbers.
    fn init(config: &Self::Config, place: &Place, seed: u64, device: &Device) -> Self;
    /// An adapter from its tensors, in the order and shapes of [`MethodConfig::layout`].
    fn from_tensors(
        config: &Self::Config,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self;

    /// Whether the fields are those of this method: by default by `method` in our TOML, by
    /// `peft_type` in PEFT's file.
    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        let named = |tag: &str| fields.get(tag).and_then(Value::as_str);
        match dialect {
            Dialect::Toml => named("method").is_some_and(|name| Self::INFO.names.contains(&name)),
            Dialect::Peft => named("peft_type") == Some(Self::INFO.peft_type),
        }
    }
    /// Fresh adapters on all places. Methods whose modules share tensors make them together.
    fn init_all(config: &Self::Config, places: &[Place], seed: u64, device: &Device) -> Vec<Self> {
        places.iter().map(|place| Self::init(config, place, seed, device)).collect()
    }
    /// Adapters on all places from the tensors of [`MethodConfig::file_layout`], in its order.
    fn from_file(
        config: &Self::Config,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self> {
        let mut tensors = tensors.into_iter();
        let mut build = |place: &Place| {
            let count = config.layout(&place.site).len();
            let own = tensors.by_ref().take(count).collect();
            Self::from_tensors(config, place, own, device)
        };
        places.iter().map(&mut build).collect()
    }
    /// The tensors of [`MethodConfig::file_layout`] of these adapters, in its order.
    fn to_file(adapters: &[&Self]) -> Vec<TensorData> {
        adapters.iter().flat_map(|adapter| adapter.tensors()).collect()
    }
}

/// The configuration of `M` from its fields. `None` when they are another method's.
pub fn parse<M: Method>(
    fields: &Map<String, Value>,
    dialect: Dialect,
) -> Option<Result<Configured<M::Config>, ConfigError>> {
    if !M::claims(fields, dialect) {
        return None;
    }
    let mut reader = Fields::new(fields, dialect);
    let settings = M::read(&mut reader);
    let targets = reader.targets(M::INFO.target_fields);
    let read = reader.finish(M::INFO.documented_defaults);
    Some(read.map(|()| Configured { info: const { &M::INFO }, targets, settings }))
}
