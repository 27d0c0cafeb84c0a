//! A run checks itself before and after its first step.
//!
//! Fine-tuning fails silently easily: an adapter that is never reached, a B that starts random, a
//! frozen weight that moves. Each of these shows in one step, so the first step is watched and the
//! run stops when something is off.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use ist_core::gradients::{self, Gradients, OUTER, layer_of, layer_prefix};
use ist_core::{LayerSet, LayeredModel, Responses, step};
use sha2::{Digest, Sha256};

/// How far the loss with fresh adapters may be from the base model's, relative to it: both are the
/// same sum in f32.
const SAME_LOSS: f64 = 1e-5;

/// Fails unless fresh adapters leave the model what it is: the loss at full response equals the one
/// at response 0.
pub fn fresh_adapters_change_nothing<M: LayeredModel>(model: &M, batch: &M::Batch) -> Result<()> {
    let loss = |responses| step::evaluate(model, batch, &responses);
    let layers = model.layers().len();
    let (fresh, base) =
        (loss(Responses::full(layers)), loss(Responses::suppressed(&LayerSet::all(layers), 0.0)));
    if (fresh - base).abs() > SAME_LOSS * base.abs().max(1.0) {
        bail!(
            "self-check: with fresh adapters the loss is {fresh}, but the base model's is {base}; \
             they must be equal"
        );
    }
    Ok(())
}

/// The sizes Σ |g| of a step's gradients by name, noted as they are used up.
#[derive(Debug, Default)]
pub struct GradientSizes(BTreeMap<String, f64>);

impl GradientSizes {
    /// Notes these gradients.
    pub fn note(&mut self, found: &Gradients) {
        for name in found.names() {
            // A sum, not a maximum: not every backend's maximum sees a NaN.
            let size =
                found.get(name).map(|gradient| gradients::scalar(gradient.clone().abs().sum()));
            self.0.insert(name.to_owned(), size.unwrap_or_default());
        }
    }

    /// Fails unless every adapter of the chosen layers got a finite gradient, and at least one
    /// tensor of each adapter a non-zero one (with a zero B, A's gradient is zero and B's is not).
    pub fn reach<M: LayeredModel>(&self, model: &M, layers: &LayerSet) -> Result<()> {
        let mut modules: BTreeMap<String, bool> = BTreeMap::new();
        for name in parameter_names(model, layers) {
            let Some(size) = self.0.get(&name) else {
                bail!(
                    "self-check: parameter {name} is in a chosen layer but got no gradient; it \
                     would never train"
                );
            };
            if !size.is_finite() {
                bail!("self-check: the gradient of {name} is not finite in the first step");
            }
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
            *modules.entry(module.to_owned()).or_default() |= *size > 0.0;
        }
        match modules.iter().find(|(_, moves)| !**moves) {
            Some((module, _)) => {
                bail!(
                    "self-check: every gradient of {module} is zero in the first step; it would \
                     never train"
                )
            }
            None => Ok(()),
        }
    }
}

fn parameter_names<M: LayeredModel>(model: &M, layers: &LayerSet) -> Vec<String> {
    let mut names = Vec::new();
    let mut note = |name: &str, _| names.push(name.to_owned());
    gradients::for_each_parameter(OUTER, model.outer(), &mut note);
    for layer in layers.iter() {
        gradients::for_each_parameter(&layer_prefix(layer), &model.layers()[layer], &mut note);
    }
    names
}

/// A digest of every parameter, to compare before and after a step.
#[derive(Debug)]
pub struct Fingerprint(BTreeMap<String, [u8; 32]>);

impl Fingerprint {
    /// The parameters as they are now.
    pub fn of<M: LayeredModel>(model: &M) -> Self {
        let mut digests = BTreeMap::new();
        let mut note = |name: &str, value: ist_core::burn::tensor::Tensor<1>| {
            digests.insert(name.to_owned(), Sha256::digest(value.into_data().as_bytes()).into());
        };
        gradients::for_each_parameter(OUTER, model.outer(), &mut note);
        for (index, layer) in model.layers().iter().enumerate() {
            gradients::for_each_parameter(&layer_prefix(index), layer, &mut note);
        }
        Self(digests)
    }

    /// Fails if a parameter outside the chosen layers differs from this fingerprint.
    pub fn only_moved<M: LayeredModel>(&self, model: &M, layers: &LayerSet) -> Result<()> {
        let after = Self::of(model);
        let rests = |name: &str| layer_of(name).is_some_and(|layer| !layers.contains(layer));
        match self.0.iter().find(|(name, digest)| rests(name) && after.0.get(*name) != Some(digest))
        {
            Some((name, _)) => {
                bail!(
                    "self-check: parameter {name} moved in the first step, but its layer was not \
                     chosen"
                )
            }
            None => Ok(()),
        }
    }
}
