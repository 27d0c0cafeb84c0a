//! `ist world`: the built-in world's task data, as the repository holds it.

use anyhow::Context;

use crate::cli::World;
use crate::failure::{Failure, OrFail};
use crate::run::lines;
use crate::world::{self, Split};

/// Writes `world-train.jsonl`, `world-validation.jsonl` and `world-test.jsonl`.
pub fn run(arguments: &World, quiet: bool) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.output).with_context(|| arguments.output.display().to_string()).or_run()?;
    for (split, name) in [(Split::Train, "train"), (Split::Validation, "validation"), (Split::Test, "test")] {
        let records = world::task(arguments.seed, split, world::records(split));
        let path = arguments.output.join(format!("world-{name}.jsonl"));
        lines::replace(&path, world::json_lines(&records).or_run()?.as_bytes()).or_run()?;
        if !quiet {
            eprintln!("{}: {} records", path.display(), records.len());
        }
    }
    Ok(())
}
