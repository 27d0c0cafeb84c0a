//! `ist eval`: the score of a model on a task.

use std::path::PathBuf;

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_models::CausalLm;
use ist_peft::Adapter;

use super::{ModelArgs, print_json, print_text};
use crate::data::{Encoder, EncoderOptions};
use crate::device;
use crate::failure::{Failure, OrFail};
use crate::model_source::{self, WithAdapted};
use crate::run::lines;
use crate::text::TextModel;
use crate::train::evaluate::{self, Score};

/// `ist eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The task: exact-match
    #[arg(long)]
    pub task: String,
    /// Records in a TEXT format
    #[arg(long)]
    pub data: PathBuf,
    /// Use only the first records
    #[arg(long)]
    pub limit: Option<usize>,
    /// The prompt's template: auto, chat, alpaca, llm-adapters, none, or a minijinja string
    #[arg(long, default_value = "auto")]
    pub template: String,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 16)]
    pub max_new_tokens: usize,
    /// Write every record's prediction here, as JSON Lines
    #[arg(long)]
    pub predictions: Option<PathBuf>,
}

/// The tasks there are.
const TASKS: [&str; 1] = ["exact-match"];

/// Evaluates.
pub fn run<A: Adapter>(arguments: &Eval) -> Result<(), Failure> {
    if !TASKS.contains(&arguments.task.as_str()) {
        let found = &arguments.task;
        return Err(Failure::input(format!("unknown task \"{found}\"; available: {}", TASKS.join(", "))));
    }
    let device = device::open(&arguments.model.device)?;
    let files = model_source::find_named(&arguments.model.model)?;
    let job = Job { arguments, text: model_source::text(&files)? };
    let score = model_source::open::<A, _>(&files, DType::F32, &device, arguments.model.adapter.as_deref(), job)?;
    if let Some(path) = &arguments.predictions {
        let line = |prediction| serde_json::to_string(prediction).map(|line| line + "\n");
        let text: String = score.predictions.iter().map(line).collect::<Result<_, _>>().or_run()?;
        lines::replace(path, text.as_bytes()).or_run()?;
    }
    if arguments.model.json {
        return print_json(&score.to_json());
    }
    let (correct, records) = (score.correct(), score.predictions.len());
    let share = 100.0 * correct as f64 / records as f64;
    let majority = 100.0 * score.majority_baseline();
    print_text(&format!(
        "exact match {share:.1} % ({correct} of {records}); the commonest answer alone: {majority:.1} %\n"
    ))
}

struct Job<'a> {
    arguments: &'a Eval,
    text: TextModel,
}

impl<A: Adapter> WithAdapted<A> for Job<'_> {
    type Output = Score;

    fn call<M: CausalLm<A>>(self, model: M) -> Result<Score, Failure> {
        let records = evaluate::read_records(&self.arguments.data, self.arguments.limit)?;
        let options = EncoderOptions {
            template: self.text.template(&self.arguments.template, records[0].format())?,
            train_on_inputs: false,
            cutoff: model.max_position_embeddings(),
            end_tokens: self.text.end_tokens.clone(),
            vocab_size: model.vocab_size(),
        };
        let encoder = Encoder::new(self.text.tokenizer.clone(), options);
        evaluate::score_records(&model, &self.text, &records, self.arguments.max_new_tokens, |records| {
            records.iter().map(|record| encoder.prompt_ids(record)).collect::<Result<Vec<_>, _>>().or_input()
        })
    }
}
