//! The terminal of whoever started a command: text that leaves, progress, being asked to stop.

mod bytes;
pub mod interrupt;
pub mod plain_text;
pub mod progress;
pub mod screen;
pub mod signals;

pub use bytes::human;
