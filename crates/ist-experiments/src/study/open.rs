//! From what a command names to studies: a file, or a study's folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ist_models::{Shape, registry};
use ist_peft::Adapter;

use super::manifest::{self, Manifest};
use crate::config::{self, Member, ModelRef, RunConfig, Study};
use crate::model_source;
use crate::train::prepare;
use ist_records::{Failure, OrFail};

/// Members from which on a command wants to be told that they are meant.
pub const MANY: usize = 1000;

/// Members that a study has at most: all of them are held in memory, and each has a folder.
const MOST: usize = 1_000_000;

/// A study and the folder that it is executed in.
#[derive(Debug)]
pub struct Opened {
    /// `OUTPUT/NAME`.
    pub folder: PathBuf,
    /// The members.
    pub study: Study,
    /// Whether it was named by its folder, so that the manifest is its only source.
    pub from_folder: bool,
}

/// How files are opened.
#[derive(Debug)]
pub struct Manner<'a> {
    /// `--set` of the command line.
    pub overrides: &'a [String],
    /// The folder of studies' folders.
    pub output: &'a Path,
    /// Whether more than [`MANY`] members are meant.
    pub yes: bool,
    /// Whether what configurations name must be there.
    pub needs_files: bool,
}

/// Opens every named study; all faults of all files at once.
pub fn all<A: Adapter>(names: &[PathBuf], manner: &Manner) -> Result<Vec<Opened>, Failure> {
    let (mut studies, mut faults): (Vec<Opened>, Vec<String>) = (Vec::new(), Vec::new());
    for name in names {
        match one::<A>(name, manner) {
            Ok(opened) => studies.push(opened),
            // Files that extend the same one share its faults.
            Err(failure) => failure.to_string().lines().for_each(|line| {
                if !faults.iter().any(|noted| noted == line) {
                    faults.push(line.to_owned());
                }
            }),
        }
    }
    let mut taken: HashMap<String, &Path> = HashMap::new();
    for Opened { study, folder, .. } in &studies {
        let key = folder.to_string_lossy().to_lowercase();
        if let Some(other) = taken.insert(key, &study.file) {
            let (name, other, this) = (&study.name, other.display(), study.file.display());
            faults.push(format!(
                "{other} and {this} would both be runs of {name}; rename one of the files"
            ));
        }
    }
    if faults.is_empty() { Ok(studies) } else { Err(Failure::input(faults.join("\n"))) }
}

/// Opens one study.
pub fn one<A: Adapter>(name: &Path, manner: &Manner) -> Result<Opened, Failure> {
    if name.is_dir() {
        return of_folder::<A>(name, manner);
    }
    let expansion = config::study(name, manner.overrides).or_input()?;
    let count = expansion.count();
    if count > MANY && !manner.yes {
        let shown = name.display();
        return Err(Failure::input(format!(
            "{shown} makes {count} runs; add --yes if that many are meant"
        )));
    }
    if count > MOST {
        let message = format!("makes {count} runs, and a study has at most {MOST}; split the file");
        return Err(Failure::input(format!("{} {message}", name.display())));
    }
    let study = expansion.members::<A>(manner.needs_files).or_input()?;
    let folder = manner.output.join(&study.name);
    if let Some(manifest) = manifest::read(&folder)? {
        manifest::agree::<A>(&folder, &manifest, &study)?;
    }
    Ok(Opened { folder, study, from_folder: false })
}

/// A study by its folder: what its manifest says.
fn of_folder<A: Adapter>(folder: &Path, manner: &Manner) -> Result<Opened, Failure> {
    let Some(manifest) = manifest::read(folder)? else {
        let message = "is no study's folder (it has no manifest.json); name the study's file";
        return Err(Failure::input(format!("{} {message}", folder.display())));
    };
    if !manner.overrides.is_empty() {
        let message = "has its configurations fixed; --set goes with a study's file";
        return Err(Failure::input(format!("{} {message}", folder.display())));
    }
    let Manifest { study: name, file, sha256: digest, members: entries, .. } = manifest;
    let member = |entry: &manifest::Entry| {
        Ok(Member {
            name: entry.name.as_str().to_owned(),
            config: entry.config::<A>(folder, manner.needs_files)?,
        })
    };
    let members = entries.iter().map(member).collect::<Result<_, Failure>>()?;
    let study = Study { name: name.into(), file, digest, members };
    Ok(Opened { folder: folder.to_owned(), study, from_folder: true })
}

/// Checks what can be known of each member's adapter and policy from its model's shape, so that a
/// study that would fail at its last member does not begin. Models of the hub are left to the runs,
/// as they may have to be fetched.
pub fn check_against_models<A: Adapter>(studies: &[Opened]) -> Result<(), Failure> {
    let mut shapes: HashMap<String, Result<Shape, String>> = HashMap::new();
    let mut faults: Vec<(String, Vec<String>)> = Vec::new();
    for (study, member) in
        studies.iter().flat_map(|opened| opened.study.members.iter().map(|m| (&opened.study, m)))
    {
        if matches!(member.config.model.path, ModelRef::Hub { .. }) {
            continue;
        }
        let path = member.config.model.path.to_string();
        let shape = shapes
            .entry(path)
            .or_insert_with(|| shape(&member.config).map_err(|failure| failure.to_string()));
        let checked = shape.as_ref().map_err(Clone::clone).and_then(|shape| {
            fits::<A>(&member.config, shape).map_err(|failure| failure.to_string())
        });
        if let Err(fault) = checked {
            let name = format!("{}/{}", study.name, member.name);
            match faults.iter_mut().find(|(noted, _)| *noted == fault) {
                Some((_, members)) => members.push(name),
                None => faults.push((fault, vec![name])),
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let line = |(fault, members): &(String, Vec<String>)| {
        let more = members.len().saturating_sub(3);
        let more = if more > 0 { format!("; and {more} more runs") } else { String::new() };
        format!("{fault} (in {}{more})", members[..members.len().min(3)].join("; "))
    };
    Err(Failure::input(faults.iter().map(line).collect::<Vec<_>>().join("\n")))
}

fn shape(config: &RunConfig) -> Result<Shape, Failure> {
    registry::shape(&model_source::find(&config.model.path)?).or_input()
}

fn fits<A: Adapter>(config: &RunConfig, shape: &Shape) -> Result<(), Failure> {
    let planned = prepare::adapters::<A>(&config.adapter, shape)?;
    prepare::policy(&config.policy, &planned.layers(shape.num_layers)).map(drop)
}
