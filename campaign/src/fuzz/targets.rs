//! What is fuzzed: one function for each format that `ist` reads, given a folder of which one file
//! was mutated.
//!
//! Everything that the campaign calls of the project's libraries is called here. A target returns
//! nothing: an error is right, a panic, an abort, a hang and a flood of memory are not.

use std::path::Path;

use anyhow::{Context, Result};
use ist_core::LayerSet;
use ist_core::burn::tensor::{DType, Device};
use ist_core::policy::Registry;
use ist_experiments::evaluate::tasks;
use ist_experiments::evaluate::tasks::predictions;
use ist_experiments::evaluate::tasks::questions::Questions;
use ist_experiments::machine::device;
use ist_experiments::study::manifest;
use ist_experiments::text::TextModel;
use ist_experiments::text::chat_template::ChatTemplate;
use ist_experiments::text::records::{
    DataFile, Dataset, Encoder, EncoderOptions, Format, Template,
};
use ist_experiments::{config, model_source};
use ist_models::hub::checkpoint::Checkpoint;
use ist_models::text::text_files::ChatTemplateSource;
use ist_models::{Decoder, ModelFiles, registry};
use ist_peft::files::{self, foreign};
use ist_peft::{BuiltinAdapter, TensorFile};
use ist_records::Failure;
use ist_records::record::{digests, lines, result, tensorboard};
use ist_records::report::{At, Report};
use ist_records::study::claim;

/// A reader that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: &'static str,
    /// The folder of its cases in the corpus.
    pub(crate) corpus: &'static str,
    /// Reads a case's folder.
    pub(crate) read: fn(&World, &Path),
    /// Whether it changes the folder, which must then be made anew.
    pub(crate) writes: bool,
}

/// A reader with a corpus of its own name.
const fn reader(name: &'static str, read: fn(&World, &Path)) -> Target {
    Target { name, corpus: name, read, writes: false }
}

/// A reader that changes the folder it reads.
const fn writer(name: &'static str, corpus: &'static str, read: fn(&World, &Path)) -> Target {
    Target { name, corpus, read, writes: true }
}

/// What the readers need beside their files.
pub(crate) struct World {
    text: TextModel,
    vocab_size: usize,
    small: ModelFiles,
    device: Device,
}

/// All readers.
pub(crate) const ALL: [Target; 21] = [
    reader("config", run_config),
    reader("pretrain-config", pretrain_config),
    reader("records", records),
    reader("parquet", records),
    reader("questions", questions),
    reader("chat-template", chat_template),
    reader("prompt-template", prompt_template),
    reader("tensors", tensors),
    reader("adapter", adapter),
    writer("old-adapter", "adapter", old_adapter),
    reader("model-config", model_config),
    reader("model", model),
    reader("tokenizer", tokenizer),
    reader("sentencepiece", tokenizer),
    reader("run", run),
    writer("run-logs", "run", run_logs),
    writer("tensorboard", "run", event_file),
    reader("study", study),
    writer("predictions", "predictions", known_predictions),
    writer("checkpoint", "checkpoint", checkpoint),
    reader("replay", replay),
];

/// The cut-off of records.
const CUTOFF: usize = 64;
/// Text that every tokenizer is given.
const TEXT: &str = "Mira eats honey at the mill.\n\u{e9}\u{1f642} 42";

impl World {
    /// Opens the built-in model's text side, and a small model that adapters are put on.
    pub(crate) fn new(corpus: &Path) -> Result<Self> {
        let village =
            model_source::find_named("builtin:village").map_err(|failure| said(&failure))?;
        let shape = registry::shape(&village)?;
        let small = corpus.join("model/made-whole");
        let small = ModelFiles::in_folder(&small).with_context(|| small.display().to_string())?;
        Ok(Self {
            text: model_source::text(&village).map_err(|failure| said(&failure))?,
            vocab_size: shape.vocab_size,
            small,
            device: device::open("cpu").map_err(|failure| said(&failure))?,
        })
    }

    fn small_model(&self) -> Option<Decoder<BuiltinAdapter>> {
        registry::load(&self.small, DType::F32, &self.device).ok()
    }

    fn encoder(&self, template: Template) -> Encoder {
        let options = EncoderOptions {
            template,
            train_on_inputs: false,
            cutoff: CUTOFF,
            end_tokens: self.text.end_tokens.clone(),
            vocab_size: self.vocab_size,
        };
        Encoder::new(self.text.tokenizer.clone(), options)
    }
}

fn said(failure: &Failure) -> anyhow::Error {
    anyhow::anyhow!("{failure}")
}

/// `run.toml`, and what it extends.
fn run_config(_: &World, folder: &Path) {
    if let Ok(config) = config::load(&folder.join("run.toml"), &[]) {
        let _ = config::parse_with::<BuiltinAdapter>(
            &folder.join("config.toml"),
            &config.to_toml(),
            true,
        );
    }
}

fn pretrain_config(_: &World, folder: &Path) {
    let _ = config::load_pretrain(&folder.join("pretrain.toml"), &[]);
}

/// `records`: JSON, JSON Lines or Parquet.
fn records(world: &World, folder: &Path) {
    let Ok(file) = DataFile::read(&folder.join("records"), Format::Auto) else { return };
    if file.format() == Format::Tokens {
        let _ = Dataset::from_tokens(&file, world.vocab_size, CUTOFF);
        return;
    }
    if let Ok(template) = world.text.template("auto", file.format()) {
        let _ = Dataset::from_text(&file, &world.encoder(template));
    }
}

/// `records` as the questions of three kinds of tasks.
fn questions(_: &World, folder: &Path) {
    for name in ["exact-match", "boolq", "gsm8k"] {
        if let Ok(task) = tasks::named(name)
            && let Ok(read) = Questions::read(task, &folder.join("records"), Some(8))
        {
            read.all().iter().for_each(|question| drop(question.options(task)));
        }
    }
}

/// `template.jinja` on three conversations.
fn chat_template(world: &World, folder: &Path) {
    let Ok(source) = std::fs::read_to_string(folder.join("template.jinja")) else { return };
    let special_tokens = vec![
        ("bos_token".to_owned(), "<s>".to_owned()),
        ("eos_token".to_owned(), "</s>".to_owned()),
    ];
    let source = ChatTemplateSource { file: "chat_template.jinja", source, special_tokens };
    let Ok(template) = ChatTemplate::new(&source) else { return };
    let _ = template.closing();
    let template = Template::Chat(std::sync::Arc::new(template));
    if let Ok(file) = DataFile::read(&folder.join("records"), Format::Chat) {
        let _ = Dataset::from_text(&file, &world.encoder(template));
    }
}

/// `template.jinja` as `data.template`.
fn prompt_template(world: &World, folder: &Path) {
    let Ok(source) = std::fs::read_to_string(folder.join("template.jinja")) else { return };
    if let Ok(template) = Template::parse(&source)
        && let Ok(file) = DataFile::read(&folder.join("records"), Format::Auto)
    {
        let _ = Dataset::from_text(&file, &world.encoder(template));
    }
}

/// Any safetensors file.
fn tensors(_: &World, folder: &Path) {
    let Ok(file) = TensorFile::open(&folder.join("tensors.safetensors")) else { return };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in &names {
        let _ = (file.shape(name), file.dtype(name));
        let _ = file.finite_floats(name);
    }
    let _ = file.metadata();
}

/// A PEFT folder, put on a small model.
fn adapter(world: &World, folder: &Path) {
    if files::read_config::<BuiltinAdapter>(folder).is_err() {
        return;
    }
    if let Some(mut model) = world.small_model() {
        let _ = files::load::<BuiltinAdapter>(&mut model, folder, &world.device);
    }
}

/// A folder of an older program.
fn old_adapter(_: &World, folder: &Path) {
    let to = folder.join("converted");
    if std::fs::create_dir_all(&to).is_ok() {
        let _ = foreign::convert(folder, &to);
    }
}

/// A model's `config.json`: its shape, and what llama.cpp would be told of it.
fn model_config(_: &World, folder: &Path) {
    let Ok(files) = ModelFiles::in_folder(folder) else { return };
    let _ = registry::shape(&files);
    let _ = files.end_tokens();
}

/// A model with its weights, whole or in shards.
fn model(world: &World, folder: &Path) {
    let Ok(files) = ModelFiles::in_folder(folder) else { return };
    let _ = Checkpoint::open(folder);
    let _ = registry::load::<BuiltinAdapter>(&files, DType::F32, &world.device);
}

/// The files of a model that bear on text.
fn tokenizer(_: &World, folder: &Path) {
    let Ok(files) = ModelFiles::in_folder(folder) else { return };
    let _ = files.chat_template();
    let Ok(text) = model_source::text(&files) else { return };
    if let Ok(ids) = text.encode(TEXT) {
        let _ = text.decode(&ids);
    }
    let _ = text.decode(&[0, 1, 2, 250, 299]);
}

/// A run's folder, in a report.
fn run(_: &World, folder: &Path) {
    let Ok(report) = Report::read(&[folder.to_owned()], None, At::End) else { return };
    let _ = report.html();
    drop((report.markdown(), report.csv(), report.curves(), report.json()));
}

/// A run's logs, as a resumed run reads them.
fn run_logs(_: &World, folder: &Path) {
    for name in ["metrics.jsonl", "selections.jsonl", "importance.jsonl"] {
        let _ = lines::read(&folder.join(name));
        let _ = lines::bytes_before(&folder.join(name), 4, Some("loss"));
    }
    let _ = result::selection_counts(&folder.join("selections.jsonl"), 8);
    let _ = config::read(&folder.join("config.toml"), &[]);
}

/// A run's event file, as a resumed run reads it.
fn event_file(_: &World, folder: &Path) {
    drop(tensorboard::EventLog::open(folder, 4));
}

/// A study's manifest and claims.
fn study(_: &World, folder: &Path) {
    if let Ok(Some(manifest)) = manifest::read(folder) {
        for member in &manifest.members {
            let _ = member.steps();
            let _ = member.config::<BuiltinAdapter>(folder, false);
        }
    }
    let _ = claim::look(&folder.join("claims"), "seed=1");
}

/// Predictions that an evaluation continues.
fn known_predictions(_: &World, folder: &Path) {
    let settings = std::fs::read(folder.join("predictions.jsonl.settings.json")).ok();
    let settings = settings.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(settings) = settings {
        let _ = predictions::Log::open(&folder.join("predictions.jsonl"), &settings);
    }
}

/// A checkpoint's tensors and digests, and an adapter for llama.cpp made of them.
fn checkpoint(world: &World, folder: &Path) {
    if let Ok(file) = TensorFile::open(&folder.join("optimizer.safetensors")) {
        file.names().for_each(|name| drop(file.data(name)));
    }
    let _ = std::fs::read(folder.join("state.json"))
        .map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes));
    if let Ok(Some(digests)) = digests::Digests::check(folder) {
        let _ = digests::check_logs(folder, &["metrics.jsonl"], &digests.logs);
    }
    if let Ok(config) = world.small.decoder_config() {
        let _ =
            ist_models::gguf::write_llama_adapter(folder, &config, None, &folder.join("a.gguf"));
    }
}

/// The log of an earlier run as a policy.
fn replay(_: &World, folder: &Path) {
    let mut fields = serde_json::Map::new();
    let path = folder.join("selections.jsonl");
    fields.insert("path".to_owned(), path.to_string_lossy().into_owned().into());
    let _ = Registry::default().build("replay", &fields, &LayerSet::all(8));
}
