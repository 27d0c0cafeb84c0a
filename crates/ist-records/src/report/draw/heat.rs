//! Values over time and layers as colours.

use plotters::prelude::{ChartBuilder, IntoFont, RGBColor, Rectangle};
use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::canvas::{DRAWN, Drawing, TEXT, WIDTH, drawing, fill, write};
use super::palette;

/// How values become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Scale {
    /// From 0 to 1, along one hue after the other.
    Share,
    /// Around 0, up to that much on either side.
    Around(f64),
}

impl Scale {
    fn colour(self, value: f64) -> RGBColor {
        match self {
            Self::Share => palette::sequential(value),
            Self::Around(most) => palette::diverging(if most > 0.0 { value / most } else { 0.0 }),
        }
    }

    /// Lowest, middle and highest value.
    fn marks(self) -> [f64; 3] {
        match self {
            Self::Share => [0.0, 0.5, 1.0],
            Self::Around(most) => [-most, 0.0, most],
        }
    }
}

/// A map: columns of values, one for each layer.
#[derive(Clone, Debug)]
pub(in super::super) struct Heat {
    /// (first step, step behind the last, values by layer).
    pub(in super::super) columns: Vec<(f64, f64, Vec<f64>)>,
    pub(in super::super) scale: Scale,
}

/// Width of the scale at the right.
const SCALE: u32 = 190;

/// The map; the first layer is at the bottom.
pub(in super::super) fn heat(map: &Heat) -> Drawing {
    let layers = map.columns.first().map_or(1, |(_, _, values)| values.len().max(1));
    let height = 200 + (layers as u32 * 40).clamp(240, 760);
    drawing(height, |area| {
        let (left, right) = area.split_horizontally(WIDTH - SCALE);
        let (from, to) =
            (map.columns.first().map_or(0.0, |c| c.0), map.columns.last().map_or(1.0, |c| c.1));
        let mut chart = ChartBuilder::on(&left)
            .margin(20)
            .x_label_area_size(104)
            .y_label_area_size(124)
            .build_cartesian_2d(from..to.max(from + 1.0), -0.5..layers as f64 - 0.5)
            .expect(DRAWN);
        let style = ("sans-serif", TEXT).into_font().color(&palette::INK);
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(palette::AXIS)
            .label_style(style.clone())
            .axis_desc_style(style)
            .x_labels(5)
            .y_labels(layers.min(8))
            .x_desc("step")
            .y_desc("layer")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .expect(DRAWN);
        for layer in 0..layers {
            let cells = merged(map, layer).into_iter().map(|(from, to, colour)| {
                Rectangle::new(
                    [(from, layer as f64 - 0.5), (to, layer as f64 + 0.5)],
                    colour.filled(),
                )
            });
            chart.draw_series(cells).expect(DRAWN);
        }
        draw_scale(&right, map.scale, height as i32);
    })
}

/// The cells of a layer: neighbours of one colour are one.
fn merged(map: &Heat, layer: usize) -> Vec<(f64, f64, RGBColor)> {
    let mut cells: Vec<(f64, f64, RGBColor)> = Vec::new();
    for (from, to, values) in &map.columns {
        let Some(value) = values.get(layer).filter(|value| value.is_finite()) else { continue };
        let colour = map.scale.colour(*value);
        match cells.last_mut() {
            Some(last) if last.2 == colour && last.1 == *from => last.1 = *to,
            _ => cells.push((*from, *to, colour)),
        }
    }
    cells
}

fn draw_scale(area: &super::canvas::Area, scale: Scale, height: i32) {
    let (top, bottom, parts) = (28, height - 124, 24);
    let [low, middle, high] = scale.marks();
    for part in 0..parts {
        let at = |part: i32| bottom + (top - bottom) * part / parts;
        let value = low + (high - low) * (f64::from(part) + 0.5) / f64::from(parts);
        fill(area, [(12, at(part + 1)), (48, at(part))], scale.colour(value));
    }
    for (value, place) in
        [(low, bottom - 12), (middle, i32::midpoint(top, bottom)), (high, top + 12)]
    {
        write(area, &number(value), (60, place), HPos::Left);
    }
}

/// A value of the scale, in three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(0.001..1000.0).contains(&size) => format!("{value:.1e}"),
        size if size < 0.1 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_colour_are_one_cell() {
        let columns = vec![
            (0.0, 10.0, vec![0.5, 0.0]),
            (10.0, 20.0, vec![0.5, 1.0]),
            (20.0, 30.0, vec![0.5, f64::NAN]),
        ];
        let map = Heat { columns, scale: Scale::Share };
        assert_eq!(
            merged(&map, 0).iter().map(|cell| (cell.0, cell.1)).collect::<Vec<_>>(),
            [(0.0, 30.0)]
        );
        assert_eq!(merged(&map, 1).len(), 2);
        assert!(heat(&map).content.contains("layer"));
    }

    #[test]
    fn a_map_of_scores_that_never_moved_is_all_middle() {
        let map = Heat { columns: vec![(0.0, 1.0, vec![0.0; 3])], scale: Scale::Around(0.0) };
        assert_eq!(merged(&map, 2)[0].2, palette::diverging(0.0));
        assert!(!heat(&map).content.contains("NaN"));
    }
}
