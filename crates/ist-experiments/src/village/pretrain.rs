//! Pre-training a small LLaMA from scratch, on text the built-in world generates or on a text file.
//!
//! The same walk, optimizer and tuner as everywhere: every weight gets a master that trains, and
//! the policy is `all`.

use std::path::Path;

use anyhow::{Context, anyhow};
use ist_core::burn::tensor::{DType, Device};
use ist_core::policy::All;
use ist_core::step::Memory;
use ist_core::{LayerSet, LayeredModel, Responses, Tuner, TunerConfig, step};
use ist_models::generate::{Settings, generate};
use ist_models::shape::Resident;
use ist_models::{BatchShape, Decoder, DecoderConfig, Example, Shape, TokenBatch};
use ist_peft::Adapter;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::config::{PretrainConfig, TextSource};
use crate::display::{Display, Show};
use crate::machine::free_memory;
use crate::memory_plan::least_step;
use crate::model_folder::{whole, write_model};
use crate::model_source::storage;
use crate::train::observer::RunObserver;
use crate::village::world;
use ist_records::record::lines;
use ist_records::terminal::{interrupt, screen};
use ist_records::{Failure, OrFail};

/// Trains a model and writes it as a folder in Hugging Face layout.
pub fn run<A: Adapter>(
    config: &PretrainConfig,
    device: &Device,
    quiet: bool,
) -> Result<(), Failure> {
    let folder = &config.output;
    whole::must_be_free(folder)?;
    let tokenizer = world::train_tokenizer(config.tokenizer.vocab_size, world::SEED).or_input()?;
    let special = |name: &str| {
        tokenizer.token_to_id(name).ok_or_else(|| Failure::run(format!("no token {name}")))
    };
    let (begin, end, pad) = (special(world::BEGIN)?, special(world::END)?, special(world::PAD)?);
    let document = config_json(config, tokenizer.get_vocab_size(true), [begin, end, pad]);
    let shape =
        DecoderConfig::from_json(document.as_object().cloned().unwrap_or_default()).or_input()?;
    must_fit(config, &shape)?;
    let rows = rows(config, &tokenizer, end)?;
    let mut model = Decoder::<A>::random(shape, config.seed, device).train_everything();
    let mut display = Display::new(Show::unless(quiet));
    display.count(config.train.steps, 0);
    display.say(&format!(
        "{} training rows of {} tokens",
        rows.train.len(),
        config.data.sequence_length
    ));
    let mut tuner = tuner(config, model.layers().len());
    let mut losses = Vec::new();
    interrupt::install();
    for step in 0..config.train.steps {
        let started = std::time::Instant::now();
        let batch = rows.batch(step, config.train.batch, device);
        let report = tuner.step(&mut model, &[batch]).map_err(Failure::run)?;
        losses.push(report.loss);
        display.step(&report, started.elapsed().as_secs_f64());
        let done = step + 1;
        if config.train.eval_every.is_some_and(|every| done % every == 0)
            || done == config.train.steps
        {
            evaluate(config, &model, &rows, &tokenizer, end, &mut display, done)?;
        }
        if interrupt::asked() {
            break;
        }
    }
    display.finish();
    let validation = validation_loss(&model, &rows, config.train.batch);
    whole::write(folder, |folder| {
        write_model::<A>(&model.store_as(storage(config.model.dtype.into())), &document, folder)?;
        write_companions(folder, &tokenizer, [begin, end, pad])?;
        let record = training_record(config, &losses, validation).or_run()?;
        lines::replace(&folder.join("training.json"), &record).or_run()
    })?;
    if losses.len() < config.train.steps {
        let (done, of, shown) = (losses.len(), config.train.steps, folder.display());
        let how = "pre-training cannot be resumed: begin again in another folder for the whole";
        return Err(Failure::Interrupted(format!(
            "stopped after step {done} of {of}; {shown} holds the model so far; {how}"
        )));
    }
    if !quiet {
        screen::line(folder.display());
    }
    Ok(())
}

/// Refuses a model, a text or a batch that this machine has no memory for.
fn must_fit(config: &PretrainConfig, shape: &DecoderConfig) -> Result<(), Failure> {
    let shape = Shape::of(shape.clone());
    let data = &config.data;
    let of_world = [data.tokens, data.validation_tokens].into_iter().flatten();
    let tokens = match data.source {
        TextSource::World => of_world.fold(0, usize::saturating_add) as u64,
        // A file's text ends by itself, whatever number is given.
        TextSource::File(_) => 0,
    };
    let resident = Resident { adapted: &[], storage: DType::F32, arithmetic: DType::F32 };
    let batch = BatchShape::full(config.train.batch, data.sequence_length);
    let footprint = shape.footprint(resident, batch);
    let step = least_step(&footprint, shape.num_layers, Memory::Recompute);
    // Of each parameter the value, its gradient and two moments.
    let model = (shape.parameters as u64).saturating_mul(16);
    let bytes = model.saturating_add(tokens.saturating_mul(4)).saturating_add(step);
    let advice = "make `model` smaller, or lower `data.tokens` or `train.batch`";
    free_memory::must_fit("pre-training", bytes, free_memory::most_on_host(), advice)
}

fn tuner(config: &PretrainConfig, num_layers: usize) -> Tuner {
    let optimizer = &config.optimizer;
    let settings = TunerConfig {
        learning_rate: optimizer.lr,
        schedule: optimizer.schedule,
        min_lr_ratio: optimizer.min_lr_ratio,
        warmup_steps: optimizer.warmup_steps,
        total_steps: config.train.steps,
        clip_norm: optimizer.clip(),
        adamw: optimizer.adamw,
        ..TunerConfig::default()
    };
    Tuner::new(settings, Box::new(All::new(&LayerSet::all(num_layers))), config.seed)
}

/// Token rows to train on and to evaluate.
struct Rows {
    train: Vec<Vec<u32>>,
    validation: Vec<Vec<u32>>,
}

impl Rows {
    /// The rows of one step, in order, starting over when they run out.
    fn batch(&self, step: usize, count: usize, device: &Device) -> TokenBatch {
        let row =
            |at: usize| Example::tokens(self.train[(step * count + at) % self.train.len()].clone());
        TokenBatch::new(&(0..count).map(row).collect::<Vec<_>>(), device)
    }
}

fn rows(config: &PretrainConfig, tokenizer: &Tokenizer, end: u32) -> Result<Rows, Failure> {
    let data = &config.data;
    let validation_tokens = data.validation_tokens.unwrap_or(0);
    let cut = |documents: &mut dyn Iterator<Item = String>, tokens| {
        windows(documents, tokenizer, end, data.sequence_length, tokens).or_run()
    };
    let (train, validation) = match &data.source {
        TextSource::World => (
            cut(&mut world::documents(config.seed), data.tokens.unwrap_or(usize::MAX))?,
            cut(&mut world::documents(config.seed + 1), validation_tokens)?,
        ),
        TextSource::File(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| path.display().to_string())
                .or_input()?;
            let mut documents = text.split("\n\n").map(str::to_owned);
            // The file's head is held out, so that both parts come from one pass.
            let validation = cut(&mut documents, validation_tokens)?;
            (cut(&mut documents, data.tokens.unwrap_or(usize::MAX))?, validation)
        }
    };
    if train.is_empty() {
        return Err(Failure::input(
            "`data.source` holds not even one row of `data.sequence_length` tokens",
        ));
    }
    Ok(Rows { train, validation })
}

/// Rows of `length` tokens cut from documents that follow each other without gaps, each between its
/// begin and its end token.
///
/// A row may begin and end inside a document. At most `tokens` tokens are read.
fn windows(
    documents: &mut dyn Iterator<Item = String>,
    tokenizer: &Tokenizer,
    end: u32,
    length: usize,
    tokens: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let (mut rows, mut pending) = (Vec::new(), Vec::new());
    while (rows.len() + 1) * length <= tokens {
        while pending.len() < length {
            let Some(document) = documents.next() else { return Ok(rows) };
            let encoding =
                tokenizer.encode(document, true).map_err(|error| anyhow!("tokenizer: {error}"))?;
            pending.extend(encoding.get_ids());
            pending.push(end);
        }
        rows.push(pending.drain(..length).collect());
    }
    Ok(rows)
}

fn validation_loss<A: Adapter>(model: &Decoder<A>, rows: &Rows, batch: usize) -> Option<f64> {
    let token_batch = |rows: &[Vec<u32>]| {
        TokenBatch::new(
            &rows.iter().cloned().map(Example::tokens).collect::<Vec<_>>(),
            model.device(),
        )
    };
    let responses = Responses::full(model.layers().len());
    let batches = rows.validation.chunks(batch).map(token_batch);
    (!rows.validation.is_empty()).then(|| step::mean_loss(model, batches, &responses).0)
}

fn evaluate<A: Adapter>(
    config: &PretrainConfig,
    model: &Decoder<A>,
    rows: &Rows,
    tokenizer: &Tokenizer,
    end: u32,
    display: &mut Display,
    done: usize,
) -> Result<(), Failure> {
    if let Some(loss) = validation_loss(model, rows, config.train.batch) {
        display.say(&format!("step {done}: validation loss {loss:.4}"));
    }
    let settings = Settings {
        max_new_tokens: config.train.sample_tokens,
        end_tokens: vec![end],
        ..Settings::default()
    };
    for prompt in &config.train.sample_prompts {
        let encoding = tokenizer
            .encode(prompt.as_str(), true)
            .map_err(|error| anyhow!("tokenizer: {error}"))
            .or_run()?;
        let output = generate(model, &[encoding.get_ids().to_vec()], &settings).or_input()?;
        let text = tokenizer
            .decode(&output[0], true)
            .map_err(|error| anyhow!("tokenizer: {error}"))
            .or_run()?;
        display.say(&format!("step {done}: {prompt} | {text}"));
    }
    Ok(())
}

/// `config.json` of the model.
fn config_json(config: &PretrainConfig, vocab_size: usize, [begin, end, pad]: [u32; 3]) -> Value {
    let shape = &config.model;
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.hidden_size / shape.num_attention_heads,
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
    })
}

fn write_companions(
    folder: &Path,
    tokenizer: &Tokenizer,
    [begin, end, pad]: [u32; 3],
) -> Result<(), Failure> {
    let text = tokenizer.to_string(true).map_err(|error| anyhow!("tokenizer: {error}")).or_run()?;
    lines::replace(&folder.join("tokenizer.json"), text.as_bytes()).or_run()?;
    let documents = [
        (
            "generation_config.json",
            json!({"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}),
        ),
        (
            "tokenizer_config.json",
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": world::BEGIN,
                "eos_token": world::END,
                "pad_token": world::PAD,
            }),
        ),
    ];
    for (name, document) in documents {
        let text = serde_json::to_string_pretty(&document).or_run()? + "\n";
        lines::replace(&folder.join(name), text.as_bytes()).or_run()?;
    }
    Ok(())
}

/// What the training was, beside the model: configuration, losses.
fn training_record(
    config: &PretrainConfig,
    losses: &[f64],
    validation: Option<f64>,
) -> anyhow::Result<Vec<u8>> {
    let tail = &losses[losses.len().saturating_sub(50)..];
    let mut config = serde_json::to_value(config)?;
    // The folder's own place says nothing about the training.
    config.as_object_mut().map(|config| config.remove("output"));
    let record = json!({
        "configuration": config,
        "steps": losses.len(),
        "first_loss": losses.first(),
        "mean_loss_of_the_last_50_steps": tail.iter().sum::<f64>() / tail.len().max(1) as f64,
        "validation_loss": validation,
    });
    Ok((serde_json::to_string_pretty(&record)? + "\n").into_bytes())
}
