//! `ist report`: runs as one page, and as tables.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::paths::{self, WrittenDown};
use super::print_json;
use ist_records::Failure;
use ist_records::report::{At, Report};
use ist_records::terminal::screen;

/// `ist report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders of runs, or folders that hold some
    #[arg(required = true, value_name = "RUN", value_parser = WrittenDown)]
    pub runs: Vec<PathBuf>,
    /// The page [default: report.html, unless another output is asked for]
    #[arg(long, value_name = "FILE.html", value_parser = WrittenDown)]
    pub output: Option<PathBuf>,
    /// Write a row a run here
    #[arg(long, value_name = "FILE", value_parser = WrittenDown)]
    pub csv: Option<PathBuf>,
    /// Write a row for every loss of every run here, as CSV
    #[arg(long, value_name = "FILE", value_parser = WrittenDown)]
    pub curves: Option<PathBuf>,
    /// Write the summary and the comparison here
    #[arg(long, value_name = "FILE", value_parser = WrittenDown)]
    pub markdown: Option<PathBuf>,
    /// The group that others are compared with [default: that of policy `all`, else the first]
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// Where runs are compared first of all
    #[arg(long, value_enum, default_value_t = Point::End)]
    pub at: Point,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Where runs are compared.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Point {
    /// Each at its own end
    End,
    /// After as many steps as the shortest run has
    Steps,
    /// After as many seconds as the quickest run took
    Seconds,
    /// The best group within each group's memory
    Bytes,
}

impl From<Point> for At {
    fn from(point: Point) -> Self {
        match point {
            Point::End => Self::End,
            Point::Steps => Self::Steps,
            Point::Seconds => Self::Seconds,
            Point::Bytes => Self::Bytes,
        }
    }
}

/// Reports. Every file appears whole or not at all, over the file that was there; devices and pipes
/// are written to.
pub fn run(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    let report = Report::read(&arguments.runs, arguments.baseline.as_deref(), arguments.at.into())?;
    let others = [&arguments.csv, &arguments.curves, &arguments.markdown];
    let asked = others.iter().any(|path| path.is_some()) || arguments.json;
    let page = arguments.output.clone().or_else(|| (!asked).then(|| PathBuf::from("report.html")));
    let mut written = Vec::new();
    let mut write = |path: &Option<PathBuf>,
                     text: &dyn Fn() -> Result<String, Failure>|
     -> Result<(), Failure> {
        let Some(path) = path else { return Ok(()) };
        paths::write(path, text()?.as_bytes())?;
        written.push(path.display().to_string());
        Ok(())
    };
    write(&page, &|| report.html())?;
    write(&arguments.csv, &|| Ok(report.csv()))?;
    write(&arguments.curves, &|| Ok(report.curves()))?;
    write(&arguments.markdown, &|| Ok(report.markdown()))?;
    if !quiet {
        for note in report.notes() {
            screen::line(format!("note: {note}"));
        }
        for path in &written {
            screen::line(format!("{path}: {}", report.counted()));
        }
    }
    if arguments.json {
        let mut document = report.json();
        document["written"] = json!(written);
        return print_json(&document);
    }
    Ok(())
}
