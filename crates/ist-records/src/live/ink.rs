//! Colours of a terminal, and shades for one that shows none.
//!
//! Lines and bars have the terminal's own sixteen colours, which its user chose to be read on its
//! background. A heat map goes along viridis, in 256 colours where the terminal does not say that
//! it knows more.

use ratatui::style::{Color, Modifier, Style};

use crate::report::viridis;

/// What a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// No colours: `NO_COLOR` is set.
    Plain,
    /// 256 colours.
    Indexed,
    /// 24 bits.
    True,
}

/// Shades of a heat map without colours.
const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];

impl Ink {
    /// What the environment says of the terminal.
    pub(super) fn of_terminal() -> Self {
        let set = |name: &str| std::env::var(name).unwrap_or_default();
        match set("COLORTERM").as_str() {
            _ if !set("NO_COLOR").is_empty() => Self::Plain,
            "truecolor" | "24bit" => Self::True,
            _ => Self::Indexed,
        }
    }

    fn of(self, colour: Color) -> Style {
        if self == Self::Plain { Style::new() } else { Style::new().fg(colour) }
    }

    /// One of a figure's series.
    pub(super) fn series(self, index: usize) -> Style {
        let colours =
            [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::Red];
        self.of(colours[index % colours.len()])
    }

    /// What is wrong.
    pub(super) fn wrong(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A cell of a heat map, of a share from 0 to 1.
    pub(super) fn cell(self, share: f64) -> (&'static str, Style) {
        let (red, green, blue) = viridis(share);
        match self {
            Self::Plain => (
                SHADES[(share.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64).round() as usize],
                Style::new(),
            ),
            Self::Indexed => (" ", Style::new().bg(Color::Indexed(indexed(red, green, blue)))),
            Self::True => (" ", Style::new().bg(Color::Rgb(red, green, blue))),
        }
    }
}

/// What is said beside a figure.
pub(super) const ASIDE: Style = Style::new().add_modifier(Modifier::DIM);
/// What is to be seen first.
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// The nearest of the 6 × 6 × 6 colours among a terminal's 256.
fn indexed(red: u8, green: u8, blue: u8) -> u8 {
    let level = |part: u8| match part {
        0..48 => 0,
        48..115 => 1,
        _ => (part - 35) / 40,
    };
    16 + 36 * level(red) + 6 * level(green) + level(blue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_becomes_the_nearest_of_the_cube() {
        let cube = [0u8, 95, 135, 175, 215, 255];
        for part in 0..=255u8 {
            let nearest =
                (0..6u8).min_by_key(|level| cube[*level as usize].abs_diff(part)).unwrap();
            let found = indexed(part, 0, 0) - 16;
            let off = |level: u8| cube[level as usize].abs_diff(part);
            assert_eq!(off(found / 36), off(nearest), "{part}");
            assert_eq!((found % 36, indexed(0, 0, part) - 16), (0, found / 36));
        }
    }

    #[test]
    fn without_colours_a_share_is_a_shade() {
        let shades = [0.0, 0.25, 0.5, 0.75, 1.0, 2.0].map(|share| Ink::Plain.cell(share).0);
        assert_eq!(shades, [" ", "░", "▒", "▓", "█", "█"]);
        assert_eq!(Ink::Plain.series(1), Style::new());
    }
}
