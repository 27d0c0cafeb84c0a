//! The step that uses up a layer's gradients before the next layer's exist.
//!
//! It is possible where nothing needs all gradients together: neither clipping, nor loss scaling,
//! nor a second micro-batch. It matters where the gradients are as large as the weights.
//!
//! It cannot promise that a gradient that is not finite changes nothing, because the layers above
//! are updated by then. The loss, which is known first, is checked before any update.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{StepReport, Tuner, TunerError};
use crate::gradients::{self, Gradients, OUTER, layer_prefix};
use crate::step::walk::{Descent, MicroBatch};
use crate::times::timed;
use crate::{LayerSet, LayeredModel, streams};

impl Tuner {
    /// A step on one micro-batch without clipping, which updates every layer when its backward pass
    /// is done. The modules outside the layers are updated at the end.
    pub(super) fn step_by_layers<M: LayeredModel>(
        &mut self,
        model: &mut M,
        batch: &M::Batch,
        watch: &mut dyn FnMut(&Gradients),
    ) -> Result<StepReport, TunerError> {
        let mut optimizer = 0.0;
        let layers = timed(&mut optimizer, || self.draw(model))?;
        let step = self.step;
        let learning_rate = self.learning_rate(step);
        let moments = self.optimizer.bytes_on_device() + self.new_moments(model, &layers);
        let tokens = model.predicted_tokens(batch);
        let micro_batch = MicroBatch {
            batch,
            tokens,
            scale: 1.0,
            chosen: &layers,
            memory: self.config.memory,
            // The seed that the first micro-batch of any other step has.
            dropout: Some(streams::mix(streams::mix(self.seed, step as u64), 0)),
            accumulates: false,
            updates_at_once: true,
        };
        let mut outer = Gradients::default();
        let mut descent = Descent::begin(model, &micro_batch, &mut outer);
        let loss = descent.total * (1.0 / tokens.max(1) as f64);
        let predicted_bytes = descent.predicted_bytes.map(|bytes| bytes + moments);
        self.check("loss", loss, &layers)?;
        let mut seen = SeenGradients::new(step, &layers);
        let mut found = Gradients::default();
        while let Some(layer) = descent.layer(model, &mut found) {
            timed(&mut optimizer, || {
                seen.note(&found, Some(layer))?;
                watch(&found);
                if !found.is_empty() {
                    self.update(model, Some(layer), learning_rate, &mut found)?;
                    seen.updated.push(layer);
                }
                Ok::<(), TunerError>(())
            })?;
        }
        let mut times = descent.finish(&mut outer);
        timed(&mut optimizer, || {
            seen.note(&outer, None)?;
            watch(&outer);
            self.update(model, None, learning_rate, &mut outer)
        })?;
        times.optimizer = optimizer;
        self.times = times;
        self.step += 1;
        let grad_norm = seen.norm();
        Ok(StepReport {
            step,
            layers,
            loss,
            tokens,
            grad_norm,
            learning_rate,
            predicted_bytes,
            loss_scale: None,
            skipped: false,
        })
    }

    /// Bytes of the moments that the first update of a parameter makes, for the parameters that
    /// train with `layers`.
    fn new_moments<M: LayeredModel>(&self, model: &M, layers: &LayerSet) -> u64 {
        let mut bytes = 0;
        let mut count = |name: &str, value: Tensor<1>| {
            if self.optimizer.updates(name) == 0 {
                // Two moments, each of the parameter's size and type.
                bytes += 2 * (value.dims()[0] * value.dtype().size()) as u64;
            }
        };
        gradients::for_each_parameter(OUTER, model.outer(), &mut count);
        for layer in layers.iter() {
            gradients::for_each_parameter(&layer_prefix(layer), &model.layers()[layer], &mut count);
        }
        bytes
    }
}

/// What a step that updates layer by layer has seen of its gradients.
struct SeenGradients<'a> {
    /// The step.
    step: usize,
    /// The layers that train.
    layers: &'a LayerSet,
    /// Σ g² by name.
    squares: BTreeMap<String, f64>,
    /// The layers whose parameters were updated.
    updated: Vec<usize>,
}

impl<'a> SeenGradients<'a> {
    fn new(step: usize, layers: &'a LayerSet) -> Self {
        Self { step, layers, squares: BTreeMap::new(), updated: Vec::new() }
    }

    /// Fails when a gradient of `place` is not finite.
    fn note(&mut self, gradients: &Gradients, place: Option<usize>) -> Result<(), TunerError> {
        let squares: Vec<(String, f64)> =
            gradients.squares().map(|(name, square)| (name.to_owned(), square)).collect();
        let value = squares.iter().map(|(_, square)| square).sum::<f64>().sqrt();
        self.squares.extend(squares);
        if value.is_finite() {
            return Ok(());
        }
        let step = self.step;
        if self.updated.is_empty() {
            // Nothing has changed yet, so this is the fault of any other step.
            let layers = self.layers.as_slice().to_vec();
            return Err(TunerError::NotFinite { what: "gradient norm", value, step, layers });
        }
        let place = place.map_or_else(
            || "the modules outside the layers".to_owned(),
            |layer| format!("layer {layer}"),
        );
        Err(TunerError::NotFiniteBelow { place, value, step, updated: self.updated.clone() })
    }

    /// The global norm.
    fn norm(self) -> f64 {
        // In the order of names, as a step that has all gradients together sums them.
        self.squares.into_values().sum::<f64>().sqrt()
    }
}
