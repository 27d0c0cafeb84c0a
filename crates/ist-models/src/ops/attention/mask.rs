//! Which positions a query may look at.

use std::sync::Arc;

/// The positions that the last `queries` of `keys` positions see: real ones up to their own.
///
/// Kept as one flag a position; a bias of queries × keys numbers never exists in full. Padding before the first real token
/// sees itself, so that its softmax stays defined; other padding sees what a real token in its place would see before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionMask {
    queries: usize,
    keys: usize,
    /// `rows` × `keys` flags, false at padding; empty when no row has padding.
    real: Arc<[bool]>,
}

impl AttentionMask {
    /// The last `queries` positions of rows of `keys` positions; `mask` holds `keys` flags a row, false at padding.
    pub fn causal(mask: &[bool], queries: usize, keys: usize) -> Self {
        let padded = mask.iter().any(|&real| !real);
        Self { queries, keys, real: if padded { mask.into() } else { Arc::default() } }
    }

    /// The same with `length` positions in front that every query sees.
    #[must_use]
    pub fn after_prefix(&self, length: usize) -> Self {
        let rows = self.real.chunks(self.keys.max(1)).map(|row| [&vec![true; length][..], row].concat());
        Self { queries: self.queries, keys: self.keys + length, real: rows.collect::<Vec<_>>().concat().into() }
    }

    /// Queries of a row.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// Keys of a row.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How many keys, from the first, query `query` may see at most.
    pub fn reach(&self, query: usize) -> usize {
        self.keys - self.queries + query + 1
    }

    /// Whether any row has padding.
    pub fn has_padding(&self) -> bool {
        !self.real.is_empty()
    }

    /// Whether query `query` of row `row` sees key `key`.
    pub fn sees(&self, row: usize, query: usize, key: usize) -> bool {
        let position = self.reach(query) - 1;
        if key > position || self.real.is_empty() {
            return key <= position;
        }
        let real = &self.real[row * self.keys..][..self.keys];
        real[key] || (key == position && !real[..=position].contains(&true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mask: &[bool], queries: usize, keys: usize) -> Vec<bool> {
        let mask = AttentionMask::causal(mask, queries, keys);
        let rows = (0..queries).flat_map(|query| (0..keys).map(move |key| (query, key)));
        rows.map(|(query, key)| mask.sees(0, query, key)).collect()
    }

    #[test]
    fn a_query_sees_real_positions_up_to_its_own() {
        let expected = [
            [true, false, false, false],
            [false, true, false, false],
            [false, true, true, false],
            [false, true, true, true],
        ];
        assert_eq!(seen(&[false, true, true, true], 4, 4), expected.concat());
        assert_eq!(seen(&[false, true, true, true], 2, 4), expected[2..].concat());
    }

    #[test]
    fn padding_between_real_tokens_is_seen_by_nobody() {
        assert_eq!(
            seen(&[true, false, true], 3, 3),
            [[true, false, false], [true, false, false], [true, false, true]].concat()
        );
    }

    #[test]
    fn a_batch_without_padding_needs_no_flags() {
        let mask = AttentionMask::causal(&[true; 12], 1, 4);
        assert!(!mask.has_padding());
        assert_eq!((mask.reach(0), mask.sees(2, 0, 3)), (4, true));
    }
}
