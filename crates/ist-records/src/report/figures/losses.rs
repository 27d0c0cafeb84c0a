//! Loss curves: of training, smoothed over steps, and of evaluations over steps and over time.

use super::super::comparison::Unit;
use super::super::draw::{Axes, Line, lines};
use super::super::record::RunRecord;
use super::super::table::Table;
use super::super::{curves, format};
use super::{Figure, Section, Study};

/// Runs whose every step is drawn at most: behind more of them nothing else would be seen.
const FAINT: usize = 12;
/// Rows of a curve's table.
const ROWS: usize = 20;

pub(super) fn section(study: Study) -> Section {
    let steps = study.runs.iter().map(|run| run.steps.len()).max().unwrap_or_default();
    let thinned = if steps > curves::POINTS {
        format!(
            " Curves are drawn in at most {} points: of each stretch of steps the least and the \
             greatest loss.",
            curves::POINTS
        )
    } else {
        String::new()
    };
    let figures: Vec<Figure> =
        [training(study), evaluations(study, false), evaluations(study, true)]
            .into_iter()
            .flatten()
            .collect();
    let text = match figures.len() {
        0 => "No run has done a step.".to_owned(),
        1 => format!("One line a run, coloured by group. No run has validation losses.{thinned}"),
        _ => format!("One line a run, coloured by group.{thinned}"),
    };
    Section { id: "losses", title: "Losses", text, figures, folded: Vec::new() }
}

fn training(study: Study) -> Option<Figure> {
    let of = |faint: bool| {
        let curve = move |run| if faint { curves::raw(run) } else { curves::smoothed(run) };
        study.runs.iter().enumerate().map(move |(index, run)| Line {
            series: study.group_of(index),
            faint,
            marks: false,
            points: curve(run),
        })
    };
    let raw = of(true).filter(|_| study.runs.len() <= FAINT);
    let all: Vec<Line> = raw.chain(of(false)).filter(|line| !line.points.is_empty()).collect();
    if all.is_empty() {
        return None;
    }
    let windows: Vec<usize> = study.runs.iter().map(curves::window).collect();
    let (least, most) = (windows.iter().min()?, windows.iter().max()?);
    let window = if least == most { most.to_string() } else { format!("{least} to {most}") };
    Some(Figure {
        id: "figure-training-loss".to_owned(),
        title: "Training loss".to_owned(),
        description: if study.runs.len() <= FAINT {
            format!(
                "The loss of every step, faint, and the mean of the last {window} steps, over \
                 steps."
            )
        } else {
            format!("The mean loss of the last {window} steps, over steps.")
        },
        drawing: lines(Axes { x: "step", y: "training loss", from_zero: false }, &all),
        legend: study
            .legend(|group| study.of(&study.groups[group]).any(|run| !run.steps.is_empty())),
        table: sampled("Smoothed training losses", study.runs, curves::smoothed),
    })
}

fn evaluations(study: Study, over_time: bool) -> Option<Figure> {
    let points = move |run: &RunRecord| -> Vec<(f64, f64)> {
        let x = |found: &super::super::record::Evaluation| {
            if over_time { found.elapsed } else { found.step as f64 }
        };
        run.evaluations.iter().map(|found| (x(found), found.loss)).collect()
    };
    let line = |(index, run)| Line {
        series: study.group_of(index),
        faint: false,
        marks: true,
        points: thinned(points(run)),
    };
    let all: Vec<Line> =
        study.runs.iter().enumerate().map(line).filter(|line| !line.points.is_empty()).collect();
    if all.is_empty() {
        return None;
    }
    let (id, over, x) = if over_time {
        ("time", "seconds of training", "seconds")
    } else {
        ("loss", "steps", "step")
    };
    let table = if over_time {
        by_evaluation(study.runs)
    } else {
        sampled("Validation losses", study.runs, points)
    };
    Some(Figure {
        id: format!("figure-validation-{id}"),
        title: format!("Validation loss over {over}"),
        description: if over_time {
            "The loss of every evaluation over the seconds of the steps before it, scoring \
             included."
                .to_owned()
        } else {
            "The loss of every evaluation over steps.".to_owned()
        },
        drawing: lines(Axes { x, y: "validation loss", from_zero: false }, &all),
        legend: study
            .legend(|group| study.of(&study.groups[group]).any(|run| !run.evaluations.is_empty())),
        table,
    })
}

/// At most so many points, evenly chosen, the last among them.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(curves::POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points
        .into_iter()
        .enumerate()
        .filter(|(index, _)| (last - index).is_multiple_of(every))
        .map(|(_, point)| point)
        .collect()
}

/// A column a run: its curve at evenly chosen points of the longest run's.
fn sampled(
    caption: &str,
    runs: &[RunRecord],
    curve: impl Fn(&RunRecord) -> Vec<(f64, f64)>,
) -> Table {
    let curves: Vec<Vec<(f64, f64)>> = runs.iter().map(curve).collect();
    let mut places: Vec<f64> = curves.iter().flatten().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let every = places.len().div_ceil(ROWS).max(1);
    let last = places.len().saturating_sub(1);
    let mut table = Table::new(caption, 0, &["step"]);
    table.headers.extend(runs.iter().map(|run| run.name.clone()));
    for (_, place) in
        places.iter().enumerate().filter(|(index, _)| (last - index).is_multiple_of(every))
    {
        let at =
            |curve: &Vec<(f64, f64)>| curve.iter().find(|(x, _)| x == place).map(|(_, loss)| *loss);
        let values = curves.iter().map(|curve| format::or_none(Unit::Loss, at(curve)));
        table.rows.push(std::iter::once(format!("{place:.0}")).chain(values).collect());
    }
    table
}

/// A column a run: seconds and loss of its evaluations, evenly chosen.
fn by_evaluation(runs: &[RunRecord]) -> Table {
    let most = runs.iter().map(|run| run.evaluations.len()).max().unwrap_or_default();
    let mut table = Table::new("Validation losses after seconds of training", 0, &["evaluation"]);
    table.headers.extend(runs.iter().map(|run| run.name.clone()));
    let every = most.div_ceil(ROWS).max(1);
    for number in (0..most).filter(|number| (most - 1 - number).is_multiple_of(every)) {
        let told = |run: &RunRecord| {
            let found = run.evaluations.get(number);
            found.map_or(format::NONE.to_owned(), |found| {
                let loss = format::or_none(Unit::Loss, Some(found.loss));
                format!("{loss} at {}", format::value(Unit::Seconds, found.elapsed))
            })
        };
        table
            .rows
            .push(std::iter::once((number + 1).to_string()).chain(runs.iter().map(told)).collect());
    }
    table
}
