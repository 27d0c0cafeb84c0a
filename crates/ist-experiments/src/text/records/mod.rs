//! Training, validation and scoring data: from a file to token records, and the order in which a
//! run visits them.
//!
//! A run must be able to say which records it saw, in which order, and what became of each of them;
//! so a [`Dataset`] keeps every example's index in its file, counts what was cut or left out, and
//! carries the file's digest, and an [`EpochOrder`] is a pure function of a seed and a position.
//! Faults are found here, once, with file and line, before the first step.
//!
//! | to read about | look at |
//! |---|---|
//! | which files a path stands for | `files` |
//! | opening a file, its compression, container and format | [`DataFile`], [`Format`], [`Columns`] |
//! | records of token ids | [`tokens`] |
//! | records of text | [`Record`], [`alpaca`], [`chat`] |
//! | from a record to a prompt, from text to tokens | [`Template`], [`Encoder`] |
//! | what a run trains on | [`Dataset`], [`split`], [`order`] |
//! | what a file says and nothing reads | [`DroppedKeys`] |

pub mod alpaca;
pub mod chat;
mod columns;
mod custom_template;
mod dataset;
mod dropped;
mod encode;
mod error;
pub(crate) mod files;
mod json_file;
mod message;
pub mod order;
mod packed;
mod padding;
mod parquet_file;
mod parquet_pages;
mod python_numbers;
mod record;
pub mod split;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod text;
pub mod tokens;

pub use columns::Columns;
pub use custom_template::CustomTemplate;
pub use dataset::{Dataset, FileCounts};
pub use dropped::DroppedKeys;
pub use encode::{Encoded, Encoder, EncoderOptions};
pub use error::{DataError, Place};
pub(crate) use message::Standing;
pub use order::{EpochOrder, Order, Position};
pub use padding::{pad_left, pad_right};
pub use record::{Body, Record};
pub(crate) use template::words;
pub use template::{Segment, Template};
pub use text::{DataFile, Format};
pub use tokens::{predicted, read_tokens};
