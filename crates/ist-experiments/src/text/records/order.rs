//! The order in which records are visited: endless, reproducible, resumable.
//!
//! Every epoch's permutation is a function of (seed, purpose, epoch), so a position is two numbers
//! and a resumed run visits exactly what the uninterrupted one would have. Orders of different
//! purposes are independent: how often candidates are scored does not change what is trained on.
//!
//! Files may have weights. A record of a file of weight w is visited w times in an epoch, as a
//! mean: ⌊w⌋ times, and once more if it is among the round((w - ⌊w⌋) n) of the file's n records
//! that are drawn anew for each epoch.

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

/// Some of the records, and how often an epoch visits each as a mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The records.
    pub records: Vec<usize>,
    /// Visits of each in an epoch, above 0.
    pub weight: f64,
}

impl Share {
    /// How often every record is visited.
    fn times(&self) -> usize {
        self.weight.floor() as usize
    }

    /// How many records are visited once more. Where there would be no visit at all, one is.
    fn drawn(&self) -> usize {
        let part = self.weight.fract() * self.records.len() as f64;
        let least = usize::from(self.times() == 0).min(self.records.len());
        (part.round() as usize).max(least)
    }

    /// Visits of an epoch.
    fn length(&self) -> usize {
        self.times() * self.records.len() + self.drawn()
    }
}

/// An endless order over some records.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    shares: Vec<Share>,
    order: Order,
    seed: u64,
    purpose: String,
    position: Position,
    /// The current epoch's records.
    epoch: Vec<usize>,
}

impl EpochOrder {
    /// An order at its beginning. `purpose` separates orders of the same seed, such as `"training"`
    /// and `"scoring"`.
    ///
    /// # Panics
    ///
    /// When `length` is 0; a [`super::Dataset`] is never empty.
    pub fn new(length: usize, order: Order, seed: u64, purpose: &str) -> Self {
        let share = Share { records: (0..length).collect(), weight: 1.0 };
        Self::weighted(vec![share], order, seed, purpose)
    }

    /// An order at its beginning, in which each share has its weight.
    ///
    /// # Panics
    ///
    /// When no share holds a record.
    pub fn weighted(shares: Vec<Share>, order: Order, seed: u64, purpose: &str) -> Self {
        let length: usize = shares.iter().map(Share::length).sum();
        assert!(length > 0, "an order needs at least one record");
        let mut new = Self {
            shares,
            order,
            seed,
            purpose: purpose.to_owned(),
            position: Position::default(),
            epoch: vec![0; length],
        };
        new.enter(0);
        new
    }

    /// The visits of one epoch.
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

    /// The next `size` records (at least one), fewer at the end of an epoch: a batch never spans
    /// two epochs.
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

    /// The next `size` records, or all of them where there are fewer, never the same one twice
    /// unless its weight is above 1. Where less than a batch is left of an epoch, the next epoch
    /// begins: the score of a smaller batch would be noisier.
    pub fn next_full_batch(&mut self, size: usize) -> Vec<usize> {
        if self.length() - self.position.offset < size.min(self.length()) {
            self.enter(self.position.epoch + 1);
        }
        self.next_batch(size)
    }

    fn enter(&mut self, epoch: u64) {
        self.position = Position { epoch, offset: 0 };
        self.epoch.clear();
        for (at, share) in self.shares.iter().enumerate() {
            for _ in 0..share.times() {
                self.epoch.extend(&share.records);
            }
            if share.drawn() > 0 {
                let purpose = format!("{}, share {at}", self.purpose);
                self.epoch.extend(drawn(share, &mut stream(self.seed, &purpose, epoch)));
            }
        }
        if self.order == Order::Shuffled {
            self.epoch.shuffle(&mut stream(self.seed, &self.purpose, epoch));
        }
    }
}

/// The records of a share that are visited once more, in its order.
fn drawn(share: &Share, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut places: Vec<usize> = (0..share.records.len()).collect();
    places.shuffle(random);
    places.truncate(share.drawn());
    places.sort_unstable();
    places.into_iter().map(|place| share.records[place]).collect()
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

    fn weighted(weights: [f64; 2], order: Order) -> EpochOrder {
        let shares = [(0..10).collect(), (10..20).collect()].into_iter().zip(weights);
        let shares = shares.map(|(records, weight)| Share { records, weight }).collect();
        EpochOrder::weighted(shares, order, 7, "training")
    }

    #[test]
    fn a_weight_is_how_often_a_record_is_visited_in_an_epoch() {
        let mut order = weighted([0.3, 2.5], Order::Shuffled);
        assert_eq!(order.length(), 3 + 25);
        let mut visits = [0_usize; 20];
        let epochs = 400;
        for _ in 0..epochs {
            let mut times = [0_usize; 20];
            for record in epoch(&mut order, 6) {
                times[record] += 1;
            }
            assert!(times[..10].iter().all(|times| *times <= 1));
            assert!(times[10..].iter().all(|times| (2..=3).contains(times)));
            assert_eq!(times[..10].iter().sum::<usize>(), 3);
            visits.iter_mut().zip(times).for_each(|(sum, times)| *sum += times);
        }
        for (record, visits) in visits.into_iter().enumerate() {
            let expected = if record < 10 { 0.3 } else { 2.5 };
            let mean = visits as f64 / f64::from(epochs);
            assert!((mean - expected).abs() < 0.1, "{record}: {mean}");
        }
    }

    #[test]
    fn in_order_a_files_repetitions_follow_each_other() {
        let mut order = weighted([1.0, 2.0], Order::Sequential);
        let expected: Vec<usize> = (0..10).chain(10..20).chain(10..20).collect();
        assert_eq!(epoch(&mut order, 6), expected);
        assert_eq!(weighted([0.001, 1.0], Order::Sequential).length(), 11);
    }

    #[test]
    fn a_weighted_order_goes_on_from_its_position() {
        let mut whole = weighted([0.3, 1.5], Order::Shuffled);
        (0..11).for_each(|_| drop(whole.next_batch(4)));
        let mut resumed = weighted([0.3, 1.5], Order::Shuffled);
        resumed.seek(whole.position()).unwrap();
        (0..20).for_each(|_| assert_eq!(resumed.next_batch(4), whole.next_batch(4)));
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
        fn a_scoring_batch_holds_no_record_twice(
            length in 1_usize..40,
            batch in 1_usize..50,
            seed: u64,
        ) {
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
