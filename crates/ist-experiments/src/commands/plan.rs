//! `ist plan`: what a run will need, from its configuration and the model's `config.json` alone.

use std::path::PathBuf;

use clap::Args;
use ist_models::registry;
use ist_peft::{Adapter, Site};
use serde_json::{Value, json};

use super::{print_json, print_text};
use crate::config::{self, Dtype, RunConfig};
use crate::failure::{Failure, OrFail};
use crate::memory::human;
use crate::model_source;
use crate::train::prepare;
use ist_core::optimizer::RestingState;

/// `ist plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The configuration
    pub config: PathBuf,
    /// Override one key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Plans.
pub fn run<A: Adapter>(arguments: &Plan) -> Result<(), Failure> {
    let config = config::read_with::<A>(&arguments.config, &arguments.overrides).or_input()?;
    let plan = plan::<A>(&config)?;
    if arguments.json {
        return print_json(&plan);
    }
    print_text(&render(&plan))
}

fn plan<A: Adapter>(config: &RunConfig) -> Result<Value, Failure> {
    let files = model_source::find(&config.model.path)?;
    let shape = registry::shape(&files).or_input()?;
    let (adapter, sites) = prepare::adapter::<A>(&config.adapter, &shape)?;
    let size =
        |site: &Site| A::layout(&adapter, site).iter().map(|spec| spec.shape.iter().product::<usize>()).sum::<usize>();
    let outside: usize = sites.iter().filter(|site| site.layer.is_none()).map(size).sum();
    let mut per_layer = vec![0; shape.num_layers];
    for site in &sites {
        if let Some(layer) = site.layer {
            per_layer[layer] += size(site);
        }
    }
    let adapted = prepare::adapted_layers(&sites, shape.num_layers);
    let trainable = outside + per_layer.iter().sum::<usize>();
    let updated = prepare::policy(&config.policy, &adapted)?.largest_set();
    per_layer.sort_unstable_by(|a, b| b.cmp(a));
    let in_a_step = outside + per_layer.iter().take(updated).sum::<usize>();
    let width = if config.model.dtype == Dtype::Float32 { 4 } else { 2 };
    let moments = match config.optimizer.resting_state {
        RestingState::Keep => trainable,
        RestingState::Offload | RestingState::Drop => in_a_step,
    };
    Ok(json!({
        "model": config.model.path.to_string(),
        "layers": shape.num_layers,
        "layers_updated": updated,
        "parameters": {"frozen": shape.parameters, "trainable": trainable, "trained_in_a_step": in_a_step},
        "bytes": {
            "weights": shape.parameters.saturating_mul(width),
            "adapters": trainable * 4,
            "gradients": in_a_step * 4,
            "optimizer": moments * 8,
        },
        "adapted_modules": sites.len(),
        "activations": "not yet available",
    }))
}

fn render(plan: &Value) -> String {
    let bytes = |key: &str| human(plan["bytes"][key].as_u64().unwrap_or_default() as usize);
    let parameters = &plan["parameters"];
    let total: u64 = plan["bytes"].as_object().into_iter().flatten().filter_map(|(_, bytes)| bytes.as_u64()).sum();
    format!(
        "model       {} ({} layers, at most {} trained in a step)\n\
         parameters  {} frozen, {} trainable in {} modules, at most {} trained in a step\n\
         weights     {}\nadapters    {}\ngradients   {}\noptimizer   {}\ntotal       {}\n\
         activations not yet available\n",
        plan["model"].as_str().unwrap_or_default(),
        plan["layers"],
        plan["layers_updated"],
        parameters["frozen"],
        parameters["trainable"],
        plan["adapted_modules"],
        parameters["trained_in_a_step"],
        bytes("weights"),
        bytes("adapters"),
        bytes("gradients"),
        bytes("optimizer"),
        human(total as usize),
    )
}
