//! One measurement of a training run in a fresh process; prints one line of JSON.
//!
//! The counterpart of `benches/peer/peer.py`, with the same names of flags and fields. A step here
//! is a whole optimizer step: forward, backward, clipping and AdamW, through [`Tuner`].

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ist_benches::measure::{MIB, median};
use ist_benches::{Model, Recipe, Shape, batch, model, process};
use ist_core::burn::tensor::{DType, Device};
use ist_core::policy::Registry;
use ist_core::step::{self, Memory};
use ist_core::{LayerPolicy, LayerSet, Tuner, TunerConfig, streams};
use ist_experiments::config::Budget;
use ist_experiments::machine::live_bytes;
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::{Example, TokenBatch};
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One measurement of IST in a fresh process.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Width.
    #[arg(long, default_value_t = 512)]
    dim: usize,
    #[arg(long, default_value_t = 8)]
    layers: usize,
    #[arg(long, default_value_t = 8)]
    heads: usize,
    /// MLP width.
    #[arg(long, default_value_t = 1376)]
    ffn: usize,
    #[arg(long, default_value_t = 2048)]
    vocab: usize,
    /// Rows of a training batch.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Tokens of a row.
    #[arg(long, default_value_t = 256)]
    seq: usize,
    #[arg(long, value_enum, default_value = "lora")]
    method: Method,
    /// LoRA's rank, on q, k, v, up and down.
    #[arg(long, default_value_t = 32)]
    rank: usize,
    #[arg(long, default_value_t = 64.0)]
    alpha: f64,
    /// `all`, `ist`, `rst` or `fixed:2,5`.
    #[arg(long, default_value = "all")]
    policy: String,
    /// `keep`, `recompute`, or the most bytes that a step may take above the weights, such as
    /// `100MiB`.
    #[arg(long, default_value = "keep", value_parser = memory_of)]
    memory: Memory,
    /// Threads of the matrix products and of the operations.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Steps that are measured.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Rows of a scoring batch; they are scored in micro-batches of `--batch`.
    #[arg(long, default_value_t = 16)]
    score_batch: usize,
    /// Steps between two scorings.
    #[arg(long, default_value_t = 10)]
    interval: usize,
    /// The type in which the frozen weights lie.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Storage,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Copied to the output.
    #[arg(long, default_value = "")]
    tag: String,
}

/// The setting as a run's `memory.budget` is written.
fn memory_of(text: &str) -> Result<Memory> {
    Ok(match serde_json::from_value(json!(text))? {
        Budget::Keep => Memory::Keep,
        Budget::Recompute => Memory::Recompute,
        Budget::Bytes(bytes) => Memory::Budget(bytes),
        Budget::Auto => bail!("\"auto\" depends on the machine"),
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Storage {
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    Lora,
    Dora,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Dora => "dora",
        }
    }
}

impl Arguments {
    fn shape(&self) -> Shape {
        Shape {
            hidden: self.dim,
            layers: self.layers,
            heads: self.heads,
            intermediate: self.ffn,
            vocabulary: self.vocab,
            rows: self.batch,
            sequence: self.seq,
        }
    }

    fn recipe(&self) -> Recipe {
        let storage = match self.dtype {
            Storage::F32 => DType::F32,
            Storage::Bf16 => DType::BF16,
        };
        Recipe { method: self.method.name(), rank: self.rank, alpha: self.alpha, storage }
    }

    fn policy(&self) -> Result<Box<dyn LayerPolicy>> {
        let (kind, fields) = match self.policy.split_once(':') {
            Some((kind, layers)) => {
                let layers: Vec<usize> =
                    layers.split(',').map(str::parse).collect::<Result<_, _>>()?;
                (kind, json!({ "layers": layers }))
            }
            None if self.policy == "ist" => {
                ("ist", json!({"interval": self.interval, "score_batch": self.score_batch}))
            }
            None => (self.policy.as_str(), json!({})),
        };
        let fields: Map<String, Value> = fields.as_object().cloned().unwrap_or_default();
        Ok(Registry::default().build(kind, &fields, &LayerSet::all(self.layers))?)
    }
}

/// Batches of random tokens, each one of its own.
struct Batches {
    shape: Shape,
    seed: u64,
    made: u64,
    device: Device,
}

impl Batches {
    fn next(&mut self) -> TokenBatch {
        let Shape { rows, sequence, vocabulary, .. } = self.shape;
        self.made += 1;
        let seed = streams::mix(self.seed, self.made);
        let token = |at: usize| (streams::mix(seed, at as u64) % vocabulary as u64) as u32;
        let row = |row: usize| {
            Example::tokens((row * sequence..(row + 1) * sequence).map(token).collect())
        };
        TokenBatch::new(&(0..rows).map(row).collect::<Vec<_>>(), &self.device)
    }
}

/// What one step took.
struct Timing {
    wall_ms: f64,
    processor_ms: f64,
    /// Absent when no scoring was due.
    score_ms: Option<f64>,
    loss: f64,
}

/// The run that is measured.
struct Run {
    model: Model,
    tuner: Tuner,
    batches: Batches,
    /// Micro-batches of a scoring batch.
    scored: usize,
}

impl Run {
    fn new(arguments: &Arguments, device: &Device) -> Result<Self> {
        let config =
            TunerConfig { learning_rate: 1e-3, memory: arguments.memory, ..TunerConfig::default() };
        let shape = arguments.shape();
        Ok(Self {
            model: model(shape, arguments.recipe(), device),
            tuner: Tuner::new(config, arguments.policy()?, arguments.seed),
            batches: Batches { shape, seed: arguments.seed, made: 0, device: device.clone() },
            scored: arguments.score_batch.div_ceil(arguments.batch),
        })
    }

    /// Touches every code path once on a few tokens, so that what is loaded at the first use is not
    /// billed to the steps.
    fn touch(&self) {
        let shape = Shape { rows: 1, sequence: 8, ..self.batches.shape };
        let few = batch(shape, &self.batches.device);
        drop(step::gradients(
            &self.model,
            &[few],
            &LayerSet::all(shape.layers),
            Memory::Keep,
            None,
        ));
    }

    fn step(&mut self) -> Result<Timing> {
        let score_ms = self.score()?;
        let batch = [self.batches.next()];
        let (start, before) = (Instant::now(), process::processor_ms());
        let report = self.tuner.step(&mut self.model, &batch)?;
        let wall_ms = start.elapsed().as_secs_f64() * 1e3;
        let processor_ms =
            process::processor_ms().zip(before).map_or(f64::NAN, |(after, before)| after - before);
        Ok(Timing { wall_ms, processor_ms, score_ms, loss: report.loss })
    }

    /// Scores when the policy asks for it.
    fn score(&mut self) -> Result<Option<f64>> {
        let candidates = self.tuner.candidates();
        if candidates.is_empty() {
            return Ok(None);
        }
        let start = Instant::now();
        let batches: Vec<_> = (0..self.scored).map(|_| self.batches.next()).collect();
        self.tuner.score(&self.model, &batches, candidates)?;
        Ok(Some(start.elapsed().as_secs_f64() * 1e3))
    }
}

/// Bytes before the steps and the most during them.
struct Bytes {
    /// Resident before there was a model.
    at_start: u64,
    /// Resident after the model was built and touched.
    warm: u64,
    /// Live bytes of weights and adapters.
    weights: usize,
    peak_live: usize,
    peak_resident: u64,
}

impl Bytes {
    /// The most above the weights: counted by the allocator; resident, above the warm process;
    /// resident, above the process before it had a model and the weights. The last one also holds
    /// what the allocator keeps after building the model.
    fn above(&self) -> [f64; 3] {
        let live = self.peak_live.saturating_sub(self.weights);
        let warm = self.peak_resident.saturating_sub(self.warm);
        let weights = self.peak_resident.saturating_sub(self.at_start + self.weights as u64);
        [live as f64, warm as f64, weights as f64].map(mebibytes)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.warmup + arguments.steps > 0, "there is no step to measure");
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()
        .context("threads")?;
    let device = Device::flex();
    let at_start = process::resident().unwrap_or_default();
    let empty = live_bytes::live();
    let mut run = Run::new(&arguments, &device)?;
    let weights = live_bytes::live();
    run.touch();
    let warm = process::resident().unwrap_or_default();
    let resets = process::reset_peak_resident();
    live_bytes::reset_peak();
    let timings =
        (0..arguments.warmup + arguments.steps).map(|_| run.step()).collect::<Result<Vec<_>>>()?;
    let peak_resident = process::peak_resident().filter(|_| resets).unwrap_or_default();
    let bytes = Bytes { at_start, warm, weights, peak_live: live_bytes::peak(), peak_resident };
    println!("{}", report(&arguments, &bytes, mebibytes((weights - empty) as f64), &timings));
    Ok(())
}

fn report(arguments: &Arguments, bytes: &Bytes, weights: f64, timings: &[Timing]) -> Value {
    let measured = &timings[arguments.warmup.min(timings.len() - 1)..];
    let of = |figure: fn(&Timing) -> f64| measured.iter().map(figure).collect::<Vec<_>>();
    let scores: Vec<f64> = timings.iter().filter_map(|timing| timing.score_ms).collect();
    let [live, above_warm, resident] = bytes.above();
    json!({
        "program": "ist",
        "tag": arguments.tag,
        "method": arguments.method.name(),
        "dim": arguments.dim, "layers": arguments.layers, "vocab": arguments.vocab,
        "batch": arguments.batch, "seq": arguments.seq, "r": arguments.rank,
        "policy": arguments.policy,
        "memory": format!("{:?}", arguments.memory).to_lowercase(),
        "dtype": format!("{:?}", arguments.dtype).to_lowercase(),
        "threads": arguments.threads, "steps": arguments.steps,
        "weights_MiB": weights,
        "peak_above_weights_MiB": live,
        "peak_above_warm_MiB": above_warm,
        "peak_resident_above_weights_MiB": resident,
        "step_ms": tenths(median(of(|timing| timing.wall_ms))),
        "step_ms_min": tenths(of(|timing| timing.wall_ms).into_iter().fold(f64::INFINITY,
        f64::min)),
        "step_cpu_ms": tenths(median(of(|timing| timing.processor_ms))),
        "score_ms": tenths(median(scores.clone())),
        "n_score": scores.len(),
        "loss_first": timings[0].loss,
        "loss_last": timings[timings.len() - 1].loss,
        "loadavg": process::load(),
    })
}

fn mebibytes(bytes: f64) -> f64 {
    tenths(bytes / MIB)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
