//! `ist inspect`: what a folder or a name holds: a model, an adapter, or a run.

use std::path::Path;

use anyhow::Context;
use clap::Args;
use ist_files::regular;
use ist_files::untrusted::json;
use ist_models::registry;
use ist_peft::{Adapter, Part, files};
use serde_json::{Value, json};

use super::print_json;
use crate::display::summary;
use crate::model_source;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A model, an adapter's folder or a run's folder
    pub path: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Inspects.
pub fn run<A: Adapter>(arguments: &Inspect) -> Result<(), Failure> {
    let folder = Path::new(&arguments.path);
    let is = |name: &str| folder.join(name).is_file();
    if is("result.json") || (is("config.toml") && !is("config.json")) {
        return inspect_run(folder, arguments.json);
    }
    let found =
        if files::holds_adapters(folder) { adapter::<A>(folder)? } else { model(&arguments.path)? };
    if arguments.json {
        return print_json(&found);
    }
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key:<16} {text}\n"),
        value => format!("{key:<16} {value}\n"),
    };
    screen::result(&found.as_object().into_iter().flatten().map(line).collect::<String>())
}

fn inspect_run(folder: &Path, as_json: bool) -> Result<(), Failure> {
    let path = folder.join("result.json");
    if !path.is_file() {
        let shown = folder.display();
        let state = json!({"kind": "run", "status": "unfinished", "folder": shown.to_string()});
        let resume = format!(
            "run {shown}: unfinished; go on with `ist train CONFIG --resume --output {shown}`\n"
        );
        return if as_json { print_json(&state) } else { screen::result(&resume) };
    }
    let text =
        regular::read_to_string(&path).with_context(|| path.display().to_string()).or_input()?;
    let result = json::value(text.as_bytes())
        .map_err(|error| anyhow::Error::msg(json::told(&error)))
        .with_context(|| path.display().to_string())
        .or_input()?;
    if as_json {
        // As it stands: a number that is read and written again may lose its last digit.
        return screen::result(&(text + "\n"));
    }
    let status = result["status"].as_str().unwrap_or("unknown");
    screen::result(&format!(
        "run {} ({status})\n{}",
        folder.display(),
        summary::render(&result, &folder.display().to_string())
    ))
}

fn adapter<A: Adapter>(folder: &Path) -> Result<Value, Failure> {
    let adapters = ist_peft::read_config::<A>(folder).or_input()?;
    let described = |part: &Part<A>, folder: &Path| -> Result<Value, Failure> {
        let file = files::open_tensors(folder).or_input()?;
        let size = |name: &str| file.shape(name).map_or(0, |shape| shape.iter().product::<usize>());
        Ok(json!({
            "kind": "adapter",
            "method": part.config().name(),
            "fields": part.peft_fields(),
            "tensors": file.names().count(),
            "parameters": file.names().map(size).sum::<usize>(),
        }))
    };
    match adapters.parts() {
        [only] if folder.join(files::CONFIG_FILE).is_file() => described(only, folder),
        parts => {
            let each = parts
                .iter()
                .map(|part| Ok((part.name.clone(), described(part, &folder.join(&part.name))?)));
            let each = each.collect::<Result<serde_json::Map<_, _>, Failure>>()?;
            Ok(json!({"kind": "adapters", "adapters": each}))
        }
    }
}

fn model(name: &str) -> Result<Value, Failure> {
    let files = model_source::find_named(name)?;
    let shape = registry::shape(&files).or_input()?;
    let mut modules: Vec<&str> = Vec::new();
    for site in &shape.sites {
        let module = site.path.rsplit('.').next().unwrap_or(&site.path);
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    Ok(json!({
        "kind": "model",
        "model_type": files.config()["model_type"],
        "layers": shape.num_layers,
        "parameters": shape.parameters,
        "modules": modules,
        "default_targets": shape.roles.usual,
        "tokenizer": files.tokenizer().is_ok(),
        "chat_template": files.chat_template().or_input()?.map(|template| template.file),
        "config": files.config(),
    }))
}
