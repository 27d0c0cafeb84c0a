//! Training steps on random weights, timed: what `ist bench` measures.
//!
//! A step is a whole optimizer step: forward, backward, clipping and AdamW, scoring apart. The
//! clock stops when the device has nothing left to do. The arithmetic that is set against the time
//! is what the step cannot do without: products of frozen weights and of attention in the forward
//! pass, and in the backward pass of the layers above the lowest that trains. What is computed
//! again to save memory does not count.

mod arithmetic;
mod shape;

use std::time::Instant;

use ist_core::burn::tensor::{DType, Device, Distribution, Tensor};
use ist_core::policy::Registry;
use ist_core::step::Memory;
use ist_core::{LayerPolicy, LayerSet, Tuner, TunerConfig, streams};
use ist_models::shape::{AdaptedSite, Resident};
use ist_models::{BatchShape, Decoder, DecoderConfig, Example, TokenBatch};
use ist_peft::frozen::{half, linear};
use ist_peft::model::attach;
use ist_peft::{Adapter, Adapters, Configured, Dialect, Site};
use serde_json::{Map, Value, json};

use crate::machine::device::name_of;
use crate::machine::{device, free_memory, live_bytes};
use crate::memory_plan::least_step;
use ist_records::report::statistics::quantile;
use ist_records::{Failure, OrFail};

pub use shape::Shape;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `all`, `ist`, `rst`, `lisa`, or `fixed:2,5`.
    pub policy: String,
    /// How a step trades memory for time.
    pub memory: Memory,
    /// What the frozen weights are kept in.
    pub storage: DType,
    /// LoRA's rank.
    pub rank: usize,
    /// Records of a step.
    pub batch: usize,
    /// Records of a forward pass.
    pub micro_batch: usize,
    /// Tokens of a record.
    pub sequence: usize,
    /// Steps that are measured.
    pub steps: usize,
    /// Steps before them.
    pub warmup: usize,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The device's own name.
    pub card: String,
    /// Scalars of the model.
    pub parameters: usize,
    /// The median step, in milliseconds.
    pub step_ms: f64,
    /// The fastest.
    pub step_ms_min: f64,
    /// The median scoring of candidates; `None` where none was due.
    pub score_ms: Option<f64>,
    /// Tokens of a batch over the median step.
    pub tokens_per_second: f64,
    /// Bytes of weights and adapters.
    pub weights_bytes: usize,
    /// The most bytes of the device.
    pub peak_bytes: usize,
    /// Arithmetic of the steps over their time, in 10¹² operations a second.
    pub tflops: f64,
    /// The same of one large matrix product in the weights' type.
    pub matmul_peak_tflops: f64,
    /// The loss of every step.
    pub losses: Vec<f64>,
}

/// Measures.
pub fn run<A: Adapter>(
    config: DecoderConfig,
    setting: &Setting,
    device: &Device,
) -> Result<Figures, Failure> {
    must_fit::<A>(&config, setting, device)?;
    let matmul_peak_tflops = matmul_peak(setting.storage, device);
    let policy = policy(&setting.policy, config.num_hidden_layers)?;
    let arithmetic = arithmetic::Arithmetic::of(&config, setting.sequence);
    let mut model = model::<A>(config, setting, device)?;
    device.sync().or_run()?;
    let parameters = arithmetic.parameters;
    let weights_bytes = live_bytes::used_on(device);
    let tuner = TunerConfig {
        learning_rate: 1e-4,
        memory: setting.memory,
        loss_scaling: setting.storage == DType::F16,
        ..TunerConfig::default()
    };
    let mut tuner = Tuner::new(tuner, policy, 0);
    live_bytes::reset_peak();
    let mut timings = Vec::new();
    for _ in 0..setting.warmup + setting.steps {
        timings.push(step(&mut tuner, &mut model, setting, device)?);
    }
    let measured = &timings[setting.warmup..];
    let seconds = median(measured.iter().map(|timing| timing.seconds));
    let operations: f64 = measured.iter().map(|timing| arithmetic.step(&timing.layers)).sum();
    let total: f64 = measured.iter().map(|timing| timing.seconds).sum();
    let tokens = (setting.batch * setting.sequence) as f64;
    let scored: Vec<f64> = timings.iter().filter_map(|timing| timing.scoring).collect();
    Ok(Figures {
        card: name_of(device),
        parameters,
        step_ms: 1e3 * seconds,
        step_ms_min: 1e3
            * measured.iter().map(|timing| timing.seconds).fold(f64::INFINITY, f64::min),
        score_ms: (!scored.is_empty()).then(|| 1e3 * median(scored)),
        tokens_per_second: tokens / seconds,
        weights_bytes,
        peak_bytes: live_bytes::peak_on(device),
        tflops: operations * tokens / total / 1e12,
        matmul_peak_tflops,
        losses: timings.iter().map(|timing| timing.loss).collect(),
    })
}

/// What one step took.
struct Timing {
    seconds: f64,
    scoring: Option<f64>,
    loss: f64,
    layers: LayerSet,
}

fn step<A: Adapter>(
    tuner: &mut Tuner,
    model: &mut Decoder<A>,
    setting: &Setting,
    device: &Device,
) -> Result<Timing, Failure> {
    let candidates = tuner.candidates();
    let number = tuner.next_step() as u64;
    let scoring = if candidates.is_empty() {
        None
    } else {
        let batches = batches(setting, model.config().vocab_size, 2 * number + 1, device);
        let start = Instant::now();
        tuner.score(model, &batches, candidates).or_run()?;
        Some(start.elapsed().as_secs_f64())
    };
    let batches = batches(setting, model.config().vocab_size, 2 * number, device);
    device.sync().or_run()?;
    let start = Instant::now();
    let report = tuner.step(model, &batches).or_run()?;
    device.sync().or_run()?;
    Ok(Timing {
        seconds: start.elapsed().as_secs_f64(),
        scoring,
        loss: report.loss,
        layers: report.layers,
    })
}

/// A batch of random tokens in micro-batches.
fn batches(setting: &Setting, vocabulary: usize, seed: u64, device: &Device) -> Vec<TokenBatch> {
    let token = |at: usize| (streams::mix(seed, at as u64) % vocabulary as u64) as u32;
    let row = |row: usize| {
        Example::tokens((row * setting.sequence..(row + 1) * setting.sequence).map(token).collect())
    };
    let rows: Vec<Example> = (0..setting.batch).map(row).collect();
    rows.chunks(setting.micro_batch).map(|rows| TokenBatch::new(rows, device)).collect()
}

fn policy(text: &str, layers: usize) -> Result<Box<dyn LayerPolicy>, Failure> {
    let (kind, list) = text.split_once(':').map_or((text, None), |(kind, list)| (kind, Some(list)));
    let mut fields = Map::new();
    if let Some(list) = list {
        let layers: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
        let layers = layers.map_err(|_| {
            Failure::input(format!("policy \"{text}\": expected layers such as fixed:2,5"))
        })?;
        fields.insert("layers".to_owned(), json!(layers));
    }
    Registry::default().build(kind, &fields, &LayerSet::all(layers)).or_input()
}

/// A model of random weights made on the device, with LoRA on its usual modules.
fn model<A: Adapter>(
    config: DecoderConfig,
    setting: &Setting,
    device: &Device,
) -> Result<Decoder<A>, Failure> {
    let mut model = Decoder::random_on_device(config, 0, setting.storage, device);
    let mut adapters = Adapters::one(lora::<A>(setting)?);
    attach::attach(&mut model, &mut adapters, 0, device).or_run()?;
    Ok(model)
}

/// The LoRA that is measured.
fn lora<A: Adapter>(setting: &Setting) -> Result<Configured<A::Config>, Failure> {
    let fields = json!({"method": "lora", "r": setting.rank, "alpha": 2 * setting.rank});
    let fields: &Map<String, Value> = fields.as_object().expect("fields are an object");
    A::parse(fields, Dialect::Toml)
        .ok_or_else(|| Failure::input("this program has no method \"lora\" to measure"))?
        .or_run()
}

/// Refuses sizes that no step could be done with: weights, adapters with their moments, the batch,
/// and the leanest step.
fn must_fit<A: Adapter>(
    config: &DecoderConfig,
    setting: &Setting,
    device: &Device,
) -> Result<(), Failure> {
    let shape = ist_models::Shape::of(config.clone());
    let mut lora = lora::<A>(setting)?;
    let sites = attach::matching_sites::<A>(&shape.sites, &shape.outline(), &mut lora);
    let planned = |site: &Site| AdaptedSite::planned(&*lora.settings, site);
    let adapted: Vec<AdaptedSite> = sites.or_input()?.iter().map(planned).collect();
    let numbers: u64 = adapted.iter().map(|adapted| adapted.parameters as u64).sum();
    let narrow = half::is_narrow(device);
    let arithmetic = if narrow { setting.storage } else { DType::F32 };
    let resident = Resident { adapted: &adapted, storage: setting.storage, arithmetic };
    let batch = BatchShape::full(setting.micro_batch, setting.sequence);
    let step = least_step(&shape.footprint(resident, batch), shape.num_layers, setting.memory);
    let tokens = (setting.batch as u64).saturating_mul(setting.sequence as u64);
    let all = [shape.weight_bytes(setting.storage), numbers.saturating_mul(12), tokens, step];
    let bytes = all.into_iter().fold(0, u64::saturating_add);
    let most = free_memory::most_on_host().max(device::free_memory(device));
    let advice = "lower --seq, --batch, --micro-batch or --r, or take a smaller shape";
    free_memory::must_fit("a step", bytes, most, advice)
}

/// Operations a second of one square product in the type, in 10¹²: the best of ten.
fn matmul_peak(storage: DType, device: &Device) -> f64 {
    let size = if half::is_narrow(device) { 4096 } else { 512 };
    let random = || Tensor::<2>::random([size, size], Distribution::Default, device);
    let (x, weight) = (random().unsqueeze::<3>(), random().cast(storage));
    let once = || {
        let start = Instant::now();
        let _product = linear(x.clone(), weight.clone());
        let _ = device.sync();
        start.elapsed().as_secs_f64()
    };
    (0..3).for_each(|_| {
        once();
    });
    let least = (0..10).map(|_| once()).fold(f64::INFINITY, f64::min);
    2.0 * f64::from(size).powi(3) / least / 1e12
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}
