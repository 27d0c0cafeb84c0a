//! Holding records out for validation.

use rand::seq::SliceRandom;

use super::error::DataError;
use super::order::stream;

/// Draws `count` of `length` records to hold out: the indices that remain and those held out, both
/// ascending.
///
/// The draw depends on the seed alone, not on how often or in which order training visits its
/// records.
///
/// # Errors
///
/// When `count` is `length` or more, so that nothing would remain.
pub fn hold_out(
    length: usize,
    count: usize,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    if count >= length {
        return Err(DataError::Split { asked: count, available: length });
    }
    let mut indices: Vec<usize> = (0..length).collect();
    indices.shuffle(&mut stream(seed, "validation split", 0));
    let mut remaining = indices.split_off(count);
    indices.sort_unstable();
    remaining.sort_unstable();
    Ok((remaining, indices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holding_everything_out_is_refused() {
        for (length, count) in [(0, 0), (3, 3), (3, 4)] {
            let error = hold_out(length, count, 0).unwrap_err().to_string();
            assert!(error.contains(&format!("validation_records = {count}")), "{error}");
        }
    }

    #[test]
    fn the_draw_depends_on_the_seed() {
        let draw = |seed| hold_out(1000, 20, seed).unwrap().1;
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn every_record_is_as_likely_to_be_held_out() {
        let mut counts = [0_u32; 5];
        for seed in 0..2000 {
            hold_out(5, 2, seed).unwrap().1.iter().for_each(|at| counts[*at] += 1);
        }
        assert!(counts.iter().all(|count| count.abs_diff(800) < 100), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition(length in 1_usize..200, share in 0.0..1.0_f64, seed: u64) {
            let count = (length as f64 * share) as usize;
            let (train, held_out) = hold_out(length, count, seed).unwrap();
            prop_assert_eq!(held_out.len(), count);
            let mut all = [train, held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..length).collect::<Vec<_>>());
        }
    }
}
