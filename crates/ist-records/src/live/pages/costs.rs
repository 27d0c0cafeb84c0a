//! What the run costs: memory, predicted and measured, and where the time goes.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::super::ink::{ASIDE, STRONG};
use super::super::view::View;
use crate::record::plan::KINDS;
use crate::report::Split;
use crate::terminal::human;

/// Draws both, from the line `first` on.
pub(super) fn draw(view: &View, frame: &mut Frame, area: Rect, first: usize) {
    let block = Block::bordered().title(" Costs ");
    let bar = (block.inner(area).width as usize).saturating_sub(36).clamp(4, 40);
    let lines = lines(view, bar);
    let first = first.min(lines.len().saturating_sub(1));
    frame.render_widget(Paragraph::new(lines[first..].to_vec()).block(block), area);
}

/// All lines, with bars of so many cells at most.
pub(super) fn lines(view: &View, bar: usize) -> Vec<Line<'static>> {
    memory(view, bar).into_iter().chain(time(view, bar)).collect()
}

/// A name, a bar and a figure.
fn row(name: &str, share: f64, bar: usize, style: Style, told: &str) -> Line<'static> {
    let filled = ((share.clamp(0.0, 1.0) * bar as f64).round() as usize).min(bar);
    let drawn = format!("{:bar$}", "\u{2588}".repeat(filled));
    Line::from(vec![
        Span::from(format!("{name:<14}")),
        Span::styled(drawn, style),
        Span::from(format!("  {told}")),
    ])
}

fn memory(view: &View, bar: usize) -> Vec<Line<'static>> {
    let plan = &view.run.plan;
    let (predicted, measured) =
        (view.run.predicted_peak_bytes().unwrap_or_default(), view.run.peak_bytes());
    let bytes = |kind: &str| plan["bytes"][kind].as_f64().unwrap_or_default();
    let most =
        KINDS.iter().map(|kind| bytes(kind)).fold(predicted.max(measured), f64::max).max(1.0);
    let line =
        |name: &str, bytes: f64, style| row(name, bytes / most, bar, style, &human(bytes as usize));
    let mut lines = vec![
        Line::styled("Memory, each kind as planned for the worst draw", STRONG),
        line("predicted", predicted, view.ink.series(1)),
        line("measured", measured, view.ink.series(0)),
    ];
    if let Some(budget) = plan["budget"]["bytes"].as_u64() {
        lines.push(Line::styled(format!("{:<14}{}", "budget", human(budget as usize)), ASIDE));
    }
    lines.extend(KINDS.iter().map(|kind| line(kind, bytes(kind), view.ink.series(4))));
    lines
}

fn time(view: &View, bar: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default(), Line::styled("Time of the steps", STRONG)];
    let Some(split) = view.run.split() else {
        lines.push(Line::styled(
            if view.run.steps.is_empty() { "no step yet" } else { "not told" },
            ASIDE,
        ));
        return lines;
    };
    let all = split.parts().iter().sum::<f64>().max(f64::MIN_POSITIVE);
    lines.extend(Split::NAMES.into_iter().zip(split.parts()).enumerate().map(
        |(part, (name, seconds))| {
            let told = format!("{seconds:>8.1} s {:>5.1}%", 100.0 * seconds / all);
            row(name, seconds / all, bar, view.ink.series(part), &told)
        },
    ));
    lines
}
