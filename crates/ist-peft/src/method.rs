//! What a PEFT method is: how it is configured, which tensors it has on one module, and what it
//! computes there.
//!
//! This is the trait that an author writes. Models and files work with *sets* of methods,
//! [`Adapter`](crate::Adapter), which [`adapter_set!`](crate::set) writes from types that
//! implement this one.

use std::fmt::Debug;

use ist_core::LayerPass;
use ist_core::burn::module::{Module, ModuleDisplay, ParamId};
use ist_core::burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde_json::{Map, Value};

use crate::fields::{Dialect, Fields, read};
use crate::{
    Base, ConfigError, FrozenLinear, FrozenNorm, NormValues, Roles, Site, SiteKind, Targets,
};

/// A module that gets an adapter, with what is frozen there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The module.
    pub site: Site,
    /// Its frozen part.
    pub base: Base,
}

/// One tensor of an adapter as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// What follows the module path in the key, such as `lora_A.weight`.
    pub suffix: &'static str,
    /// The shape in PEFT's layout.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of that shape.
    pub fn new(suffix: &'static str, shape: impl Into<Vec<usize>>) -> Self {
        Self { suffix, shape: shape.into() }
    }
}

/// What PEFT puts before a module path.
pub const PREFIX: &str = "base_model.model.";

/// The key of one tensor in PEFT's file.
pub fn key_of(site: &Site, suffix: &str) -> String {
    format!("{PREFIX}{}.{suffix}", site.path)
}

/// What an adapted linear module takes of memory for one token, in numbers of the model's
/// arithmetic, where its adapter trains. The memory plan counts with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Whether its input stays for the backward pass; modules with the same input share one copy.
    pub keeps_input: bool,
    /// Whether its output stays, which whatever reads it may keep as well.
    pub keeps_output: bool,
    /// What stays besides.
    pub keeps: usize,
    /// What either pass needs for a moment, beside its results; also where the adapter rests.
    pub scratch: usize,
}

impl TokenCost {
    /// What is counted for a method that does not say: input and output stay, in copies of their
    /// own.
    pub fn unknown(site: &Site) -> Self {
        Self {
            keeps_input: false,
            keeps_output: false,
            keeps: site.d_in + site.d_out,
            scratch: site.d_out,
        }
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
    /// The method adds something that no weight of the model can hold.
    #[error("{method} cannot be merged: {reason}")]
    NoPlace {
        /// The method.
        method: &'static str,
        /// What has no place.
        reason: &'static str,
    },
}

/// A PEFT method on one frozen module.
///
/// The hooks [`forward`](Self::forward), [`embed`](Self::embed), [`norm`](Self::norm) and
/// [`prefix`](Self::prefix) serve one kind of module each; a method implements those of the kinds
/// that it [`fits`](Self::fits).
pub trait Method: Module + ModuleDisplay {
    /// The name in our TOML.
    const NAME: &'static str;
    /// The `peft_type` in PEFT's file.
    const PEFT_TYPE: &'static str;
    /// Fields of PEFT's file with a documented default that is not neutral by itself.
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] = &[];
    /// The modules it can sit on, in words.
    const TAKES: &'static str = "linear modules";
    /// The checked configuration.
    type Config: Clone + Debug + Send + Sync;

    /// Whether the fields are those of this method: by default by `method` in our TOML, by
    /// `peft_type` in PEFT's file.
    fn claims(fields: &Map<String, Value>, dialect: Dialect) -> bool {
        let (tag, name) = match dialect {
            Dialect::Toml => ("method", Self::NAME),
            Dialect::Peft => ("peft_type", Self::PEFT_TYPE),
        };
        fields.get(tag).is_some_and(|found| found == name)
    }
    /// Reads the configuration; faults are noted in `fields`.
    fn read(fields: &mut Fields) -> Self::Config;
    /// The fields of PEFT's `adapter_config.json` beside `peft_type` and the targets.
    fn write(_config: &Self::Config) -> Map<String, Value> {
        Map::new()
    }
    /// Its name in our TOML, where one type serves several.
    fn name(_config: &Self::Config) -> &'static str {
        Self::NAME
    }

    /// The modules to adapt.
    fn targets(config: &Self::Config) -> &Targets;
    /// The same, to fill in what the configuration left open.
    fn targets_mut(config: &mut Self::Config) -> &mut Targets;
    /// The modules it usually adapts on an architecture.
    fn usual_targets(_config: &Self::Config, roles: &Roles) -> Vec<&'static str> {
        roles.usual.to_vec()
    }
    /// Whether it can sit on that module.
    fn fits(_config: &Self::Config, site: &Site) -> bool {
        site.kind == SiteKind::Linear
    }
    /// Takes over what the model decides, once the modules are known.
    ///
    /// # Errors
    /// Every field that contradicts the model.
    fn settle(_config: &mut Self::Config, _sites: &[Site]) -> Result<(), ConfigError> {
        Ok(())
    }
    /// Takes over from `given` what only training knows and PEFT's file does not say.
    ///
    /// # Errors
    /// Every field of `given` that has no effect on an adapter that is loaded.
    fn train_as(_config: &mut Self::Config, _given: &Self::Config) -> Result<(), ConfigError> {
        Ok(())
    }
    /// The keys of its patterns, such as `rank_pattern`, that match none of these modules.
    fn unmatched_patterns(_config: &Self::Config, _sites: &[Site]) -> Vec<String> {
        Vec::new()
    }
    /// The fields of PEFT's `adapter_config.json` that say which modules it sits on.
    fn target_fields(config: &Self::Config) -> Map<String, Value> {
        Self::targets(config).peft_fields()
    }
    /// Positions that it puts in front of all tokens.
    fn positions_in_front(_config: &Self::Config) -> usize {
        0
    }
    /// Whether a fresh adapter leaves the model what it is.
    fn starts_at_base(_config: &Self::Config) -> bool {
        true
    }

    /// The tensors of one adapter on `site`, in the order of [`Method::tensors`].
    fn layout(config: &Self::Config, site: &Site) -> Vec<TensorSpec>;
    /// Scalars that train on `site`.
    fn parameters(config: &Self::Config, site: &Site) -> usize {
        Self::layout(config, site).iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }
    /// A fresh adapter; `seed` fixes its random numbers.
    fn init(config: &Self::Config, place: &Place, seed: u64, device: &Device) -> Self;
    /// An adapter from its tensors, in the order and shapes of [`Method::layout`].
    fn from_tensors(
        config: &Self::Config,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self;
    /// The tensors in PEFT's layout.
    fn tensors(&self) -> Vec<TensorData>;
    /// Its parameters that do not learn at the base rate, each with its factor.
    fn learning_rate_ratios(&self) -> Vec<(ParamId, f64)> {
        Vec::new()
    }

    /// Key and shape of every tensor in the file of adapters on all `sites`. Methods whose modules
    /// share tensors say how.
    fn file_layout(config: &Self::Config, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let of = |site| {
            Self::layout(config, site)
                .into_iter()
                .map(move |spec| (key_of(site, spec.suffix), spec.shape))
        };
        sites.iter().flat_map(of).collect()
    }
    /// Fresh adapters on all places.
    fn init_all(config: &Self::Config, places: &[Place], seed: u64, device: &Device) -> Vec<Self> {
        places.iter().map(|place| Self::init(config, place, seed, device)).collect()
    }
    /// Adapters on all places from the tensors of [`Method::file_layout`], in its order.
    fn from_file(
        config: &Self::Config,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self> {
        let mut tensors = tensors.into_iter();
        let mut build = |place: &Place| {
            let own = tensors.by_ref().take(Self::layout(config, &place.site).len()).collect();
            Self::from_tensors(config, place, own, device)
        };
        places.iter().map(&mut build).collect()
    }
    /// The tensors of [`Method::file_layout`] of these adapters, in its order.
    fn to_file(_config: &Self::Config, adapters: &[(&Site, &Self)]) -> Vec<TensorData> {
        adapters.iter().flat_map(|(_, adapter)| adapter.tensors()).collect()
    }

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
    fn forward(&self, _base: &FrozenLinear, _x: Tensor<3>, _pass: &LayerPass) -> Tensor<3> {
        unreachable!("{} fits no linear module", Self::NAME)
    }
    /// The adapted output of an embedding, from the frozen output and the token ids.
    fn embed(&self, _base: Tensor<3>, _ids: Tensor<2, Int>, _pass: &LayerPass) -> Tensor<3> {
        unreachable!("{} fits no embedding", Self::NAME)
    }
    /// The adapted weight and bias of a normalisation.
    fn norm(&self, _base: &FrozenNorm, _dtype: DType, _pass: &LayerPass) -> NormValues {
        unreachable!("{} fits no normalisation", Self::NAME)
    }
    /// Keys and values in front of all tokens of self-attention, `[positions, kv_heads, head_dim]`
    /// each.
    fn prefix(&self, _pass: &LayerPass) -> [Tensor<3>; 2] {
        unreachable!("{} fits no attention", Self::NAME)
    }
    /// Positions that [`Method::prefix`] puts in front.
    fn prefix_length(&self) -> usize {
        0
    }
    /// The frozen module with the adapter folded in.
    fn merge(&self, base: Base) -> Result<Base, MergeError>;
}

/// The configuration of `M` from its fields; `None` when they are another method's.
pub fn parse<M: Method>(
    fields: &Map<String, Value>,
    dialect: Dialect,
) -> Option<Result<M::Config, ConfigError>> {
    M::claims(fields, dialect).then(|| read(fields, dialect, M::DOCUMENTED_DEFAULTS, M::read))
}

/// The fields of PEFT's `adapter_config.json`, `peft_type` and targets included.
pub fn peft_fields<M: Method>(config: &M::Config) -> Map<String, Value> {
    let mut fields = Map::from_iter([("peft_type".to_owned(), Value::from(M::PEFT_TYPE))]);
    fields.append(&mut M::write(config));
    fields.append(&mut M::target_fields(config));
    fields
}
