//! The downstream task: questions about a passage, with answers of one word.
//!
//! Passages are written in the sentences of the pre-training text, questions and answers in a form it never uses. Which
//! entity-relation pairs may be asked about is split by a hash, so a test question asks for a pair that no training
//! question asks for.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    arithmetic::Change,
    facts::{Cast, Fact, Relation, statements},
    forms::forms,
    stories::passage,
    template::{below, chance, pick, shuffle},
};

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

/// One question about one passage, with the fields of an Alpaca record and the exact answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The question.
    pub instruction: String,
    /// The passage.
    pub input: String,
    /// The text to be generated; equal to `answer`.
    pub output: String,
    /// The exact answer: one word.
    pub answer: String,
}

/// `count` records of `split`, the same for the same arguments on every machine.
///
/// A passage holds 2 to 4 facts of the asked relation and up to 2 others, 3 to 5 in all. One question in ten counts, and
/// half of these need a sum; every other answer stands in the passage.
pub fn task(seed: u64, split: Split, count: usize) -> Vec<TaskRecord> {
    let digest = Sha256::digest(format!("{seed}/questions/{}", split.name()));
    let mut rng = ChaCha8Rng::from_seed(digest.into());
    (0..count).map(|_| question(seed, split, &mut rng)).collect()
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

/// The most frequent answer of `train` and the fraction of `test` that it answers; `None` where either is empty.
pub fn majority_answer(train: &[TaskRecord], test: &[TaskRecord]) -> Option<(String, f64)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in train {
        *counts.entry(&record.answer).or_default() += 1;
    }
    // Of equally frequent answers the first in the alphabet, so that the figure does not depend on the records' order.
    let (answer, _) = counts.into_iter().min_by_key(|&(answer, count)| (std::cmp::Reverse(count), answer))?;
    let right = test.iter().filter(|record| record.answer == answer).count();
    (!test.is_empty()).then(|| (answer.to_owned(), right as f64 / test.len() as f64))
}

/// The records as JSON Lines.
pub fn json_lines(records: &[TaskRecord]) -> serde_json::Result<String> {
    records.iter().map(|record| Ok(serde_json::to_string(record)? + "\n")).collect()
}

fn question(seed: u64, split: Split, rng: &mut ChaCha8Rng) -> TaskRecord {
    let (entity, relation) = asked_pair(seed, split, rng);
    let mut cast = Cast::new(rng);
    cast.reserve(entity);
    if relation == Relation::Count && chance(50, rng) {
        return sum(entity, cast, rng);
    }
    let same = 2 + below(3, rng);
    let other = if same == 4 { below(2, rng) } else { 1 + below(2, rng) };
    let asked = cast.fact_about(entity, relation, rng);
    let facts = cast.facts_beside(asked, same, other, rng);
    record(&asked, passage(&facts, rng), rng)
}

/// A pair of `split`; one in ten is a count.
fn asked_pair(seed: u64, split: Split, rng: &mut ChaCha8Rng) -> (&'static str, Relation) {
    loop {
        let relation =
            if chance(10, rng) { Relation::Count } else { Relation::ALL[below(Relation::ALL.len() - 1, rng)] };
        let pairs: Vec<&'static str> =
            relation.entities().iter().filter(|entity| split_of(seed, entity, relation) == split).copied().collect();
        if !pairs.is_empty() {
            return (pick(&pairs, rng), relation);
        }
    }
}

/// A question whose count changes in the passage.
fn sum(entity: &'static str, mut cast: Cast, rng: &mut ChaCha8Rng) -> TaskRecord {
    let change = Change::draw(entity, cast.thing(), rng);
    let asked = Fact { relation: Relation::Count, entity, value: change.result(), thing: cast.thing() };
    cast.reserve(asked.value);
    let others = cast.facts(Relation::Count, 1 + below(2, rng), 0, rng);
    let mut sentences = statements(&others, rng);
    sentences.push(change.told(rng));
    shuffle(&mut sentences, rng);
    record(&asked, sentences.join(" "), rng)
}

fn record(asked: &Fact, input: String, rng: &mut ChaCha8Rng) -> TaskRecord {
    let instruction = asked.told(pick(forms(asked.relation).task, rng), "");
    TaskRecord { instruction, input, output: asked.value.to_owned(), answer: asked.value.to_owned() }
}
