//! `ist report`: runs as one page, and as tables.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::print_json;
use crate::failure::{Failure, OrFail};
use crate::report::{At, Report};
use crate::run::lines;

/// `ist report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders of runs, or folders that hold some
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The page [default: report.html, unless another output is asked for]
    #[arg(long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,
    /// Write a row a run here
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a row for every loss of every run here, as CSV
    #[arg(long, value_name = "FILE")]
    pub curves: Option<PathBuf>,
    /// Write the summary and the comparison here
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// The group that others are compared with [default: that of policy `all`, else the first]
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// Where runs are compared first of all
    #[arg(long, value_enum, default_value_t = At::End)]
    pub at: At,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Reports. Every file appears whole or not at all, over what was there.
pub fn run(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    let report = Report::read(&arguments.runs, arguments.baseline.as_deref(), arguments.at)?;
    let others = [&arguments.csv, &arguments.curves, &arguments.markdown];
    let asked = others.iter().any(|path| path.is_some()) || arguments.json;
    let page = arguments.output.clone().or_else(|| (!asked).then(|| PathBuf::from("report.html")));
    let mut written = Vec::new();
    let mut write = |path: &Option<PathBuf>,
                     text: &dyn Fn() -> Result<String, Failure>|
     -> Result<(), Failure> {
        let Some(path) = path else { return Ok(()) };
        replace(path, &text()?)?;
        written.push(path.display().to_string());
        Ok(())
    };
    write(&page, &|| report.html())?;
    write(&arguments.csv, &|| Ok(report.csv()))?;
    write(&arguments.curves, &|| Ok(report.curves()))?;
    write(&arguments.markdown, &|| Ok(report.markdown()))?;
    if !quiet {
        for note in report.notes() {
            eprintln!("note: {note}");
        }
        for path in &written {
            eprintln!("{path}: {}", report.counted());
        }
    }
    if arguments.json {
        let mut document = report.json();
        document["written"] = json!(written);
        return print_json(&document);
    }
    Ok(())
}

fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let is_nowhere =
        path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    if is_nowhere || path.is_dir() {
        let what = if is_nowhere { "its folder does not exist" } else { "is a folder" };
        return Err(Failure::input(format!("{}: cannot write, {what}", path.display())));
    }
    lines::replace(path, text.as_bytes()).or_run()
}
