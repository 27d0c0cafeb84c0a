//! The tuner: policy, step, optimizer, schedule and scoring as one thing that can be saved and
//! restored.
//!
//! It owns everything that a step changes besides the model. So its state and the model's
//! parameters are all that an exact resume needs. It knows neither where batches come from nor what
//! is printed or written.

mod by_layers;
mod config;
mod error;
mod loss_scale;
mod report;

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gradients::{self, Gradients, OUTER, layer_of, layer_prefix};
use crate::optimizer::{Optimizer, OptimizerState};
use crate::step::{self, StepRequest};
use crate::streams::{self, Streams};
use crate::times::timed;
use crate::{LayerPolicy, LayerSet, LayeredModel, Times};

pub use config::TunerConfig;
pub use error::TunerError;
pub use loss_scale::{LossScale, StepOutcome};
pub use report::{ImportanceUpdate, StepReport};

/// A tuner's whole state: a JSON document and the optimizer's tensors.
#[derive(Clone, Debug)]
pub struct TunerState {
    /// Step, streams, policy and update counts.
    pub document: Value,
    /// The optimizer's moments by name.
    pub tensors: Vec<(String, TensorData)>,
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "struct Document")]
struct TunerDocument {
    step: usize,
    seed: u64,
    streams: Streams,
    policy_kind: String,
    policy: Value,
    updates: BTreeMap<String, usize>,
    #[serde(default)]
    loss_scale: Option<LossScale>,
}

/// Policy, step, optimizer, schedule and scoring.
#[derive(Debug)]
pub struct Tuner {
    config: TunerConfig,
    policy: Box<dyn LayerPolicy>,
    optimizer: Optimizer,
    streams: Streams,
    seed: u64,
    step: usize,
    loss_scale: Option<LossScale>,
    times: Times,
}

impl Tuner {
    /// A tuner before its first step. `seed` fixes every draw and every dropout mask.
    pub fn new(config: TunerConfig, policy: Box<dyn LayerPolicy>, seed: u64) -> Self {
        let optimizer = Optimizer::new(config.adamw, config.resting_state, config.offload.clone());
        let loss_scale = config.loss_scaling.then(LossScale::default);
        Self {
            config,
            policy,
            optimizer,
            streams: Streams::new(seed),
            seed,
            step: 0,
            loss_scale,
            times: Times::default(),
        }
    }

    /// The next step's number: the steps done so far.
    pub fn next_step(&self) -> usize {
        self.step
    }

    /// The policy.
    pub fn policy(&self) -> &dyn LayerPolicy {
        &*self.policy
    }

    /// The optimizer, to look at.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Where the time of the newest step went.
    pub fn times(&self) -> Times {
        self.times
    }

    /// The learning rate of optimizer step `step`, as [`TunerConfig::rate_of`] says.
    pub fn learning_rate(&self, step: usize) -> f64 {
        self.config.rate_of(step)
    }

    /// The suppressed sets to score before the next step. Empty when no scoring is due. Call once
    /// per step.
    pub fn candidates(&mut self) -> Vec<LayerSet> {
        self.policy.candidates(self.step, &mut self.streams.candidates)
    }

    /// Scores `candidates` on one scoring batch (given in micro-batches) and lets the policy learn
    /// from the losses.
    ///
    /// Each candidate is one forward pass in evaluation mode, without any graph, with the layers of
    /// its set at the response factor β. Layers below the first on which candidates differ are run
    /// once. The model stays as it is.
    ///
    /// # Errors
    /// If a loss is not finite.
    pub fn score<M: LayeredModel>(
        &mut self,
        model: &M,
        micro_batches: &[M::Batch],
        candidates: Vec<LayerSet>,
    ) -> Result<ImportanceUpdate, TunerError> {
        let factor = self.policy.suppression();
        let losses = step::candidate_losses(model, micro_batches, &candidates, factor);
        let rewards = self.policy.observe(&candidates, &losses)?;
        let scores = self.policy.scores().unwrap_or_default().to_vec();
        Ok(ImportanceUpdate { step: self.step, suppressed: candidates, losses, rewards, scores })
    }

    /// One optimizer step on one batch (given in micro-batches): draw, walk, clip, update.
    ///
    /// It does not score: a policy that learns needs [`Tuner::candidates`] and [`Tuner::score`]
    /// before every step.
    ///
    /// Without clipping or loss scaling and on a single micro-batch a layer's gradients are final
    /// when its backward pass is done. Then they are used up before the next layer's exist, and
    /// only those of one layer are ever held. The numbers are the same.
    ///
    /// # Errors
    /// If a loss or a gradient is not finite. Then no parameter has changed, except in a step that
    /// updates layer by layer: there the layers above may be updated already
    /// ([`TunerError::NotFiniteBelow`]).
    pub fn step<M: LayeredModel>(
        &mut self,
        model: &mut M,
        micro_batches: &[M::Batch],
    ) -> Result<StepReport, TunerError> {
        self.watched_step(model, micro_batches, &mut |_| {})
    }

    /// [`Tuner::step`] that shows `watch` every gradient before it is used: all together or layer
    /// by layer.
    pub fn watched_step<M: LayeredModel>(
        &mut self,
        model: &mut M,
        micro_batches: &[M::Batch],
        watch: &mut dyn FnMut(&Gradients),
    ) -> Result<StepReport, TunerError> {
        if let [batch] = micro_batches
            && self.config.updates_by_layer(micro_batches.len())
        {
            return self.step_by_layers(model, batch, watch);
        }
        let (report, gradients) = self.compute(model, micro_batches)?;
        watch(&gradients);
        self.apply(model, &report, gradients)?;
        Ok(report)
    }

    /// The first half of a step that updates at the end: draws the layers and computes their
    /// clipped gradients. Moves no parameter.
    pub fn compute<M: LayeredModel>(
        &mut self,
        model: &M,
        micro_batches: &[M::Batch],
    ) -> Result<(StepReport, Gradients), TunerError> {
        let mut optimizer = 0.0;
        let layers = timed(&mut optimizer, || self.draw(model))?;
        let loss_scale = self.loss_scale.map(|scale| scale.scale());
        let scale = loss_scale.unwrap_or(1.0);
        let request = StepRequest {
            chosen: &layers,
            memory: self.config.memory,
            scale,
            dropout: Some(streams::mix(self.seed, self.step as u64)),
        };
        let output = step::scaled_gradients(model, micro_batches, &request);
        let mut gradients = output.gradients;
        if loss_scale.is_some() {
            // Before clipping, which is about the gradients as they are without the scale.
            gradients.multiply(1.0 / scale);
        }
        let grad_norm = timed(&mut optimizer, || match self.config.clip_norm {
            Some(limit) => gradients.clip(limit),
            None => gradients.norm(),
        });
        self.times = Times { optimizer, ..output.times };
        self.check("loss", output.loss, &layers)?;
        // An overflow under a scale that can fall is expected, and the next step tries a lower one.
        let can_fall = self.loss_scale.is_some_and(|scale| scale.can_fall());
        let skipped = !grad_norm.is_finite() && can_fall;
        if !skipped {
            self.check("gradient norm", grad_norm, &layers)?;
        }
        let outcome = if skipped { StepOutcome::Overflow } else { StepOutcome::Finite };
        self.loss_scale = self.loss_scale.map(|scale| scale.after(outcome));
        let moments = self.optimizer.bytes_on_device();
        let report = StepReport {
            step: self.step,
            layers,
            loss: output.loss,
            tokens: output.tokens,
            grad_norm,
            learning_rate: self.learning_rate(self.step),
            predicted_bytes: output.predicted_bytes.map(|bytes| bytes + moments),
            loss_scale,
            skipped,
        };
        Ok((report, gradients))
    }

    /// The second half: AdamW on every parameter that has a gradient, unless the step is to be
    /// skipped.
    pub fn apply<M: LayeredModel>(
        &mut self,
        model: &mut M,
        report: &StepReport,
        mut gradients: Gradients,
    ) -> Result<(), TunerError> {
        let started = Instant::now();
        if !report.skipped {
            let places = std::iter::once(None).chain(report.layers.iter().map(Some));
            for place in places {
                self.update(model, place, report.learning_rate, &mut gradients)?;
            }
        }
        self.times.optimizer += started.elapsed().as_secs_f64();
        self.step += 1;
        Ok(())
    }

    /// The layers of this step; the moments of the others go to rest.
    fn draw<M: LayeredModel>(&mut self, model: &M) -> Result<LayerSet, TunerError> {
        let layers = self.policy.select(self.step, &mut self.streams.selection)?;
        if let Some(device) = device_of(model) {
            // What stands outside the layers trains in every step.
            let trains = |name: &str| layer_of(name).is_none_or(|layer| layers.contains(layer));
            self.optimizer.rest(&device, trains)?;
        }
        Ok(layers)
    }

    /// Fails when `value` is not finite.
    fn check(&self, what: &'static str, value: f64, layers: &LayerSet) -> Result<(), TunerError> {
        let fault = || TunerError::NotFinite {
            what,
            value,
            step: self.step,
            layers: layers.as_slice().to_vec(),
        };
        if value.is_finite() { Ok(()) } else { Err(fault()) }
    }

    /// AdamW on those parameters of a layer, or of the modules outside the layers, that have a
    /// gradient.
    fn update<M: LayeredModel>(
        &mut self,
        model: &mut M,
        place: Option<usize>,
        learning_rate: f64,
        gradients: &mut Gradients,
    ) -> Result<(), TunerError> {
        // A walk over a module cannot stop early, so the first fault is kept and the rest left
        // alone.
        let mut fault = None;
        let mut update = |name: &str, value| {
            let gradient = gradients.remove(name)?;
            let rate = learning_rate * self.config.rates.get(name).unwrap_or(&1.0);
            match self.optimizer.update(name, rate, value, gradient) {
                Ok(value) => Some(value),
                Err(error) => {
                    fault.get_or_insert(error);
                    None
                }
            }
        };
        if let Some(index) = place {
            let layer = model.layers()[index].clone();
            let updated = gradients::map_parameters(&layer_prefix(index), layer, &mut update);
            model.layers_mut()[index] = updated;
        } else {
            let outer = model.outer().clone();
            let updated = gradients::map_parameters(OUTER, outer, &mut update);
            *model.outer_mut() = updated;
        }
        fault.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Everything [`Tuner::restore`] needs. The model's parameters are the caller's to save.
    pub fn state(&self) -> Result<TunerState, TunerError> {
        let OptimizerState { updates, moments } = self.optimizer.state()?;
        let document = TunerDocument {
            step: self.step,
            seed: self.seed,
            streams: self.streams.clone(),
            policy_kind: self.policy.name().to_owned(),
            policy: self.policy.state(),
            updates,
            loss_scale: self.loss_scale,
        };
        let document =
            serde_json::to_value(document).map_err(|error| TunerError::State(error.to_string()))?;
        Ok(TunerState { document, tensors: moments })
    }

    /// Takes over a state that [`Tuner::state`] wrote, so that the next steps are those of the
    /// saved tuner.
    pub fn restore(&mut self, state: TunerState, device: &Device) -> Result<(), TunerError> {
        let document: TunerDocument = serde_json::from_value(state.document)
            .map_err(|error| TunerError::State(error.to_string()))?;
        if document.policy_kind != self.policy.name() {
            let message = format!(
                "expected policy \"{}\", found \"{}\"",
                self.policy.name(),
                document.policy_kind
            );
            return Err(TunerError::State(message));
        }
        self.policy.restore(document.policy)?;
        let optimizer = OptimizerState { updates: document.updates, moments: state.tensors };
        self.optimizer.restore(optimizer, device)?;
        self.step = document.step;
        self.seed = document.seed;
        self.streams = document.streams;
        // A run that begins to scale takes the first scale, one that no longer does forgets it.
        self.loss_scale = self.loss_scale.map(|scale| document.loss_scale.unwrap_or(scale));
        Ok(())
    }
}

/// The device of the model's first parameter.
fn device_of<M: LayeredModel>(model: &M) -> Option<Device> {
    let mut device = None;
    let mut look = |_: &str, value: Tensor<1>| {
        device.get_or_insert(value.device());
    };
    gradients::for_each_parameter("", model.outer(), &mut look);
    for layer in model.layers() {
        gradients::for_each_parameter("", layer, &mut look);
    }
    device
}
