//! How a run starts: from a checked configuration to a [`Run`] that goes on to its end.
//!
//! Everything that can be wrong with the input is found before the run's folder is made, and before
//! any weight is read where that is possible.

use std::path::PathBuf;

use anyhow::Context;
use ist_core::{LayerPolicy, LayerSet};
use ist_files::regular;
use ist_models::{Shape, registry};
use ist_peft::Adapter;
use ist_peft::model::attach::learning_rates;
use ist_records::record::folder::RunFolder;
use ist_records::record::{failed, lines, plan as plan_file};
use ist_records::{Failure, OrFail};
use serde_json::{Value, json};

use super::costs::Plan;
use super::observer::RunObserver;
use super::prepare::{self, Planned, Prepared};
use super::{Run, Start, adapters};
use crate::config::{self, RunConfig};
use crate::machine::device;
use crate::memory_plan::{Planner, document};
use crate::model_source::{self, Opening};
use crate::text::TextModel;
use crate::text::records::Order;

/// One run that is to be executed.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it runs.
    pub config: RunConfig,
    /// Where its records go.
    pub place: RunPlace,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// The device's name.
    pub device: &'a str,
    /// Refuse data with keys that nothing reads.
    pub strict: bool,
}

/// Executes a run; returns its `result.json`.
///
/// # Errors
///
/// Bad input, a failure while running, and an observer's wish to stop, once all is saved.
pub fn execute<A: Adapter>(
    request: Request,
    observer: &mut dyn RunObserver,
) -> Result<Value, Failure> {
    let Request { mut config, place, resume, device, strict } = request;
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
    let adapters = adapters::put_on(&config, &mut model, &device)?;
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
    data.warnings().iter().chain(&data.layout()).for_each(|line| observer.say(line));
    observer.say(&format!(
        "run {}: {total_steps} steps, {} records",
        folder.path().display(),
        data.train.examples.len()
    ));
    observer.detail(&config.to_toml());
    observer.prepared();
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
        observer,
    };
    failed::keep(folder.path(), || Run::new(start)?.finish())
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
fn budget_of(place: &RunPlace) -> Result<Option<u64>, Failure> {
    let RunPlace::Named(folder) = place else { return Ok(None) };
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
pub enum RunPlace {
    /// That folder.
    Named(PathBuf),
    /// The next free `runs/NAME-N`.
    Next(String),
}

/// Opens the run's folder: writes the configuration of a new run, compares that of one that goes
/// on.
fn open_folder<A: Adapter>(
    place: RunPlace,
    resume: bool,
    config: &RunConfig,
) -> Result<RunFolder, Failure> {
    let folder = match place {
        RunPlace::Named(path) => RunFolder::open(path, resume)?,
        RunPlace::Next(name) => RunFolder::next(&name)?,
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
