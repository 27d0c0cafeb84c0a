//! The downstream task: questions about the world, with answers of one word.
//!
//! The texts state every fact that is asked for, but questions and answers have a form they never
//! use: a model that has read the texts knows the answers and has to learn to give them. Which
//! entity-relation pairs may be asked about is split by a hash, so a test question asks for a pair
//! that no training question asks for: it cannot be learnt from the training questions, only
//! recalled.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{facts::Relation, forms::forms, template::fill};

/// The part of the task a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Records to train on: about 70 % of the entity-relation pairs.
    Train,
    /// Records to choose settings by: about 15 % of the pairs.
    Validation,
    /// Records to report figures on: the rest.
    Test,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The split's name, as in the data's file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// One question, with the fields of an Alpaca record and the exact answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The question.
    pub instruction: String,
    /// Nothing: the question stands for itself.
    pub input: String,
    /// The text to be generated; equal to `answer`.
    pub output: String,
    /// The exact answer: one word.
    pub answer: String,
}

/// Every question of `split`, in a random order that is the same for the same arguments on every
/// machine.
pub fn task(seed: u64, split: Split) -> Vec<TaskRecord> {
    let mut records = Vec::new();
    for relation in Relation::LASTING {
        for entity in
            relation.entities().iter().filter(|entity| split_of(seed, entity, relation) == split)
        {
            if let Some(answer) = relation.truth(entity) {
                records
                    .extend(forms(relation).task.iter().map(|form| record(form, entity, answer)));
            }
        }
    }
    let digest = Sha256::digest(format!("{seed}/questions/{}", split.name()));
    records.shuffle(&mut ChaCha8Rng::from_seed(digest.into()));
    records
}

fn record(form: &str, entity: &str, answer: &str) -> TaskRecord {
    let (output, answer) = (answer.to_owned(), answer.to_owned());
    TaskRecord { instruction: fill(form, &[("e", entity)]), input: String::new(), output, answer }
}

/// The split that the pair of `entity` and `relation` belongs to under `seed`.
pub fn split_of(seed: u64, entity: &str, relation: Relation) -> Split {
    let digest = Sha256::digest(format!("{seed}/{entity}/{}", relation.name()));
    match digest[0] {
        0..179 => Split::Train,
        179..217 => Split::Validation,
        _ => Split::Test,
    }
}

/// The most frequent answer of `train` and the fraction of `test` that it answers; `None` where
/// either is empty.
pub fn majority_answer(train: &[TaskRecord], test: &[TaskRecord]) -> Option<(String, f64)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in train {
        *counts.entry(&record.answer).or_default() += 1;
    }
    // Of equally frequent answers the first in the alphabet, so that the figure does not depend on
    // the records' order.
    let (answer, _) =
        counts.into_iter().min_by_key(|&(answer, count)| (std::cmp::Reverse(count), answer))?;
    let right = test.iter().filter(|record| record.answer == answer).count();
    (!test.is_empty()).then(|| (answer.to_owned(), right as f64 / test.len() as f64))
}

/// The records as JSON Lines.
pub fn json_lines(records: &[TaskRecord]) -> serde_json::Result<String> {
    records.iter().map(|record| Ok(serde_json::to_string(record)? + "\n")).collect()
}
