//! `ist report`: runs, of any policy and any state, as tables and figures.
//!
//! | what | look at |
//! |---|---|
//! | which folders are runs, and reading them | `find`, `log`, [`RunRecord`] |
//! | runs of one configuration, and what differs | `groups`, `configuration` |
//! | comparisons, also at equal steps, time and memory | [`Matched`], and [`crate::report::statistics`] for the numbers |
//! | what may be said of them | `words` |
//! | charts as SVG | `draw` |
//! | the figures, each with its table | `figures` |
//! | the page | `page`, `page.html`, `style.css` |
//!
//! A report is a function of the runs' files alone: it reads no model and starts nothing, and the
//! same files give the same page.

mod accuracy;
mod comparison;
mod configuration;
mod csv;
pub(crate) mod curves;
mod draw;
mod figures;
mod find;
mod format;
mod groups;
mod log;
mod page;
mod record;
pub mod statistics;
mod summary;
mod table;
#[cfg(test)]
mod testing;
mod time;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use accuracy::Accuracy;
pub use comparison::{At, Budget, Comparison, Matched, Row, Unit};
pub use configuration::Flat;
pub use groups::Group;
pub use record::{Evaluation, RunRecord, State, Step};
pub use summary::Summary;
pub use time::Split;

pub(crate) use draw::palette::viridis;
pub use find::holds_run;
pub(crate) use log::Line;
pub(crate) use record::LOGS;

use crate::failure::Failure;
use figures::Study;
use page::{Page, Place, Places, Settings};
use table::Table;

/// Runs and what is said of them.
#[derive(Debug)]
pub struct Report {
    runs: Vec<RunRecord>,
    groups: Vec<Group>,
    baseline: usize,
    at: At,
    matched: Vec<Matched>,
    summaries: Vec<Summary>,
    notes: Vec<String>,
}

impl Report {
    /// Reads the runs in `named`, folders of runs or folders that hold some, and compares their
    /// groups with the one called `baseline`, at `at` first of all.
    ///
    /// # Errors
    ///
    /// A folder without a run, a file that is broken before its last line, and a baseline that is
    /// no group.
    pub fn read(named: &[PathBuf], baseline: Option<&str>, at: At) -> Result<Self, Failure> {
        let found = find::runs(named)?;
        let mut runs = found
            .folders
            .iter()
            .map(|folder| RunRecord::read(folder))
            .collect::<Result<Vec<_>, _>>()?;
        name(&mut runs);
        let groups = groups::group(&runs);
        let baseline = groups::baseline(&groups, &runs, baseline)?;
        let places = std::iter::once(at).chain(At::ALL.into_iter().filter(|place| *place != at));
        let matched =
            places.map(|place| comparison::compare(&groups, &runs, baseline, place)).collect();
        let group_of = |run: usize| {
            groups.iter().find(|group| group.runs.contains(&run)).map_or("", |group| &group.name)
        };
        let summaries =
            runs.iter().enumerate().map(|(index, run)| Summary::of(run, group_of(index))).collect();
        let notes = notes(&runs, &groups, found.notes);
        Ok(Self { runs, groups, baseline, at, matched, summaries, notes })
    }

    /// The runs.
    pub fn runs(&self) -> &[RunRecord] {
        &self.runs
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What is to be known of the files.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn baseline(&self) -> &str {
        &self.groups[self.baseline].name
    }

    /// The comparison that was asked for.
    fn asked(&self) -> &Matched {
        &self.matched[0]
    }

    /// The page.
    ///
    /// # Errors
    ///
    /// None but a defect of the page's template.
    pub fn html(&self) -> Result<String, Failure> {
        let study = Study { groups: &self.groups, runs: &self.runs, baseline: self.baseline };
        let tasks = summary::tasks(&self.runs);
        let figure = self.matched.iter().find(|matched| !matched.comparisons.is_empty());
        let page = Page {
            title: format!("Report of {}", self.counted()),
            lead: format!("Baseline: {}. Figures are of the runs' own files.", self.baseline()),
            notes: self.notes.clone(),
            summary: summary::table(&self.summaries, &tasks),
            comparison: Places {
                text: words::caution(&self.matched, self.baseline()),
                figure: figure.and_then(|matched| figures::differences(study, matched)),
                places: self.matched.iter().map(|matched| self.place(matched)).collect(),
            },
            sections: figures::sections(study),
            configuration: self.settings(),
            foot: format!("Written by ist {}.", env!("CARGO_PKG_VERSION")),
            style: page::style(),
        };
        page::render(&page)
    }

    fn place(&self, matched: &Matched) -> Place {
        Place {
            id: matched.at.name().to_owned(),
            title: matched.at.title().to_owned(),
            text: format!("{}.", words::capital(&matched.budget)),
            tables: words::tables(matched, self.baseline()),
        }
    }

    /// `6 runs in 2 groups`.
    pub fn counted(&self) -> String {
        let count = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        format!("{} in {}", count(self.runs.len(), "run"), count(self.groups.len(), "group"))
    }

    /// The keys whose values differ between any two runs.
    fn differing(&self) -> Vec<String> {
        configuration::differing(
            &self.runs.iter().map(|run| &run.configuration).collect::<Vec<_>>(),
        )
    }

    /// A row a key that differs, a column a group; values that differ within a group stand side by
    /// side.
    fn settings(&self) -> Settings {
        let keys = self.differing();
        if keys.is_empty() {
            return Settings {
                text: "All runs have the same configuration.".to_owned(),
                table: None,
            };
        }
        let mut table = Table::new("Settings that differ", 1 + self.groups.len(), &["key"]);
        table.headers.extend(self.groups.iter().map(|group| group.name.clone()));
        let cell = |group: &Group, key: &str| {
            let values: Vec<String> = group
                .runs
                .iter()
                .map(|run| configuration::shown(self.runs[*run].configuration.get(key)))
                .collect();
            let mut seen = BTreeSet::new();
            values
                .into_iter()
                .filter(|value| seen.insert(value.clone()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let row = |key: &String| {
            std::iter::once(key.clone())
                .chain(self.groups.iter().map(|group| cell(group, key)))
                .collect()
        };
        table.rows = keys.iter().map(row).collect();
        let text = "Only keys whose values are not the same in all runs; a dash where a run has no \
                    such key.";
        Settings { text: text.to_owned(), table: Some(table) }
    }

    /// The summary and the comparison that was asked for, in Markdown.
    pub fn markdown(&self) -> String {
        let tasks = summary::tasks(&self.runs);
        let asked = self.asked();
        let mut parts = vec![format!("# Report of {}", self.counted())];
        if !self.notes.is_empty() {
            let notes = self.notes.iter().map(|note| format!("- {}", table::markdown(note)));
            parts.push(notes.collect::<Vec<_>>().join("\n"));
        }
        parts.push(format!("## Summary\n\n{}", summary::table(&self.summaries, &tasks).markdown()));
        parts.push(format!("## {}\n\n{}.", asked.at.title(), words::capital(&asked.budget)));
        let caution = words::caution(std::slice::from_ref(asked), self.baseline());
        parts.extend(Some(caution).filter(|caution| asked.at != At::Bytes && !caution.is_empty()));
        for table in words::tables(asked, self.baseline()) {
            parts.push(format!("### {}\n\n{}", table::markdown(&table.caption), table.markdown()));
        }
        parts.extend(
            self.settings().table.map(|table| format!("## Configuration\n\n{}", table.markdown())),
        );
        parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n") + "\n"
    }

    /// A row a run, with the settings that differ, as CSV.
    pub fn csv(&self) -> String {
        summary::csv(&self.summaries, &self.runs, &summary::tasks(&self.runs), &self.differing())
    }

    /// A row for every loss of every run, as CSV.
    pub fn curves(&self) -> String {
        summary::curves(&self.summaries, &self.runs)
    }

    /// One document for programs.
    pub fn json(&self) -> Value {
        let group = |group: &Group| {
            let runs: Vec<&str> =
                group.runs.iter().map(|run| self.runs[*run].name.as_str()).collect();
            json!({"name": group.name, "runs": runs})
        };
        json!({
            "runs": self.summaries,
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "baseline": self.baseline(),
            "at": self.at,
            "comparisons": self.matched,
            "differing": self.differing(),
            "notes": self.notes,
        })
    }
}

/// Calls runs by more of their path where two are called the same.
fn name(runs: &mut [RunRecord]) {
    let counted =
        |name: &str, runs: &[RunRecord]| runs.iter().filter(|run| run.name == name).count();
    let longer: Vec<bool> = runs.iter().map(|run| counted(&run.name, runs) > 1).collect();
    for (run, longer) in runs.iter_mut().zip(longer) {
        if longer {
            let parent = run
                .folder
                .parent()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned());
            run.name = parent.map_or(run.name.clone(), |parent| format!("{parent}/{}", run.name));
        }
    }
    let names = groups::unique(runs.iter().map(|run| run.name.clone()).collect());
    runs.iter_mut().zip(names).for_each(|(run, name)| run.name = name);
}

/// What is to be known: of files, of runs that are not compared, of seeds that stand twice.
fn notes(runs: &[RunRecord], groups: &[Group], found: Vec<String>) -> Vec<String> {
    let mut notes = found;
    notes.extend(runs.iter().flat_map(|run| run.notes.clone()));
    for run in runs.iter().filter(|run| !run.state.is_whole()) {
        let (name, state, steps) = (&run.name, run.state.words(), run.steps.len());
        notes.push(format!("{name} is {state}, after {steps} steps: it is shown and not compared"));
    }
    for group in groups {
        let mut seeds = BTreeSet::new();
        let again = |run: &&usize| !seeds.insert(runs[**run].seed());
        for run in group.runs.iter().filter(again) {
            let (seed, name) = (runs[*run].seed(), &group.name);
            notes.push(format!(
                "seed {seed} stands more than once in group {name}: the mean of its \
                                runs is compared"
            ));
        }
    }
    notes.dedup();
    notes
}
