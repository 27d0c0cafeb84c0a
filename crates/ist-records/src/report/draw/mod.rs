//! Charts as SVG, drawn by `plotters`.
//!
//! `plotters` has a backend that writes SVG and needs neither fonts nor an image library: three
//! small crates. It writes a colour as an attribute, which a style sheet may override; so every
//! colour of the palette is a variable of the page, and the dark page is another set of values.
//! Lengths are whole numbers, so a chart is drawn at twice its size.

mod bars;
mod canvas;
mod forest;
mod heat;
mod lines;
pub(crate) mod palette;

pub(super) use bars::{Bar, bars};
pub(super) use canvas::Drawing;
pub(super) use forest::{Estimate, forest};
pub(super) use heat::{Heat, Scale, heat};
pub(super) use lines::{Axes, Line, lines};
