//! Pages of text: the configuration, and what was said.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::super::ink::ASIDE;
use super::super::view::View;

/// The configuration by dotted key, from the line `first` on.
pub(super) fn settings(view: &View, frame: &mut Frame, area: Rect, first: usize) {
    let all = &view.run.configuration;
    let width = all.keys().map(String::len).max().unwrap_or_default();
    let line = |(key, value): (&String, &serde_json::Value)| {
        Line::from(vec![Span::styled(format!("{key:<width$}  "), ASIDE), value.to_string().into()])
    };
    let lines = all.iter().map(line).collect();
    text(frame, area, " Settings ", lines, first);
}

/// What was said, the newest last, `back` lines of it scrolled away.
pub(super) fn messages(view: &View, frame: &mut Frame, area: Rect, back: usize) {
    let lines = spoken(view);
    let room = area.height.saturating_sub(2) as usize;
    let first = lines.len().saturating_sub(room + back);
    text(frame, area, " Messages ", lines, first);
}

/// The newest messages.
pub(super) fn newest(view: &View, frame: &mut Frame, area: Rect) {
    messages(view, frame, area, 0);
}

/// What the run said; a view of another process's run hears nothing, and tells its evaluations.
/// Then what is to be said of its files, such as why it failed.
pub(super) fn spoken(view: &View) -> Vec<Line<'static>> {
    let evaluations = view.run.evaluations.iter().filter(|_| !view.own);
    let told = evaluations
        .map(|found| format!("step {}: validation loss {:.4}", found.step + 1, found.loss));
    let said = view.messages.iter().flat_map(|message| message.lines()).map(str::to_owned);
    said.chain(told).chain(view.run.notes.iter().cloned()).map(Line::from).collect()
}

fn text(
    frame: &mut Frame,
    area: Rect,
    title: &'static str,
    lines: Vec<Line<'static>>,
    first: usize,
) {
    let first = first.min(lines.len().saturating_sub(1));
    let shown = lines.into_iter().skip(first).collect::<Vec<_>>();
    frame.render_widget(Paragraph::new(shown).block(Block::bordered().title(title)), area);
}
