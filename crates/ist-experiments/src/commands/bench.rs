//! `ist bench`: what a training step costs on a device, on a model of random weights made there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ist_core::step::Memory;
use ist_models::DecoderConfig;
use ist_peft::Adapter;
use serde_json::json;

use super::print_json;
use crate::config::{Budget, Dtype};
use crate::lab::bench;
use crate::lab::bench::{Setting, Shape};
use crate::machine::device;
use crate::model_source;
use ist_records::Failure;
use ist_records::terminal::{human, screen};

/// Measure training steps on random weights
#[derive(Debug, Args)]
pub struct Bench {
    /// The shape of a published model
    #[arg(long, value_enum, default_value = "7b", conflicts_with = "config")]
    pub shape: Shape,
    /// Another shape: a `config.json`
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// all, ist, rst, lisa, or fixed:2,5
    #[arg(long, default_value = "ist")]
    pub policy: String,
    /// keep, recompute, or a size such as 20GiB for all but the weights
    #[arg(long, default_value = "keep", value_parser = budget)]
    pub memory: Budget,
    /// Storage of the frozen weights; on a GPU also what they are multiplied in
    #[arg(long, value_enum, default_value = "bfloat16")]
    pub dtype: Storage,
    /// LoRA's rank, on the usual modules
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub r: u32,
    /// Records of a step
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Records of a forward pass; default: all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub micro_batch: Option<u32>,
    /// Tokens of a record
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    pub seq: u32,
    /// Steps that are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Steps before them
    #[arg(long, default_value_t = 3)]
    pub warmup: u32,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// What frozen weights are stored as.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Storage {
    /// IEEE single precision.
    Float32,
    /// The upper half of single precision.
    Bfloat16,
    /// IEEE half precision.
    Float16,
}

fn budget(text: &str) -> Result<Budget, String> {
    let found: Budget = serde_json::from_value(json!(text)).map_err(|error| error.to_string())?;
    if found == Budget::Auto {
        Err("expected keep, recompute or a size".to_owned())
    } else {
        Ok(found)
    }
}

impl Bench {
    fn setting(&self) -> Setting {
        let memory = match self.memory {
            Budget::Recompute => Memory::Recompute,
            Budget::Bytes(bytes) => Memory::Budget(bytes),
            Budget::Keep | Budget::Auto => Memory::Keep,
        };
        let dtype = match self.dtype {
            Storage::Float32 => Dtype::Float32,
            Storage::Bfloat16 => Dtype::Bfloat16,
            Storage::Float16 => Dtype::Float16,
        };
        let (batch, sequence) = (self.batch as usize, self.seq as usize);
        let micro_batch = self.micro_batch.map_or(batch, |size| batch.min(size as usize));
        Setting {
            policy: self.policy.clone(),
            memory,
            storage: model_source::storage(dtype),
            rank: self.r as usize,
            batch,
            micro_batch,
            sequence,
            steps: self.steps as usize,
            warmup: self.warmup as usize,
        }
    }

    fn model(&self) -> Result<(String, DecoderConfig), Failure> {
        let Some(path) = &self.config else {
            let name = self
                .shape
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned());
            return Ok((name, self.shape.config()));
        };
        let named =
            |error: &dyn std::fmt::Display| Failure::input(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        Ok((
            path.display().to_string(),
            DecoderConfig::parse(&text).map_err(|error| named(&error))?,
        ))
    }
}

/// Measures and prints.
pub fn run<A: Adapter>(arguments: &Bench) -> Result<(), Failure> {
    let (name, config) = arguments.model()?;
    let setting = arguments.setting();
    let device = device::open(&arguments.device)?;
    device::check_storage(&device, setting.storage)?;
    let found = bench::run::<A>(config, &setting, &device)?;
    let document = json!({
        "program": "ist",
        "shape": name,
        "device": arguments.device,
        "card": found.card,
        "parameters": found.parameters,
        "policy": arguments.policy,
        "memory": arguments.memory,
        "dtype": format!("{:?}", arguments.dtype).to_lowercase(),
        "r": setting.rank, "batch": setting.batch, "micro_batch": setting.micro_batch,
        "seq": setting.sequence,
        "steps": setting.steps,
        "step_ms": found.step_ms,
        "step_ms_min": found.step_ms_min,
        "score_ms": found.score_ms,
        "tokens_per_second": found.tokens_per_second,
        "weights_bytes": found.weights_bytes,
        "peak_bytes": found.peak_bytes,
        "tflops": found.tflops,
        "matmul_peak_tflops": found.matmul_peak_tflops,
        "share_of_peak": found.tflops / found.matmul_peak_tflops,
        "loss_first": found.losses.first(),
        "loss_last": found.losses.last(),
    });
    if arguments.json {
        return print_json(&document);
    }
    screen::result(&format!(
        "{name} on {}: {:.0} tokens/s, {:.1} ms a step, {} at most, {:.1} TFLOP/s ({:.0} % of the \
         device's matrix product)\n",
        found.card,
        found.tokens_per_second,
        found.step_ms,
        human(found.peak_bytes),
        found.tflops,
        100.0 * found.tflops / found.matmul_peak_tflops
    ))
}
