//! One measurement of loading, scoring or generating in a fresh process; prints one line of JSON.
//!
//! The counterpart of `benches/peer/infer.py`, with the same names of flags and fields, on a model
//! folder that `benches/peer/make_model.py` wrote. Both read the same tokens, so their answers can
//! be compared too.

#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use ist_benches::measure::{MIB, median};
use ist_benches::process;
use ist_core::burn::tensor::{DType, Device};
use ist_experiments::machine::live_bytes;
use ist_experiments::machine::live_bytes::PeakAlloc;
use ist_models::generate::{Generation, Settings};
use ist_models::{Decoder, Example, ModelFiles, TokenBatch, registry};
use ist_peft::BuiltinAdapter;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

type Model = Decoder<BuiltinAdapter>;

/// One measurement of IST on a model folder in a fresh process.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    #[arg(long, value_enum)]
    what: What,
    /// A folder in Hugging Face layout.
    #[arg(long)]
    model: PathBuf,
    /// Threads of the matrix products and of the operations.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rows of a batch that is scored or continued.
    #[arg(long, default_value_t = 1)]
    rows: usize,
    /// Tokens of a row that is scored.
    #[arg(long, default_value_t = 256)]
    seq: usize,
    /// Tokens of the longest prompt; those of further rows are shorter, down to a little over half
    /// of it.
    #[arg(long, default_value_t = 64)]
    prompt: usize,
    /// Tokens that are generated.
    #[arg(long, default_value_t = 64)]
    new: usize,
    /// Repetitions that are measured, after one that is not.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// The type in which the weights lie once loaded.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Storage,
    /// Copied to the output.
    #[arg(long, default_value = "")]
    tag: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// From the folder to a usable model, beside reading the file's bytes.
    Load,
    /// The log-probabilities of `rows` × `seq` tokens.
    Score,
    /// `new` tokens behind `rows` prompts, greedy.
    Generate,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Storage {
    F32,
    /// As the file has it.
    File,
}

impl Arguments {
    fn load(&self) -> Result<Model> {
        let files = ModelFiles::in_folder(&self.model)?;
        let storage = match self.dtype {
            Storage::F32 => DType::F32,
            Storage::File => files.dtype()?,
        };
        Ok(registry::load(&files, storage, &Device::flex())?)
    }

    /// Tokens of one prompt, by its row.
    fn prompt_length(&self, row: usize) -> usize {
        self.prompt - row * self.prompt / (2 * self.rows)
    }
}

/// Tokens without a pattern that a model of random weights would notice; the peer makes the same
/// ones.
fn tokens(row: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|t| ((row * 31 + t * 17 + t * t * 7) % vocabulary) as u32).collect()
}

/// Milliseconds of wall time and of processor time.
fn timed<T>(work: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let (start, before) = (Instant::now(), process::processor_ms());
    let result = work();
    let wall = start.elapsed().as_secs_f64() * 1e3;
    let processor =
        process::processor_ms().zip(before).map_or(f64::NAN, |(after, before)| after - before);
    (result, [wall, processor])
}

/// The medians of wall time and of processor time.
fn medians(times: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|kind| hundredths(median(times.iter().map(|time| time[kind]).collect())))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.repeat > 0 && arguments.rows > 0 && arguments.new > 1,
        "there is nothing to measure"
    );
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()
        .context("threads")?;
    let mut line = json!({
        "program": "ist",
        "tag": arguments.tag,
        "what": format!("{:?}", arguments.what).to_lowercase(),
        "model": arguments.model,
        "dtype": format!("{:?}", arguments.dtype).to_lowercase(),
        "threads": arguments.threads, "repeat": arguments.repeat,
    });
    let figures = match arguments.what {
        What::Load => load(&arguments)?,
        What::Score => on_model(&arguments, |arguments, model| Ok(score(arguments, model)))?,
        What::Generate => on_model(&arguments, generate)?,
    };
    for fields in [figures, json!({"loadavg": process::load()})] {
        let fields = fields.as_object().cloned().unwrap_or_default();
        line.as_object_mut().expect("the line is an object").extend(fields);
    }
    println!("{line}");
    Ok(())
}

/// Loading in turn with reading the same bytes by `std::fs::read`, the file being in the system's
/// cache.
fn load(arguments: &Arguments) -> Result<Value> {
    let file = arguments.model.join("model.safetensors");
    drop(black_box(read(&file)?));
    let at_start = process::resident().unwrap_or_default();
    let resets = process::reset_peak_resident();
    live_bytes::reset_peak();
    let before = live_bytes::live();
    let (model, first) = timed(|| arguments.load());
    let model = model?;
    let (weights, peak) = (live_bytes::live() - before, live_bytes::peak() - before);
    let peak_resident = process::peak_resident().filter(|_| resets).unwrap_or_default();
    drop(black_box(model));
    let (mut loads, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..arguments.repeat {
        reads.push(timed(|| read(&file).map(black_box).map(drop)).1);
        loads.push(timed(|| arguments.load().map(black_box)).1);
    }
    reads.push(timed(|| read(&file).map(black_box).map(drop)).1);
    let ([wall, processor], [read, read_processor]) = (medians(&loads), medians(&reads));
    Ok(json!({
        "file_MiB": tenths(std::fs::metadata(&file)?.len() as f64 / MIB),
        "weights_MiB": tenths(weights as f64 / MIB),
        "peak_counted_over_weights": hundredths(peak as f64 / weights as f64),
        "peak_resident_MiB": tenths(peak_resident.saturating_sub(at_start) as f64 / MIB),
        "first_ms": hundredths(first[0]),
        "ms": wall, "cpu_ms": processor, "read_ms": read, "read_cpu_ms": read_processor,
    }))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}

/// `measure` on the loaded model, and the most resident memory above the weights while it ran. What
/// the allocator kept from loading counts as the measured work's.
fn on_model(
    arguments: &Arguments,
    measure: fn(&Arguments, &Model) -> Result<Value>,
) -> Result<Value> {
    let at_start = process::resident().unwrap_or_default();
    let before = live_bytes::live();
    let model = arguments.load()?;
    let weights = live_bytes::live() - before;
    drop(score_once(&model, 1, 8));
    let resets = process::reset_peak_resident();
    live_bytes::reset_peak();
    let mut figures = measure(arguments, &model)?;
    let resident = process::peak_resident().filter(|_| resets).unwrap_or_default();
    figures["weights_MiB"] = json!(tenths(weights as f64 / MIB));
    figures["peak_counted_MiB"] =
        json!(tenths(live_bytes::peak().saturating_sub(before + weights) as f64 / MIB));
    figures["peak_resident_MiB"] =
        json!(tenths(resident.saturating_sub(at_start + weights as u64) as f64 / MIB));
    Ok(figures)
}

fn score_once(model: &Model, rows: usize, sequence: usize) -> Vec<f32> {
    let examples: Vec<_> =
        (0..rows).map(|row| Example::tokens(tokens(row, sequence, model.vocab_size()))).collect();
    model
        .token_log_probabilities(&TokenBatch::new(&examples, model.device()))
        .into_data()
        .iter::<f32>()
        .collect()
}

fn score(arguments: &Arguments, model: &Model) -> Value {
    let once = || score_once(model, arguments.rows, arguments.seq);
    let scores = once();
    let times: Vec<_> = (0..arguments.repeat).map(|_| timed(once).1).collect();
    let [wall, processor] = medians(&times);
    let count = (arguments.rows * arguments.seq) as f64;
    json!({
        "rows": arguments.rows, "seq": arguments.seq,
        "ms": wall, "cpu_ms": processor, "tokens_per_s": tenths(count / wall * 1e3),
        "mean_log_probability": scores.iter().map(|&score| f64::from(score)).sum::<f64>() / scores.len() as f64,
    })
}

/// One generation: the prompts with the first token, and every token after it.
fn generate(arguments: &Arguments, model: &Model) -> Result<Value> {
    let prompts: Vec<_> = (0..arguments.rows)
        .map(|row| tokens(row, arguments.prompt_length(row), model.vocab_size()))
        .collect();
    let settings = Settings { max_new_tokens: arguments.new, ..Settings::default() };
    let mut outputs = Vec::new();
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for _ in 0..=arguments.repeat {
        let mut generation = Generation::new(model, &prompts, &settings)?;
        prefills.push(timed(|| generation.step()).1);
        let steps = (arguments.new - 1) as f64;
        decodes.push(timed(|| while generation.step() {}).1.map(|time| time / steps));
        outputs = generation.into_outputs();
    }
    let ([prefill, prefill_processor], [wall, processor]) =
        (medians(&prefills[1..]), medians(&decodes[1..]));
    Ok(json!({
        "rows": arguments.rows, "prompt": arguments.prompt, "new": arguments.new,
        "prefill_ms": prefill, "prefill_cpu_ms": prefill_processor,
        "ms": wall, "cpu_ms": processor, "tokens_per_s": tenths(arguments.rows as f64 / wall * 1e3),
        "outputs": outputs,
    }))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
