//! The step that uses up a layer's gradients before the next layer's exist.
//!
//! It is possible where nothing needs all gradients together: neither clipping nor a second micro-batch. It matters where they
//! are as large as the weights. What it cannot promise is that a gradient that is no number changes nothing, because the
//! layers above were updated by then; the loss, which is known first, is looked at before any update.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{StepReport, Tuner, TunerError};
use crate::gradients::{self, Gradients, OUTER, layer_prefix};
use crate::times::timed;
use crate::walk::{Descent, MicroBatch};
use crate::{LayerSet, LayeredModel, streams};

impl Tuner {
    /// A step on one micro-batch without clipping, in which every layer is updated when its backward pass is done and what
    /// stands outside the layers at the end.
    pub(super) fn step_by_layers<M: LayeredModel>(
        &mut self,
        model: &mut M,
        batch: &M::Batch,
        watch: &mut dyn FnMut(&Gradients),
    ) -> Result<StepReport, TunerError> {
        let mut optimizer = 0.0;
        let layers = timed(&mut optimizer, || self.draw(model))?;
        let (step, learning_rate) = (self.step, self.learning_rate(self.step));
        let moments = self.optimizer.bytes_on_device() + self.new_moments(model, &layers);
        let (tokens, memory) = (model.predicted_tokens(batch), self.config.memory);
        let dropout = Some(streams::mix(streams::mix(self.seed, step as u64), 0));
        let (chosen, accumulates, updates_at_once) = (&layers, false, true);
        let scale = 1.0;
        let micro_batch = MicroBatch {
            batch,
            tokens,
            scale,
            chosen,
            memory,
            dropout,
            accumulates,
            updates_at_once,
        };
        let mut outer = Gradients::default();
        let mut descent = Descent::begin(model, &micro_batch, &mut outer);
        let loss = descent.total * (1.0 / tokens.max(1) as f64);
        let predicted_bytes = descent.predicted_bytes.map(|bytes| bytes + moments);
        self.check("loss", loss, &layers)?;
        let mut seen = Seen::default();
        let mut found = Gradients::default();
        while let Some(layer) = descent.layer(model, &mut found) {
            timed(&mut optimizer, || {
                seen.note(&found, Some(layer), self.step, &layers)?;
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
            seen.note(&outer, None, self.step, &layers)?;
            watch(&outer);
            self.update(model, None, learning_rate, &mut outer)
        })?;
        times.optimizer = optimizer;
        self.times = times;
        self.step += 1;
        let grad_norm = seen.squares.into_values().sum::<f64>().sqrt();
        let (loss_scale, skipped) = (None, false);
        Ok(StepReport {
            step,
            layers,
            loss,
            tokens,
            grad_norm,
            learning_rate,
            predicted_bytes,
            loss_scale,
            skipped,
        })
    }

    /// Bytes of the moments that the first update of a parameter makes, of those that train with `layers`.
    fn new_moments<M: LayeredModel>(&self, model: &M, layers: &LayerSet) -> u64 {
        let mut bytes = 0;
        let mut count = |name: &str, value: Tensor<1>| {
            let fresh = self.optimizer.updates(name) == 0;
            bytes += if fresh { 2 * (value.dims()[0] * value.dtype().size()) as u64 } else { 0 };
        };
        gradients::for_each_parameter(OUTER, model.outer(), &mut count);
        for layer in layers.iter() {
            gradients::for_each_parameter(&layer_prefix(layer), &model.layers()[layer], &mut count);
        }
        bytes
    }
}

/// What a step that updates layer by layer has seen of its gradients.
#[derive(Default)]
struct Seen {
    /// Σ g² by name.
    squares: BTreeMap<String, f64>,
    /// The layers whose parameters were updated.
    updated: Vec<usize>,
}

impl Seen {
    /// Fails when a gradient of `place` is no finite number.
    fn note(
        &mut self,
        gradients: &Gradients,
        place: Option<usize>,
        step: usize,
        layers: &LayerSet,
    ) -> Result<(), TunerError> {
        let squares: Vec<(String, f64)> =
            gradients.squares().map(|(name, square)| (name.to_owned(), square)).collect();
        let value = squares.iter().map(|(_, square)| square).sum::<f64>().sqrt();
        self.squares.extend(squares);
        if value.is_finite() {
            return Ok(());
        }
        if self.updated.is_empty() {
            let layers = layers.as_slice().to_vec();
            return Err(TunerError::NotFinite { what: "gradient norm", value, step, layers });
        }
        let place = place.map_or_else(
            || "the modules outside the layers".to_owned(),
            |layer| format!("layer {layer}"),
        );
        Err(TunerError::NotFiniteBelow { place, value, step, updated: self.updated.clone() })
    }
}
