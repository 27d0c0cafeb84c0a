//! Lines over steps or layers.

use plotters::prelude::{ChartBuilder, Circle, IntoFont, LineSeries};
use plotters::style::{Color, ShapeStyle};

use super::canvas::{DRAWN, Drawing, TEXT, drawing};
use super::palette;

/// One line, in pieces where values are missing.
#[derive(Clone, Debug)]
pub(in super::super) struct Line {
    /// Its colour's number.
    pub(in super::super) series: usize,
    /// Drawn faintly, behind what matters.
    pub(in super::super) faint: bool,
    /// With a mark at every point.
    pub(in super::super) marks: bool,
    /// (x, y) in order of x; a y that is not finite ends a piece.
    pub(in super::super) points: Vec<(f64, f64)>,
}

/// What the axes say.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Axes<'a> {
    pub(in super::super) x: &'a str,
    pub(in super::super) y: &'a str,
    /// Whether the vertical axis begins at 0.
    pub(in super::super) from_zero: bool,
}

const HEIGHT: u32 = 660;

/// The chart. Losses that span more than a factor of 20 are on a logarithmic axis.
pub(in super::super) fn lines(axes: Axes, lines: &[Line]) -> Drawing {
    let finite = || {
        lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let span = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let (low, high) = finite()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    };
    let (x, y) = (span(&|point| point.0), span(&|point| point.1));
    let logarithmic = !axes.from_zero && y.0 > 0.0 && y.1 > 20.0 * y.0;
    let place = |y: f64| if logarithmic { y.log10() } else { y };
    let low = if axes.from_zero { 0.0 } else { place(y.0) };
    let marked = lines.iter().any(|line| line.marks);
    let (y_range, x_range) = (room((low, place(y.1)), !axes.from_zero), room(x, marked));
    let label = if logarithmic { format!("{}, logarithmic", axes.y) } else { axes.y.to_owned() };
    drawing(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(20)
            .margin_right(36)
            .x_label_area_size(104)
            .y_label_area_size(152)
            .build_cartesian_2d(x_range.0..x_range.1, y_range.0..y_range.1)
            .expect(DRAWN);
        let value = |value: &f64| short(if logarithmic { 10_f64.powf(*value) } else { *value });
        chart
            .configure_mesh()
            .label_style(("sans-serif", TEXT).into_font().color(&palette::INK))
            .axis_desc_style(("sans-serif", TEXT).into_font().color(&palette::INK))
            .axis_style(palette::AXIS)
            .bold_line_style(palette::GRID)
            .light_line_style(palette::GRID.mix(0.0))
            .x_labels(6)
            .y_labels(6)
            .x_desc(axes.x)
            .y_desc(label)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&value)
            .draw()
            .expect(DRAWN);
        for line in lines {
            let colour = palette::series(line.series);
            let style: ShapeStyle =
                if line.faint { colour.mix(0.3).stroke_width(2) } else { colour.stroke_width(5) };
            for piece in line
                .points
                .split(|(x, y)| !x.is_finite() || !y.is_finite())
                .filter(|piece| !piece.is_empty())
            {
                let points: Vec<(f64, f64)> = piece.iter().map(|(x, y)| (*x, place(*y))).collect();
                // A piece of one point has no line.
                if line.marks || points.len() == 1 {
                    let radius = if line.faint { 4 } else { 8 };
                    let dots =
                        points.iter().map(|point| Circle::new(*point, radius, colour.filled()));
                    chart.draw_series(dots).expect(DRAWN);
                }
                chart.draw_series(LineSeries::new(points, style)).expect(DRAWN);
            }
        }
    })
}

/// A span with some room at its ends; one without extent gets some.
fn room((low, high): (f64, f64), below: bool) -> (f64, f64) {
    let extent = high - low;
    if extent <= 1e-12 * high.abs().max(low.abs()).max(1e-300) {
        let half = if high == 0.0 { 0.5 } else { 0.05 * high.abs() };
        return (if below { low - half } else { low }, high + 2.0 * half);
    }
    (if below { low - 0.04 * extent } else { low }, high + 0.04 * extent)
}

/// A number of an axis, in few digits.
fn short(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size < 1e-12 => return "0".to_owned(),
        _ if !(1e-3..1e6).contains(&size) => return format!("{value:.1e}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { series: 0, faint: false, marks: false, points: points.to_vec() }
    }

    const AXES: Axes = Axes { x: "step", y: "loss", from_zero: false };

    #[test]
    fn a_missing_value_ends_a_piece() {
        let drawn = lines(AXES, &[line(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, 2.0)])]);
        assert_eq!(drawn.content.matches("stroke-width=\"5\"").count(), 2, "{}", drawn.content);
        assert!(!drawn.content.contains("NaN"));
    }

    #[test]
    fn whatever_the_values_the_axes_hold() {
        for points in [
            &[][..],
            &[(0.0, 0.0)],
            &[(5.0, 7.0)],
            &[(0.0, f64::INFINITY)],
            &[(0.0, -3.0), (1.0, -3.0)],
            &[(0.0, 1e300), (1.0, 1e-300)],
        ] {
            let drawn = lines(AXES, &[line(points)]);
            assert!(drawn.content.contains("loss") && !drawn.content.contains("NaN"), "{points:?}");
        }
    }

    #[test]
    fn numbers_of_axes_are_short() {
        let cases = [
            (0.0, "0"),
            (1500.0, "1500"),
            (0.25, "0.25"),
            (12.0, "12"),
            (2e-5, "2.0e-5"),
            (-1.5, "-1.5"),
            (100.0, "100"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }
}
