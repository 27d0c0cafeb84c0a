//! What was learned of the layers: scores and update probabilities over time, and how often each
//! was chosen.

use crate::record::importance::sigmoid;

use super::super::curves;
use super::super::draw::{Axes, Heat, Line, Scale, heat, lines};
use super::super::record::RunRecord;
use super::super::table::Table;
use super::{Figure, Folded, Section, Study};

/// Cells of all maps together, about a hundred bytes each.
const CELLS: usize = 20_000;
/// Columns of a map.
const COLUMNS: [usize; 2] = [8, 120];
/// Runs with maps at most.
const MAPS: usize = 24;
/// Columns of a map's table.
const TOLD: usize = 12;

pub(super) fn section(study: Study) -> Section {
    let learned: Vec<&RunRecord> =
        study.runs.iter().filter(|run| !run.updates.is_empty()).collect();
    let shown = &learned[..learned.len().min(MAPS)];
    let rows: usize = shown.iter().map(|run| 2 * run.updates[0].1.len()).sum();
    let columns = (CELLS / rows.max(1)).clamp(COLUMNS[0], COLUMNS[1]);
    let mut text = vec![if learned.is_empty() {
        "No run has importance scores: its policy learns none, or no update has come yet."
            .to_owned()
    } else {
        "A score says how well a layer does without its adapter: a layer with a high score is \
         chosen less often, with the \
         weight σ(−score), its update probability. Scores begin at 0, where every layer has 0.5."
            .to_owned()
    }];
    if learned.len() > MAPS {
        text.push(format!("Maps of the first {MAPS} of {} runs are shown.", learned.len()));
    }
    if shown.iter().any(|run| run.updates.len() >= columns) {
        text.push(format!(
            "A map has at most {columns} columns; a column is the mean of what it spans."
        ));
    }
    let folded = shown.iter().enumerate().map(|(number, run)| maps(number, run, columns)).collect();
    Section {
        id: "layers",
        title: "Layers",
        text: text.join(" "),
        figures: selected(study).into_iter().collect(),
        folded,
    }
}

fn maps(number: usize, run: &RunRecord, columns: usize) -> Folded {
    let scores = curves::scores(run, columns);
    let most = scores
        .iter()
        .flat_map(|(_, _, scores)| scores)
        .fold(0.0_f64, |most, score| most.max(score.abs()));
    let probabilities: Vec<_> = scores
        .iter()
        .map(|(from, to, scores)| {
            (*from, *to, scores.iter().map(|score| sigmoid(-score)).collect::<Vec<f64>>())
        })
        .collect();
    let figure = |kind: &str,
                  title: &str,
                  what: &str,
                  columns: Vec<(f64, f64, Vec<f64>)>,
                  scale: Scale,
                  digits: usize| Figure {
        id: format!("figure-{kind}-{number}"),
        title: format!("{title}: {}", run.name),
        description: format!(
            "{what} of every layer over steps; layer 0 is at the bottom, the scale at the right."
        ),
        table: told(title, &columns, digits),
        drawing: heat(&Heat { columns, scale }),
        legend: Vec::new(),
    };
    let figures = vec![
        figure("scores", "Importance scores", "The score", scores, Scale::Around(most), 4),
        figure(
            "probability",
            "Update probability",
            "The update probability",
            probabilities,
            Scale::Share,
            3,
        ),
    ];
    Folded { summary: format!("Importance over time: {}", run.name), figures }
}

/// A row a layer, a column for evenly chosen steps.
fn told(caption: &str, columns: &[(f64, f64, Vec<f64>)], digits: usize) -> Table {
    let every = columns.len().div_ceil(TOLD).max(1);
    let last = columns.len().saturating_sub(1);
    let chosen: Vec<_> = columns
        .iter()
        .enumerate()
        .filter(|(index, _)| (last - index).is_multiple_of(every))
        .collect();
    let mut table = Table::new(format!("{caption} by layer, from a step on"), 0, &["layer"]);
    table.headers.extend(chosen.iter().map(|(_, (from, _, _))| format!("step {from:.0}")));
    for layer in 0..columns.first().map_or(0, |(_, _, values)| values.len()) {
        let values = chosen.iter().map(|(_, (_, _, values))| format!("{:.digits$}", values[layer]));
        table.rows.push(std::iter::once(layer.to_string()).chain(values).collect());
    }
    table
}

/// The share of the steps in which each layer was chosen, by group.
fn selected(study: Study) -> Option<Figure> {
    let layers = study.runs.iter().map(|run| run.selected.len()).max().unwrap_or_default();
    if layers == 0 {
        return None;
    }
    let count = |group: usize, layer: usize| -> usize {
        study
            .of(&study.groups[group])
            .map(|run| run.selected.get(layer).copied().unwrap_or_default())
            .sum()
    };
    let steps =
        |group: usize| -> usize { study.of(&study.groups[group]).map(|run| run.steps.len()).sum() };
    let line = |group: usize| {
        let share = |layer: usize| (layer as f64, count(group, layer) as f64 / steps(group) as f64);
        Line { series: group, faint: false, marks: true, points: (0..layers).map(share).collect() }
    };
    let mut table =
        Table::new("How often each layer was chosen, all runs of a group together", 0, &["layer"]);
    table.headers.extend(study.groups.iter().map(|group| group.name.clone()));
    table.rows = (0..layers)
        .map(|layer| {
            let cell = |group| format!("{} of {}", count(group, layer), steps(group));
            std::iter::once(layer.to_string()).chain((0..study.groups.len()).map(cell)).collect()
        })
        .collect();
    let has_steps = |group: usize| steps(group) > 0;
    Some(Figure {
        id: "figure-selections".to_owned(),
        title: "How often each layer was chosen".to_owned(),
        description:
            "The share of the steps in which a layer was trained, all runs of a group together."
                .to_owned(),
        drawing: lines(
            Axes { x: "layer", y: "share of steps", from_zero: true },
            &(0..study.groups.len())
                .filter(|group| has_steps(*group))
                .map(line)
                .collect::<Vec<_>>(),
        ),
        legend: study.legend(has_steps),
        table,
    })
}
