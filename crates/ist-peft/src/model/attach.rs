//! Putting adapters on a model's modules, and folding them in.

use std::collections::{BTreeMap, HashMap};

use ist_core::burn::module::ParamId;
use ist_core::burn::tensor::Device;
use ist_core::gradients::{self, OUTER, layer_prefix};
use ist_core::{LayeredModel, streams};
use ist_files::untrusted::cut_message;

use crate::fields::ConfigError;
use crate::frozen::BaseMut;
use crate::method::{Configured, MergeError, Place};
use crate::model::adapters::{Adapters, Part};
use crate::model::peft_defaults::{self, Choice};
use crate::set::Adapter;
use crate::site::targets::names_site;
use crate::site::{Outline, Roles, Site, SiteKind};

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
    /// The architecture, as `model_type` in its `config.json` has it; empty for a model that has no
    /// such file.
    fn model_type(&self) -> &'static str {
        ""
    }
    /// The output head, where it shares the embedding's table and so has no slot.
    fn shared_head(&self) -> Option<Site> {
        None
    }
    /// Gives an output head that shares the embedding's table one of its own, with its slot behind
    /// all others.
    ///
    /// It is asked for before an adapter sits on the head, and before [`merge`] folds one into the
    /// table, which must not reach the head.
    fn untie(&mut self) {}
    /// Makes the tables of tokens that long: cut, or filled up with zeros. False where the model
    /// cannot.
    fn resize_vocabulary(&mut self, _rows: usize) -> bool {
        false
    }
    /// All of that but the modules.
    fn outline(&self) -> Outline {
        Outline {
            model_type: self.model_type(),
            roles: self.roles(),
            num_layers: self.num_layers(),
            shared_head: self.shared_head(),
        }
    }
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
    /// No module is named, and PEFT would not know which are meant.
    #[error(
        "`target_modules` is null, and for {method} PEFT has no modules of its own choice \
         on \"{model_type}\"; name them in the \
         adapter's configuration"
    )]
    NoDefault {
        /// The method.
        method: &'static str,
        /// The architecture.
        model_type: &'static str,
    },
    /// Keys of `rank_pattern` or `alpha_pattern` are no module's.
    #[error(
        "the patterns {} match no module among the targets; `rank_pattern` and `alpha_pattern` \
         name modules by the end of \
         their path, and the targets are {}",
        unknown.join(", "), or_none(exist)
    )]
    UnknownPatterns {
        /// The patterns.
        unknown: Vec<String>,
        /// Names of the targets, without the layers' numbers.
        exist: Vec<String>,
    },
    /// Names in `modules_to_save` are no module's.
    #[error(
        "`modules_to_save` names {}, which ends the path of no module; the model has {}",
        unknown.join(", "), or_none(exist)
    )]
    UnknownModulesToSave {
        /// The names.
        unknown: Vec<String>,
        /// Names of the model's modules, without the layers' numbers.
        exist: Vec<String>,
    },
    /// `layers_to_transform` names layers the model lacks.
    #[error(
        "`layers_to_transform` names layers {layers:?}, but the model has {num_layers} layers, \
         counted from 0"
    )]
    Layers {
        /// The layers that do not exist.
        layers: Vec<usize>,
        /// Layers of the model.
        num_layers: usize,
    },
    /// Two adapters want one module.
    #[error(
        "{path} would carry two adapters, `{first}` and `{second}`; a module carries one, so \
         narrow the targets of one"
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
/// A configuration without target modules gets the usual ones of its method, which are written into
/// it.
pub fn attach<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
    seed: u64,
    device: &Device,
) -> Result<Vec<Site>, AttachError> {
    let sites = targeted_sites(model, adapters)?;
    let seed = streams::mix(seed, streams::digest("adapter initialisation"));
    for (config, sites) in adapters.configs().zip(&sites) {
        let fresh = A::init_all(&config.settings, &places(model, sites), seed, device);
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
        // Without the view the module would go on as if it had no adapter.
        assert!(
            adapter.view().serves(slot.site.kind),
            "a method fits {}, but has no view for such a module",
            slot.site.path
        );
        *slot.adapter = Some(adapter);
    }
}

/// The factors on the learning rate that adapters ask for, by parameter name.
pub fn learning_rates<A: Adapter, M: PeftModel<A> + LayeredModel>(
    model: &mut M,
) -> BTreeMap<String, f64> {
    let slots = model.slots().into_iter();
    let ratios = slots.filter_map(|slot| {
        slot.adapter.as_ref().map(|adapter| adapter.view().learning_rate_ratios())
    });
    let ratios: HashMap<ParamId, f64> = ratios.flatten().collect();
    let mut named = gradients::parameter_ids(OUTER, model.outer());
    for (index, layer) in model.layers().iter().enumerate() {
        named.extend(gradients::parameter_ids(&layer_prefix(index), layer));
    }
    named.into_iter().filter_map(|(name, id)| Some((name, *ratios.get(&id)?))).collect()
}

/// The modules that each configuration targets on this model, after filling in the usual targets. A
/// head that is meant and shares the embedding's table gets its own.
pub fn targeted_sites<A: Adapter>(
    model: &mut impl PeftModel<A>,
    adapters: &mut Adapters<A>,
) -> Result<Vec<Vec<Site>>, AttachError> {
    let outline = model.outline();
    let every: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
    let sites = adapters.sites(&every, &outline)?;
    untie_for(model, &sites);
    Ok(sites)
}

/// Gives the head a table of its own where it shares one and is among these modules.
pub(crate) fn untie_for<A: Adapter>(model: &mut impl PeftModel<A>, sites: &[Vec<Site>]) {
    if model.shared_head().is_some_and(|head| sites.iter().flatten().any(|site| *site == head)) {
        model.untie();
    }
}

/// The sites among `every` that the configuration targets, after filling in those it means where it
/// names none.
pub fn matching_sites<A: Adapter>(
    every: &[Site],
    outline: &Outline,
    config: &mut Configured<A::Config>,
) -> Result<Vec<Site>, AttachError> {
    let fitting = fitting::<A>(every, config)?;
    let usual = default_targets::<A>(every, outline, config)?;
    config.targets.default_to(&usual);
    let method = config.name();
    let targets = &config.targets;
    let num_layers = outline.num_layers;
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
    config.targets.settle(&sites);
    config.settings.settle(&sites).map_err(AttachError::OtherModel)?;
    Ok(sites)
}

/// The modules that a configuration means which names none: PEFT's choice in its file, else the
/// usual ones.
fn default_targets<A: Adapter>(
    every: &[Site],
    outline: &Outline,
    config: &Configured<A::Config>,
) -> Result<Vec<&'static str>, AttachError> {
    let usual = || Ok(usual_targets::<A>(every, outline.roles, config));
    if !config.targets.leaves_the_choice_to_peft() {
        return usual();
    }
    match peft_defaults::targets(config.info.peft_type, outline.model_type) {
        Choice::Names(names) => Ok(names.to_vec()),
        Choice::NotInPeft => usual(),
        Choice::Unknown => {
            Err(AttachError::NoDefault { method: config.name(), model_type: outline.model_type })
        }
    }
}

/// The modules the method usually adapts, of those among `every` that it can sit on.
pub fn usual_targets<A: Adapter>(
    every: &[Site],
    roles: &Roles,
    config: &Configured<A::Config>,
) -> Vec<&'static str> {
    let exists =
        |name: &str| every.iter().any(|site| names_site(name, site) && config.settings.fits(site));
    let mut names: Vec<&str> = Vec::new();
    for name in config.settings.usual_targets(roles) {
        // One module may play several parts.
        if exists(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The modules that the method can sit on; fails where there are none.
fn fitting<A: Adapter>(
    every: &[Site],
    config: &Configured<A::Config>,
) -> Result<Vec<Site>, AttachError> {
    let fitting: Vec<Site> =
        every.iter().filter(|site| config.settings.fits(site)).cloned().collect();
    if fitting.is_empty() {
        return Err(AttachError::NothingFits { method: config.name(), takes: config.info.takes });
    }
    Ok(fitting)
}

/// Fails when a list of targets or of modules to save, or a pattern, holds a name that no module of
/// the model has. PEFT passes over such names. Who writes them may mean another.
///
/// # Errors
/// The first kind of names that mean nothing.
pub fn check_names<A: Adapter>(
    every: &[Site],
    outline: &Outline,
    part: &Part<A>,
) -> Result<(), AttachError> {
    let every: Vec<Site> = every.iter().chain(&outline.shared_head).cloned().collect();
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    for config in part.configs() {
        let fitting = fitting::<A>(&every, config)?;
        let unknown = owned(config.targets.unknown_names(&fitting));
        if !unknown.is_empty() {
            let exist = module_names(&fitting);
            return Err(AttachError::UnknownNames { method: config.name(), unknown, exist });
        }
        let sites = matching_sites::<A>(&every, outline, &mut config.clone())?;
        let unknown = config.settings.unmatched_patterns(&sites);
        if !unknown.is_empty() {
            return Err(AttachError::UnknownPatterns { unknown, exist: module_names(&sites) });
        }
    }
    let unknown = owned(part.unknown_modules_to_save(&every));
    if unknown.is_empty() {
        return Ok(());
    }
    Err(AttachError::UnknownModulesToSave { unknown, exist: module_names(&every) })
}

/// Folds every adapter into its module and removes it. Nothing is changed when one of them cannot
/// be folded.
pub fn merge<A: Adapter>(model: &mut impl PeftModel<A>) -> Result<(), MergeError> {
    let merged = model
        .slots()
        .into_iter()
        .map(|slot| {
            slot.adapter.as_ref().map(|adapter| adapter.view().merge(slot.base.get())).transpose()
        })
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
