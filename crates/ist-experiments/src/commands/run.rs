//! `ist run`: executes the runs of studies that are not done yet.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ist_peft::Adapter;
use serde_json::json;

use super::paths::{self, WrittenDown};
use super::print_json;
use crate::config::RunConfig;
use crate::machine::{device, threads};
use crate::study::manifest::{self, Manifest};
use crate::study::member::{self, Executed};
use crate::study::open::{self, Opened};
use ist_records::study::progress::State;
use ist_records::study::schedule::{End, Task};
use ist_records::study::slurm::Script;
use ist_records::study::table::Row;
use ist_records::study::{progress, schedule, slurm, table};
use ist_records::terminal::{interrupt, screen};
use ist_records::{Failure, OrFail};

/// `ist run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configurations with or without `[sweep]` and `seeds`; or folders of studies
    #[arg(required = true, value_parser = WrittenDown)]
    pub files: Vec<PathBuf>,
    /// Runs at once, each in a process of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// Check everything and list the runs, and execute none
    #[arg(long, conflicts_with = "member")]
    pub dry_run: bool,
    /// Go ahead with more than 1000 runs of a file
    #[arg(long)]
    pub yes: bool,
    /// The folder of the studies' folders
    #[arg(long, default_value = "runs", value_parser = WrittenDown)]
    pub output: PathBuf,
    /// Override one key in every run: --set optimizer.lr=1e-3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// cpu, flex, ndarray, auto, ...
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Execute one run, in this process: its number, counted from 0, as in --dry-run
    #[arg(long, value_name = "I")]
    pub member: Option<usize>,
    /// Write a job-array script for Slurm instead of executing anything [default: NAME.sbatch]
    #[arg(long, value_name = "SCRIPT", num_args = 0..=1, require_equals = true,
          conflicts_with_all = ["member", "dry_run"], value_parser = WrittenDown)]
    pub slurm: Option<Option<PathBuf>>,
    /// Runs of one array task [default: 1, or as many as keep the array at 1000 tasks]
    #[arg(long, value_name = "N", requires = "slurm", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunk: Option<u32>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
    /// What another `ist run` tells the processes it starts.
    #[command(flatten)]
    pub parent: Parent,
}

/// What a process of `--jobs` is told by the one that started it.
#[derive(Debug, Args)]
pub struct Parent {
    /// Stop after the step in progress when stdin comes to its end
    #[arg(long, hide = true, requires = "member")]
    pub while_stdin_is_open: bool,
    /// A try of another process that was seen to stand still
    #[arg(long, hide = true, requires = "member", value_name = "TRY")]
    pub take_over: Option<u64>,
}

/// Runs.
pub fn run<A: Adapter>(arguments: &Arguments, quiet: bool, verbose: bool) -> Result<(), Failure> {
    if arguments.parent.while_stdin_is_open {
        interrupt::ask_at_end_of_stdin();
    }
    if let Some(index) = arguments.member {
        return one_member::<A>(arguments, index, quiet, verbose);
    }
    let studies = open::all::<A>(&arguments.files, &manner(arguments))?;
    open::check_against_models::<A>(&studies)?;
    if let Some(script) = &arguments.slurm {
        return write_script(arguments, &studies, script.as_deref(), quiet);
    }
    device::open(&arguments.device)?;
    if arguments.dry_run {
        return list(arguments, &studies);
    }
    let tasks = register::<A>(&studies)?;
    let jobs = usize::from(arguments.jobs);
    let ends = schedule::execute(
        &tasks,
        &schedule::Manner {
            jobs,
            cores: threads::cores(),
            threads_variable: threads::VARIABLE,
            device: &arguments.device,
            quiet,
            verbose,
        },
    )?;
    close(arguments, &studies, &tasks, &ends, quiet)
}

fn manner(arguments: &Arguments) -> open::Manner<'_> {
    let (overrides, output) = (arguments.overrides.as_slice(), arguments.output.as_path());
    open::Manner { overrides, output, yes: arguments.yes, needs_files: true }
}

/// `--member I`: what an array task and a process of `--jobs` do.
fn one_member<A: Adapter>(
    arguments: &Arguments,
    index: usize,
    quiet: bool,
    verbose: bool,
) -> Result<(), Failure> {
    let [file] = arguments.files.as_slice() else {
        return Err(Failure::input("--member goes with one file"));
    };
    let (folder, name, config) = find_member::<A>(arguments, file, index)?;
    let Parent { take_over: dead, while_stdin_is_open } = arguments.parent;
    let (device, watch) = (arguments.device.as_str(), !while_stdin_is_open);
    let manner = member::Manner { device, quiet, verbose, dead, watch };
    let executed = member::execute::<A>(&folder, &name, config, &manner)?;
    let note = match &executed {
        Executed::Now(_) => None,
        Executed::Before => Some(format!("{name} is done already")),
        Executed::Elsewhere(owner) => Some(format!(
            "{name} is being executed {}",
            owner.as_deref().unwrap_or("by another process")
        )),
    };
    if let (Some(note), false) = (note, quiet) {
        screen::line(note);
    }
    match executed {
        Executed::Now(result) if arguments.json => print_json(&result),
        _ => Ok(()),
    }
}

/// The study's folder, the member's name and its configuration. Of a folder only the one entry is
/// read.
fn find_member<A: Adapter>(
    arguments: &Arguments,
    file: &Path,
    index: usize,
) -> Result<(PathBuf, String, RunConfig), Failure> {
    let none = |count: usize| {
        Failure::input(format!("there is no run {index}: there are {count}, counted from 0"))
    };
    if file.is_dir()
        && let Some(Manifest { members, .. }) = manifest::read(file)?
    {
        let entry = members.get(index).ok_or_else(|| none(members.len()))?;
        return Ok((file.to_owned(), entry.name.clone().into(), entry.config::<A>(file, true)?));
    }
    let opened = open::one::<A>(file, &manner(arguments))?;
    manifest::register::<A>(&opened.folder, &opened.study)?;
    let count = opened.study.members.len();
    let member = opened.study.members.into_iter().nth(index).ok_or_else(|| none(count))?;
    Ok((opened.folder, member.name, member.config))
}

/// Makes the studies' folders and manifests; the members as tasks.
fn register<A: Adapter>(studies: &[Opened]) -> Result<Vec<Task>, Failure> {
    let mut tasks = Vec::new();
    for Opened { folder, study, from_folder } in studies {
        if !from_folder {
            manifest::register::<A>(folder, study)?;
        }
        let manifest =
            manifest::read(folder)?.ok_or_else(|| Failure::run("the manifest was taken away"))?;
        let indices: std::collections::HashMap<&str, usize> = manifest
            .members
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.name.as_str(), index))
            .collect();
        for member in &study.members {
            let index = *indices
                .get(member.name.as_str())
                .ok_or_else(|| Failure::run("the manifest was changed"))?;
            tasks.push(Task { study: folder.clone(), name: member.name.clone(), index });
        }
    }
    Ok(tasks)
}

fn rows(studies: &[Opened]) -> Vec<Row> {
    let members = studies
        .iter()
        .flat_map(|opened| opened.study.members.iter().map(move |member| (opened, member)));
    members
        .map(|(Opened { folder, study, .. }, member)| Row {
            name: format!("{}/{}", study.name, member.name),
            folder: folder.join(&member.name).display().to_string(),
            progress: progress::of_member(
                folder,
                &member.name,
                member.config.train.steps.map(|steps| steps as u64),
            ),
        })
        .collect()
}

fn list(arguments: &Arguments, studies: &[Opened]) -> Result<(), Failure> {
    let rows = rows(studies);
    if arguments.json {
        return print_json(&json!({"runs": rows}));
    }
    let open = rows.iter().filter(|row| row.progress.state != State::Done).count();
    screen::result(&format!("{}{open} would be executed\n", table::render(&rows)))
}

fn write_script(
    arguments: &Arguments,
    studies: &[Opened],
    path: Option<&Path>,
    quiet: bool,
) -> Result<(), Failure> {
    let ([Opened { study, .. }], [file]) = (studies, arguments.files.as_slice()) else {
        return Err(Failure::input("--slurm writes one script for one file"));
    };
    let path =
        path.map_or_else(|| PathBuf::from(format!("{}.sbatch", study.name)), Path::to_path_buf);
    paths::must_be_new(&path, "is there already; remove it, or name another with --slurm=SCRIPT")?;
    let count = study.members.len();
    let chunk = arguments.chunk.map_or_else(|| count.div_ceil(open::MANY), |chunk| chunk as usize);
    let mut further = vec![
        format!("--output={}", arguments.output.display()),
        format!("--device={}", arguments.device),
    ];
    further.extend(arguments.overrides.iter().map(|set| format!("--set={set}")));
    further.extend(arguments.yes.then(|| "--yes".to_owned()));
    let program = std::env::current_exe().context("cannot find this program").or_run()?;
    let folder = std::env::current_dir().context("cannot find the current folder").or_run()?;
    let (name, arguments) = (study.name.as_str(), further.as_slice());
    let script = Script { program: &program, file, name, count, chunk, arguments, folder: &folder };
    paths::write(&path, slurm::render(&script).as_bytes())?;
    if !quiet {
        screen::line(format!("{}: {count} runs; submit it with sbatch", path.display()));
    }
    Ok(())
}

/// Says what came of it, and fails where something failed.
fn close(
    arguments: &Arguments,
    studies: &[Opened],
    tasks: &[Task],
    ends: &[End],
    quiet: bool,
) -> Result<(), Failure> {
    let rows = rows(studies);
    let failed: Vec<(&str, &str)> = ends
        .iter()
        .zip(&rows)
        .filter_map(|(end, row)| {
            if let End::Failed(reason) = end {
                Some((row.name.as_str(), reason.as_str()))
            } else {
                None
            }
        })
        .collect();
    if arguments.json {
        let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
        print_json(&json!({"runs": rows, "failed": names}))?;
    }
    if ends.contains(&End::Left) {
        let message = format!("{}; go on with the same command", table::counts(&rows));
        return Err(Failure::Interrupted(message));
    }
    if !failed.is_empty() {
        let list: Vec<String> =
            failed.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        let (failed, all) = (failed.len(), tasks.len());
        let message = format!(
            "{failed} of {all} runs failed; the same command tries them again\n  {}",
            list.join("\n  ")
        );
        return Err(Failure::run(message));
    }
    if !quiet {
        screen::line(table::counts(&rows));
    }
    Ok(())
}
