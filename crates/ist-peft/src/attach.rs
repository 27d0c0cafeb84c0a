//! Putting adapters on a model's modules, and folding them in.

use std::collections::{BTreeMap, HashMap};

use ist_core::burn::module::ParamId;
use ist_core::burn::tensor::Device;
use ist_core::gradients::{self, OUTER, layer_prefix};
use ist_core::untrusted::cut_message;
use ist_core::{LayeredModel, streams};

use crate::adapter::Adapter;
use crate::adapters::Adapters;
use crate::fields::ConfigError;
use crate::frozen::BaseMut;
use crate::method::{MergeError, Place};
use crate::site::{Roles, Site, SiteKind};
use crate::targets::names_site;

/// One place of a model where an adapter can sit.
#[derive(Debug)]
pub struct Slot<'a, A> {
    /// Which module it is.
    pub site: Site,
    /// Its frozen part.
    pub base: BaseMut<'a>,
    /// Its adapter.
    pub adapter: &'a mut Option<A>,
}

impl<A> Slot<'_, A> {
    /// The module with what is frozen there.
    pub fn place(&self) -> Place {
        Place { site: self.site.clone(), base: self.base.get() }
    }
}

/// A model whose modules can carry adapters of the set `A`.
pub trait PeftModel<A: Adapter> {
    /// Every place an adapter can sit, in the model's order.
    fn slots(&mut self) -> Vec<Slot<'_, A>>;
    /// The names of its modules by the part they play.
    fn roles(&self) -> &'static Roles;
    /// Layers of the model.
    fn num_layers(&self) -> usize;
    /// Gives an output head that shares the embedding's table a copy of its own, with its slot behind all others.
    ///
    /// [`merge`] asks for it before it folds an adapter into the table, which must not reach the head.
    fn untie(&mut self) {}
}

/// Why adapters cannot be put on a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No module is of a kind that the method takes.
    #[error("{method} sits on {takes}, and the model has none; choose another method")]
    NothingFits {
        /// The method.
        method: &'static str,
        /// What it can sit on.
        takes: &'static str,
    },
    /// The configuration contradicts the model.
    #[error("the adapter is for another model: {0}")]
    OtherModel(ConfigError),
    /// No module matches.
    #[error(
        "the adapter's targets ({}) match no module that {method} can sit on; the model has {}",
        cut_message(asked),
        or_none(exist)
    )]
    NothingMatches {
        /// The method.
        method: &'static str,
        /// What was asked for.
        asked: String,
        /// Names of the modules that the method can sit on, without the layers' numbers.
        exist: Vec<String>,
    },
    /// Names among the targets are no module's.
    #[error(
        "the targets {} are no module that {method} can sit on; the model has {}",
        cut_message(&unknown.join(", ")), or_none(exist)
    )]
    UnknownNames {
        /// The method.
        method: &'static str,
        /// The names.
        unknown: Vec<String>,
        /// Names of the modules that the method can sit on, without the layers' numbers.
        exist: Vec<String>,
    },
    /// `layers_to_transform` names layers the model lacks.
    #[error(
        "`layers_to_transform` names layers {layers:?}, but the model has {num_layers} layers, counted from 0"
    )]
    Layers {
        /// The layers that do not exist.
        layers: Vec<usize>,
        /// Layers of the model.
        num_layers: usize,
    },
    /// Two adapters want one module.
    #[error(
        "{path} would carry two adapters, `{first}` and `{second}`; a module carries one, so narrow the targets of one"
    )]
    Twice {
        /// The module.
        path: String,
        /// The adapter it has.
        first: String,
        /// The adapter that wants it too.
        second: String,
    },
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Puts fresh adapters on every module they target; returns their sites.
///
/// A configuration without target modules gets the usual ones of its method, which are written into it.
pub fn attach<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    seed: u64,
    device: &Device,
) -> Result<Vec<Site>, AttachError> {
    let sites = targeted_sites(model, adapters)?;
    let seed = streams::mix(seed, streams::digest("adapter initialisation"));
    for (config, sites) in adapters.configs().zip(&sites) {
        let fresh = A::init_all(config, &places(model, sites), seed, device);
        put(model, sites, fresh);
    }
    Ok(sites.concat())
}

/// What is frozen at the modules of `sites`, in the model's order.
pub(crate) fn places<A: Adapter>(model: &mut impl PeftModel<A>, sites: &[Site]) -> Vec<Place> {
    model.slots().iter().filter(|slot| sites.contains(&slot.site)).map(Slot::place).collect()
}

/// Puts one adapter on each module of `sites`, in the model's order.
pub(crate) fn put<A: Adapter>(model: &mut impl PeftModel<A>, sites: &[Site], adapters: Vec<A>) {
    let slots = model.slots().into_iter().filter(|slot| sites.contains(&slot.site));
    for (slot, adapter) in slots.zip(adapters) {
        *slot.adapter = Some(adapter);
    }
}

/// The factors on the learning rate that adapters ask for, by parameter name.
pub fn learning_rates<A: Adapter, M: PeftModel<A> + LayeredModel>(
    model: &mut M,
) -> BTreeMap<String, f64> {
    let slots = model.slots().into_iter();
    let ratios = slots.filter_map(|slot| slot.adapter.as_ref().map(A::learning_rate_ratios));
    let ratios: HashMap<ParamId, f64> = ratios.flatten().collect();
    let mut named = gradients::parameter_ids(OUTER, model.outer());
    for (index, layer) in model.layers().iter().enumerate() {
        named.extend(gradients::parameter_ids(&layer_prefix(index), layer));
    }
    named.into_iter().filter_map(|(name, id)| Some((name, *ratios.get(&id)?))).collect()
}

/// The modules that each configuration targets on this model, after filling in the usual targets.
pub fn targeted_sites<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
) -> Result<Vec<Vec<Site>>, AttachError> {
    let (roles, num_layers) = (model.roles(), model.num_layers());
    let every: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
    adapters.sites(&every, roles, num_layers)
}

/// The sites among `every` that the configuration targets, after filling in the method's usual targets.
pub fn matching_sites<A: Adapter>(
    every: &[Site],
    roles: &Roles,
    num_layers: usize,
    config: &mut A::Config,
) -> Result<Vec<Site>, AttachError> {
    let fitting = fitting::<A>(every, config)?;
    let usual = usual_targets::<A>(every, roles, config);
    A::targets_mut(config).default_to(&usual);
    let (method, targets) = (A::method(config), A::targets(config));
    let layers = targets.layers_beyond(num_layers);
    if !layers.is_empty() {
        return Err(AttachError::Layers { layers, num_layers });
    }
    let sites: Vec<Site> = fitting.iter().filter(|site| targets.matches(site)).cloned().collect();
    if sites.is_empty() {
        return Err(AttachError::NothingMatches {
            method,
            asked: targets.describe(),
            exist: module_names(&fitting),
        });
    }
    A::targets_mut(config).settle(&sites);
    A::settle(config, &sites).map_err(AttachError::OtherModel)?;
    Ok(sites)
}

/// The modules the method usually adapts, of those among `every` that it can sit on.
pub fn usual_targets<A: Adapter>(
    every: &[Site],
    roles: &Roles,
    config: &A::Config,
) -> Vec<&'static str> {
    let exists =
        |name: &str| every.iter().any(|site| names_site(name, site) && A::fits(config, site));
    let mut names: Vec<&str> = Vec::new();
    for name in A::usual_targets(config, roles) {
        // One module may play several parts.
        if exists(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The modules that the method can sit on; fails where there are none.
fn fitting<A: Adapter>(every: &[Site], config: &A::Config) -> Result<Vec<Site>, AttachError> {
    let fitting: Vec<Site> = every.iter().filter(|site| A::fits(config, site)).cloned().collect();
    if fitting.is_empty() {
        return Err(AttachError::NothingFits {
            method: A::method(config),
            takes: A::takes(config),
        });
    }
    Ok(fitting)
}

/// Fails when a list of targets holds a name that no module of the model has.
pub fn check_names<A: Adapter>(every: &[Site], config: &A::Config) -> Result<(), AttachError> {
    let fitting = fitting::<A>(every, config)?;
    let unknown: Vec<String> =
        A::targets(config).unknown_names(&fitting).into_iter().map(str::to_owned).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(AttachError::UnknownNames {
        method: A::method(config),
        unknown,
        exist: module_names(&fitting),
    })
}

/// Folds every adapter into its module and removes it. Nothing is changed when one of them cannot be folded.
pub fn merge<A: Adapter>(model: &mut impl PeftModel<A>) -> Result<(), MergeError> {
    let merged = model
        .slots()
        .into_iter()
        .map(|slot| slot.adapter.as_ref().map(|adapter| adapter.merge(slot.base.get())).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    if model
        .slots()
        .iter()
        .any(|slot| slot.site.kind == SiteKind::Embedding && slot.adapter.is_some())
    {
        model.untie();
    }
    for (mut slot, base) in model.slots().into_iter().zip(merged) {
        if let Some(base) = base {
            slot.base.set(base);
            *slot.adapter = None;
        }
    }
    Ok(())
}

/// The last parts of the paths, each once, in order.
fn module_names(sites: &[Site]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for site in sites {
        if !names.iter().any(|name| name == site.name()) {
            names.push(site.name().to_owned());
        }
    }
    names
}
