//! Which positions a query may look at.

use std::ops::Range;
use std::sync::Arc;

/// The positions that the last `queries` of `keys` positions see: real ones up to their own, and of
/// those the last few where there is a window.
///
/// Kept as one flag a position; a bias of queries × keys numbers never exists in full. Padding that
/// sees no real token sees itself, so that its softmax stays defined; other padding sees what a
/// real token in its place would see before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionMask {
    queries: usize,
    keys: usize,
    /// Positions that a query sees at most, its own among them.
    window: usize,
    /// `rows` × `keys` flags, false at padding; empty when no row has padding.
    real: Arc<[bool]>,
}

impl AttentionMask {
    /// The last `queries` positions of rows of `keys` positions; `mask` holds `keys` flags a row,
    /// false at padding.
    pub fn causal(mask: &[bool], queries: usize, keys: usize) -> Self {
        let padded = mask.iter().any(|&real| !real);
        Self {
            queries,
            keys,
            window: usize::MAX,
            real: if padded { mask.into() } else { Arc::default() },
        }
    }

    /// The same with `length` real positions in front.
    #[must_use]
    pub fn after_prefix(&self, length: usize) -> Self {
        let rows =
            self.real.chunks(self.keys.max(1)).map(|row| [&vec![true; length][..], row].concat());
        Self {
            keys: self.keys + length,
            real: rows.collect::<Vec<_>>().concat().into(),
            ..self.clone()
        }
    }

    /// The same where a query sees the last `window` positions alone, its own among them (sliding
    /// window; Beltagy et al., [arXiv 2004.05150](https://arxiv.org/abs/2004.05150)). Padding
    /// counts.
    #[must_use]
    pub fn within(&self, window: usize) -> Self {
        Self { window: window.max(1), ..self.clone() }
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

    /// The first key that query `query` may see.
    pub fn first(&self, query: usize) -> usize {
        self.reach(query).saturating_sub(self.window)
    }

    /// The keys that any of those queries may see.
    pub fn keys_of(&self, queries: &Range<usize>) -> Range<usize> {
        self.first(queries.start)..self.reach(queries.end.max(1) - 1)
    }

    /// Whether any query sees fewer than all keys up to its own.
    pub fn has_window(&self) -> bool {
        self.window < self.keys
    }

    /// Keys that a query sees at most, its own among them; more than there are without a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The number of real keys before each key of a row, itself not counted.
    pub fn positions(&self, row: usize) -> Vec<usize> {
        if self.real.is_empty() {
            return (0..self.keys).collect();
        }
        let mut seen = 0usize;
        let count = |&real: &bool| {
            seen += usize::from(real);
            seen.saturating_sub(1)
        };
        self.real[row * self.keys..][..self.keys].iter().map(count).collect()
    }

    /// Whether any row has padding.
    pub fn has_padding(&self) -> bool {
        !self.real.is_empty()
    }

    /// Whether key `key` of row `row` is no padding.
    pub fn is_real(&self, row: usize, key: usize) -> bool {
        self.real.is_empty() || self.real[row * self.keys + key]
    }

    /// Whether query `query` of row `row` sees key `key`.
    pub fn sees(&self, row: usize, query: usize, key: usize) -> bool {
        let seen = self.first(query)..self.reach(query);
        if !seen.contains(&key) || self.real.is_empty() {
            return seen.contains(&key);
        }
        let real = &self.real[row * self.keys..][..self.keys];
        real[key] || (key + 1 == seen.end && !real[seen].contains(&true))
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
    fn a_window_hides_what_lies_further_back() {
        let mask = AttentionMask::causal(&[true, true, false, false, true], 5, 5).within(2);
        let seen = |query| (0..5).filter(|key| mask.sees(0, query, *key)).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 3, 4].map(seen), [vec![0], vec![0, 1], vec![1], vec![3], vec![4]]);
        assert_eq!(mask.keys_of(&(2..4)), 1..4);
        assert_eq!(mask.positions(0), [0, 1, 1, 1, 2]);
        assert_eq!(
            AttentionMask::causal(&[false, false, true, true, true], 5, 5).positions(0),
            [0, 0, 0, 1, 2]
        );
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
