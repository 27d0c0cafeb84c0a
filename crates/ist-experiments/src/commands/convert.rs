//! `ist convert`: an adapter in another program's form.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ist_models::{DecoderConfig, gguf};
use ist_peft::{Adapter, foreign};

use super::paths;
use crate::failure::{Failure, OrFail};
use crate::model_source;
use crate::run::whole_folder;
use crate::screen;

/// `ist convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// The adapter
    #[arg(long)]
    pub adapter: PathBuf,
    /// What to write
    #[arg(long)]
    pub to: Form,
    /// The model that the adapter is for; its configuration is read, its weights are not. Needed for gguf
    #[arg(long)]
    pub model: Option<String>,
    /// The folder or file to write
    #[arg(long)]
    pub output: PathBuf,
}

/// The forms of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// PEFT's folder of today, from those of LLM-Adapters, DoRA's program and older versions of PEFT
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

/// What was written must be an adapter that this program reads.
fn to_peft<A: Adapter>(arguments: &Convert) -> Result<(), Failure> {
    whole_folder::must_be_free(&arguments.output)?;
    whole_folder::write(&arguments.output, |folder| {
        foreign::convert(&arguments.adapter, folder).or_input()?;
        ist_peft::read_config::<A>(folder).map(drop).or_input()
    })
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
    gguf::write_llama_adapter(&arguments.adapter, &config, Path::new(&arguments.output)).map_err(
        |error| match error {
            gguf::GgufError::Destination(error) => Failure::from(error),
            error => Failure::input(error),
        },
    )
}
