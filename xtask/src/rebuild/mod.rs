//! `rebuild`: how long cargo needs after an edit.
//!
//! How the code is cut into crates decides how much is compiled again after a change. So the time
//! is a figure of the design. Every edit appends a private function to one file. Then `cargo check`
//! and `cargo build` are timed as a contributor meets them, in the folder that `CARGO_TARGET_DIR`
//! names.

mod cargo;
mod edits;
mod guard;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::cargo::{Cargo, Goal, Stop};
use self::edits::{EDITS, Edit};
use self::guard::Guard;
use crate::table::Table;

/// `xtask rebuild`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often each edit is tried; the median is printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    tries: usize,
    /// Only these edits
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Time `cargo check` and leave `cargo build` out
    #[arg(long)]
    check_only: bool,
    /// Features for cargo; edits of GPU code need some, such as `ist-experiments/wgpu`
    #[arg(long, value_name = "FEATURES", default_value = "")]
    features: String,
}

/// Measures and prints.
///
/// # Errors
///
/// An unknown edit, a file that cannot be edited, cargo fails, or we were asked to stop. The edited
/// file is restored in each case.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    ensure!(arguments.tries > 0, "--tries: at least 1");
    let edits = chosen(&arguments.only)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let stop = Stop::on_signals()?;
    let cargo = Cargo { root, features: &arguments.features, stop: &stop };
    let titles = ["edit", "check, s", "build, s", "file"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for edit in edits {
        let mut row = vec![edit.name.to_owned()];
        if edit.needs_gpu && arguments.features.is_empty() {
            row.extend(["needs --features".into(), "-".into(), edit.file.into()]);
        } else {
            let times = measure(edit, arguments, &cargo).with_context(|| edit.name.to_owned())?;
            row.extend([shown(times.check), shown(times.build), edit.file.into()]);
        }
        rows.push(row);
    }
    let mut table = Table::default();
    table.heading(&format!("Seconds after an edit, median of {}", arguments.tries));
    table.grid(&rows);
    crate::print(&table.finish())?;
    Ok(true)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Edit>> {
    let names: Vec<&str> = EDITS.iter().map(|edit| edit.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("--only: no edit `{unknown}`; known are {}", names.join(", "));
    }
    let is_chosen = |edit: &&Edit| only.is_empty() || only.iter().any(|name| name == edit.name);
    Ok(EDITS.iter().filter(is_chosen).collect())
}

/// Medians of an edit, in seconds.
struct Times {
    check: Option<f64>,
    build: Option<f64>,
}

fn measure(edit: &Edit, arguments: &Arguments, cargo: &Cargo) -> Result<Times> {
    let goals: &[Goal] =
        if arguments.check_only { &[Goal::Check] } else { &[Goal::Check, Goal::Build] };
    // What an edit before this one left to compile must not count here.
    for goal in goals {
        cargo.seconds(*goal)?;
    }
    let mut guard = Guard::of(&cargo.root.join(edit.file)).context(edit.file)?;
    let mut checks = Vec::new();
    let mut builds = Vec::new();
    for number in 1..=arguments.tries {
        guard.append(&appended(number)).context(edit.file)?;
        for goal in goals {
            let seconds = cargo.seconds(*goal)?;
            match goal {
                Goal::Check => checks.push(seconds),
                Goal::Build => builds.push(seconds),
            }
        }
    }
    guard.restore().context(edit.file)?;
    Ok(Times { check: median(checks), build: median(builds) })
}

/// A function that nobody calls, another one in each try.
fn appended(number: usize) -> String {
    format!("\n#[allow(dead_code)]\nfn rebuild_probe() -> usize {{\n    {number}\n}}\n")
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len().saturating_sub(1) / 2).copied()
}

fn shown(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| format!("{seconds:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_times() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![2.0, 1.0]), Some(1.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn edits_are_chosen_by_name() {
        let all = chosen(&[]).unwrap();
        assert_eq!(all.len(), EDITS.len());
        assert_eq!(chosen(&["policy".into()]).unwrap()[0].name, "policy");
        let error = chosen(&["polcy".into()]).unwrap_err().to_string();
        assert!(error.contains("`polcy`") && error.contains("policy"), "{error}");
    }

    #[test]
    fn what_is_appended_is_rust_and_differs_in_each_try() {
        assert!(syn::parse_file(&appended(1)).is_ok());
        assert_ne!(appended(1), appended(2));
    }
}
