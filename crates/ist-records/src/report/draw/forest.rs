//! Differences with their intervals, around 0.

use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::canvas::{Drawing, WIDTH, dot, drawing, stroke, write};
use super::palette;
use crate::report::statistics::Interval;

/// A difference.
#[derive(Clone, Debug)]
pub(in super::super) struct Estimate {
    pub(in super::super) label: String,
    pub(in super::super) series: usize,
    /// Of every seed.
    pub(in super::super) single: Vec<f64>,
    pub(in super::super) mean: f64,
    pub(in super::super) interval: Option<Interval>,
}

/// Height of a difference with its label.
const ROW: i32 = 104;
/// Room at either side.
const SIDE: i32 = 60;

/// The chart: every seed's difference as a small dot, their mean as a large one with its interval.
/// `told` writes a value.
pub(in super::super) fn forest(estimates: &[Estimate], told: impl Fn(f64) -> String) -> Drawing {
    let values =
        estimates.iter().flat_map(|estimate| estimate.single.iter().map(|value| value.abs()));
    let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (middle, half) = (WIDTH as i32 / 2, f64::from(WIDTH as i32 / 2 - SIDE));
    let x = |value: f64| middle + (half * (value / most).clamp(-1.0, 1.0)).round() as i32;
    let height = ROW * estimates.len().max(1) as i32;
    drawing((height + 64) as u32, |area| {
        stroke(area, vec![(middle, 44), (middle, height)], palette::AXIS.stroke_width(3));
        for (row, estimate) in estimates.iter().enumerate() {
            let (top, colour) = (ROW * row as i32, palette::series(estimate.series));
            write(area, &estimate.label, (12, top + 26), HPos::Left);
            let line = top + 72;
            estimate
                .single
                .iter()
                .for_each(|value| dot(area, (x(*value), line), 7, colour.mix(0.45).filled()));
            if let Some(Interval { low, high }) = estimate.interval {
                stroke(area, vec![(x(low), line), (x(high), line)], colour.stroke_width(6));
                for end in [low, high] {
                    stroke(
                        area,
                        vec![(x(end), line - 14), (x(end), line + 14)],
                        colour.stroke_width(5),
                    );
                }
            }
            dot(area, (x(estimate.mean), line), 13, colour.filled());
        }
        let ends = [
            (-most, 12, HPos::Left),
            (0.0, middle, HPos::Center),
            (most, WIDTH as i32 - 12, HPos::Right),
        ];
        for (value, place, side) in ends {
            write(area, &told(value), (place, height + 32), side);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_seed_is_a_dot_without_interval() {
        let estimate = |interval| Estimate {
            label: "a".to_owned(),
            series: 1,
            single: vec![-0.5],
            mean: -0.5,
            interval,
        };
        let told = |value: f64| format!("{value:+.1}");
        let drawn = forest(&[estimate(None)], told);
        assert_eq!(
            (
                drawn.content.matches("<circle").count(),
                drawn.content.matches("stroke-width=\"6\"").count()
            ),
            (2, 0)
        );
        let drawn = forest(&[estimate(Some(Interval { low: -0.5, high: 0.25 }))], told);
        assert_eq!(drawn.content.matches("stroke-width=\"6\"").count(), 1);
    }
}
