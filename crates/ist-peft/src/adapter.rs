//! A set of PEFT methods, which is what models, files and commands work with, and the set of the
//! built-in ones.
//!
//! burn's modules are closed types, so a set of methods is an enum.
//! [`adapter_set!`](crate::adapter_set) writes it, with one line a method; an outside crate calls
//! the same macro with its own types.

use std::fmt::Debug;

use ist_core::burn::module::{Module, ModuleDisplay, ParamId};
use ist_core::burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ist_core::{LayerPass, burn};
use serde_json::{Map, Value};

use crate::method::{Dialect, MergeError, Place, TokenCost};
use crate::{
    Base, BitFit, Bottleneck, ConfigError, Dora, FrozenLinear, FrozenNorm, Full, Ia3,
    LayerNormTuning, Lora, NormValues, PrefixTuning, Roles, Site, Targets, Vera, adapter_set,
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
