//! Random numbers: one independent stream per purpose, all reproducible and all part of a saved
//! state.
//!
//! The device's own generator is process-wide, so nothing here uses it. What one purpose draws
//! never shifts what another draws.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The streams whose position is state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// Draws the update sets.
    pub selection: ChaCha8Rng,
    /// Draws the candidates' suppressed sets.
    pub candidates: ChaCha8Rng,
}

impl Streams {
    /// The streams of a run's seed.
    pub fn new(seed: u64) -> Self {
        Self { selection: stream(seed, "selection"), candidates: stream(seed, "candidates") }
    }
}

/// A stream of its own for `purpose`.
pub fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(digest(purpose));
    rng
}

/// FNV-1a, 64 bits: a name as a number that is the same everywhere.
pub fn digest(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Mixes `value` into `seed` (the finaliser of splitmix64), for numbers that are a function of
/// where they are used.
pub fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed
        .wrapping_add(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(value.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn purposes_do_not_share_numbers() {
        let mut a = stream(1, "selection");
        let mut b = stream(1, "candidates");
        assert_ne!(a.next_u64(), b.next_u64());
    }

    #[test]
    fn a_stream_goes_on_from_its_saved_position() {
        let mut streams = Streams::new(9);
        streams.selection.next_u64();
        let saved = serde_json::to_string(&streams).unwrap();
        let mut again: Streams = serde_json::from_str(&saved).unwrap();
        assert_eq!(again.selection.next_u64(), streams.selection.next_u64());
    }
}
