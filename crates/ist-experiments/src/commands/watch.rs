//! `ist watch`: a run of any process, on the whole terminal.

use std::path::PathBuf;

use clap::Args;

use ist_records::report::holds_run;
use ist_records::{Failure, live};

/// `ist watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The run's folder
    pub run: PathBuf,
}

/// Shows the run until a key asks to leave; the run itself is not touched.
pub fn run(arguments: &Watch) -> Result<(), Failure> {
    let folder = &arguments.run;
    if !holds_run(folder) {
        let advice =
            "expected a folder with a `config.toml` and logs; `ist list` shows which there are";
        return Err(Failure::input(format!("{}: not a run's folder; {advice}", folder.display())));
    }
    live::watch(folder)
}
