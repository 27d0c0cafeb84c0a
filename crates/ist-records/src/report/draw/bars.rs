//! Horizontal bars, whole or in parts, under their labels: a label may be long and a screen narrow.

use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, Drawing, WIDTH, drawing, fill, stroke, write};
use super::palette;
use crate::report::statistics::Interval;

/// A bar.
#[derive(Clone, Debug)]
pub(in super::super) struct Bar {
    /// What stands above it; nothing where it belongs to the bar before.
    pub(in super::super) label: String,
    /// (colour's number, length) from the left on.
    pub(in super::super) parts: Vec<(usize, f64)>,
    /// What stands behind it.
    pub(in super::super) told: String,
    pub(in super::super) interval: Option<Interval>,
}

/// Height of a label.
const LABEL: i32 = 52;
/// Height of a bar with the room below it.
const ROW: i32 = 48;
/// Height of a bar.
const THICK: i32 = 36;
/// Where bars begin.
const LEFT: i32 = 12;
/// Room for what stands behind the longest bar.
const BEHIND: i32 = 380;

/// The chart. Lengths are to scale from 0 on; `most` is the length of the full width, where it is
/// known, else the largest.
pub(in super::super) fn bars(bars: &[Bar], most: Option<f64>) -> Drawing {
    let end = |bar: &Bar| {
        let length: f64 = bar.parts.iter().map(|(_, length)| length).sum();
        bar.interval.map_or(length, |interval| length.max(interval.high))
    };
    let most =
        most.unwrap_or_else(|| bars.iter().map(end).fold(0.0, f64::max)).max(f64::MIN_POSITIVE);
    let x = |length: f64| {
        LEFT + (f64::from(WIDTH as i32 - LEFT - BEHIND) * (length / most).clamp(0.0, 1.0)).round()
            as i32
    };
    let height: i32 =
        bars.iter().map(|bar| ROW + if bar.label.is_empty() { 0 } else { LABEL }).sum();
    drawing((height + 16) as u32, |area| {
        let mut upper = 0;
        for bar in bars {
            if !bar.label.is_empty() {
                write(area, &bar.label, (LEFT, upper + 28), HPos::Left);
                upper += LABEL;
            }
            let lower = upper + THICK;
            let mut length = 0.0;
            for (series, part) in &bar.parts {
                fill(
                    area,
                    [(x(length), upper), (x(length + part), lower)],
                    palette::series(*series),
                );
                length += part;
            }
            stroke(area, vec![(LEFT, upper - 5), (LEFT, lower + 5)], palette::AXIS.stroke_width(2));
            if let Some(interval) = bar.interval {
                whisker(area, [interval.low, interval.high].map(x), i32::midpoint(upper, lower));
            }
            write(area, &bar.told, (x(end(bar)) + 14, upper + 20), HPos::Left);
            upper += ROW;
        }
    })
}

fn whisker(area: &Area, ends: [i32; 2], middle: i32) {
    let style = palette::INK.stroke_width(4);
    stroke(area, ends.iter().map(|end| (*end, middle)).collect(), style);
    for end in ends {
        stroke(area, vec![(end, middle - 12), (end, middle + 12)], style);
    }
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
        assert_eq!(drawn.height as i32, 3 * (LABEL + ROW) + 16);
        assert_eq!(bars(&[Bar { label: String::new(), ..bar(1.0) }], None).height as i32, ROW + 16);
    }
}
