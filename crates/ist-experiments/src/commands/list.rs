//! `ist list`: runs and their states.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ist_peft::Adapter;
use serde_json::json;

use super::print_json;
use crate::study::manifest::{self, Manifest};
use crate::study::open;
use ist_records::study::table::Row;
use ist_records::study::{progress, table};
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist list`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders of runs and studies, or configurations [default: runs]
    pub places: Vec<PathBuf>,
    /// The folder of the studies' folders, for configurations
    #[arg(long, default_value = "runs")]
    pub output: PathBuf,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run<A: Adapter>(arguments: &Arguments) -> Result<(), Failure> {
    let usual = [PathBuf::from("runs")];
    let places = if arguments.places.is_empty() { &usual[..] } else { &arguments.places };
    let mut rows = Vec::new();
    for place in places {
        if place.is_dir() {
            of_folder(place, &mut rows)?;
        } else if place.exists() {
            of_file::<A>(place, &arguments.output, &mut rows)?;
        } else {
            let advice = "name a folder of runs, or a configuration";
            return Err(Failure::input(format!("{} does not exist; {advice}", place.display())));
        }
    }
    if arguments.json {
        print_json(&json!({"runs": rows}))
    } else {
        screen::result(&table::render(&rows))
    }
}

/// A run, a study, or a folder of both.
fn of_folder(folder: &Path, rows: &mut Vec<Row>) -> Result<(), Failure> {
    if let Some(manifest) = manifest::read(folder)? {
        of_study(folder, &manifest, rows);
        return Ok(());
    }
    if is_run(folder) {
        rows.push(of_run(folder));
        return Ok(());
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| folder.display().to_string()).or_input()?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        if let Some(manifest) = manifest::read(&folder)? {
            of_study(&folder, &manifest, rows);
        } else if is_run(&folder) {
            rows.push(of_run(&folder));
        }
    }
    Ok(())
}

fn is_run(folder: &Path) -> bool {
    ["config.toml", "result.json"].iter().any(|name| folder.join(name).is_file())
}

fn of_run(folder: &Path) -> Row {
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    Row { name, folder: folder.display().to_string(), progress: progress::of_run(folder, None) }
}

fn of_study(folder: &Path, manifest: &Manifest, rows: &mut Vec<Row>) {
    rows.extend(manifest.members.iter().map(|entry| Row {
        name: format!("{}/{}", manifest.study, entry.name),
        folder: folder.join(&entry.name).display().to_string(),
        progress: progress::of_member(folder, entry.name.as_str(), entry.steps()),
    }));
}

/// A configuration's runs, also those that no process has heard of yet.
fn of_file<A: Adapter>(file: &Path, output: &Path, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let manner = open::Manner { overrides: &[], output, yes: true, needs_files: false };
    let opened = open::one::<A>(file, &manner)?;
    rows.extend(opened.study.members.iter().map(|member| Row {
        name: format!("{}/{}", opened.study.name, member.name),
        folder: opened.folder.join(&member.name).display().to_string(),
        progress: progress::of_member(
            &opened.folder,
            &member.name,
            member.config.train.steps.map(|steps| steps as u64),
        ),
    }));
    Ok(())
}
