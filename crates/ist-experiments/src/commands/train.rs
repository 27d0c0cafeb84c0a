//! `ist train`: from arguments to a [`Run`].

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ist_core::burn::tensor::Device;
use ist_core::{LayerPolicy, LayerSet};
use ist_files::regular;
use ist_models::{Decoder, Shape, registry};
use ist_peft::model::attach::learning_rates;
use ist_peft::{Adapter, Adapters, Part, attach};
use serde_json::{Map, Value, json};

use super::paths::WrittenDown;
use crate::config::{self, RunConfig};
use crate::machine::device;
use crate::memory_plan::{Planner, document};
use crate::model_source::{self, Opening};
use crate::text::TextModel;
use crate::text::records::Order;
use crate::train::costs::Plan;
use crate::train::display::Show;
use crate::train::prepare::{self, Planned, Prepared};
use crate::train::{Run, Start, summary};
use ist_records::live::terminal;
use ist_records::record::folder::RunFolder;
use ist_records::record::{failed, folder, lines, plan as plan_file};
use ist_records::terminal::{interrupt, screen};
use ist_records::{Failure, OrFail};

/// `ist train`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Train {
    /// The configuration
    #[arg(value_parser = WrittenDown)]
    pub config: PathBuf,
    /// Override one key: --set optimizer.lr=1e-3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// The run's folder [default: runs/NAME-N, the next free N]
    #[arg(long, value_parser = WrittenDown)]
    pub output: Option<PathBuf>,
    /// Go on with the run in that folder from its newest checkpoint
    #[arg(long)]
    pub resume: bool,
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Show the run on the whole terminal while it goes on: losses, layers, memory, time
    #[arg(long)]
    pub tui: bool,
    /// Refuse data with keys that nothing reads, instead of telling them
    #[arg(long)]
    pub strict: bool,
    /// Print the run's result.json on stdout
    #[arg(long)]
    pub json: bool,
}

/// Trains.
pub fn run<A: Adapter>(arguments: &Train, quiet: bool, verbose: bool) -> Result<(), Failure> {
    let shown = show(arguments.tui, quiet)?;
    let config = config::load_with::<A>(&arguments.config, &arguments.overrides).or_input()?;
    let name = arguments.config.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
    let place = place(arguments, name)?;
    let request = Request {
        config,
        place,
        resume: arguments.resume,
        device: arguments.device.as_str(),
        strict: arguments.strict,
        shown,
        verbose,
    };
    let result = execute::<A>(request)?;
    if arguments.json {
        return super::print_json(&result);
    }
    Ok(())
}

/// How the run is shown; a view needs a terminal.
fn show(tui: bool, quiet: bool) -> Result<Show, Failure> {
    match (tui, quiet) {
        (true, true) => {
            Err(Failure::input("`--tui` shows the run and `--quiet` nothing of it; leave one out"))
        }
        (true, false) => terminal::must_be_there("`--tui`", "leave it out").map(|()| Show::Screen),
        (false, true) => Ok(Show::Nothing),
        (false, false) => Ok(Show::Lines),
    }
}

/// One run that is to be executed.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it runs.
    pub config: RunConfig,
    /// Where its records go.
    pub place: Place,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// The device's name.
    pub device: &'a str,
    /// Refuse data with keys that nothing reads.
    pub strict: bool,
    /// How much of it is shown.
    pub shown: Show,
    /// Say more.
    pub verbose: bool,
}

/// Executes a run; returns its `result.json`.
pub fn execute<A: Adapter>(request: Request) -> Result<Value, Failure> {
    let Request { mut config, place, resume, device, strict, shown, verbose } = request;
    let device = device::open(device)?;
    let files = model_source::find(&config.model.path)?;
    let described = model_source::describe(&config.model.path.to_string(), &files)?;
    let shape = registry::shape(&files).or_input()?;
    prepare::name_targets::<A>(&mut config.adapter, &shape);
    let (data, policy) = check::<A>(&config, model_source::text(&files), described, &shape)?;
    if strict {
        data.must_read_every_key()?;
    }
    data.template().clone_into(&mut config.data.template);
    let machine = Machine {
        free: device::free_memory(&device),
        settled: if resume { budget_of(&place)? } else { None },
        loss_scaling: prepare::loss_scaling(&config, &device),
    };
    let plan = plan::<A>(&config, &shape, &data, &*policy, &machine)?;
    let storage = model_source::storage(config.model.dtype);
    let opening = Opening { files: &files, storage, device: &device, adapter: None };
    let mut model = model_source::open::<A>(opening)?;
    let adapters = put_adapters_on(&config, &mut model, &device)?;
    let order = data.train.epoch_order(Order::Sequential, 0, "count");
    let per_epoch = order.batches_per_epoch(config.train.batch);
    let total_steps = config.train.total_steps(per_epoch);
    policy.covers(total_steps).or_input()?;
    // Everything that can be wrong with the input is known by now: the folder is made last.
    let folder = open_folder::<A>(place, resume, &config)?;
    let offload = folder.join("offload");
    if offload.exists() {
        // Left by a process that was killed; the checkpoint has all of it.
        std::fs::remove_dir_all(&offload).or_run()?;
    }
    let mut document = plan.document.clone();
    document["total_steps"] = json!(total_steps);
    let document = serde_json::to_vec_pretty(&document).or_run()?;
    lines::replace(&folder.join(plan_file::FILE), &document).or_run()?;
    let rates = learning_rates(&mut model);
    let tuner = prepare::tuner(&config, policy, plan.memory, &offload, total_steps, rates, &device);
    let say = |line: &str| {
        if shown != Show::Nothing {
            screen::line(line);
        }
    };
    data.warnings().iter().chain(&data.layout()).for_each(|line| say(line));
    say(&format!(
        "run {}: {total_steps} steps, {} records",
        folder.path().display(),
        data.train.examples.len()
    ));
    if verbose {
        say(&config.to_toml());
    }
    interrupt::install();
    let start = Start {
        config: &config,
        folder: &folder,
        data: &data,
        model,
        adapters,
        tuner,
        plan: &plan,
        total_steps,
        resume,
        shown,
    };
    let result = failed::keep(folder.path(), || Run::new(start)?.finish())?;
    say(&summary::render(&result, &folder.path().display().to_string()));
    Ok(result)
}

/// Data, adapter and policy against the model's shape, before any weight is read. All that is wrong
/// is told at once.
fn check<A: Adapter>(
    config: &RunConfig,
    text: Result<TextModel, Failure>,
    described: Value,
    shape: &Shape,
) -> Result<(Prepared, Box<dyn LayerPolicy>), Failure> {
    let adapter = prepare::adapters::<A>(&config.adapter, shape);
    let in_front = adapter.as_ref().map_or(0, Planned::positions_in_front);
    let data = Prepared::new(config, text, described, shape, in_front);
    let layers = match &adapter {
        Ok(planned) => planned.layers(shape.num_layers),
        Err(_) => LayerSet::all(shape.num_layers),
    };
    let policy = prepare::policy(&config.policy, &layers);
    let faults = [data.as_ref().err(), adapter.as_ref().err(), policy.as_ref().err()];
    let faults: Vec<String> = faults.into_iter().flatten().map(ToString::to_string).collect();
    if faults.len() > 1 {
        return Err(Failure::input(faults.join("\n")));
    }
    adapter?;
    Ok((data?, policy?))
}

/// What a plan depends on beside the run.
struct Machine {
    /// Bytes that the device has left, where that can be told.
    free: Option<u64>,
    /// The budget that the run began with.
    settled: Option<u64>,
    /// Whether the loss is scaled.
    loss_scaling: bool,
}

/// What a run is planned to take, before any weight is read. Refuses a budget that cannot be met.
fn plan<A: Adapter>(
    config: &RunConfig,
    shape: &Shape,
    data: &Prepared,
    policy: &dyn LayerPolicy,
    machine: &Machine,
) -> Result<Plan, Failure> {
    let planned = prepare::adapters::<A>(&config.adapter, shape)?;
    let shape = &planned.shape(shape);
    let layers = planned.layers(shape.num_layers);
    let planner = Planner::new(config, shape, planned.adapted(), (layers, policy), data.planned());
    let planner = planner
        .with_free(machine.free)
        .with_limit(machine.settled)
        .with_loss_scaling(machine.loss_scaling);
    planner.must_fit()?;
    Ok(Plan {
        memory: planner.memory(),
        budget: planner.limit(),
        fixed: planner.fixed(),
        document: document::document(&planner)?,
    })
}

/// The budget that a run began with: what is free now must not change how it continues. `None`
/// where nothing bounds it, or where the run was stopped before it had a plan.
///
/// # Errors
///
/// A plan that is there and cannot be read.
fn budget_of(place: &Place) -> Result<Option<u64>, Failure> {
    let Place::Named(folder) = place else { return Ok(None) };
    let path = folder.join(plan_file::FILE);
    let text = match regular::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| path.display().to_string()).or_input()?,
    };
    let plan: Value = serde_json::from_slice(&text)
        .with_context(|| format!("{}: is not a plan", path.display()))
        .or_input()?;
    Ok(plan["budget"]["bytes"].as_u64())
}

/// Where a run's records go.
#[derive(Debug)]
pub enum Place {
    /// That folder.
    Named(PathBuf),
    /// The next free `runs/NAME-N`.
    Next(String),
}

fn place(arguments: &Train, name: &str) -> Result<Place, Failure> {
    match (&arguments.output, arguments.resume) {
        (Some(path), _) => Ok(Place::Named(path.clone())),
        (None, false) => Ok(Place::Next(name.to_owned())),
        (None, true) => folder::newest(name).map(Place::Named).ok_or_else(|| {
            Failure::input(format!(
                "no run runs/{name}-<n> to resume; name its folder with --output"
            ))
        }),
    }
}

/// Fresh adapters as the configuration says, or those of `adapter.init_from`.
fn put_adapters_on<A: Adapter>(
    config: &RunConfig,
    model: &mut Decoder<A>,
    device: &Device,
) -> Result<Adapters<A>, Failure> {
    let parts = prepare::parts::<A>(&config.adapter)?;
    let mut adapters = Adapters::new(parts.concat());
    attach(model, &mut adapters, config.seed, device)
        .map_err(|error| Failure::input(format!("`adapter`: {error}")))?;
    let mut fresh = adapters.parts().iter();
    let mut all = Vec::new();
    for (table, parts) in config.adapter.tables().iter().zip(parts) {
        let fresh: Vec<Part<A>> = fresh.by_ref().take(parts.len()).cloned().collect();
        let Some(folder) = &table.init_from else {
            all.extend(fresh);
            continue;
        };
        let mut own = Adapters::new(parts);
        ist_peft::restore(model, &mut own, folder, device).or_input()?;
        agree::<A>(&own, &table.method_fields(), folder)?;
        can_train_on(&own, folder)?;
        model_source::tell(own.notes());
        all.extend(own.parts().to_vec());
    }
    Ok(Adapters::new(all))
}

/// Fails for an adapter of which this program would lose a part, and tells of tensors that stay as
/// they are.
fn can_train_on<A: Adapter>(adapters: &Adapters<A>, folder: &Path) -> Result<(), Failure> {
    let folder = folder.display();
    if adapters.parts().iter().any(Part::is_partial) {
        return Err(Failure::input(format!(
            "{folder} also adapts modules beside the text model, which training here would lose; \
             train from an adapter of \
             the text model alone"
        )));
    }
    let carried: usize = adapters.parts().iter().map(|part| part.carried().len()).sum();
    if carried > 0 {
        model_source::tell(&[format!(
            "{folder}: {carried} tensors take the place of the base model's; they do not train, \
             and are written again with \
             the adapter"
        )]);
    }
    Ok(())
}

/// Fails unless every field given in the configuration is what the loaded adapter has.
fn agree<A: Adapter>(
    loaded: &Adapters<A>,
    given: &Map<String, Value>,
    folder: &Path,
) -> Result<(), Failure> {
    if given.is_empty() {
        return Ok(());
    }
    let [only] = loaded.parts() else {
        let folder = folder.display();
        let message = format!(
            "{folder} holds several adapters; leave the keys beside `adapter.init_from` out"
        );
        return Err(Failure::input(message));
    };
    let (there, given_fields) =
        (only.peft_fields(), prepare::parse_adapter::<A>(given)?.peft_fields());
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
    // Lists of modules are sets: PEFT writes them in any order.
    let value = |fields: &Map<String, Value>, key: &str| match fields.get(&name_in_file(key)) {
        Some(Value::Array(items)) => {
            let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
            items.sort();
            json!(items)
        }
        other => other.cloned().unwrap_or_default(),
    };
    let differs = given.keys().filter(|key| value(&there, key) != value(&given_fields, key));
    let found = |fields: &Map<String, Value>, key: &str| {
        fields.get(&name_in_file(key)).cloned().unwrap_or_default()
    };
    let faults: Vec<String> = differs
        .map(|key| {
            format!("`adapter.{key}` is {}, not {}", found(&there, key), found(&given_fields, key))
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let (folder, faults) = (folder.display(), faults.join("; "));
    Err(Failure::input(format!(
        "the adapter in {folder} differs from the configuration: {faults}; leave these keys out"
    )))
}

/// Opens the run's folder: writes the configuration of a new run, compares that of one that goes
/// on.
fn open_folder<A: Adapter>(
    place: Place,
    resume: bool,
    config: &RunConfig,
) -> Result<RunFolder, Failure> {
    let folder = match place {
        Place::Named(path) => RunFolder::open(path, resume)?,
        Place::Next(name) => RunFolder::next(&name)?,
    };
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
