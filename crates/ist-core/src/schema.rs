//! What the JSON Schemas of settings share.
//!
//! The struct of a setting is its only definition: its default, its range and its description are
//! in the schema derived from it.

use schemars::{Schema, json_schema};
use serde::Serialize;

/// The `format` of a string that names a file or folder.
pub const PATH: &str = "path";

/// The schema of one of these values, in their serialised spelling.
pub fn choice<T: Serialize>(values: &[T]) -> Schema {
    json_schema!({"type": "string", "enum": values})
}
