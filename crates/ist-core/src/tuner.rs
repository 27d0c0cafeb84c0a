//! The tuner: policy, step, optimizer, schedule and scoring as one thing that can be saved and
//! restored.
//!
//! It owns everything that a step changes besides the model, so that its state and the model's
//! parameters are all an exact resume needs. Where batches come from, and what is printed or
//! written, is not its business.

mod by_layers;

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Device, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gradients::{self, Gradients, OUTER, layer_of, layer_prefix};
use crate::loss_scale::LossScale;
use crate::optimizer::{
    AdamWSettings, OffloadTo, Optimizer, OptimizerError, OptimizerState, RestingState,
};
use crate::schedule::Schedule;
use crate::step::{self, Memory, StepOutput};
use crate::streams::{self, Streams};
use crate::times::timed;
use crate::{LayerPolicy, LayerSet, LayeredModel, PolicyError, Times};

/// What a tuner needs besides its policy.
#[derive(Clone, Debug)]
pub struct TunerConfig {
    /// The base learning rate.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// The fraction of the base rate the schedule falls to; 0 in the usual recipes.
    pub min_lr_ratio: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: usize,
    /// Steps the schedule spans.
    pub total_steps: usize,
    /// The global gradient norm to clip to; `None` does not clip.
    pub clip_norm: Option<f64>,
    /// How the step trades memory for time.
    pub memory: Memory,
    /// AdamW's constants.
    pub adamw: AdamWSettings,
    /// Where a resting layer's moments live.
    pub resting_state: RestingState,
    /// Where offloaded moments go.
    pub offload: OffloadTo,
    /// Factors on the learning rate by parameter name; 1 for all others.
    pub rates: BTreeMap<String, f64>,
    /// Whether the loss is scaled ([`LossScale`]), as gradients in f16 need.
    pub loss_scaling: bool,
}

impl Default for TunerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 2e-4,
            schedule: Schedule::Constant,
            min_lr_ratio: 0.0,
            warmup_steps: 0,
            total_steps: 1,
            clip_norm: Some(1.0),
            memory: Memory::Keep,
            adamw: AdamWSettings::default(),
            resting_state: RestingState::Keep,
            offload: OffloadTo::Host,
            rates: BTreeMap::new(),
            loss_scaling: false,
        }
    }
}

impl TunerConfig {
    /// Whether a step of that many micro-batches updates each layer as soon as its backward pass is
    /// done.
    ///
    /// Clipping, loss scaling and accumulation each need all gradients together.
    pub fn updates_by_layer(&self, micro_batches: usize) -> bool {
        self.clip_norm.is_none() && !self.loss_scaling && micro_batches == 1
    }
}

/// What one optimizer step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step, counted from 0.
    pub step: usize,
    /// The layers that trained.
    pub layers: LayerSet,
    /// The mean loss over the predicted tokens, before the update.
    pub loss: f64,
    /// Predicted tokens.
    pub tokens: usize,
    /// The global gradient norm before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// The most live bytes the step was predicted to need above the model and its adapters; `None`
    /// for a model that does not tell its footprint.
    pub predicted_bytes: Option<u64>,
    /// What the loss was multiplied by; `None` without loss scaling.
    pub loss_scale: Option<f64>,
    /// Whether gradients overflowed under that scale, so that no parameter was changed.
    pub skipped: bool,
}

/// What one importance update saw and did.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportanceUpdate {
    /// The step before which it happened.
    pub step: usize,
    /// The suppressed set of each candidate.
    pub suppressed: Vec<LayerSet>,
    /// The mean token loss of each candidate.
    pub losses: Vec<f64>,
    /// exp(-loss) of each candidate.
    pub rewards: Vec<f64>,
    /// All scores after the update.
    pub scores: Vec<f64>,
}

/// Why a tuner stopped.
#[derive(Debug, thiserror::Error)]
pub enum TunerError {
    /// The policy cannot go on.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The optimizer cannot go on.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// A loss or a gradient is not a finite number. Nothing was updated.
    #[error(
        "{what} is {value} in step {step} (layers {layers:?}); no parameter was changed by this step. \
         Try a lower learning rate or clip_norm"
    )]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: usize,
        /// The layers that were to train.
        layers: Vec<usize>,
    },
    /// A gradient is not a finite number after parameters above it were updated, in a step that
    /// updates layer by layer.
    #[error(
        "the gradient norm of {place} is {value} in step {step}, when layers {updated:?} were updated already: the model is \
         that of no step. Go on from a checkpoint, with a lower learning rate or clip_norm"
    )]
    NotFiniteBelow {
        /// The layer, or what stands outside the layers.
        place: String,
        /// The norm.
        value: f64,
        /// The step.
        step: usize,
        /// The layers that were updated.
        updated: Vec<usize>,
    },
    /// A saved state is not one of this tuner.
    #[error("the saved state of the run does not fit: {0}")]
    State(String),
}

/// A tuner's whole state: a JSON document and the optimizer's tensors.
#[derive(Clone, Debug)]
pub struct TunerState {
    /// Step, streams, policy and update counts.
    pub document: Value,
    /// The optimizer's moments by name.
    pub tensors: Vec<(String, TensorData)>,
}

#[derive(Serialize, Deserialize)]
struct Document {
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
        let (streams, times) = (Streams::new(seed), Times::default());
        Self { config, policy, optimizer, streams, seed, step: 0, loss_scale, times }
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

    /// The learning rate of optimizer step `step`: base · factor in the warm-up, after it base · (r
    /// + (1 - r) · factor) with r = `min_lr_ratio` and the factor of [`Schedule::factor`].
    pub fn learning_rate(&self, step: usize) -> f64 {
        let TunerConfig {
            learning_rate, schedule, min_lr_ratio, warmup_steps, total_steps, ..
        } = self.config;
        let factor = schedule.factor(step, warmup_steps, total_steps);
        let floor = if step < warmup_steps { 0.0 } else { min_lr_ratio };
        learning_rate * (floor + (1.0 - floor) * factor)
    }

    /// The suppressed sets to score before the next step; empty when no scoring is due. Call once
    /// per step.
    pub fn candidates(&mut self) -> Vec<LayerSet> {
        self.policy.candidates(self.step, &mut self.streams.candidates)
    }

    /// Scores `candidates` on one scoring batch (given in micro-batches) and lets the policy learn
    /// from the losses.
    ///
    /// Each candidate is one forward pass in evaluation mode, without any graph, with the layers of
    /// its set at the response factor β; layers below the first on which candidates differ are run
    /// once. The model is not changed by it.
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
    /// only those of one layer are ever held; the numbers are the same. There alone a gradient that
    /// is no finite number may be found when the layers above were updated
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
        let dropout = streams::mix(self.seed, self.step as u64);
        let loss_scale = self.loss_scale.map(|scale| scale.scale());
        let scale = loss_scale.unwrap_or(1.0);
        let StepOutput { loss, tokens, mut gradients, predicted_bytes, times } =
            step::scaled_gradients(
                model,
                micro_batches,
                &layers,
                (self.config.memory, scale),
                Some(dropout),
            );
        let predicted_bytes = predicted_bytes.map(|bytes| bytes + self.optimizer.bytes_on_device());
        if loss_scale.is_some() {
            gradients.multiply(1.0 / scale);
        }
        let grad_norm = timed(&mut optimizer, || match self.config.clip_norm {
            Some(limit) => gradients.clip(limit),
            None => gradients.norm(),
        });
        self.times = Times { optimizer, ..times };
        self.check("loss", loss, &layers)?;
        let skipped =
            !grad_norm.is_finite() && self.loss_scale.is_some_and(|scale| scale.can_fall());
        if !skipped {
            self.check("gradient norm", grad_norm, &layers)?;
        }
        self.loss_scale = self.loss_scale.map(|scale| scale.after(!skipped));
        let (step, learning_rate) = (self.step, self.learning_rate(self.step));
        let report = StepReport {
            step,
            layers,
            loss,
            tokens,
            grad_norm,
            learning_rate,
            predicted_bytes,
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
        let places = std::iter::once(None).chain(report.layers.iter().map(Some));
        for place in places.filter(|_| !report.skipped) {
            self.update(model, place, report.learning_rate, &mut gradients)?;
        }
        self.times.optimizer += started.elapsed().as_secs_f64();
        self.step += 1;
        Ok(())
    }

    /// The layers of this step; the moments of the others go to rest.
    fn draw<M: LayeredModel>(&mut self, model: &M) -> Result<LayerSet, TunerError> {
        let layers = self.policy.select(self.step, &mut self.streams.selection)?;
        if let Some(device) = device_of(model) {
            self.optimizer
                .rest(&device, |name| layer_of(name).is_none_or(|layer| layers.contains(layer)))?;
        }
        Ok(layers)
    }

    /// Fails when `value` is no finite number.
    fn check(&self, what: &'static str, value: f64, layers: &LayerSet) -> Result<(), TunerError> {
        let fault = || TunerError::NotFinite {
            what,
            value,
            step: self.step,
            layers: layers.as_slice().to_vec(),
        };
        if value.is_finite() { Ok(()) } else { Err(fault()) }
    }

    /// AdamW on the parameters of a layer, or of what stands outside the layers, as far as they
    /// have a gradient.
    fn update<M: LayeredModel>(
        &mut self,
        model: &mut M,
        place: Option<usize>,
        learning_rate: f64,
        gradients: &mut Gradients,
    ) -> Result<(), TunerError> {
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
            model.layers_mut()[index] =
                gradients::map_parameters(&layer_prefix(index), layer, &mut update);
        } else {
            let outer = gradients::map_parameters(OUTER, model.outer().clone(), &mut update);
            *model.outer_mut() = outer;
        }
        fault.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Everything [`Tuner::restore`] needs. The model's parameters are the caller's to save.
    pub fn state(&self) -> Result<TunerState, TunerError> {
        let OptimizerState { updates, moments } = self.optimizer.state()?;
        let document = Document {
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
        let document: Document = serde_json::from_value(state.document)
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
        self.optimizer.restore(
            OptimizerState { updates: document.updates, moments: state.tensors },
            device,
        )?;
        (self.step, self.seed, self.streams) = (document.step, document.seed, document.streams);
        // A run that begins to scale takes the first scale, one that no longer does forgets it.
        self.loss_scale = self.loss_scale.map(|scale| document.loss_scale.unwrap_or(scale));
        Ok(())
    }
}

/// The device of the model's first parameter.
fn device_of<M: LayeredModel>(model: &M) -> Option<Device> {
    let mut device = None;
    let mut look = |_: &str, value: burn::tensor::Tensor<1>| {
        device.get_or_insert(value.device());
    };
    gradients::for_each_parameter("", model.outer(), &mut look);
    for layer in model.layers() {
        gradients::for_each_parameter("", layer, &mut look);
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::All;

    #[test]
    fn the_rate_warms_up_from_zero_and_falls_to_its_floor() {
        let config = TunerConfig {
            learning_rate: 1.0,
            warmup_steps: 10,
            total_steps: 110,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.1,
            ..TunerConfig::default()
        };
        let tuner = Tuner::new(config, Box::new(All::new(&LayerSet::all(1))), 0);
        for (step, rate) in [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1)] {
            assert!((tuner.learning_rate(step) - rate).abs() < 1e-12, "step {step}");
        }
    }
}
