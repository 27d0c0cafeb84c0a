//! `ist selftest`: whether a device computes what the reference does.

use clap::Args;
use serde_json::json;

use super::print_json;
use crate::lab::selftest;
use crate::lab::selftest::Line;
use crate::machine::device;
use ist_records::Failure;
use ist_records::terminal::screen;

/// Check a device against the reference
#[derive(Debug, Args)]
pub struct Arguments {
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto; several, separated by commas, for a
    /// matrix
    #[arg(long, default_value = "auto", value_delimiter = ',')]
    pub device: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print a Markdown table of checks by devices
    #[arg(long)]
    pub markdown: bool,
}

/// Runs the conformance suite; fails when a check does not hold.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !cfg!(feature = "ndarray") {
        return Err(Failure::input(
            "the reference is not compiled in: build with the feature `ndarray`",
        ));
    }
    if let ([_, _, ..], false) = (&arguments.device[..], arguments.markdown) {
        return Err(Failure::input(
            "several devices are compared in a table: add `--markdown`, or name one device",
        ));
    }
    let quiet = arguments.json || arguments.markdown;
    let checked =
        arguments.device.iter().map(|name| check(name, quiet)).collect::<Result<Vec<_>, _>>()?;
    if arguments.markdown {
        screen::result(&matrix(&arguments.device, &checked))?;
    } else if arguments.json {
        print_json(&json!({
            "device": arguments.device[0], "checks": checked[0], "failed": failures(&checked[0]),
        }))?;
    } else {
        screen::result(&summary(&checked[0]))?;
    }
    match arguments.device.iter().zip(&checked).find(|(_, lines)| failures(lines) > 0) {
        Some((name, lines)) => {
            let (failed, all) = (failures(lines), lines.len());
            Err(Failure::run(format!("{failed} of {all} checks do not hold on {name}")))
        }
        None => Ok(()),
    }
}

/// Runs every check on a device, and shows each as it is done unless `quiet`.
fn check(name: &str, quiet: bool) -> Result<Vec<Line>, Failure> {
    let device = device::open(name)?;
    let mut lines = Vec::new();
    for check in selftest::checks() {
        let line = selftest::run(&check, &device);
        if !quiet {
            screen::result(&row(&line))?;
        }
        lines.push(line);
    }
    Ok(lines)
}

fn failures(lines: &[Line]) -> usize {
    lines.iter().filter(|line| !line.holds).count()
}

fn summary(lines: &[Line]) -> String {
    let skipped = lines.iter().filter(|line| line.holds && line.detail.is_some()).count();
    format!("{} checks, {} failed, {skipped} skipped\n", lines.len(), failures(lines))
}

fn row(line: &Line) -> String {
    let mark = match (line.holds, line.distance) {
        (true, Some(_)) => "ok  ",
        (true, None) => "skip",
        (false, _) => "FAIL",
    };
    let found = line.distance.map_or_else(|| "-".to_owned(), |distance| format!("{distance:.1e}"));
    let detail = line.detail.as_deref().map_or(String::new(), |detail| format!("  {detail}"));
    format!(
        "{mark} {:<11} {:<52} {found:>8} of {:.0e}{detail}\n",
        line.group, line.name, line.tolerance
    )
}

/// A row a check, a column a device: its distance, `-` where it does not claim the feature,
/// `**FAIL**`.
fn matrix(devices: &[String], checked: &[Vec<Line>]) -> String {
    let columns = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = ["group", "feature", "allowed"]
        .map(str::to_owned)
        .into_iter()
        .chain(devices.iter().cloned());
    let mut table = columns(head.collect()) + &columns(vec!["---".to_owned(); 3 + devices.len()]);
    for (at, first) in checked[0].iter().enumerate() {
        let cell = |line: &Line| match (line.holds, line.distance) {
            (true, Some(distance)) => format!("{distance:.0e}"),
            (true, None) => "-".to_owned(),
            (false, _) => "**FAIL**".to_owned(),
        };
        let cells = checked.iter().map(|lines| cell(&lines[at]));
        let start =
            [first.group.to_owned(), first.name.clone(), format!("{:.0e}", first.tolerance)];
        table += &columns(start.into_iter().chain(cells).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(distance: Option<f64>, holds: bool) -> Line {
        let (name, detail) = ("attention".to_owned(), None);
        Line { group: "operations", name, distance, tolerance: 1e-5, holds, detail }
    }

    #[test]
    fn a_matrix_has_a_row_for_each_check_and_a_column_for_each_device() {
        let devices = ["flex", "wgpu", "cuda"].map(str::to_owned);
        let checked = [line(Some(2.4e-7), true), line(None, true), line(Some(1.0), false)]
            .map(|line| vec![line]);
        let table = matrix(&devices, &checked);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows[0], "| group | feature | allowed | flex | wgpu | cuda |");
        assert_eq!(rows[2], "| operations | attention | 1e-5 | 2e-7 | - | **FAIL** |");
        assert_eq!(rows.len(), 3);
    }
}
