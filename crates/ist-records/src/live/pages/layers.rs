//! What was learned of each layer: its update probability over time, its score, how often it was
//! chosen.

use crate::record::importance::sigmoid;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::super::ink::{ASIDE, Ink};
use super::super::view::View;
use crate::report::curves;

/// Cells of a bar.
const BAR: usize = 10;
/// Columns of a row that are not the map's: the layer's number, score, probability, bar, share and
/// what parts them.
const BESIDE: usize = 6 + 10 + 7 + BAR + 8;

/// Draws a row a layer, from the layer `first` on.
pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect, first: usize) {
    let run = &view.run;
    let block = Block::bordered().title(if run.updates.is_empty() {
        " Layers: how often each was chosen "
    } else {
        " Layers: update probability over steps "
    });
    let inner = block.inner(area);
    let map = map(view, (inner.width as usize).saturating_sub(BESIDE));
    let last = run.updates.last().map(|(_, scores)| scores.as_slice());
    let row = |layer: usize| {
        let mut spans = vec![Span::from(format!("{layer:>4}  "))];
        let score = |scores: &[f64]| scores.get(layer).copied();
        spans.extend(map.iter().map(|column| cell(view.ink, column.as_deref().and_then(score))));
        spans.extend(last.map(|scores| told(score(scores))));
        spans.extend(chosen(view, layer));
        Line::from(spans)
    };
    let head = head(map.len(), last.is_some());
    let rows = (first..run.layers()).map(row);
    let lines: Vec<Line> = std::iter::once(head).chain(rows).take(inner.height as usize).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn head(map: usize, scored: bool) -> Line<'static> {
    let scored = if scored { format!("{:>10}{:>7}", "score", "prob.") } else { String::new() };
    Line::styled(format!("{:6}{:map$}{scored}  {:BAR$}{:>6}", "layer", "", "chosen", ""), ASIDE)
}

/// The scores of all layers, a column for as many steps; `None` for steps that are still to come.
fn map(view: &View, columns: usize) -> Vec<Option<Vec<f64>>> {
    if view.run.updates.is_empty() {
        return Vec::new();
    }
    let held = curves::scores(&view.run, columns.max(1));
    let step = |column: usize| (column as f64 + 0.5) * view.total() as f64 / columns as f64;
    let at = |step: f64| held.iter().find(|(from, to, _)| (*from..*to).contains(&step));
    (0..columns).map(|column| at(step(column)).map(|(_, _, scores)| scores.clone())).collect()
}

fn cell(ink: Ink, score: Option<f64>) -> Span<'static> {
    let (text, style) = score.map_or((" ", Style::new()), |score| ink.cell(sigmoid(-score)));
    Span::styled(text, style)
}

fn told(score: Option<f64>) -> Span<'static> {
    Span::from(
        score.map_or(" ".repeat(17), |score| format!("{score:>+10.4}{:>7.3}", sigmoid(-score))),
    )
}

/// A bar of the share of the steps in which the layer was chosen.
fn chosen(view: &View, layer: usize) -> [Span<'static>; 2] {
    // A step's layers are written before its figures, so that a count may be one ahead.
    let times = view.run.selected.get(layer).copied().unwrap_or_default();
    let share = (times as f64 / view.run.steps.len().max(1) as f64).min(1.0);
    let filled = (share * BAR as f64).round() as usize;
    let bar = format!("  {:BAR$}", "\u{2588}".repeat(filled));
    [Span::styled(bar, view.ink.series(2)), Span::from(format!("{:>5.1}%", 100.0 * share))]
}
