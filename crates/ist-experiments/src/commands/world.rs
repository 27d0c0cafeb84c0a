//! `ist world`: the built-in world's task data and texts, as the repository and pre-training use
//! them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::paths;
use crate::village::world;
use crate::village::world::Split;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist world`.
#[derive(Debug, Args)]
pub struct World {
    /// The folder to write to
    #[arg(long)]
    pub output: PathBuf,
    /// The seed of the questions
    #[arg(long, default_value_t = crate::village::world::SEED)]
    pub seed: u64,
    /// Write that many of the world's texts as well
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub documents: Option<u32>,
}

/// Writes `world-train.jsonl`, `world-validation.jsonl` and `world-test.jsonl`, and texts on
/// request.
pub fn run(arguments: &World, quiet: bool) -> Result<(), Failure> {
    let folder = &arguments.output;
    ist_files::durable::create_folder(folder)
        .with_context(|| folder.display().to_string())
        .or_run()?;
    for (split, name) in
        [(Split::Train, "train"), (Split::Validation, "validation"), (Split::Test, "test")]
    {
        let records = world::task(arguments.seed, split);
        write(
            folder,
            &format!("world-{name}.jsonl"),
            &world::json_lines(&records).or_run()?,
            quiet,
        )?;
    }
    if let Some(count) = arguments.documents {
        let texts = world::documents(arguments.seed).take(count as usize);
        let text: String = texts.map(|text| format!("{}\n", json!({"text": text}))).collect();
        write(folder, "world-documents.jsonl", &text, quiet)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str, quiet: bool) -> Result<(), Failure> {
    let path = folder.join(name);
    paths::write(&path, text.as_bytes())?;
    if !quiet {
        screen::line(format!("{}: {} records", path.display(), text.lines().count()));
    }
    Ok(())
}
