//! `ist watch`: a run of any process, on the whole terminal.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::live;

/// `ist watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The run's folder
    pub run: PathBuf,
}

/// Shows the run until a key asks to leave; the run itself is not touched.
pub fn run(arguments: &Watch) -> Result<(), Failure> {
    let folder = &arguments.run;
    if !folder.join("config.toml").is_file() {
        let advice = "expected a folder with a `config.toml`; `ist list` shows which there are";
        return Err(Failure::input(format!("{}: not a run's folder; {advice}", folder.display())));
    }
    live::watch(folder)
}
