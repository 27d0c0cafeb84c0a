//! What all charts share: size, text, and the way to a string.

use plotters::coord::Shift;
use plotters::prelude::{
    Circle, DrawingArea, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend,
    Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, ShapeStyle};
use serde::Serialize;

use super::palette;

/// The width of every chart, in its own lengths; on a wide page it is shown at half of that.
pub(super) const WIDTH: u32 = 1040;
/// The size of text.
pub(super) const TEXT: u32 = 39;

/// A chart: what stands inside of an `svg` element.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct Drawing {
    pub(in super::super) width: u32,
    pub(in super::super) height: u32,
    pub(in super::super) content: String,
}

/// What is drawn on, in pixels.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Why drawing cannot fail.
pub(super) const DRAWN: &str = "a string takes whatever is drawn";

/// Draws on an empty area of that height.
pub(super) fn drawing(height: u32, draw: impl FnOnce(&Area)) -> Drawing {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        draw(&area);
        area.present().expect(DRAWN);
    }
    let content = text
        .split_once('>')
        .and_then(|(_, rest)| rest.rsplit_once("</svg>"))
        .map(|(content, _)| content);
    let content = content.expect("the backend writes one element `svg`").trim().to_owned();
    Drawing { width: WIDTH, height, content }
}

/// The style of text that stands to the left or right of a place, or on its middle.
pub(super) fn text_style(horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&palette::INK).pos(Pos::new(horizontal, VPos::Center))
}

/// Writes text at a place.
pub(super) fn write(area: &Area, text: &str, place: (i32, i32), horizontal: HPos) {
    area.draw(&Text::new(clean(text), place, text_style(horizontal))).expect(DRAWN);
}

/// A filled rectangle between two corners.
pub(super) fn fill(area: &Area, corners: [(i32, i32); 2], colour: RGBColor) {
    area.draw(&Rectangle::new(corners, colour.filled())).expect(DRAWN);
}

/// A line through places.
pub(super) fn stroke(area: &Area, places: Vec<(i32, i32)>, style: impl Into<ShapeStyle>) {
    area.draw(&PathElement::new(places, style)).expect(DRAWN);
}

/// A filled circle.
pub(super) fn dot(area: &Area, place: (i32, i32), radius: i32, style: impl Into<ShapeStyle>) {
    area.draw(&Circle::new(place, radius, style)).expect(DRAWN);
}

/// Text that fits a chart's width and that XML can hold.
pub(super) fn clean(text: &str) -> String {
    const LONGEST: usize = 52;
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}
