//! What a run will need, from its configuration and the model's shape, before anything is loaded.
//!
//! | what | look at |
//! |---|---|
//! | which layers a step may draw | [`draws`] |
//! | bytes by kind of one draw | [`Estimate`] |
//! | what to do about a budget that cannot be met | `refusal` |
//! | the document of `ist plan` | [`document`] |

pub mod document;
pub mod draws;
mod refusal;

use ist_core::burn::tensor::DType;
use ist_core::optimizer::RestingState;
use ist_core::plan::{self, Draw, Footprint};
use ist_core::step::{LayerTreatment, Memory};
use ist_core::tuner::TunerConfig;
use ist_core::{LayerPolicy, LayerSet};
use ist_models::shape::{AdaptedSite, Resident};
use ist_models::{BatchShape, Shape};
use serde::Serialize;

use crate::config::{Budget, RunConfig, TrainConfig};
use crate::machine::free_memory;
use crate::model_source;
use crate::text::records::Dataset;
use ist_records::Failure;

/// The part of the free memory that `auto` plans with: as much as a prediction may be off is left.
const PART_OF_FREE: f64 = 0.9;
/// Bytes of a number that trains, and of its gradient.
const NUMBER: u64 = 4;
/// Bytes of a token of a record: id, label and mask.
const TOKEN: u64 = 13;
/// Bytes of a record beside its tokens.
const RECORD: u64 = 96;

/// What is known of the training records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Records {
    /// How many there are.
    pub count: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// What they take in memory.
    pub bytes: u64,
}

impl Records {
    /// Those of a data set.
    pub fn of(data: &Dataset) -> Self {
        let lengths = || data.examples.iter().map(|example| example.input_ids.len());
        let tokens: usize = lengths().sum();
        let bytes = TOKEN * tokens as u64 + RECORD * data.examples.len() as u64;
        Self { count: data.examples.len(), longest: lengths().max().unwrap_or(0), bytes }
    }
}

/// What is there in every step, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// The frozen weights.
    pub weights: u64,
    /// The adapters.
    pub adapters: u64,
    /// The optimizer's moments once every layer has had its turn.
    pub optimizer: u64,
    /// The records.
    pub data: u64,
    /// What the threads of the matrix product and the one that calls them keep for themselves: a
    /// second-level cache each.
    pub workspace: u64,
}

impl Fixed {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.adapters + self.optimizer + self.data + self.workspace
    }
}

/// A run as far as its memory depends on it.
pub struct Planner<'a> {
    config: &'a RunConfig,
    shape: &'a Shape,
    adapted: Vec<AdaptedSite>,
    /// The layers with adapters.
    layers: LayerSet,
    /// Layers a step trains at most.
    largest: usize,
    records: Records,
    fixed: Fixed,
    /// What the run may take in bytes, and what it may take at the very most.
    limit: Option<[u64; 2]>,
    /// Whether the loss is scaled.
    loss_scaling: bool,
    /// All that the device of the run could ever give; unknown while it is planned.
    machine: Option<u64>,
}

impl<'a> Planner<'a> {
    /// The plan of a run whose adapters sit on `adapted`.
    pub fn new(
        config: &'a RunConfig,
        shape: &'a Shape,
        adapted: Vec<AdaptedSite>,
        (layers, policy): (LayerSet, &dyn LayerPolicy),
        records: Records,
    ) -> Self {
        let mut planner = Self {
            config,
            shape,
            adapted,
            layers,
            largest: policy.largest_set(),
            records,
            fixed: Fixed::default(),
            limit: limit(config.memory.budget, free_memory::on_host()),
            // On the processor no gradient passes through float16.
            loss_scaling: config.train.loss_scaling.applies(false),
            // A plan tells what a run would need, on whatever machine.
            machine: None,
        };
        planner.fixed = planner.everywhere();
        planner
    }

    /// The same run on a device that has that many bytes left, which is what `auto` plans with.
    #[must_use]
    pub fn with_free(mut self, free: Option<u64>) -> Self {
        self.limit = limit(self.config.memory.budget, free);
        // A graphics card may have more than its host.
        self.machine = free_memory::most_on_host().max(free);
        self
    }

    /// The same run with the loss scaled or not, as the device wants it.
    #[must_use]
    pub fn with_loss_scaling(mut self, loss_scaling: bool) -> Self {
        self.loss_scaling = loss_scaling;
        self
    }

    /// The same run under a budget that was settled before.
    #[must_use]
    pub fn with_limit(mut self, bytes: Option<u64>) -> Self {
        self.limit = bytes.map(|bytes| [bytes; 2]).or(self.limit);
        self
    }

    /// What the whole run may take; `None` where nothing bounds it.
    pub fn limit(&self) -> Option<u64> {
        self.limit.map(|[limit, _]| limit)
    }

    /// What is there in every step.
    pub fn fixed(&self) -> Fixed {
        self.fixed
    }

    /// How a step trades memory for time.
    pub fn memory(&self) -> Memory {
        match (self.config.memory.budget, self.limit()) {
            (Budget::Recompute, _) => Memory::Recompute,
            (Budget::Keep, _) | (_, None) => Memory::Keep,
            (_, Some(limit)) => Memory::Budget(limit.saturating_sub(self.fixed.total())),
        }
    }

    fn everywhere(&self) -> Fixed {
        let adapters = self.parameters(&LayerSet::all(self.shape.num_layers)) * NUMBER;
        let optimizer = match self.config.optimizer.resting_state {
            RestingState::Keep => adapters,
            RestingState::Offload | RestingState::Drop => self.most_parameters() * NUMBER,
        };
        let weights = self
            .shape
            .weight_bytes(model_source::storage(self.config.model.dtype))
            .min(u64::MAX >> 8);
        let workspace = (plan::threads() as u64 + 1) * free_memory::second_level_cache();
        Fixed { weights, adapters, optimizer: 2 * optimizer, data: self.records.bytes, workspace }
    }

    /// Scalars that train when `layers` do.
    pub fn parameters(&self, layers: &LayerSet) -> u64 {
        let trains =
            |adapted: &&AdaptedSite| adapted.site.layer.is_none_or(|layer| layers.contains(layer));
        self.adapted.iter().filter(trains).map(|adapted| adapted.parameters as u64).sum()
    }

    /// Scalars that a step trains at most.
    pub fn most_parameters(&self) -> u64 {
        let of = |layer| {
            self.parameters(
                &LayerSet::new([layer], self.shape.num_layers).expect("a layer of the model"),
            )
        };
        let outside = self.parameters(&LayerSet::empty(self.shape.num_layers));
        let mut layers: Vec<u64> = self.layers.iter().map(|layer| of(layer) - outside).collect();
        layers.sort_unstable_by(|a, b| b.cmp(a));
        outside + layers.iter().take(self.largest).sum::<u64>()
    }

    /// Records of one forward pass, and tokens of the longest.
    fn micro_batch(&self) -> (usize, usize) {
        (self.config.train.micro_batch.min(self.records.count.max(1)), self.records.longest)
    }

    fn footprint(&self, rows: usize, sequence: usize) -> Footprint {
        let storage = model_source::storage(self.config.model.dtype);
        let resident = Resident { adapted: &self.adapted, storage, arithmetic: DType::F32 };
        self.shape.footprint(resident, BatchShape::full(rows, sequence))
    }

    fn draw<'b>(&self, layers: &'b LayerSet) -> Draw<'b> {
        let sites = self.adapted.iter().map(|adapted| &adapted.site);
        Draw {
            chosen: layers,
            embedding_trains: self.shape.trains_below_layers(sites),
            accumulates: self.accumulates(),
            updates_at_once: self.updates_at_once(),
        }
    }

    /// Whether a batch is split into micro-batches.
    fn accumulates(&self) -> bool {
        self.config.train.batch > self.config.train.micro_batch
    }

    /// Whether a layer is updated as soon as its backward pass is done.
    fn updates_at_once(&self) -> bool {
        let TrainConfig { batch, micro_batch, .. } = self.config.train;
        let tuner = TunerConfig {
            clip_norm: self.config.optimizer.clip(),
            loss_scaling: self.loss_scaling,
            ..TunerConfig::default()
        };
        tuner.updates_by_layer(batch.div_ceil(micro_batch))
    }

    /// Scalars whose gradients are held together at most when `layers` train.
    fn gradients(&self, layers: &LayerSet) -> u64 {
        if !self.updates_at_once() {
            return self.parameters(layers);
        }
        let of =
            |layer| LayerSet::new([layer], self.shape.num_layers).expect("a layer of the model");
        let largest = layers.iter().map(|layer| self.parameters(&of(layer))).max();
        largest.unwrap_or_else(|| self.parameters(layers))
    }

    /// Candidates that are scored together; 0 for a policy that scores none.
    fn candidates(&self) -> usize {
        self.config.policy.scoring().map_or(0, |scoring| scoring.candidates)
    }

    /// What a step on the largest micro-batch takes when `layers` train.
    pub fn estimate(&self, layers: &LayerSet, memory: Memory) -> Estimate {
        let (rows, sequence) = self.micro_batch();
        let footprint = self.footprint(rows, sequence);
        let draw = self.draw(layers);
        let treatments = draw.treatments(memory, Some(&footprint));
        let walk = plan::peak(&footprint, &draw, &treatments);
        let scoring = match self.candidates() {
            0 => 0,
            candidates => self.scoring(candidates, rows, sequence),
        };
        Estimate {
            peak: self.fixed.total() + walk.max(scoring),
            fixed: self.fixed,
            gradients: self.gradients(layers) * NUMBER,
            activations: plan::peak(&activations_alone(footprint.clone()), &draw, &treatments),
            logits: footprint.loss.logits,
            scoring,
            layers: layers.clone(),
            treatments,
        }
    }

    /// What scoring takes with as many records at a time as stay below the leanest step.
    fn scoring(&self, candidates: usize, rows: usize, sequence: usize) -> u64 {
        let least =
            least_step(&self.footprint(rows, sequence), self.shape.num_layers, self.memory());
        let of = |rows| self.footprint(rows, sequence).scoring(candidates);
        of(halve_until(rows, |rows| of(rows) <= least))
    }

    /// The least that a step can take when `layers` train, on micro-batches of that size.
    fn least(&self, layers: &LayerSet, rows: usize, sequence: usize) -> u64 {
        let (footprint, draw) = (self.footprint(rows, sequence), self.draw(layers));
        let walk = plan::peak(&footprint, &draw, &plan::leanest(&footprint, &draw));
        self.fixed.total() + walk
    }

    /// Fails when no treatment of the worst draw stays within the budget, with what would.
    pub fn must_fit(&self) -> Result<(), Failure> {
        refusal::check(self)
    }
}

/// The budget in bytes, and the most that is not refused, where that many bytes are `free`.
fn limit(budget: Budget, free: Option<u64>) -> Option<[u64; 2]> {
    match budget {
        Budget::Bytes(bytes) => Some([bytes; 2]),
        Budget::Auto => free.map(|free| [(free as f64 * PART_OF_FREE) as u64, free]),
        Budget::Keep | Budget::Recompute => None,
    }
}

/// The most live bytes of the step that takes least: the last layer alone.
pub fn least_step(footprint: &Footprint, num_layers: usize, memory: Memory) -> u64 {
    let last = LayerSet::new(num_layers.checked_sub(1), num_layers).expect("a layer of the model");
    let draw = Draw::of(&last);
    plan::peak(footprint, &draw, &draw.treatments(memory, Some(footprint)))
}

/// `rows`, halved until they fit or are one.
pub fn halve_until(rows: usize, fits: impl Fn(usize) -> bool) -> usize {
    let halves =
        std::iter::successors(Some(rows.max(1)), |rows| (*rows > 1).then(|| rows.div_ceil(2)));
    halves.clone().find(|rows| fits(*rows)).or(halves.last()).unwrap_or(1)
}

/// The footprint without logits and gradients of parameters.
fn activations_alone(mut footprint: Footprint) -> Footprint {
    footprint.loss.plain -= footprint.loss.logits.min(footprint.loss.plain);
    footprint.loss.tracked -= footprint.loss.logits.min(footprint.loss.tracked);
    footprint.loss.gradients = 0;
    for layer in &mut footprint.layers {
        for cost in [&mut layer.resting, &mut layer.chosen, &mut layer.lowest] {
            cost.backward -= cost.gradients.min(cost.backward);
            if let Some(half) = &mut cost.half {
                half.backward -= cost.gradients.min(half.backward);
            }
            cost.gradients = 0;
        }
    }
    footprint
}

/// What a step takes in bytes: its peak, and each kind at its own most, which need not be at the
/// same time.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The most live bytes.
    pub peak: u64,
    /// Weights, adapters, moments, records and workspace.
    pub fixed: Fixed,
    /// Gradients of parameters.
    pub gradients: u64,
    /// Graphs, hidden states and what the passes need for a moment.
    pub activations: u64,
    /// The logits of the loss.
    pub logits: u64,
    /// A scoring pass.
    pub scoring: u64,
    /// The layers that train.
    pub layers: LayerSet,
    /// What is done with every layer.
    pub treatments: Vec<LayerTreatment>,
}
