//! A set of layers, as every policy returns it and every step reads it.
//!
//! Being sorted, unique and in range is checked once, here, so that nothing downstream needs to
//! check again.

use serde::{Deserialize, Serialize};

/// A sorted set of distinct layer indices, each below `num_layers`. Layers count from 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerSet {
    indices: Vec<usize>,
    num_layers: usize,
}

/// Why indices are no [`LayerSet`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerSetError {
    /// An index names no layer of the model.
    #[error("layer {index} does not exist: the model has {num_layers} layers, counted from 0")]
    OutOfRange {
        /// The offending index.
        index: usize,
        /// Layers of the model.
        num_layers: usize,
    },
}

impl LayerSet {
    /// The set of `indices` (in any order, repetitions count once) in a model of `num_layers`
    /// layers.
    pub fn new(
        indices: impl IntoIterator<Item = usize>,
        num_layers: usize,
    ) -> Result<Self, LayerSetError> {
        let mut indices: Vec<usize> = indices.into_iter().collect();
        indices.sort_unstable();
        indices.dedup();
        match indices.last() {
            Some(&index) if index >= num_layers => {
                Err(LayerSetError::OutOfRange { index, num_layers })
            }
            _ => Ok(Self { indices, num_layers }),
        }
    }

    /// Every layer.
    pub fn all(num_layers: usize) -> Self {
        Self { indices: (0..num_layers).collect(), num_layers }
    }

    /// No layer.
    pub fn empty(num_layers: usize) -> Self {
        Self { indices: Vec::new(), num_layers }
    }

    /// Whether `layer` is in the set.
    pub fn contains(&self, layer: usize) -> bool {
        self.indices.binary_search(&layer).is_ok()
    }

    /// The layers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.indices.iter().copied()
    }

    /// The layers in ascending order.
    pub fn as_slice(&self) -> &[usize] {
        &self.indices
    }

    /// How many layers the set holds.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether the set holds no layer.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Whether every layer of the set is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|layer| other.contains(layer))
    }

    /// Layers of the model the set is about.
    pub fn num_layers(&self) -> usize {
        self.num_layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_index_out_of_range_is_refused() {
        let error = LayerSet::new([0, 4], 4).unwrap_err();
        assert_eq!(error, LayerSetError::OutOfRange { index: 4, num_layers: 4 });
    }

    proptest! {
        #[test]
        fn sets_are_sorted_unique_and_complete(
            indices in prop::collection::vec(0usize..12, 0..30),
        ) {
            let set = LayerSet::new(indices.clone(), 12).unwrap();
            prop_assert!(set.as_slice().windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!((0..12).all(|layer| set.contains(layer) == indices.contains(&layer)));
        }
    }
}
