//! `ist train`: from arguments to a [`Run`].

use std::path::{Path, PathBuf};

use ist_core::burn::tensor::Device;
use ist_models::CausalLm;
use ist_peft::{Adapter, Dialect, attach};

use crate::cli::Train;
use crate::config::{self, RunConfig};
use crate::data::{EpochOrder, Order};
use crate::failure::{Failure, OrFail};
use crate::model_source::{self, WithAdapted};
use crate::run::folder::{self, RunFolder};
use crate::run::lines;
use crate::train::prepare::{self, Prepared};
use crate::train::{Run, Start, interrupt, summary};
use crate::{device, text::TextModel};

/// Trains.
pub fn run<A: Adapter>(arguments: &Train, quiet: bool, verbose: bool) -> Result<(), Failure> {
    let config = config::load_with::<A>(&arguments.config, &arguments.overrides).or_input()?;
    let device = device::open(&arguments.device)?;
    let name = arguments.config.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
    let path = output(arguments, name)?;
    let files = model_source::find(&config.model.path)?;
    let described = model_source::describe(&config.model.path.to_string(), &files)?;
    let job = Job {
        config: &config,
        path,
        resume: arguments.resume,
        quiet,
        verbose,
        device: &device,
        described,
        text: model_source::text(&files),
    };
    let storage = model_source::storage(config.model.dtype);
    let result = model_source::open::<A, _>(&files, storage, &device, None, job)?;
    if arguments.json {
        return super::print_json(&result);
    }
    Ok(())
}

/// The run's folder.
fn output(arguments: &Train, name: &str) -> Result<PathBuf, Failure> {
    match (&arguments.output, arguments.resume) {
        (Some(path), _) => Ok(path.clone()),
        (None, false) => Ok(folder::next_free(name)),
        (None, true) => folder::newest(name)
            .ok_or_else(|| Failure::input(format!("no run runs/{name}-<n> to resume; name its folder with --output"))),
    }
}

struct Job<'a> {
    config: &'a RunConfig,
    path: PathBuf,
    resume: bool,
    quiet: bool,
    verbose: bool,
    device: &'a Device,
    described: serde_json::Value,
    text: Result<TextModel, Failure>,
}

impl<A: Adapter> WithAdapted<A> for Job<'_> {
    type Output = serde_json::Value;

    fn call<M: CausalLm<A>>(self, mut model: M) -> Result<serde_json::Value, Failure> {
        let config = self.config;
        let (vocabulary, context) = (model.vocab_size(), model.max_position_embeddings());
        let data = Prepared::new(config, self.text, self.described, vocabulary, context)?;
        let adapter = put_adapters_on::<A, M>(config, &mut model, self.device)?;
        let per_epoch = EpochOrder::new(data.train.examples.len(), Order::Sequential, 0, "count")
            .batches_per_epoch(config.train.batch);
        let total_steps = config.train.total_steps(per_epoch);
        let layers = model.layers().len();
        // Everything that can be wrong with the input is known by now: the folder is made last.
        let probe = prepare::tuner(config, &std::env::temp_dir(), layers, total_steps)?;
        let folder = open_folder::<A>(self.path, self.resume, config)?;
        let tuner = prepare::tuner(config, &folder.join("offload"), layers, total_steps)?;
        drop(probe);
        let say = |line: &str| {
            if !self.quiet {
                eprintln!("{line}");
            }
        };
        data.warnings().iter().for_each(|warning| say(warning));
        say(&format!("run {}: {total_steps} steps, {} records", folder.path().display(), data.train.examples.len()));
        if self.verbose {
            say(&config.to_toml());
        }
        interrupt::install();
        let (resume, quiet) = (self.resume, self.quiet);
        let start = Start { config, folder: &folder, data: &data, model, adapter, tuner, total_steps, resume, quiet };
        let result = Run::new(start)?.finish()?;
        say(&summary::render(&result, &folder.path().display().to_string()));
        Ok(result)
    }
}

/// Fresh adapters as the configuration says, or those of `adapter.init_from`.
fn put_adapters_on<A: Adapter, M: CausalLm<A>>(
    config: &RunConfig,
    model: &mut M,
    device: &Device,
) -> Result<A::Config, Failure> {
    let fields = config.adapter.method_fields();
    if let Some(folder) = &config.adapter.init_from {
        let loaded = ist_peft::load::<A>(model, folder, device).or_input()?;
        agree::<A>(&loaded, &fields, folder)?;
        return Ok(loaded);
    }
    let mut parsed = parse::<A>(&fields)?;
    attach(model, &mut parsed, config.seed, device).map_err(|error| Failure::input(format!("`adapter`: {error}")))?;
    Ok(parsed)
}

fn parse<A: Adapter>(fields: &serde_json::Map<String, serde_json::Value>) -> Result<A::Config, Failure> {
    match A::parse(fields, Dialect::Toml) {
        Some(config) => config.map_err(|error| Failure::input(format!("`adapter`: {error}"))),
        None => Err(Failure::input(format!("`adapter.method` {} is not supported", fields["method"]))),
    }
}

/// Fails unless every field given in the configuration is what the loaded adapter has.
fn agree<A: Adapter>(
    loaded: &A::Config,
    given: &serde_json::Map<String, serde_json::Value>,
    folder: &Path,
) -> Result<(), Failure> {
    if given.is_empty() {
        return Ok(());
    }
    let there = A::peft_fields(loaded);
    let given_fields = A::peft_fields(&parse::<A>(given)?);
    let name_in_file = |key: &str| {
        match key {
            "alpha" => "lora_alpha",
            "dropout" => "lora_dropout",
            "targets" => "target_modules",
            "method" => "peft_type",
            other => other,
        }
        .to_owned()
    };
    let differs = given.keys().find(|key| there.get(&name_in_file(key)) != given_fields.get(&name_in_file(key)));
    match differs {
        Some(key) => {
            let (file, found) = (name_in_file(key), given_fields.get(&name_in_file(key)).cloned().unwrap_or_default());
            let expected = there.get(&file).cloned().unwrap_or_default();
            let from = folder.display();
            Err(Failure::input(format!("`adapter.{key}` is {found}, but {from} has {expected}; leave the key out")))
        }
        None => Ok(()),
    }
}

/// Opens the run's folder: writes the configuration of a new run, compares that of one that goes on.
fn open_folder<A: Adapter>(path: PathBuf, resume: bool, config: &RunConfig) -> Result<RunFolder, Failure> {
    let folder = RunFolder::open(path, resume)?;
    let file = folder.join("config.toml");
    if resume {
        let old = config::read_with::<A>(&file, &[]).or_input()?;
        let faults = config::resume_faults(&old, config);
        if !faults.is_empty() {
            let list = faults.join("\n  ");
            return Err(Failure::input(format!(
                "{}: the configuration differs from the run's:\n  {list}",
                file.display()
            )));
        }
    }
    lines::replace(&file, config.to_toml().as_bytes()).or_run()?;
    Ok(folder)
}
