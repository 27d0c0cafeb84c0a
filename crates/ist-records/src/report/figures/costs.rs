//! What runs cost: memory by kind, predicted and measured, and where the time went.

use serde_json::Value;

use super::super::comparison::Unit;
use super::super::draw::{Bar, bars, palette};
use super::super::format;
use super::super::record::RunRecord;
use super::super::table::Table;
use super::super::time::Split;
use super::{Figure, Section, Study, key};
use crate::record::plan::KINDS;

/// Memory.
pub(super) fn memory(study: Study) -> Section {
    let figures: Vec<Figure> = [peaks(study), kinds(study)].into_iter().flatten().collect();
    let text = if figures.is_empty() {
        "No run tells its memory."
    } else {
        "The measured peak is the most live bytes of any step, the largest of a group's runs. The \
         prediction is that of the \
         plan: of the draws that were made for a run that has ended, else of the worst draw. Each \
         kind is shown at its own \
         most; they do not come together, so the peak is less than their sum."
    };
    Section { id: "memory", title: "Memory", text: text.to_owned(), figures, folded: Vec::new() }
}

fn peaks(study: Study) -> Option<Figure> {
    let mut table = Table::new(
        "Peak memory of every run",
        3,
        &["run", "group", "seed", "predicted", "measured", "predicted to measured"],
    );
    let mut all = Vec::new();
    for (index, group) in study.groups.iter().enumerate() {
        let most = |of: &dyn Fn(&RunRecord) -> f64| study.of(group).map(of).fold(0.0, f64::max);
        let (planned, measured) = (
            most(&|run| run.predicted_peak_bytes().unwrap_or_default()),
            most(&RunRecord::peak_bytes),
        );
        let told = [("predicted", 7, planned), ("measured", index, measured)];
        for (number, (what, series, bytes)) in
            told.into_iter().filter(|(_, _, bytes)| *bytes > 0.0).enumerate()
        {
            let label = if number == 0 { group.name.clone() } else { String::new() };
            let told = format!("{} {what}", format::bytes(bytes));
            all.push(Bar { label, parts: vec![(series, bytes)], told, interval: None });
        }
        for run in study.of(group) {
            let (planned, measured) =
                (run.predicted_peak_bytes(), Some(run.peak_bytes()).filter(|bytes| *bytes > 0.0));
            let ratio =
                planned.zip(measured).map_or(format::NONE.to_owned(), |(planned, measured)| {
                    format!("{:.2}", planned / measured)
                });
            let words = [run.name.clone(), group.name.clone(), run.seed().to_string()];
            let numbers = [
                format::or_none(Unit::Bytes, planned),
                format::or_none(Unit::Bytes, measured),
                ratio,
            ];
            table.rows.push(words.into_iter().chain(numbers).collect());
        }
    }
    if all.is_empty() {
        return None;
    }
    Some(Figure {
        id: "figure-memory".to_owned(),
        title: "Peak memory, predicted and measured".to_owned(),
        description:
            "Bars to one scale: the plan's prediction, grey, and the measured peak of each group."
                .to_owned(),
        drawing: bars(&all, None),
        legend: Vec::new(),
        table,
    })
}

/// Bytes by kind, of each group's first run with a plan.
fn kinds(study: Study) -> Option<Figure> {
    let plan = |group: usize| -> Option<&Value> {
        study.of(&study.groups[group]).map(|run| &run.plan["bytes"]).find(|bytes| bytes.is_object())
    };
    let planned: Vec<(usize, &Value)> =
        (0..study.groups.len()).filter_map(|group| Some((group, plan(group)?))).collect();
    let drawn = &planned[..planned.len().min(palette::SERIES)];
    if planned.is_empty() {
        return None;
    }
    let bytes = |plan: &Value, kind: &str| plan[kind].as_f64().unwrap_or_default();
    let bar = |kind: &&str| {
        let of = |(number, (group, plan)): (usize, &(usize, &Value))| Bar {
            label: if number == 0 { (*kind).to_owned() } else { String::new() },
            parts: vec![(*group, bytes(plan, kind))],
            told: format::bytes(bytes(plan, kind)),
            interval: None,
        };
        drawn.iter().enumerate().map(of).collect::<Vec<_>>()
    };
    let mut table = Table::new("Predicted bytes by kind, of the worst draw", 1, &["kind"]);
    table.headers.extend(planned.iter().map(|(group, _)| study.groups[*group].name.clone()));
    table.rows = KINDS
        .iter()
        .map(|kind| {
            let cells = planned.iter().map(|(_, plan)| format::bytes(bytes(plan, kind)));
            std::iter::once((*kind).to_owned()).chain(cells).collect()
        })
        .collect();
    Some(Figure {
        id: "figure-memory-kinds".to_owned(),
        title: "Memory by kind, predicted".to_owned(),
        description: if drawn.len() < planned.len() {
            format!(
                "What the plan expects of each kind at its own most, in the worst draw of layers; \
                 the first {} groups.",
                drawn.len()
            )
        } else {
            "What the plan expects of each kind at its own most, in the worst draw of layers."
                .to_owned()
        },
        drawing: bars(&KINDS.iter().flat_map(bar).collect::<Vec<_>>(), None),
        legend: study
            .legend(|group| drawn.len() > 1 && drawn.iter().any(|(other, _)| *other == group)),
        table,
    })
}

/// Time.
pub(super) fn time(study: Study) -> Section {
    let figures: Vec<Figure> = split(study).into_iter().collect();
    let text = if figures.is_empty() {
        "No run tells where its time went."
    } else {
        "Seconds of all steps, the mean over a group's runs; evaluations and checkpoints are not \
         counted. On a device that \
         queues its work a part is what the host waited for."
    };
    Section { id: "time", title: "Time", text: text.to_owned(), figures, folded: Vec::new() }
}

fn split(study: Study) -> Option<Figure> {
    let mut table = Table::new("Seconds by part, mean over a group's runs", 1, &["group", "runs"]);
    table.headers.extend(Split::NAMES.map(str::to_owned));
    table.headers.push("all".to_owned());
    let mut all = Vec::new();
    for group in study.groups {
        let splits: Vec<[f64; 6]> =
            study.of(group).filter_map(RunRecord::split).map(|split| split.parts()).collect();
        if splits.is_empty() {
            continue;
        }
        let mean =
            |part: usize| splits.iter().map(|split| split[part]).sum::<f64>() / splits.len() as f64;
        let parts: Vec<(usize, f64)> =
            (0..Split::NAMES.len()).map(|part| (part, mean(part))).collect();
        let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        let numbers = parts
            .iter()
            .map(|(_, seconds)| *seconds)
            .chain([total])
            .map(|seconds| format::value(Unit::Seconds, seconds));
        table.rows.push(
            [group.name.clone(), splits.len().to_string()].into_iter().chain(numbers).collect(),
        );
        all.push(Bar {
            label: group.name.clone(),
            parts,
            told: format::value(Unit::Seconds, total),
            interval: None,
        });
    }
    if all.is_empty() {
        return None;
    }
    Some(Figure {
        id: "figure-time".to_owned(),
        title: "Where the time went".to_owned(),
        description: "Seconds of all steps, stacked by part, a bar a group.".to_owned(),
        drawing: bars(&all, None),
        legend: Split::NAMES.iter().enumerate().map(|(part, name)| key(part, name)).collect(),
        table,
    })
}
