//! Training, validation and scoring data: from a file to token records, and the order in which a run visits them.
//!
//! A run must be able to say which records it saw, in which order, and what became of each of them; so a [`Dataset`]
//! keeps every example's index in its file, counts what was cut or left out, and carries the file's digest, and an
//! [`EpochOrder`] is a pure function of a seed and a position. Faults are found here, once, with file and line, before
//! the first step.
//!
//! | to read about | look at |
//! |---|---|
//! | opening a file, its container and format | [`DataFile`], [`Format`] |
//! | records of token ids | [`tokens`] |
//! | records of text | [`Record`], [`alpaca`], [`chat`] |
//! | from a record to a prompt, from text to tokens | [`Template`], [`Encoder`] |
//! | what a run trains on | [`Dataset`], [`split`], [`order`] |

pub mod alpaca;
pub mod chat;
mod dataset;
mod encode;
mod error;
mod json_file;
pub mod order;
mod padding;
mod parquet_file;
pub mod split;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod text;
pub mod tokens;

pub use dataset::Dataset;
pub use encode::{Encoded, Encoder, EncoderOptions};
pub use error::{DataError, Place};
pub use order::{EpochOrder, Order, Position};
pub use padding::{pad_left, pad_right};
pub use template::{CustomTemplate, Segment, Template};
pub use text::{Body, DataFile, Format, Record};
pub use tokens::{predicted, read_tokens};
