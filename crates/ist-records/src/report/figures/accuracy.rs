//! Shares of right answers, and the differences between groups.

use super::super::comparison::{Comparison, Unit};
use super::super::draw::{Bar, Estimate, bars, forest};
use super::super::format;
use super::super::summary::tasks;
use super::super::table::Table;
use super::{Figure, Section, Study};
use crate::report::statistics::{Interval, mean_interval};

pub(super) fn section(study: Study) -> Section {
    let tasks = tasks(study.runs);
    let text = if tasks.is_empty() {
        "No run was evaluated on a task: a configuration's [eval] does it, or ist eval whose \
         document is saved in a run's \
         folder as NAME.eval.json."
    } else {
        "A bar is the mean over a group's runs. Its interval is over the seeds (bootstrap, 95 %); \
         of a group with one run it is \
         over the records (Wilson, 95 %)."
    };
    let figures =
        tasks.iter().enumerate().map(|(number, task)| of_task(study, number, task)).collect();
    Section {
        id: "accuracy",
        title: "Accuracy",
        text: text.to_owned(),
        figures,
        folded: Vec::new(),
    }
}

fn of_task(study: Study, number: usize, task: &str) -> Figure {
    let mut table = Table::new(
        format!("Accuracy of every run, {task}"),
        3,
        &["run", "group", "seed", "accuracy", "95 % over records", "records"],
    );
    let mut all = Vec::new();
    for (index, group) in study.groups.iter().enumerate() {
        let (mut shares, mut single) = (Vec::new(), None);
        for run in study.of(group) {
            let Some(found) = run.accuracies.iter().find(|found| found.task == *task) else {
                continue;
            };
            shares.push(found.accuracy);
            single = found.interval;
            let words = [run.name.clone(), group.name.clone(), run.seed().to_string()];
            let numbers = [
                format::value(Unit::Share, found.accuracy),
                of_share(found.interval),
                found.records.to_string(),
            ];
            table.rows.push(words.into_iter().chain(numbers).collect());
        }
        let interval = if shares.len() == 1 { single } else { mean_interval(&shares) };
        if !shares.is_empty() {
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            let told = format::value(Unit::Share, mean);
            let runs =
                if shares.len() == 1 { String::new() } else { format!(" ({} runs)", shares.len()) };
            all.push(Bar {
                label: format!("{}{runs}", group.name),
                parts: vec![(index, mean)],
                told,
                interval,
            });
        }
    }
    Figure {
        id: format!("figure-accuracy-{number}"),
        title: format!("Accuracy, {task}"),
        description: "Mean share of right answers by group, from 0 to 100 %, with intervals."
            .to_owned(),
        drawing: bars(&all, Some(1.0)),
        legend: Vec::new(),
        table,
    }
}

fn of_share(interval: Option<Interval>) -> String {
    let told = |Interval { low, high }| format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high);
    interval.map_or(format::NONE.to_owned(), told)
}

/// The differences of every group from the baseline in one figure; `None` where there is none.
pub(super) fn differences(study: Study, comparison: &Comparison) -> Option<Figure> {
    let mut table = Table::new(
        format!("Differences by seed, {}", comparison.figure),
        2,
        &["group", "seed", "difference"],
    );
    let mut estimates = Vec::new();
    for row in &comparison.rows {
        let Some(difference) = &row.difference else { continue };
        for (seed, value) in &difference.by_seed {
            table.rows.push(vec![
                row.name.clone(),
                seed.to_string(),
                format::difference(comparison.unit, *value),
            ]);
        }
        estimates.push(Estimate {
            label: row.name.clone(),
            series: row.group,
            single: difference.by_seed.iter().map(|(_, value)| *value).collect(),
            mean: difference.moments.mean,
            interval: difference.interval,
        });
    }
    if estimates.is_empty() {
        return None;
    }
    let baseline = &study.groups[study.baseline].name;
    Some(Figure {
        id: "figure-differences".to_owned(),
        title: format!("Differences from {baseline}: {}", comparison.figure),
        description:
            "A small dot is a seed, the large one their mean, the line its 95 % bootstrap \
             interval; 0 is the baseline."
                .to_owned(),
        drawing: forest(&estimates, |value| {
            if value == 0.0 { "0".to_owned() } else { format::difference(comparison.unit, value) }
        }),
        legend: Vec::new(),
        table,
    })
}
