//! `ist train`: from arguments to a run.

use std::path::PathBuf;

use clap::Args;
use ist_peft::Adapter;
use ist_records::live::terminal;
use ist_records::record::folder;
use ist_records::{Failure, OrFail};

use super::paths::WrittenDown;
use crate::config;
use crate::display::{Display, Show};
use crate::train::start::{self, Request, RunPlace};

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
    };
    let mut display = Display::new(shown);
    if verbose {
        display = display.with_details();
    }
    let result = start::execute::<A>(request, &mut display)?;
    display.summary(&result);
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

fn place(arguments: &Train, name: &str) -> Result<RunPlace, Failure> {
    match (&arguments.output, arguments.resume) {
        (Some(path), _) => Ok(RunPlace::Named(path.clone())),
        (None, false) => Ok(RunPlace::Next(name.to_owned())),
        (None, true) => folder::newest(name).map(RunPlace::Named).ok_or_else(|| {
            Failure::input(format!(
                "no run runs/{name}-<n> to resume; name its folder with --output"
            ))
        }),
    }
}
