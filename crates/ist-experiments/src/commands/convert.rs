//! `ist convert`: an adapter in another program's form.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ist_models::{DecoderConfig, gguf, registry};
use ist_peft::files::foreign;
use ist_peft::files::usable::{self, Anatomy};
use ist_peft::{Adapter, AdapterFilesError};

use super::paths;
use crate::model_folder::whole;
use crate::model_source;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// The adapter
    #[arg(long)]
    pub adapter: PathBuf,
    /// What to write
    #[arg(long)]
    pub to: Form,
    /// The model that the adapter is for; its configuration is read, its weights are not. Needed
    /// for gguf; with peft the adapter must fit it
    #[arg(long)]
    pub model: Option<String>,
    /// The folder or file to write
    #[arg(long)]
    pub output: PathBuf,
}

/// The forms of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// PEFT's folder of today, from those of LLM-Adapters, DoRA's program, mlx-lm and older
    /// versions of PEFT
    Peft,
    /// A LoRA file that llama.cpp loads
    Gguf,
}

/// Converts.
pub fn run<A: Adapter>(arguments: &Convert, quiet: bool) -> Result<(), Failure> {
    match arguments.to {
        Form::Peft => to_peft::<A>(arguments)?,
        Form::Gguf => to_gguf(arguments)?,
    }
    if !quiet {
        screen::line(arguments.output.display());
    }
    Ok(())
}

/// What was written must be an adapter that this program loads: onto the named model, or onto one
/// with the modules that the file names.
fn to_peft<A: Adapter>(arguments: &Convert) -> Result<(), Failure> {
    whole::must_be_free(&arguments.output)?;
    let model = arguments.model.as_deref().map(anatomy).transpose()?;
    let mut notes = Vec::new();
    whole::write(&arguments.output, |folder| {
        notes = foreign::convert(&arguments.adapter, folder).or_input()?;
        // The new folder has another name as yet, so faults name the one that was given.
        let given = arguments.adapter.display().to_string();
        let told = |error: AdapterFilesError| {
            Failure::input(error.to_string().replace(&folder.display().to_string(), &given))
        };
        usable::check::<A>(folder, model).map_err(told)
    })?;
    model_source::tell(&notes);
    Ok(())
}

fn anatomy(model: &str) -> Result<Anatomy, Failure> {
    let shape = registry::shape(&model_source::find_named(model)?).or_input()?;
    Ok(Anatomy { outline: shape.outline(), sites: shape.sites })
}

fn to_gguf(arguments: &Convert) -> Result<(), Failure> {
    let Some(model) = &arguments.model else {
        return Err(Failure::input(
            "`--to gguf` needs `--model`: llama.cpp orders the rows of queries and keys by heads",
        ));
    };
    paths::must_be_new(&arguments.output, "exists already; name a new file")?;
    let files = model_source::find_named(model)?;
    let document = files.config().as_object().cloned().unwrap_or_default();
    if files.config()["model_type"] != "llama" {
        let found = &files.config()["model_type"];
        return Err(Failure::input(format!(
            "`--to gguf` knows models of type \"llama\", but {model} is {found}"
        )));
    }
    let config = DecoderConfig::from_json(document).or_input()?;
    // A folder without weights is enough for most adapters.
    let weights = files.checkpoint().ok();
    let output = Path::new(&arguments.output);
    gguf::write_llama_adapter(&arguments.adapter, &config, weights.as_ref(), output).map_err(
        |error| match error {
            gguf::GgufError::Destination(error) => Failure::from(error),
            error => Failure::input(error),
        },
    )
}
