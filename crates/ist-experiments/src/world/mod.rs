//! A small text world, generated from a seed: texts to pre-train a small language model on, and a task to fine-tune it for.
//!
//! A model of a few million parameters knows no facts worth asking for, but it can read. So the world's facts are drawn
//! anew for every text, its texts state some and repeat some, and the task asks about a passage in a form that the texts
//! never use: before fine-tuning a model cannot answer, after it the answer is a matter of looking it up.

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

/// The number of records of each split in the repository's task files.
pub const fn records(split: Split) -> usize {
    match split {
        Split::Train => 2000,
        Split::Validation | Split::Test => 200,
    }
}

/// The world's texts without end, the same for the same seed on every machine.
///
/// Each is about 40 to 110 tokens of the world's vocabulary long and stands for itself.
pub fn documents(seed: u64) -> impl Iterator<Item = String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || stories::document(&mut rng))
}

#[cfg(test)]
mod tests;
