//! The colours of charts, each for a light and a dark page.
//!
//! The series differ in lightness as well as in hue and keep 3 : 1 against the page, so they are
//! told apart with the usual colour blindnesses; heat maps go along viridis, or from blue over grey
//! to orange around 0.

use plotters::prelude::{DerivedColorMap, RGBColor, ViridisRGB};
use plotters::style::colors::colormaps::ColorMap;

/// A colour and what it is on a dark page.
struct Pair {
    name: &'static str,
    light: RGBColor,
    dark: RGBColor,
}

const fn pair(name: &'static str, light: (u8, u8, u8), dark: (u8, u8, u8)) -> Pair {
    Pair {
        name,
        light: RGBColor(light.0, light.1, light.2),
        dark: RGBColor(dark.0, dark.1, dark.2),
    }
}

/// The series' colours, then those of text, axes and grid.
const COLOURS: [Pair; 11] = [
    pair("s0", (0x00, 0x63, 0xA8), (0x5C, 0xB8, 0xF2)),
    pair("s1", (0xCB, 0x55, 0x00), (0xFF, 0x95, 0x47)),
    pair("s2", (0x00, 0x80, 0x5A), (0x2C, 0xC4, 0x97)),
    pair("s3", (0x8E, 0x3A, 0x8C), (0xE0, 0x91, 0xDD)),
    pair("s4", (0x8A, 0x6D, 0x00), (0xEC, 0xC9, 0x4B)),
    pair("s5", (0x2B, 0x8F, 0xC4), (0xA8, 0xDC, 0xFA)),
    pair("s6", (0x8B, 0x1E, 0x3F), (0xF0, 0x7A, 0x98)),
    pair("s7", (0x66, 0x66, 0x66), (0xB4, 0xB4, 0xB4)),
    pair("ink", (0x1C, 0x1F, 0x24), (0xE7, 0xE9, 0xED)),
    pair("axis", (0x6A, 0x70, 0x79), (0x9A, 0xA1, 0xAC)),
    pair("grid", (0xDF, 0xE2, 0xE7), (0x3A, 0x3F, 0x48)),
];

/// How many series have a colour of their own.
pub(in super::super) const SERIES: usize = 8;

/// Text.
pub(super) const INK: RGBColor = COLOURS[8].light;
/// Axes and whiskers.
pub(super) const AXIS: RGBColor = COLOURS[9].light;
/// The grid.
pub(super) const GRID: RGBColor = COLOURS[10].light;

/// The colour of a series; they begin again after [`SERIES`].
pub(super) fn series(index: usize) -> RGBColor {
    COLOURS[index % SERIES].light
}

/// The style sheet's name of a series' colour.
pub(in super::super) fn variable(index: usize) -> String {
    format!("--{}", COLOURS[index % SERIES].name)
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// The values of all colours on a light or a dark page, as declarations of a style sheet.
pub(in super::super) fn variables(dark: bool) -> String {
    let value = |pair: &Pair| hex(if dark { pair.dark } else { pair.light });
    COLOURS.iter().map(|pair| format!("--{}:{};", pair.name, value(pair))).collect()
}

/// Rules that let a chart's colours follow the variables.
pub(in super::super) fn rules() -> String {
    let rule = |pair: &Pair| {
        let (hex, name) = (hex(pair.light), pair.name);
        format!(
            "svg [fill=\"{hex}\"]{{fill:var(--{name})}}svg \
             [stroke=\"{hex}\"]{{stroke:var(--{name})}}\n"
        )
    };
    COLOURS.iter().map(rule).collect()
}

/// Steps of a heat map's colours.
const STEPS: f64 = 48.0;

/// The colour of a share from 0 to 1, along viridis.
pub(super) fn sequential(share: f64) -> RGBColor {
    ColorMap::get_color(&ViridisRGB, rounded(share))
}

/// Red, green and blue of a share from 0 to 1, along viridis.
pub(crate) fn viridis(share: f64) -> (u8, u8, u8) {
    let RGBColor(red, green, blue) = sequential(share);
    (red, green, blue)
}

/// The colour of a place from -1 over 0 to 1, from blue over light grey to orange.
pub(super) fn diverging(place: f64) -> RGBColor {
    let ends = [
        (0x1F, 0x4E, 0x8C),
        (0x8F, 0xB4, 0xDA),
        (0xF2, 0xF2, 0xF2),
        (0xF3, 0xB0, 0x7A),
        (0xA6, 0x48, 0x0C),
    ];
    let map = DerivedColorMap::new(&ends.map(|(r, g, b)| RGBColor(r, g, b)));
    map.get_color(rounded(f64::midpoint(place, 1.0)))
}

/// Neighbouring values share a colour, so that neighbouring cells are one. A value that is no
/// number, which a log may hold, stands in the middle: the colour maps know no other place for it.
fn rounded(share: f64) -> f64 {
    if share.is_nan() {
        return 0.5;
    }
    (share.clamp(0.0, 1.0) * STEPS).round() / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contrast of WCAG 2.
    fn contrast(one: RGBColor, other: RGBColor) -> f64 {
        let part = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |RGBColor(r, g, b)| 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
        let (a, b) = (luminance(one), luminance(other));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_series_is_seen_on_both_pages_and_text_is_read() {
        let (white, dark) = (RGBColor(255, 255, 255), RGBColor(0x16, 0x19, 0x1F));
        for pair in &COLOURS[..10] {
            let least = if pair.name == "ink" { 7.0 } else { 3.0 };
            assert!(contrast(pair.light, white) >= least, "{}", pair.name);
            assert!(contrast(pair.dark, dark) >= least, "{}", pair.name);
        }
    }

    #[test]
    fn what_is_no_number_has_a_colour() {
        assert_eq!(diverging(f64::NAN), diverging(0.0));
        assert_eq!(sequential(f64::NAN), sequential(0.5));
        assert_eq!(diverging(f64::INFINITY), diverging(1.0));
    }

    #[test]
    fn no_two_colours_are_one_and_none_is_a_heat_maps() {
        let hexes: std::collections::BTreeSet<String> =
            COLOURS.iter().map(|pair| hex(pair.light)).collect();
        assert_eq!(hexes.len(), COLOURS.len());
        for step in 0..=100 {
            let share = f64::from(step) / 100.0;
            assert!(
                !hexes.contains(&hex(sequential(share)))
                    && !hexes.contains(&hex(diverging(2.0 * share - 1.0)))
            );
        }
    }
}
