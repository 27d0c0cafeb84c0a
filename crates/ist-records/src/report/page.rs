//! The report as one page of HTML that needs nothing else: no script, no network, no font.
//!
//! Its own policy forbids it to load or to run anything. The template escapes whatever it is given;
//! only the style sheet and the charts, which are made here, go in as they are. The page is XML as
//! well, which is how tests read it.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use super::draw::palette;
use super::figures::{Figure, Section};
use super::table::Table;
use crate::failure::{Failure, OrFail};
use crate::terminal::plain_text;

/// What the page shows.
#[derive(Serialize)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) lead: String,
    pub(super) notes: Vec<String>,
    pub(super) summary: Table,
    pub(super) comparison: Places,
    pub(super) sections: Vec<Section>,
    pub(super) configuration: Settings,
    pub(super) foot: String,
    pub(super) style: String,
}

/// The comparisons.
#[derive(Serialize)]
pub(super) struct Places {
    pub(super) text: String,
    pub(super) figure: Option<Figure>,
    /// The one that was asked for comes first.
    pub(super) places: Vec<Place>,
}

/// The comparison at one of the places.
#[derive(Serialize)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) tables: Vec<Table>,
}

/// The settings that differ.
#[derive(Serialize)]
pub(super) struct Settings {
    pub(super) text: String,
    pub(super) table: Option<Table>,
}

/// The style sheet: the palette's colours as variables, for either kind of page, and the rest.
pub(super) fn style() -> String {
    const DARK: &str =
        "--page:#16191F;--panel:#1D2129;--line:#3A3F48;--link:#7CC4FF;--muted:#A9B0BB;";
    let (light, dark) = (palette::variables(false), palette::variables(true));
    format!(
        "{}:root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{DARK}{dark}}}}}\n{}",
        include_str!("style.css"),
        palette::rules()
    )
}

/// The page's text.
pub(super) fn render(page: &Page) -> Result<String, Failure> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", include_str!("page.html")).or_run()?;
    let text = environment
        .get_template("page")
        .and_then(|template| template.render(Serde(page)))
        .or_run()?;
    // What no document may hold, neither HTML nor XML, and what would turn its text around, stands
    // there escaped.
    Ok(plain_text::shown(text.trim_start()).into_owned())
}
