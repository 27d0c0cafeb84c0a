//! The order in which records are visited: endless, reproducible, resumable.
//!
//! Every epoch's permutation is a function of (seed, purpose, epoch), so a position is two numbers and a resumed run
//! visits exactly what the uninterrupted one would have. Orders of different purposes are independent: how often
//! candidates are scored does not change what is trained on.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::DataError;

/// How an epoch visits its records (`data.order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A new random permutation in every epoch.
    #[default]
    Shuffled,
    /// The order of the file.
    Sequential,
}

/// Where an order stands: all that a checkpoint needs of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// How many records of it have been visited.
    pub offset: usize,
}

/// An endless order over `length` records.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    order: Order,
    seed: u64,
    purpose: String,
    position: Position,
    /// The current epoch's records.
    epoch: Vec<usize>,
}

impl EpochOrder {
    /// An order at its beginning. `purpose` separates orders of the same seed, such as `"training"` and `"scoring"`.
    ///
    /// # Panics
    ///
    /// When `length` is 0; a [`super::Dataset`] is never empty.
    pub fn new(length: usize, order: Order, seed: u64, purpose: &str) -> Self {
        assert!(length > 0, "an order needs at least one record");
        let (purpose, position) = (purpose.to_owned(), Position::default());
        let mut new = Self { order, seed, purpose, position, epoch: (0..length).collect() };
        new.enter(0);
        new
    }

    /// The records of one epoch.
    pub fn length(&self) -> usize {
        self.epoch.len()
    }

    /// The batches of one epoch: ⌈length / batch⌉.
    pub fn batches_per_epoch(&self, batch: usize) -> usize {
        self.length().div_ceil(batch.max(1))
    }

    /// Where the next batch begins. After an epoch's last record that is the next epoch's first.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Epochs visited so far, as a fraction.
    pub fn epochs(&self) -> f64 {
        self.position.epoch as f64 + self.position.offset as f64 / self.length() as f64
    }

    /// Goes to a saved position.
    ///
    /// # Errors
    ///
    /// When the position is beyond the epoch, as after a change of the data.
    pub fn seek(&mut self, position: Position) -> Result<(), DataError> {
        if position.offset >= self.length() {
            return Err(DataError::Position { offset: position.offset, length: self.length() });
        }
        self.enter(position.epoch);
        self.position = position;
        Ok(())
    }

    /// The next `size` records (at least one), fewer at the end of an epoch: a batch never spans two epochs.
    pub fn next_batch(&mut self, size: usize) -> Vec<usize> {
        let start = self.position.offset;
        let end = start.saturating_add(size.max(1)).min(self.length());
        let batch = self.epoch[start..end].to_vec();
        self.position.offset = end;
        if end == self.length() {
            self.enter(self.position.epoch + 1);
        }
        batch
    }

    /// The next `size` records, or all of them where there are fewer, never the same one twice. Where less than a batch
    /// is left of an epoch, the next epoch begins: the score of a smaller batch would be noisier.
    pub fn next_full_batch(&mut self, size: usize) -> Vec<usize> {
        if self.length() - self.position.offset < size.min(self.length()) {
            self.enter(self.position.epoch + 1);
        }
        self.next_batch(size)
    }

    fn enter(&mut self, epoch: u64) {
        self.position = Position { epoch, offset: 0 };
        let length = self.length();
        self.epoch.clear();
        self.epoch.extend(0..length);
        if self.order == Order::Shuffled {
            self.epoch.shuffle(&mut stream(self.seed, &self.purpose, epoch));
        }
    }
}

/// The random stream of a purpose and epoch: `ChaCha8` keyed by SHA-256 of the three.
pub(super) fn stream(seed: u64, purpose: &str, epoch: u64) -> ChaCha8Rng {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(epoch.to_le_bytes());
    ChaCha8Rng::from_seed(digest.chain_update(purpose).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(order: &mut EpochOrder, batch: usize) -> Vec<usize> {
        (0..order.batches_per_epoch(batch)).flat_map(|_| order.next_batch(batch)).collect()
    }

    #[test]
    fn an_epoch_ends_with_a_smaller_batch() {
        let mut order = EpochOrder::new(5, Order::Sequential, 0, "training");
        assert_eq!(order.batches_per_epoch(2), 3);
        let batches: Vec<_> = (0..4).map(|_| order.next_batch(2)).collect();
        assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4], vec![0, 1]]);
        assert_eq!(order.position(), Position { epoch: 1, offset: 2 });
        assert!((order.epochs() - 1.4).abs() < 1e-12);
    }

    #[test]
    fn scoring_batches_are_always_full() {
        let mut order = EpochOrder::new(5, Order::Sequential, 0, "scoring");
        let batches: Vec<_> = (0..3).map(|_| order.next_full_batch(2)).collect();
        assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![0, 1]]);
        assert_eq!(order.next_full_batch(16), [0, 1, 2, 3, 4]);
        assert_eq!(order.next_full_batch(usize::MAX).len(), 5);
    }

    #[test]
    fn epochs_seeds_and_purposes_differ() {
        let mut training = EpochOrder::new(50, Order::Shuffled, 3, "training");
        let (first, second) = (epoch(&mut training, 7), epoch(&mut training, 7));
        assert_ne!(first, second);
        assert_ne!(first, epoch(&mut EpochOrder::new(50, Order::Shuffled, 4, "training"), 7));
        assert_ne!(first, epoch(&mut EpochOrder::new(50, Order::Shuffled, 3, "scoring"), 7));
    }

    #[test]
    fn the_permutation_of_a_seed_is_fixed_for_good() {
        let mut order = EpochOrder::new(8, Order::Shuffled, 0, "training");
        assert_eq!(epoch(&mut order, 8), [6, 5, 3, 7, 1, 4, 2, 0]);
    }

    #[test]
    fn a_position_beyond_the_data_is_refused() {
        let mut order = EpochOrder::new(3, Order::Shuffled, 0, "training");
        let error = order.seek(Position { epoch: 0, offset: 3 }).unwrap_err().to_string();
        assert!(error.contains("the data has changed"), "{error}");
    }

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(length in 1_usize..60, batch in 1_usize..70, seed: u64) {
            let mut order = EpochOrder::new(length, Order::Shuffled, seed, "training");
            for number in 1..4 {
                let mut visited = epoch(&mut order, batch);
                visited.sort_unstable();
                prop_assert_eq!(visited, (0..length).collect::<Vec<_>>());
                prop_assert_eq!(order.position(), Position { epoch: number, offset: 0 });
            }
        }

        #[test]
        fn a_resumed_order_goes_on_as_if_uninterrupted(
            length in 1_usize..40, batch in 1_usize..50, before in 0_usize..30, seed: u64, full: bool,
        ) {
            let take = if full { EpochOrder::next_full_batch } else { EpochOrder::next_batch };
            let next = |order: &mut EpochOrder| take(order, batch);
            let mut whole = EpochOrder::new(length, Order::Shuffled, seed, "scoring");
            (0..before).for_each(|_| drop(next(&mut whole)));
            let saved = serde_json::to_string(&whole.position()).unwrap();
            let mut resumed = EpochOrder::new(length, Order::Shuffled, seed, "scoring");
            resumed.seek(serde_json::from_str(&saved).unwrap()).unwrap();
            for _ in 0..20 {
                prop_assert_eq!(next(&mut resumed), next(&mut whole));
            }
        }

        #[test]
        fn a_scoring_batch_holds_no_record_twice(length in 1_usize..40, batch in 1_usize..50, seed: u64) {
            let mut order = EpochOrder::new(length, Order::Shuffled, seed, "scoring");
            for _ in 0..20 {
                let mut records = order.next_full_batch(batch);
                prop_assert_eq!(records.len(), batch.min(length));
                records.sort_unstable();
                records.dedup();
                prop_assert_eq!(records.len(), batch.min(length));
            }
        }
    }
}
