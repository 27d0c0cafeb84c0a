//! `ist selftest`: whether a device computes what the reference does.

use clap::Args;
use serde_json::json;

use super::{print_json, print_text, show};
use crate::device;
use crate::failure::Failure;
use crate::selftest::{self, Line};

/// Check a device against the reference
#[derive(Debug, Args)]
pub struct Arguments {
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Runs the conformance suite; fails when a check does not hold.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !cfg!(feature = "ndarray") {
        return Err(Failure::input("the reference is not compiled in: build with the feature `ndarray`"));
    }
    let device = device::open(&arguments.device)?;
    // A check that panics says so in its line.
    std::panic::set_hook(Box::new(|_| {}));
    let mut lines = Vec::new();
    for check in selftest::checks() {
        let line = selftest::run(&check, &device);
        if !arguments.json {
            show(&row(&line))?;
        }
        lines.push(line);
    }
    drop(std::panic::take_hook());
    report(arguments, &lines)
}

fn report(arguments: &Arguments, lines: &[Line]) -> Result<(), Failure> {
    let failed = lines.iter().filter(|line| !line.holds).count();
    if arguments.json {
        print_json(&json!({"device": arguments.device, "checks": lines, "failed": failed}))?;
    } else {
        let skipped = lines.iter().filter(|line| line.holds && line.detail.is_some()).count();
        print_text(&format!("{} checks, {failed} failed, {skipped} skipped\n", lines.len()))?;
    }
    if failed > 0 {
        return Err(Failure::run(format!("{failed} of {} checks do not hold on {}", lines.len(), arguments.device)));
    }
    Ok(())
}

fn row(line: &Line) -> String {
    let mark = match (line.holds, line.distance) {
        (true, Some(_)) => "ok  ",
        (true, None) => "skip",
        (false, _) => "FAIL",
    };
    let found = line.distance.map_or_else(|| "-".to_owned(), |distance| format!("{distance:.1e}"));
    let detail = line.detail.as_deref().map_or(String::new(), |detail| format!("  {detail}"));
    format!("{mark} {:<11} {:<52} {found:>8} of {:.0e}{detail}\n", line.group, line.name, line.tolerance)
}
