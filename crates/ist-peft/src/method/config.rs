//! What can be told of a method before an adapter exists: from its configuration and the modules of
//! a model.

use std::any::Any;
use std::fmt::Debug;
use std::ops::DerefMut;

use serde_json::{Map, Value};

use crate::fields::ConfigError;
use crate::method::MethodInfo;
use crate::site::targets::Targets;
use crate::site::{Roles, Site, SiteKind};

/// What PEFT puts before a module path.
pub const PREFIX: &str = "base_model.model.";

/// The key of one tensor in PEFT's file.
pub fn key_of(site: &Site, suffix: &str) -> String {
    format!("{PREFIX}{}.{suffix}", site.path)
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

/// What an adapted linear module takes of memory for one token, in numbers of the model's
/// arithmetic, where its adapter trains. The memory plan counts with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Whether its input stays for the backward pass. Modules with the same input share one copy.
    pub keeps_input: bool,
    /// Whether its output stays, which whatever reads it may keep as well.
    pub keeps_output: bool,
    /// What stays besides.
    pub keeps: usize,
    /// What either pass needs for a moment, beside its results, also where the adapter rests.
    pub scratch: usize,
}

impl TokenCost {
    /// The count for a method that does not say: input and output stay, in copies of their own.
    pub fn unknown(site: &Site) -> Self {
        Self {
            keeps_input: false,
            keeps_output: false,
            keeps: site.d_in + site.d_out,
            scratch: site.d_out,
        }
    }
}

/// A method's checked settings.
///
/// Models and files ask through `&dyn MethodConfig`, so that none of them knows a method. Only
/// [`layout`](Self::layout) has no default.
pub trait MethodConfig: Any + Debug + Send + Sync {
    /// The tensors of one adapter on `site`, in the order of
    /// [`AdapterModule::tensors`](crate::AdapterModule::tensors).
    fn layout(&self, site: &Site) -> Vec<TensorSpec>;

    /// Whether it can sit on that module.
    fn fits(&self, site: &Site) -> bool {
        site.kind == SiteKind::Linear
    }
    /// The modules it usually adapts on an architecture.
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        roles.usual.to_vec()
    }
    /// Its name in our TOML, where one type serves several.
    fn name(&self) -> Option<&'static str> {
        None
    }
    /// The fields of PEFT's `adapter_config.json` beside `peft_type` and those of the targets.
    fn peft_fields(&self, _targets: &Targets) -> Map<String, Value> {
        Map::new()
    }
    /// Takes over what the model decides, once the modules are known.
    ///
    /// # Errors
    /// Every field that contradicts the model.
    fn settle(&mut self, _sites: &[Site]) -> Result<(), ConfigError> {
        Ok(())
    }
    /// Takes over from `given` what only training knows and PEFT's file does not say. Settings of
    /// another method have nothing to give.
    ///
    /// # Errors
    /// Every field of `given` that has no effect on an adapter that is loaded.
    fn train_as(&mut self, _given: &dyn MethodConfig) -> Result<(), ConfigError> {
        Ok(())
    }
    /// The keys of its patterns, such as `rank_pattern`, that match none of these modules.
    fn unmatched_patterns(&self, _sites: &[Site]) -> Vec<String> {
        Vec::new()
    }
    /// Positions that it puts in front of all tokens.
    fn positions_in_front(&self) -> usize {
        0
    }
    /// Whether a fresh adapter leaves the model what it is.
    fn starts_at_base(&self) -> bool {
        true
    }
    /// Scalars that train on `site`.
    fn parameters(&self, site: &Site) -> usize {
        self.layout(site).iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }
    /// What an adapter takes on a linear `site`.
    fn token_cost(&self, site: &Site) -> TokenCost {
        TokenCost::unknown(site)
    }
    /// Key and shape of every tensor in the file of adapters on all `sites`. Methods whose modules
    /// share tensors say how.
    fn file_layout(&self, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let of = |site| {
            let specs = self.layout(site).into_iter();
            specs.map(move |spec| (key_of(site, spec.suffix), spec.shape))
        };
        sites.iter().flat_map(of).collect()
    }
}

/// A configured method: its settings and the modules that it is meant for.
///
/// `C` is one method's [`Method::Config`](crate::Method::Config), or [`Adapter::Config`], which is
/// that of any method of a set.
///
/// [`Adapter::Config`]: crate::Adapter::Config
#[derive(Clone, Debug)]
pub struct Configured<C> {
    /// What holds of the method whatever its settings.
    pub info: &'static MethodInfo,
    /// The modules to adapt.
    pub targets: Targets,
    /// The method's own settings.
    pub settings: C,
}

impl<C> Configured<C> {
    /// The same method with its settings as `wrap` has them.
    pub fn map<D>(self, wrap: impl FnOnce(C) -> D) -> Configured<D> {
        let Self { info, targets, settings } = self;
        Configured { info, targets, settings: wrap(settings) }
    }
}

impl<C: DerefMut<Target = dyn MethodConfig>> Configured<C> {
    /// The method's name in our TOML.
    pub fn name(&self) -> &'static str {
        self.settings.name().unwrap_or(self.info.names[0])
    }

    /// The fields of PEFT's `adapter_config.json`, `peft_type` and targets included.
    pub fn peft_fields(&self) -> Map<String, Value> {
        let peft_type = Value::from(self.info.peft_type);
        let mut fields = Map::from_iter([("peft_type".to_owned(), peft_type)]);
        fields.append(&mut self.settings.peft_fields(&self.targets));
        fields.append(&mut self.targets.fields(self.info.target_fields));
        fields
    }

    /// Takes over from `given` what only training knows.
    ///
    /// # Errors
    /// As of [`MethodConfig::train_as`].
    pub fn train_as(&mut self, given: &Self) -> Result<(), ConfigError> {
        self.settings.train_as(&*given.settings)
    }
}
