//! Token records and the padded batches that models read.
//!
//! A record keeps its own padding where it stands; rows of unequal length are padded here, on the
//! right, so that a record's figures do not depend on the other records of its batch.

use ist_core::burn::tensor::{Device, Int, Tensor, TensorData};

use crate::ops::attention::AttentionMask;

/// The label that marks a position as not predicted, as in PyTorch and transformers.
pub const IGNORED_LABEL: i64 = -100;

/// One tokenised record. The three vectors have equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// One label per position, [`IGNORED_LABEL`] where nothing is predicted. Labels are shifted
    /// inside the model: position t predicts `labels[t + 1]`.
    pub labels: Vec<i64>,
    /// `false` at padding.
    pub attention_mask: Vec<bool>,
}

impl Example {
    /// A record without padding in which every token but the first is predicted.
    pub fn tokens(input_ids: Vec<u32>) -> Self {
        let labels = input_ids.iter().map(|&id| i64::from(id)).collect();
        let attention_mask = vec![true; input_ids.len()];
        Self { input_ids, labels, attention_mask }
    }

    /// The positions t ≥ 1 whose token is predicted.
    ///
    /// Not the first real token after left padding, whatever its label: it would be predicted from
    /// a position that attends to nothing.
    pub fn predicted(&self) -> impl Iterator<Item = usize> + '_ {
        let first = self.attention_mask.iter().position(|&real| real).unwrap_or(self.labels.len());
        (first + 1..self.labels.len()).filter(|&t| self.labels[t] != IGNORED_LABEL)
    }

    fn padded(&self, length: usize) -> impl Iterator<Item = (u32, bool)> + '_ {
        let real = self.input_ids.iter().copied().zip(self.attention_mask.iter().copied());
        real.chain(std::iter::repeat((0, false))).take(length)
    }
}

/// A rectangular batch on a device.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Token ids, `[batch, sequence]`.
    pub input_ids: Tensor<2, Int>,
    /// Which positions each position sees.
    pub mask: AttentionMask,
    /// The predicting positions in the flattened batch, `[predicted]`: `row · sequence + t - 1`.
    pub rows: Tensor<1, Int>,
    /// The predicted token of each of them, `[predicted]`.
    pub targets: Tensor<1, Int>,
    /// Predicted tokens of each record.
    pub predicted: Vec<usize>,
    /// Positions of each record, before rows were padded to one length.
    pub lengths: Vec<usize>,
}

impl TokenBatch {
    /// Pads the records on the right to the longest one.
    pub fn new(examples: &[Example], device: &Device) -> Self {
        let length = examples.iter().map(|example| example.input_ids.len()).max().unwrap_or(0);
        let (ids, mask): (Vec<i64>, Vec<bool>) = examples
            .iter()
            .flat_map(|example| example.padded(length))
            .map(|(id, real)| (i64::from(id), real))
            .unzip();
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            for t in example.predicted() {
                rows.push((row * length + t - 1) as i64);
                targets.push(example.labels[t]);
            }
        }
        let ints = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), device)
        };
        Self {
            input_ids: ints(ids).reshape([examples.len(), length]),
            mask: AttentionMask::causal(&mask, length, length),
            rows: ints(rows),
            targets: ints(targets),
            predicted: examples.iter().map(|example| example.predicted().count()).collect(),
            lengths: examples.iter().map(|example| example.input_ids.len()).collect(),
        }
    }

    /// Predicted tokens of all records.
    pub fn predicted_tokens(&self) -> usize {
        self.predicted.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_after_left_padding_is_never_predicted() {
        let example = Example {
            input_ids: vec![0, 0, 5, 6, 7],
            labels: vec![IGNORED_LABEL, IGNORED_LABEL, 5, 6, IGNORED_LABEL],
            attention_mask: vec![false, false, true, true, true],
        };
        assert_eq!(example.predicted().collect::<Vec<_>>(), [3]);
        assert_eq!(Example::tokens(vec![4]).predicted().count(), 0);
    }

    #[test]
    fn shorter_rows_are_padded_on_the_right() {
        let batch = TokenBatch::new(
            &[Example::tokens(vec![1, 2, 3]), Example::tokens(vec![4, 5])],
            &Device::flex(),
        );
        assert_eq!(
            batch.input_ids.into_data().iter::<i64>().collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 0]
        );
        assert_eq!(batch.rows.into_data().iter::<i64>().collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(batch.targets.into_data().iter::<i64>().collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!((batch.predicted, batch.lengths), (vec![2, 1], vec![3, 2]));
    }
}
