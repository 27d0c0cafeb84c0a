//! The losses over steps.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, Paragraph};

use super::super::ink::ASIDE;
use super::super::view::View;
use crate::report::curves;

/// Draws training losses, their running mean and validation losses.
pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect) {
    let on_axis = |points: Vec<(f64, f64)>| {
        let scaled = points
            .into_iter()
            .map(|(step, loss)| (step, if view.logarithmic { loss.log10() } else { loss }));
        scaled.filter(|(_, loss)| loss.is_finite()).collect::<Vec<_>>()
    };
    let (raw, smoothed) = (on_axis(curves::raw(&view.run)), on_axis(curves::smoothed(&view.run)));
    let evaluations =
        on_axis(view.run.evaluations.iter().map(|found| (found.step as f64, found.loss)).collect());
    let block = Block::bordered().title(title(view));
    let Some(bounds) =
        bounds(raw.iter().chain(&smoothed).chain(&evaluations).map(|(_, loss)| *loss))
    else {
        return frame.render_widget(
            Paragraph::new(if view.run.steps.is_empty() {
                "no step yet"
            } else {
                "no loss to show"
            })
            .style(ASIDE)
            .block(block),
            area,
        );
    };
    let curve = |name: &'static str, points, marker| {
        Dataset::default().name(name).marker(marker).data(points)
    };
    let datasets = vec![
        curve("each step", &raw, Marker::Braille).style(ASIDE),
        curve("mean", &smoothed, Marker::Braille)
            .graph_type(GraphType::Line)
            .style(view.ink.series(0)),
        curve("validation", &evaluations, Marker::Dot).style(view.ink.series(1)),
    ];
    let last = view.total().saturating_sub(1).max(1) as f64;
    let steps = Axis::default().bounds([0.0, last]).style(ASIDE);
    let losses = Axis::default().bounds(bounds).style(ASIDE);
    let middle = f64::midpoint(bounds[0], bounds[1]);
    let loss = |at: f64| if view.logarithmic { 10f64.powf(at) } else { at };
    let chart = Chart::new(datasets)
        .block(block)
        .legend_position(Some(LegendPosition::TopRight))
        .hidden_legend_constraints((Constraint::Min(0), Constraint::Min(0)))
        .x_axis(steps.labels(["1".to_owned(), format!("step {:.0}", last + 1.0)]))
        .y_axis(losses.labels([bounds[0], middle, bounds[1]].map(|at| format!("{:.4}", loss(at)))));
    frame.render_widget(chart, area);
}

fn title(view: &View) -> String {
    view.run.best_evaluation().map_or_else(
        || " Loss ".to_owned(),
        |best| format!(" Loss: best validation {:.4} after step {} ", best.loss, best.step + 1),
    )
}

/// From a little below the least to a little above the greatest; `None` of nothing.
fn bounds(losses: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| {
        (low.min(loss), high.max(loss))
    });
    let margin = if high > low { 0.02 * (high - low) } else { 0.5 };
    // No loss is below 0, so the axis of losses that are not is not either.
    let least = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
    (low <= high).then_some([least, high + margin])
}
