//! What protects from files of strangers: their text in messages, their JSON, and libraries that
//! panic on them.
//!
//! A file from outside can hold a megabyte where a name is expected, one key twice, or numbers that
//! make a reader panic. Each of these becomes one short error here, so that every reader of the
//! workspace treats them alike.

mod cut;
pub mod json;
mod panics;

pub use cut::{LONGEST, cut, cut_message, cut_value};
pub use panics::{contained, contained_in_pool};
