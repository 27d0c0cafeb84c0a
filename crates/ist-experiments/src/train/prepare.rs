//! What a run needs before its first step: data as batches, the tuner, the model's records for the result.

use std::path::Path;

use ist_core::burn::tensor::Device;
use ist_core::optimizer::OffloadTo;
use ist_core::{Tuner, TunerConfig, policy};
use ist_models::{Example, TokenBatch};
use serde_json::{Map, Value, json};

use crate::config::{Padding, RunConfig};
use crate::data::{DataFile, Dataset, Format, pad_left};
use crate::failure::{Failure, OrFail};
use crate::text::TextModel;

/// A run's data.
pub struct Prepared {
    /// The training records.
    pub train: Dataset,
    /// The held-out records.
    pub validation: Option<Dataset>,
    text: Option<TextModel>,
    padding: Padding,
    model: Value,
}

impl Prepared {
    /// Reads and encodes the data of `config` for a model of `vocab_size` tokens and `context` positions.
    ///
    /// `text` is the model's tokenizer, or why it has none; it is needed only where text is read or written.
    pub fn new(
        config: &RunConfig,
        text: Result<TextModel, Failure>,
        model: Value,
        vocab_size: usize,
        context: usize,
    ) -> Result<Self, Failure> {
        if config.data.cutoff > context {
            let found = config.data.cutoff;
            return Err(Failure::input(format!(
                "`data.cutoff` is {found}, but the model's context has {context} positions; lower the cut-off"
            )));
        }
        let file = DataFile::read(&config.data.train, config.data.format).or_input()?;
        let needs_text =
            file.format() != Format::Tokens || config.eval.is_some() || !config.train.sample_prompts.is_empty();
        let text = if needs_text { Some(text?) } else { text.ok() };
        let dataset = |file: &DataFile| match &text {
            Some(text) if file.format() != Format::Tokens => {
                Dataset::from_text(file, &text.encoder(config, vocab_size)?).or_input()
            }
            _ => Dataset::from_tokens(file, vocab_size, config.data.cutoff).or_input(),
        };
        let mut train = dataset(&file)?;
        let mut validation = None;
        if let Some(path) = &config.data.validation {
            validation = Some(dataset(&DataFile::read(path, config.data.format).or_input()?)?);
        } else if let Some(records) = config.data.validation_records {
            let (rest, held_out) = train.split(records, config.seed).or_input()?;
            (train, validation) = (rest, Some(held_out));
        }
        Ok(Self { train, validation, text, padding: config.data.padding, model })
    }

    /// The model's text side.
    pub fn text(&self) -> Result<&TextModel, Failure> {
        self.text
            .as_ref()
            .ok_or_else(|| Failure::input("the model has no tokenizer, but text is to be read or written"))
    }

    /// The named examples of a data set as one padded batch.
    pub fn batch(&self, dataset: &Dataset, records: &[usize], device: &Device) -> TokenBatch {
        let mut examples: Vec<Example> = records.iter().map(|&record| dataset.examples[record].clone()).collect();
        // Token records keep their own padding where it stands and are always filled up on the right.
        if self.padding == Padding::Left && dataset.format != Format::Tokens {
            let longest = examples.iter().map(|example| example.input_ids.len()).max().unwrap_or(0);
            for example in &mut examples {
                pad_left(example, longest, 0);
            }
        }
        TokenBatch::new(&examples, device)
    }

    /// The `data` part of a result.
    pub fn to_json(&self) -> Value {
        let part = |data: &Dataset| {
            json!({
                "sha256": data.digest,
                "records": data.records,
                "used": data.examples.len(),
                "truncated": data.truncated,
                "skipped": data.skipped,
            })
        };
        json!({"train": part(&self.train), "validation": self.validation.as_ref().map(part)})
    }

    /// The `model` part of a result.
    pub fn model_json(&self) -> Value {
        self.model.clone()
    }

    /// Warnings worth a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Dataset { skipped, truncated, records, .. } = &self.train;
        if *skipped > 0 {
            warnings.push(format!("warning: {skipped} of {records} records have nothing to predict and are left out"));
        }
        if *truncated > 0 {
            warnings
                .push(format!("warning: {truncated} of {records} records are longer than `data.cutoff` and were cut"));
        }
        warnings
    }
}

/// The tuner of a run before its first step; resting moments are offloaded to files in `offload`.
pub fn tuner(config: &RunConfig, offload: &Path, num_layers: usize, total_steps: usize) -> Result<Tuner, Failure> {
    let settings = TunerConfig {
        learning_rate: config.optimizer.lr,
        schedule: config.optimizer.schedule,
        min_lr_ratio: 0.0,
        warmup_steps: config.optimizer.warmup_steps,
        total_steps,
        clip_norm: config.optimizer.clip(),
        adamw: config.optimizer.adamw(),
        resting_state: config.optimizer.resting_state,
        offload: OffloadTo::Folder(offload.to_owned()),
    };
    let policy = serde_json::to_value(&config.policy).or_run()?;
    let mut fields: Map<String, Value> = policy.as_object().cloned().unwrap_or_default();
    let kind = fields.remove("kind");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let policy = policy::Registry::default().build(kind, &fields, num_layers).or_input()?;
    Ok(Tuner::new(settings, policy, config.seed))
}
