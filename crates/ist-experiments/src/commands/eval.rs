//! `ist eval`: the score of a model on a task, or the row of several.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_files::regular;
use ist_models::{Decoder, ModelFiles};
use ist_peft::Adapter;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{ModelArgs, print_json};
use crate::evaluate::tasks::ask::{Asking, Examiner, Way};
use crate::evaluate::tasks::predictions::Log;
use crate::evaluate::tasks::questions::Questions;
use crate::evaluate::tasks::row::Row;
use crate::evaluate::tasks::{Answers, Score, Selection, Task, files};
use crate::machine::device;
use crate::model_source::{self, Opening};
use crate::text::TextModel;
use crate::text::records::{Encoder, EncoderOptions};
use ist_records::Failure;
use ist_records::terminal::progress::Progress;
use ist_records::terminal::screen;

/// `ist eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The task, or several: boolq,piqa; commonsense, arithmetic, all
    #[arg(long)]
    pub task: String,
    /// The task's records; of several tasks a folder with NAME/test.json in it
    #[arg(long)]
    pub data: PathBuf,
    /// Use only the first records of every task
    #[arg(long)]
    pub limit: Option<usize>,
    /// How the model answers
    #[arg(long, value_enum, default_value_t = Way::Generate)]
    pub by: Way,
    /// The prompt's template: auto, chat, alpaca, llm-adapters, none, or a minijinja string
    /// [default: the task's own]
    #[arg(long)]
    pub template: Option<String>,
    /// Beams of the search for a reply; 1 is greedy
    #[arg(long, default_value = "1")]
    pub beams: NonZeroUsize,
    /// Records asked at once
    #[arg(long, default_value = "16")]
    pub batch: NonZeroUsize,
    /// Tokens a reply may have [default: the task's own: 16, 32 or 256]
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    /// Write every record's prediction here, as JSON Lines, and go on with those that are there
    #[arg(long)]
    pub predictions: Option<PathBuf>,
}

/// Evaluates.
pub fn run<A: Adapter>(arguments: &Eval, quiet: bool) -> Result<(), Failure> {
    let selection = Selection::parse(&arguments.task)?;
    check_way(arguments, &selection)?;
    let found = files::find(&selection, &arguments.data)?;
    let read =
        |(task, path): &(&'static Task, PathBuf)| Questions::read(task, path, arguments.limit);
    let sets: Vec<Questions> = found.files.iter().map(read).collect::<Result<_, _>>()?;
    let device = device::open(&arguments.model.device)?;
    let files = model_source::find_named(&arguments.model.model)?;
    let text = model_source::text(&files)?;
    let mut log = match &arguments.predictions {
        Some(path) => Log::open(path, &settings(arguments, &files, &sets)?)?,
        None => Log::none(),
    };
    let model = model_source::open::<A>(Opening {
        files: &files,
        storage: DType::F32,
        device: &device,
        adapter: arguments.model.adapter.as_deref(),
    })?;
    let scoring = Scoring { arguments, text: &text, quiet };
    let scores = sets
        .iter()
        .map(|questions| scoring.score(&model, questions, &mut log))
        .collect::<Result<Vec<Score>, Failure>>()?;
    if !selection.is_row() {
        return show(arguments, &scores[0]);
    }
    let row = Row::new(scores, found.missing, selection.groups);
    if !quiet {
        screen::text(row.table());
    }
    if arguments.model.json { print_json(&row.to_json()) } else { Ok(()) }
}

/// Refuses to compare options where there are none, and settings that would have no effect.
fn check_way(arguments: &Eval, selection: &Selection) -> Result<(), Failure> {
    if arguments.limit == Some(0) {
        return Err(Failure::input("--limit must be at least 1, found 0"));
    }
    if arguments.by == Way::Generate {
        return Ok(());
    }
    let free: Vec<&str> = selection
        .tasks
        .iter()
        .filter(|task| !task.answers().has_options())
        .map(|task| task.name())
        .collect();
    if !free.is_empty() {
        return Err(Failure::input(format!(
            "--by likelihood compares the options of a question, and {} {} none; use --by \
             generate, or leave {} out",
            free.join(", "),
            if free.len() == 1 { "has" } else { "have" },
            if free.len() == 1 { "it" } else { "them" },
        )));
    }
    if arguments.beams.get() > 1 || arguments.max_new_tokens.is_some() {
        return Err(Failure::input(
            "--beams and --max-new-tokens are for --by generate: nothing is written otherwise",
        ));
    }
    Ok(())
}

impl Eval {
    fn template(&self, task: &Task) -> String {
        self.template.clone().unwrap_or_else(|| task.template().to_owned())
    }

    fn asking(&self, task: &Task) -> Asking {
        let max_new_tokens = self.max_new_tokens.unwrap_or(task.max_new_tokens());
        Asking { way: self.by, beams: self.beams, batch: self.batch, max_new_tokens }
    }
}

/// Of every task, what decides its predictions.
fn settings(
    arguments: &Eval,
    files: &ModelFiles,
    sets: &[Questions],
) -> Result<Map<String, Value>, Failure> {
    let model = model_source::describe(&arguments.model.model, files)?["sha256"].clone();
    let adapter = arguments.model.adapter.as_deref().map(digest).transpose()?;
    let of = |set: &Questions| {
        let (task, asking) = (set.task(), arguments.asking(set.task()));
        let mut settings = json!({"model": model, "adapter": adapter, "data": set.digest(),
            "by": arguments.by.name()});
        settings["template"] = arguments.template(task).into();
        if arguments.by == Way::Generate {
            settings["beams"] = asking.beams.get().into();
            settings["max_new_tokens"] = asking.max_new_tokens.into();
        }
        (task.name().to_owned(), settings)
    };
    Ok(sets.iter().map(of).collect())
}

/// SHA-256 over the files of an adapter's folder, by name.
fn digest(folder: &Path) -> Result<String, Failure> {
    let named = |error: std::io::Error| Failure::input(format!("{}: {error}", folder.display()));
    let entries =
        std::fs::read_dir(folder).map_err(named)?.collect::<Result<Vec<_>, _>>().map_err(named)?;
    let mut paths: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let mut digest = Sha256::new();
    for path in paths {
        digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        digest.update(Sha256::digest(regular::read(&path).map_err(named)?));
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The outcome of a single task.
fn show(arguments: &Eval, score: &Score) -> Result<(), Failure> {
    if arguments.model.json {
        return print_json(&score.to_json());
    }
    let accuracy = score.accuracy();
    let [low, high] = accuracy.interval().map(|bound| 100.0 * bound);
    let (correct, records) = (score.correct(), score.records());
    let name =
        if score.task().answers() == Answers::Whole { "exact match" } else { score.task().name() };
    let mut lines = vec![format!(
        "{name} {:.1} % ({correct} of {records}, 95 % interval {low:.1} to {high:.1}); the \
         commonest answer alone: {:.1} %",
        100.0 * accuracy.share(),
        100.0 * score.majority_baseline(),
    )];
    if let Some([tokens, bytes]) = score.normalised() {
        let (tokens, bytes) = (100.0 * tokens.share(), 100.0 * bytes.share());
        lines.push(format!("by log-likelihood per token {tokens:.1} %, per byte {bytes:.1} %"));
    }
    if score.unanswered() > 0 {
        let unanswered = score.unanswered();
        lines.push(format!("without an answer, and counted as wrong: {unanswered}"));
    }
    if score.too_long() > 0 {
        let too_long = score.too_long();
        lines.push(format!(
            "of these not asked, because they do not fit the model's context: {too_long}"
        ));
    }
    screen::result(&(lines.join("\n") + "\n"))
}

/// What a model is scored with, task by task.
struct Scoring<'a> {
    arguments: &'a Eval,
    text: &'a TextModel,
    quiet: bool,
}

impl Scoring<'_> {
    fn score<A: Adapter>(
        &self,
        model: &Decoder<A>,
        questions: &Questions,
        log: &mut Log,
    ) -> Result<Score, Failure> {
        let task = questions.task();
        let options = EncoderOptions {
            template: self.text.template(&self.arguments.template(task), questions.format())?,
            train_on_inputs: false,
            cutoff: model.max_position_embeddings(),
            end_tokens: self.text.end_tokens.clone(),
            vocab_size: model.vocab_size(),
        };
        let encoder = Encoder::new(self.text.tokenizer.clone(), options);
        let dropped = questions.dropped_keys(&encoder.options().template);
        if !self.quiet && !dropped.is_empty() {
            screen::line(format!("warning: {task}: keys that nothing reads: {dropped}"));
        }
        let asking = self.arguments.asking(task);
        let examiner = Examiner { model, text: self.text, encoder: &encoder, asking };
        let mut progress = Progress::new(task.name(), questions.all().len(), self.quiet);
        let predictions = examiner.ask(questions, log, |done| progress.reach(done))?;
        progress.finish();
        Ok(Score::of(task, self.arguments.by, &predictions))
    }
}
