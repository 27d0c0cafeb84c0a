//! The pages of a view. Each draws itself into any rectangle, so that the overview is made of
//! others.

mod costs;
mod layers;
mod losses;
mod words;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};

use super::view::View;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// As much of the others as there is room for.
    Overview,
    /// Training and validation losses.
    Losses,
    /// Importance over time, and how often each layer was chosen.
    Layers,
    /// Memory and time.
    Costs,
    /// The configuration.
    Settings,
    /// What was said.
    Messages,
}

/// The least size of an overview with layers and costs in it.
const WIDE: (u16, u16) = (100, 30);

impl Page {
    /// All pages in their order.
    pub(super) const ALL: [Self; 6] =
        [Self::Overview, Self::Losses, Self::Layers, Self::Costs, Self::Settings, Self::Messages];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Losses => "Losses",
            Self::Layers => "Layers",
            Self::Costs => "Costs",
            Self::Settings => "Settings",
            Self::Messages => "Messages",
        }
    }

    /// Its place among [`Page::ALL`].
    pub(super) fn number(self) -> usize {
        self as usize
    }

    /// The page that many places on, round and round.
    pub(super) fn after(self, places: usize) -> Self {
        Self::ALL[(self.number() + places) % Self::ALL.len()]
    }

    /// Lines that can be scrolled.
    pub(super) fn lines(self, view: &View) -> usize {
        match self {
            Self::Overview | Self::Losses => 0,
            Self::Layers => view.run.layers() + 1,
            Self::Costs => costs::lines(view, 1).len(),
            Self::Settings => view.run.configuration.len(),
            Self::Messages => words::spoken(view).len(),
        }
    }

    /// Draws it.
    pub(super) fn draw(self, view: &View, frame: &mut Frame, area: Rect) {
        match self {
            Self::Overview => overview(view, frame, area),
            Self::Losses => losses::draw(view, frame, area),
            Self::Layers => layers::draw(view, frame, area, view.scrolled),
            Self::Costs => costs::draw(view, frame, area, view.scrolled),
            Self::Settings => words::settings(view, frame, area, view.scrolled),
            Self::Messages => words::messages(view, frame, area, view.scrolled),
        }
    }
}

/// Losses above, the last messages below; layers and costs between where there is room.
fn overview(view: &View, frame: &mut Frame, area: Rect) {
    let said = Constraint::Length(6.min(area.height / 4));
    if area.width < WIDE.0 || area.height < WIDE.1 {
        let [above, below] = Layout::vertical([Constraint::Min(0), said]).areas(area);
        losses::draw(view, frame, above);
        return words::newest(view, frame, below);
    }
    let parts = [Constraint::Fill(1), Constraint::Fill(1), said];
    let [above, between, below] = Layout::vertical(parts).areas(area);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(between);
    losses::draw(view, frame, above);
    layers::draw(view, frame, left, 0);
    costs::draw(view, frame, right, 0);
    words::newest(view, frame, below);
}
