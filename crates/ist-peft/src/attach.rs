//! Putting adapters on a model's modules, and folding them in.

use ist_core::burn::tensor::Device;
use ist_core::streams;

use crate::Weight;
use crate::adapter::{Adapter, MergeError, Site, SiteKind};

/// One place of a model where an adapter can sit.
#[derive(Debug)]
pub struct Slot<'a, A> {
    /// Which module it is.
    pub site: Site,
    /// Its frozen weight, `[in, out]`.
    pub weight: &'a mut Weight<2>,
    /// Its adapter.
    pub adapter: &'a mut Option<A>,
}

/// A model whose modules can carry adapters of the set `A`.
pub trait PeftModel<A: Adapter> {
    /// Every place an adapter can sit, in the model's order.
    fn slots(&mut self) -> Vec<Slot<'_, A>>;
    /// The modules people usually adapt on this architecture.
    fn default_targets(&self) -> &'static [&'static str];
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
    /// No module matches.
    #[error("the adapter's targets ({asked}) match no module; the model has {}", exist.join(", "))]
    NothingMatches {
        /// What was asked for.
        asked: String,
        /// Names of the modules there are, without the layers' numbers.
        exist: Vec<String>,
    },
    /// Names among the targets are no module's.
    #[error("the targets {} are no module of the model; it has {}", unknown.join(", "), exist.join(", "))]
    UnknownNames {
        /// The names.
        unknown: Vec<String>,
        /// Names of the modules there are, without the layers' numbers.
        exist: Vec<String>,
    },
    /// `layers_to_transform` names layers the model lacks.
    #[error("`layers_to_transform` names layers {layers:?}, but the model has {num_layers} layers, counted from 0")]
    Layers {
        /// The layers that do not exist.
        layers: Vec<usize>,
        /// Layers of the model.
        num_layers: usize,
    },
}

/// Puts a fresh adapter on every module the configuration targets; returns their sites.
///
/// A configuration without target modules gets the architecture's usual ones, which are written into it.
pub fn attach<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &mut A::Config,
    seed: u64,
    device: &Device,
) -> Result<Vec<Site>, AttachError> {
    let sites = targeted_sites(model, config)?;
    let seed = streams::mix(seed, streams::digest("adapter initialisation"));
    for slot in model.slots() {
        if sites.contains(&slot.site) {
            *slot.adapter = Some(A::init(config, &slot.site, seed, device));
        }
    }
    Ok(sites)
}

/// The modules the configuration targets on this model, after filling in its default targets.
pub fn targeted_sites<A: Adapter>(
    model: &mut impl PeftModel<A>,
    config: &mut A::Config,
) -> Result<Vec<Site>, AttachError> {
    let (default_targets, num_layers) = (model.default_targets(), model.num_layers());
    let every: Vec<Site> = model.slots().into_iter().map(|slot| slot.site).collect();
    matching_sites::<A>(&every, default_targets, num_layers, config)
}

/// The sites among `every` that the configuration targets, after filling in `default_targets`.
pub fn matching_sites<A: Adapter>(
    every: &[Site],
    default_targets: &[&str],
    num_layers: usize,
    config: &mut A::Config,
) -> Result<Vec<Site>, AttachError> {
    let targets = A::targets(config).clone().or_default(default_targets);
    A::set_targets(config, targets.clone());
    let layers = targets.layers_beyond(num_layers);
    if !layers.is_empty() {
        return Err(AttachError::Layers { layers, num_layers });
    }
    let sites: Vec<Site> = every.iter().filter(|site| targets.matches(site)).cloned().collect();
    if sites.is_empty() {
        return Err(AttachError::NothingMatches { asked: targets.describe(), exist: module_names(every) });
    }
    Ok(sites)
}

/// Fails when a list of targets holds a name that no module of the model has.
pub fn check_names<A: Adapter>(every: &[Site], config: &A::Config) -> Result<(), AttachError> {
    let unknown: Vec<String> = A::targets(config).unknown_names(every).into_iter().map(str::to_owned).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(AttachError::UnknownNames { unknown, exist: module_names(every) })
}

/// Folds every adapter into its weight and removes it. Nothing is changed when one of them cannot be folded.
pub fn merge<A: Adapter>(model: &mut impl PeftModel<A>) -> Result<(), MergeError> {
    let merged = model
        .slots()
        .into_iter()
        .map(|slot| slot.adapter.as_ref().map(|adapter| adapter.merge(slot.weight.current())).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    if model.slots().iter().any(|slot| slot.site.kind == SiteKind::Embedding && slot.adapter.is_some()) {
        model.untie();
    }
    for (slot, weight) in model.slots().into_iter().zip(merged) {
        if let Some(weight) = weight {
            slot.weight.replace(weight);
            *slot.adapter = None;
        }
    }
    Ok(())
}

/// The last parts of the paths, each once, in order.
fn module_names(sites: &[Site]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for site in sites {
        let name = site.path.rsplit('.').next().unwrap_or(&site.path).to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
