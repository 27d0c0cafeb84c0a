//! What a run needs before its first step: data as batches, the tuner, the model's records for the
//! result.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use ist_core::burn::tensor::Device;
use ist_core::optimizer::OffloadTo;
use ist_core::step::Memory;
use ist_core::{LayerPolicy, LayerSet, Tuner, TunerConfig};
use ist_files::FileName;
use ist_models::shape::AdaptedSite;
use ist_models::{Example, Shape, TokenBatch};
use ist_peft::frozen::half;
use ist_peft::model::adapters::{Adapters, DEFAULT_NAME, Part};
use ist_peft::model::attach;
use ist_peft::{Adapter, Dialect, Site};
use serde_json::{Map, Value, json};

use crate::config::{AdapterTables, Dtype, Padding, PolicyConfig, RunConfig, Source};
use crate::memory_plan::Records;
use crate::text::TextModel;
use crate::text::records::{DataFile, Dataset, FileCounts, Format, Template, files, pad_left};
use ist_records::{Failure, OrFail};

/// A run's data.
pub struct Prepared {
    /// The training records.
    pub train: Dataset,
    /// The held-out records.
    pub validation: Option<Dataset>,
    text: Option<TextModel>,
    padding: Padding,
    template: String,
    model: Value,
    /// What was found beside the data.
    notes: Vec<String>,
}

impl Prepared {
    /// Reads and encodes the data of `config` for a model of that shape, of which nothing needs to
    /// be loaded yet.
    ///
    /// `text` is the model's tokenizer, or why it has none; it is needed only where text is read or
    /// written. `in_front` are the positions that adapters take of the model's context.
    pub fn new(
        config: &RunConfig,
        text: Result<TextModel, Failure>,
        model: Value,
        shape: &Shape,
        in_front: usize,
    ) -> Result<Self, Failure> {
        let context = shape.max_position_embeddings.saturating_sub(in_front);
        if config.data.cutoff > context {
            let found = config.data.cutoff;
            let taken = if in_front > 0 {
                format!(" behind {in_front} of the adapter's")
            } else {
                String::new()
            };
            let advice = match (in_front, context) {
                (0, _) => "lower the cut-off",
                (_, 0) => "lower `adapter.num_virtual_tokens`",
                _ => "lower the cut-off or `adapter.num_virtual_tokens`",
            };
            return Err(Failure::input(format!(
                "`data.cutoff` is {found}, but the model's context has {context} positions{taken}; \
                 {advice}"
            )));
        }
        let mut reader = Reader { config: config.clone(), text, shape };
        let mut notes = Vec::new();
        let train = reader.joined(config.data.train.all(), &mut notes)?;
        // What is held out is laid out as what is trained on.
        let template = template_name(config, reader.text.as_ref().ok(), &train)?;
        reader.config.data.template.clone_from(&template);
        let (train, validation) = reader.held_out(train, &mut notes)?;
        let Reader { text, .. } = reader;
        let needs_text = train.format != Format::Tokens
            || config.eval.is_some()
            || !config.train.sample_prompts.is_empty();
        let text = if needs_text { Some(text?) } else { text.ok() };
        if let Some(text) = &text {
            check_samples(config, text, context)?;
        }
        let padding = config.data.padding;
        Ok(Self { train, validation, text, padding, template, model, notes })
    }

    /// The template of the records, where `data.template = "auto"` was one to be found.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// How conversations are laid out, where there are any.
    pub fn layout(&self) -> Option<String> {
        let chat = self
            .text
            .as_ref()
            .filter(|_| self.train.files.iter().any(|file| file.format == Format::Chat))?
            .chat_template()
            .ok()
            .flatten();
        match (self.template.as_str(), chat) {
            ("chat" | "auto", Some(chat)) => {
                Some(format!("conversations: the model's chat template ({})", chat.file()))
            }
            ("alpaca", Some(_)) => Some(
                "conversations: the default layout (### User:), not the model's chat template"
                    .to_owned(),
            ),
            ("alpaca", None) => Some(
                "conversations: the default layout (### User:); the model has no chat template"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The model's text side.
    pub fn text(&self) -> Result<&TextModel, Failure> {
        self.text.as_ref().ok_or_else(|| {
            Failure::input("the model has no tokenizer, but text is to be read or written")
        })
    }

    /// The named examples of a data set as one padded batch.
    pub fn batch(&self, dataset: &Dataset, records: &[usize], device: &Device) -> TokenBatch {
        let mut examples: Vec<Example> =
            records.iter().map(|&record| dataset.examples[record].clone()).collect();
        // Token records keep their own padding where it stands and are always filled up on the
        // right.
        if self.padding == Padding::Left && dataset.format != Format::Tokens {
            let longest = examples.iter().map(|example| example.input_ids.len()).max().unwrap_or(0);
            for example in &mut examples {
                pad_left(example, longest, 0);
            }
        }
        TokenBatch::new(&examples, device)
    }

    /// What a plan of memory counts with.
    pub fn planned(&self) -> Records {
        let held_out = self.validation.as_ref().map_or(0, |data| Records::of(data).bytes);
        let train = Records::of(&self.train);
        Records { bytes: train.bytes + held_out, ..train }
    }

    /// The `data` part of a result.
    pub fn to_json(&self) -> Value {
        json!({"train": part(&self.train), "validation": self.validation.as_ref().map(part)})
    }

    /// Fails where a record has a key that nothing reads, with every such key by its file.
    pub fn must_read_every_key(&self) -> Result<(), Failure> {
        let faults: Vec<String> = self.dropped_keys().collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Failure::input(format!(
            "--strict: the data has keys that nothing reads\n  {}\n\
             remove them, name the columns in \
             `data.fields`, use a chat template that reads them, or leave --strict out",
            faults.join("\n  ")
        )))
    }

    /// The keys that nothing reads, a line for each file that has any. A file of both data sets is
    /// told once.
    fn dropped_keys(&self) -> impl Iterator<Item = String> {
        let files = self.files().filter(|file| !file.dropped_keys.is_empty());
        files.map(|file| format!("{}: {}", file.path.display(), file.dropped_keys))
    }

    fn files(&self) -> impl Iterator<Item = &FileCounts> {
        // Records that were held out are counted with the file that they are of.
        let apart = self.validation.iter().filter(|data| data.digest != self.train.digest);
        self.train.files.iter().chain(apart.flat_map(|data| &data.files))
    }

    /// The `model` part of a result.
    pub fn model_json(&self) -> Value {
        self.model.clone()
    }

    /// Digests of what the run reads, which a resumed run must find again.
    pub fn inputs(&self) -> Value {
        json!({
            "training data": self.train.digest,
            "validation data": self.validation.as_ref().map(|data| &data.digest),
            "model weights": self.model["sha256"],
        })
    }

    /// Scalars of the model without adapters.
    pub fn frozen_parameters(&self) -> usize {
        self.model["parameters"].as_u64().unwrap_or_default() as usize
    }

    /// Warnings worth a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        for file in self.files() {
            let FileCounts { records, skipped, truncated, blank_answers, begin_twice, .. } = file;
            let mut note = |count: usize, what: &str| {
                if count > 0 {
                    warnings.push(format!("warning: {}: {count} {what}", file.path.display()));
                }
            };
            let of = format!("of {records} records");
            note(*skipped, &format!("{of} have nothing to predict and are left out"));
            let blank = "answers are nothing but white space and are not learned";
            note(*blank_answers, blank);
            note(*truncated, &format!("{of} are longer than `data.cutoff` and were cut"));
            let twice = "begin with the beginning token twice: the text holds it and the tokenizer \
                         adds it; leave it out of the text or of `data.template`";
            note(*begin_twice, &format!("{of} {twice}"));
        }
        let dropped = self.dropped_keys();
        warnings.extend(dropped.map(|keys| format!("warning: keys that nothing reads: {keys}")));
        warnings
    }
}

/// A data set's part of a result.
fn part(data: &Dataset) -> Value {
    let mut part = json!({
        "sha256": data.digest,
        "records": data.records(),
        "used": data.examples.len(),
        "truncated": data.truncated(),
        "skipped": data.skipped(),
        "blank_answers": data.blank_answers(),
        "begin_twice": data.begin_twice(),
        "dropped_keys": data.dropped_keys(),
    });
    if data.files.len() > 1 {
        part["files"] = data.files.iter().map(file_part).collect();
    }
    part
}

fn file_part(file: &FileCounts) -> Value {
    json!({
        "path": file.path,
        "sha256": file.digest,
        "weight": file.weight,
        "format": file.format,
        "records": file.records,
        "truncated": file.truncated,
        "skipped": file.skipped,
        "blank_answers": file.blank_answers,
        "begin_twice": file.begin_twice,
        "dropped_keys": file.dropped_keys,
    })
}

/// What reads a run's files.
struct Reader<'a> {
    config: RunConfig,
    text: Result<TextModel, Failure>,
    shape: &'a Shape,
}

impl Reader<'_> {
    /// The training records without those that are held out, and the records that evaluate.
    fn held_out(
        &self,
        train: Dataset,
        notes: &mut Vec<String>,
    ) -> Result<(Dataset, Option<Dataset>), Failure> {
        let data = &self.config.data;
        if let Some(path) = &data.validation {
            let source = Source { path: path.clone(), weight: 1.0 };
            return Ok((train, Some(self.joined(&[source], notes)?)));
        }
        let Some(records) = data.validation_records else { return Ok((train, None)) };
        let (train, held_out) = train.split(records, self.config.seed).or_input()?;
        Ok((train, Some(held_out)))
    }

    /// The records of several files and folders.
    fn joined(&self, sources: &[Source], notes: &mut Vec<String>) -> Result<Dataset, Failure> {
        let mut parts: Vec<(Dataset, f64)> = Vec::new();
        for source in sources {
            let found = files::at(&source.path).or_input()?;
            if !found.passed_over.is_empty() {
                notes.push(passed_over(&source.path, &found.passed_over));
            }
            for path in found.files {
                let part = self.dataset(&path)?;
                if let Some((first, _)) = parts.first() {
                    same_kind(first, &part)?;
                }
                parts.push((part, source.weight));
            }
        }
        Dataset::joined(parts).or_nothing(self.config.data.cutoff).or_input()
    }

    fn dataset(&self, path: &Path) -> Result<Dataset, Failure> {
        let data = &self.config.data;
        let columns = data.fields.clone().unwrap_or_default();
        let file = DataFile::read_columns(path, data.format, &columns).or_input()?;
        if file.format() == Format::Tokens {
            return Dataset::from_tokens(&file, self.shape.vocab_size, data.cutoff).or_input();
        }
        let text = self.text.as_ref().map_err(Failure::input)?;
        let encoder = text.encoder(&self.config, file.format(), self.shape.vocab_size)?;
        Dataset::from_text(&file, &encoder).or_input()
    }
}

/// Fails where one file holds token ids and another text: batches are filled up on different sides.
fn same_kind(first: &Dataset, other: &Dataset) -> Result<(), Failure> {
    if (first.format == Format::Tokens) == (other.format == Format::Tokens) {
        return Ok(());
    }
    let [one, another] = [first, other].map(|data| data.files[0].path.display());
    Err(Failure::input(format!(
        "`data.train`: of {one} and {another} one holds token ids and one text; \
         give files of one kind"
    )))
}

fn passed_over(folder: &Path, paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let names: Vec<String> = paths.iter().map(name).collect();
    let (folder, names) = (folder.display(), names.join(", "));
    format!("warning: {folder}: not data files of this folder, and not read: {names}")
}

/// The name of the template that `data.template = "auto"` comes to, where it is the same for every
/// file.
fn template_name(
    config: &RunConfig,
    text: Option<&TextModel>,
    train: &Dataset,
) -> Result<String, Failure> {
    let given = config.data.template.clone();
    if given != "auto" {
        return Ok(given);
    }
    let mut names = Vec::new();
    for file in &train.files {
        let text = text.filter(|_| file.format != Format::Tokens);
        let found = text.map(|text| text.template("auto", file.format)).transpose()?;
        names.push(if matches!(found, Some(Template::Chat(_))) { "chat" } else { "alpaca" });
    }
    names.dedup();
    Ok(if let [only] = names.as_slice() { (*only).to_owned() } else { given })
}

/// The configured adapters, matched against a model of that shape.
pub struct Planned<A: Adapter> {
    /// Their configurations.
    pub adapters: Adapters<A>,
    /// The modules of each configuration.
    pub sites: Vec<Vec<Site>>,
}

impl<A: Adapter> Planned<A> {
    /// The layers in which an adapter sits, of a model of `num_layers`.
    pub fn layers(&self, num_layers: usize) -> LayerSet {
        let layers = self.sites.iter().flatten().filter_map(|site| site.layer);
        LayerSet::new(layers, num_layers).expect("sites lie in the model's layers")
    }

    /// The shape of a model with these adapters on: a head that carries one has a table of its own.
    pub fn shape(&self, shape: &Shape) -> Shape {
        let head = shape.outline().shared_head;
        let adapted =
            head.is_some_and(|head| self.sites.iter().flatten().any(|site| *site == head));
        if adapted { shape.untied() } else { shape.clone() }
    }

    /// Positions that the adapters put in front of all tokens.
    pub fn positions_in_front(&self) -> usize {
        self.adapters.configs().map(|config| config.settings.positions_in_front()).sum()
    }

    /// The modules with what their adapters take.
    pub fn adapted(&self) -> Vec<AdaptedSite> {
        let each = self.adapters.configs().zip(&self.sites);
        each.flat_map(|(config, sites)| {
            sites.iter().map(|site| AdaptedSite::planned(&*config.settings, site))
        })
        .collect()
    }
}

/// The configured adapters, read and matched against a model of that shape.
pub fn adapters<A: Adapter>(tables: &AdapterTables, shape: &Shape) -> Result<Planned<A>, Failure> {
    let fault = |error: &dyn Display| Failure::input(format!("`adapter`: {error}"));
    let parts = parts::<A>(tables)?;
    let outline = shape.outline();
    for (table, parts) in tables.tables().iter().zip(&parts) {
        let fresh = parts.iter().filter(|_| table.init_from.is_none());
        for part in fresh {
            attach::check_names::<A>(&shape.sites, &outline, part)
                .map_err(|error| fault(&error))?;
        }
    }
    let mut adapters = Adapters::new(parts.concat());
    let sites = adapters.sites(&shape.sites, &outline).map_err(|error| fault(&error))?;
    Ok(Planned { adapters, sites })
}

/// The adapters of each table: those of the folder it starts from, or the one it describes.
pub fn parts<A: Adapter>(tables: &AdapterTables) -> Result<Vec<Vec<Part<A>>>, Failure> {
    let several = tables.tables().len() > 1;
    let mut taken: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for table in tables.tables() {
        let mut parts = match &table.init_from {
            Some(folder) => {
                let mut parts = ist_peft::read_config::<A>(folder).or_input()?.parts().to_vec();
                if let ([only], false) = (parts.as_mut_slice(), table.method_fields().is_empty()) {
                    let given = parse_adapter::<A>(&table.method_fields())?;
                    only.train_as(&given)
                        .map_err(|error| Failure::input(format!("`adapter`: {error}")))?;
                }
                parts
            }
            None => vec![parse_adapter::<A>(&table.method_fields())?],
        };
        if let (true, [only]) = (several, parts.as_mut_slice()) {
            only.name = table.name.clone().unwrap_or_else(|| only.config().name().to_owned());
        }
        for part in &parts {
            if taken.contains(&part.name) {
                let name = &part.name;
                let message = format!(
                    "`adapter`: two adapters are named \"{name}\"; give each table a `name` of its \
                     own"
                );
                return Err(Failure::input(message));
            }
            // It becomes a folder's name.
            FileName::try_from(part.name.clone())
                .map_err(|error| Failure::input(format!("`adapter.name`: {error}")))?;
            taken.push(part.name.clone());
        }
        all.push(parts);
    }
    Ok(all)
}

/// A method and its fields as a TOML file gives them.
pub fn parse_adapter<A: Adapter>(fields: &Map<String, Value>) -> Result<Part<A>, Failure> {
    match Part::parse(DEFAULT_NAME, fields, Dialect::Toml) {
        Some(part) => part.map_err(|error| Failure::input(format!("`adapter`: {error}"))),
        None => {
            Err(Failure::input(format!("`adapter.method` {} is not supported", fields["method"])))
        }
    }
}

/// Writes each method's usual targets into its table where it names none and the method has any to
/// name.
pub fn name_targets<A: Adapter>(tables: &mut AdapterTables, shape: &Shape) {
    for table in tables.tables_mut() {
        if let Ok(part) = parse_adapter::<A>(&table.method_fields())
            && part.peft_fields().contains_key("target_modules")
        {
            table.name_targets(&attach::usual_targets::<A>(
                &shape.sites,
                shape.roles,
                part.config(),
            ));
        }
    }
}

/// The configured policy over the layers that carry adapters.
pub fn policy(config: &PolicyConfig, layers: &LayerSet) -> Result<Box<dyn LayerPolicy>, Failure> {
    config.build(layers).or_input()
}

/// The tuner of a run before its first step; resting moments are offloaded to files in `offload`,
/// and the parameters named in `rates` learn at that multiple of the base rate.
pub fn tuner(
    config: &RunConfig,
    policy: Box<dyn LayerPolicy>,
    memory: Memory,
    offload: &Path,
    total_steps: usize,
    rates: BTreeMap<String, f64>,
    device: &Device,
) -> Tuner {
    let settings = TunerConfig {
        learning_rate: config.optimizer.lr,
        schedule: config.optimizer.schedule,
        min_lr_ratio: 0.0,
        warmup_steps: config.optimizer.warmup_steps,
        total_steps,
        clip_norm: config.optimizer.clip(),
        memory,
        adamw: config.optimizer.adamw,
        resting_state: config.optimizer.resting_state,
        offload: OffloadTo::Folder(offload.to_owned()),
        rates,
        loss_scaling: loss_scaling(config, device),
    };
    Tuner::new(settings, policy, config.seed)
}

/// Whether a run on that device scales its loss.
pub fn loss_scaling(config: &RunConfig, device: &Device) -> bool {
    let through_float16 = config.model.dtype == Dtype::Float16 && half::is_narrow(device);
    config.train.loss_scaling.applies(through_float16)
}

/// Fails when a `train.sample_prompts` cannot be continued in a context of that many positions.
fn check_samples(config: &RunConfig, text: &TextModel, context: usize) -> Result<(), Failure> {
    let new = config.train.sample_tokens;
    for (prompt, ids) in config.train.sample_prompts.iter().zip(sample_prompt_ids(config, text)?) {
        let length = ids.len();
        if length == 0 || length.saturating_add(new) > context {
            let expected = format!(
                "expected 1 to {} tokens before {new} new ones",
                context.saturating_sub(new)
            );
            return Err(Failure::input(format!(
                "`train.sample_prompts`: \"{prompt}\" has {length} tokens, {expected} \
                 (`train.sample_tokens`)"
            )));
        }
    }
    Ok(())
}

/// The tokens of every `train.sample_prompts`.
pub fn sample_prompt_ids(config: &RunConfig, text: &TextModel) -> Result<Vec<Vec<u32>>, Failure> {
    config.train.sample_prompts.iter().map(|prompt| text.encode(prompt)).collect()
}
