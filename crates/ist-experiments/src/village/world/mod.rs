//! A small text world, generated from a seed: texts to pre-train a small language model on, and a
//! task to fine-tune it for.
//!
//! The world is small enough that a model of a few million parameters can know it by heart: who
//! keeps a goat, where the kite lies. Its texts state every fact many times in many wordings, and
//! the task asks for facts in a form that the texts never use: before fine-tuning a model that
//! knows the answer cannot give it, after it the answer is a matter of recall.

mod arithmetic;
mod facts;
mod forms;
mod lexicon;
mod questions;
mod scenery;
mod stories;
mod template;
mod vocabulary;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use facts::Relation;
pub use lexicon::words;
pub use questions::{Split, TaskRecord, json_lines, majority_answer, split_of, task};
pub use vocabulary::{BEGIN, END, PAD, VOCABULARY_SIZE, train_tokenizer};

/// The seed of the repository's own task files and vocabulary.
pub const SEED: u64 = 2024;

/// The world's texts without end, the same for the same seed on every machine.
///
/// Each is about 40 to 110 tokens of the world's vocabulary long and stands for itself.
pub fn documents(seed: u64) -> impl Iterator<Item = String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || stories::document(&mut rng))
}

#[cfg(test)]
mod tests;
