//! `ist plan`: what a run will need, before anything is loaded.

use std::path::PathBuf;

use clap::Args;
use ist_models::registry;
use ist_models::registry::Shape;
use ist_peft::Adapter;

use super::print_json;
use crate::config::{self, RunConfig};
use crate::data::{DataFile, Dataset, Format};
use crate::failure::{Failure, OrFail};
use crate::model_source;
use crate::plan::{Planner, Records, document};
use crate::screen;
use crate::train::prepare;

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
    let config = config::read_with::<A>(&arguments.config, &arguments.overrides).or_input()?;
    let shape = registry::shape(&model_source::find(&config.model.path)?).or_input()?;
    let planned = prepare::adapters::<A>(&config.adapter, &shape)?;
    let shape = planned.shape(&shape);
    let layers = planned.layers(shape.num_layers);
    let policy = prepare::policy(&config.policy, &layers)?;
    let context = shape.max_position_embeddings.saturating_sub(planned.positions_in_front());
    let records = records(&config, &shape, context)?;
    let planner = Planner::new(&config, &shape, planned.adapted(), (layers, &*policy), records);
    planner.must_fit()?;
    let plan = document::document(&planner)?;
    if arguments.json { print_json(&plan) } else { screen::result(&document::render(&plan)) }
}

/// Records of tokens are counted. Text is not tokenised for a plan: its records are taken to be as long as they may be.
fn records(config: &RunConfig, shape: &Shape, context: usize) -> Result<Records, Failure> {
    let cutoff = config.data.cutoff.min(context);
    if !config.data.train.is_file() {
        return Ok(Records::cut_to(cutoff));
    }
    let file = DataFile::read(&config.data.train, config.data.format).or_input()?;
    if file.format() != Format::Tokens {
        return Ok(Records::cut_to(cutoff));
    }
    Ok(Records::of(&Dataset::from_tokens(&file, shape.vocab_size, cutoff).or_input()?))
}
