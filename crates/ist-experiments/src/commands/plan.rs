//! `ist plan`: what a run will need, before anything is loaded.

use std::path::PathBuf;

use clap::Args;
use ist_models::registry;
use ist_peft::Adapter;
use serde_json::Value;

use super::print_json;
use crate::memory_plan::{Planner, document};
use crate::train::prepare::{self, Prepared};
use crate::{config, model_source};
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The configuration
    pub config: PathBuf,
    /// Override one key: --set memory.budget=1.5GiB
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Plans.
pub fn run<A: Adapter>(arguments: &Plan) -> Result<(), Failure> {
    let config = config::load_with::<A>(&arguments.config, &arguments.overrides).or_input()?;
    let files = model_source::find(&config.model.path)?;
    let shape = registry::shape(&files).or_input()?;
    let planned = prepare::adapters::<A>(&config.adapter, &shape)?;
    let shape = planned.shape(&shape);
    let layers = planned.layers(shape.num_layers);
    let policy = prepare::policy(&config.policy, &layers)?;
    let in_front = planned.positions_in_front();
    let text = model_source::text(&files);
    let data = Prepared::new(&config, text, Value::Null, &shape, in_front)?;
    let records = data.planned();
    let planner = Planner::new(&config, &shape, planned.adapted(), (layers, &*policy), records);
    planner.must_fit()?;
    let plan = document::document(&planner)?;
    if arguments.json { print_json(&plan) } else { screen::result(&document::render(&plan)) }
}
