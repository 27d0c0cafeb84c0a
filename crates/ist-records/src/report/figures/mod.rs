//! The figures of a report, each with the table of its numbers.

mod accuracy;
mod costs;
mod layers;
mod losses;

use serde::Serialize;

use super::comparison::Matched;
use super::draw::{Drawing, palette};
use super::groups::Group;
use super::record::RunRecord;
use super::table::Table;

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// What links and tests find it by.
    pub(super) id: String,
    pub(super) title: String,
    /// What it shows, for those who do not see it and for those who do.
    pub(super) description: String,
    pub(super) drawing: Drawing,
    pub(super) legend: Vec<Key>,
    pub(super) table: Table,
}

/// A colour of a legend.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Key {
    pub(super) variable: String,
    pub(super) label: String,
}

/// What figures are made of.
#[derive(Clone, Copy)]
pub(super) struct Study<'a> {
    pub(super) groups: &'a [Group],
    pub(super) runs: &'a [RunRecord],
    /// The group that others are compared with.
    pub(super) baseline: usize,
}

impl Study<'_> {
    /// The runs of a group.
    fn of(&self, group: &Group) -> impl Iterator<Item = &RunRecord> + Clone {
        group.runs.iter().map(|run| &self.runs[*run])
    }

    /// The place of a run's group.
    fn group_of(&self, run: usize) -> usize {
        self.groups
            .iter()
            .position(|group| group.runs.contains(&run))
            .expect("every run is in a group")
    }

    /// The groups' colours, of those that `shown` says.
    fn legend(&self, shown: impl Fn(usize) -> bool) -> Vec<Key> {
        let named = self.groups.iter().enumerate().filter(|(group, _)| shown(*group));
        named.map(|(index, group)| key(index, &group.name)).collect()
    }
}

fn key(series: usize, label: &str) -> Key {
    Key { variable: palette::variable(series), label: label.to_owned() }
}

/// A part of a report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What is to be known for reading it, or that there is nothing to show.
    pub(super) text: String,
    pub(super) figures: Vec<Figure>,
    /// Figures of single runs, under the runs' names.
    pub(super) folded: Vec<Folded>,
}

/// Figures that are unfolded on request.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Folded {
    pub(super) summary: String,
    pub(super) figures: Vec<Figure>,
}

/// All figures but the differences, section by section.
pub(super) fn sections(study: Study) -> Vec<Section> {
    vec![
        losses::section(study),
        accuracy::section(study),
        layers::section(study),
        costs::memory(study),
        costs::time(study),
    ]
}

/// The figure of the differences in what decides: validation loss, else training loss.
pub(super) fn differences(study: Study, matched: &Matched) -> Option<Figure> {
    accuracy::differences(study, matched.comparisons.first()?)
}
