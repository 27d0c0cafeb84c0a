//! Horizontal bars, whole or in parts, each under its label: a label may be long and a screen narrow.

use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::canvas::{Drawing, WIDTH, drawing, fill, stroke, write};
use super::palette;
use crate::statistics::Interval;

/// A bar.
#[derive(Clone, Debug)]
pub(in super::super) struct Bar {
    pub(in super::super) label: String,
    /// (colour's number, length) from the left on.
    pub(in super::super) parts: Vec<(usize, f64)>,
    /// What stands behind it.
    pub(in super::super) told: String,
    pub(in super::super) interval: Option<Interval>,
}

/// Height of a bar with its label.
const ROW: i32 = 96;
/// Where bars begin.
const LEFT: i32 = 12;
/// Room for what stands behind the longest bar.
const BEHIND: i32 = 250;

/// The chart. Lengths are to scale from 0 on; `most` is the length of the full width, where it is known, else the largest.
pub(in super::super) fn bars(bars: &[Bar], most: Option<f64>) -> Drawing {
    let end = |bar: &Bar| {
        let length: f64 = bar.parts.iter().map(|(_, length)| length).sum();
        bar.interval.map_or(length, |interval| length.max(interval.high))
    };
    let most = most.unwrap_or_else(|| bars.iter().map(end).fold(0.0, f64::max)).max(f64::MIN_POSITIVE);
    let x =
        |length: f64| LEFT + (f64::from(WIDTH as i32 - LEFT - BEHIND) * (length / most).clamp(0.0, 1.0)).round() as i32;
    drawing((ROW * bars.len().max(1) as i32 + 16) as u32, |area| {
        for (row, bar) in bars.iter().enumerate() {
            let top = ROW * row as i32;
            write(area, &bar.label, (LEFT, top + 26), HPos::Left);
            let (upper, lower) = (top + 48, top + 84);
            let mut length = 0.0;
            for (series, part) in &bar.parts {
                fill(area, [(x(length), upper), (x(length + part), lower)], palette::series(*series));
                length += part;
            }
            if let Some(Interval { low, high }) = bar.interval {
                let (middle, style) = (i32::midpoint(upper, lower), palette::INK.stroke_width(4));
                stroke(area, vec![(x(low), middle), (x(high), middle)], style);
                [low, high]
                    .iter()
                    .for_each(|end| stroke(area, vec![(x(*end), middle - 12), (x(*end), middle + 12)], style));
            }
            write(area, &bar.told, (x(end(bar)) + 14, upper + 20), HPos::Left);
        }
        stroke(area, vec![(LEFT, 44), (LEFT, ROW * bars.len().max(1) as i32)], palette::AXIS.stroke_width(2));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_to_scale() {
        let bar = |length: f64| Bar {
            label: "a".to_owned(),
            parts: vec![(0, length)],
            told: String::new(),
            interval: Some(Interval { low: 0.0, high: length }),
        };
        let drawn = bars(&[bar(1.0), bar(0.5), bar(0.0)], Some(1.0));
        let full = WIDTH as i32 - LEFT - BEHIND;
        assert!(drawn.content.contains(&format!("width=\"{full}\"")), "{}", drawn.content);
        assert!(drawn.content.contains(&format!("width=\"{}\"", full / 2)), "{}", drawn.content);
        assert_eq!(bars(&[], None).height, 112);
    }
}
