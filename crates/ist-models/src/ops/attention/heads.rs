//! Where the heads of attention lie in slices.
//!
//! Products read q, k, v and the gradient where they are, `[batch, positions, heads, head_dim]`, by
//! strides. Nothing is transposed or copied.

use ist_core::burn;

use std::ops::Range;

use burn::backend::TensorMetadata;
use ist_core::operation::flex::{self, FlexTensor, Matrix};

use super::Attention;

/// Queries that are worked on together: those of one query head of a group.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Which query head of the group.
    pub(super) member: usize,
    /// The first query.
    pub(super) from: usize,
    /// How many there are.
    pub(super) count: usize,
}

impl Block {
    /// The queries.
    pub(super) fn range(self) -> Range<usize> {
        self.from..self.from + self.count
    }
}

/// One key-value head of one row, and the sizes of the tensors it lies in.
#[derive(Clone, Copy)]
pub(super) struct KeyHead {
    /// Which row of the batch.
    pub(super) row: usize,
    /// Which key-value head of it.
    pub(super) kv_head: usize,
    /// Query heads of a row.
    pub(super) heads: usize,
    /// Key-value heads of a row.
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
}

impl KeyHead {
    /// The heads of all rows, in order.
    pub(super) fn all(q: &FlexTensor, k: &FlexTensor) -> Vec<Self> {
        let [batch, queries, heads, head_dim] = q.shape().dims::<4>();
        let [_, keys, kv_heads, _] = k.shape().dims::<4>();
        let head = |at| Self {
            row: at / kv_heads,
            kv_head: at % kv_heads,
            heads,
            kv_heads,
            head_dim,
            queries,
            keys,
        };
        (0..batch * kv_heads).map(head).collect()
    }

    /// Query heads that read this key-value head.
    pub(super) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Some queries of a block, from a tensor of q's shape.
    pub(super) fn queries(self, q: &[f32], block: Block) -> Matrix<'_> {
        // One head's queries lie a whole position apart.
        let stride = self.heads * self.head_dim;
        let head = self.kv_head * self.group() + block.member;
        let start = (self.row * self.queries + block.from) * stride + head * self.head_dim;
        Matrix::new(&q[start..], block.count, self.head_dim, stride)
    }

    /// Some keys, from a tensor of k's shape.
    pub(super) fn keys<'a>(self, k: &'a [f32], keys: &Range<usize>) -> Matrix<'a> {
        let stride = self.kv_heads * self.head_dim;
        let start = (self.row * self.keys + keys.start) * stride + self.kv_head * self.head_dim;
        Matrix::new(&k[start..], keys.len(), self.head_dim, stride)
    }

    /// Of one query head of the group, what each key's position adds to its score. Empty where
    /// nothing is added.
    pub(super) fn biases(self, of: &Attention, member: usize) -> Vec<f32> {
        let slope = of.scores.slopes.get(self.kv_head * self.group() + member);
        let Some(slope) = slope else { return Vec::new() };
        of.mask.positions(self.row).into_iter().map(|at| slope * at as f32).collect()
    }
}

/// The heads' parts beside each other.
///
/// # Shapes
/// each part `[positions, width of a part]`, the result `[batch, positions, width]`
pub(super) fn gather<P: AsRef<[f32]> + Sync>(parts: &[P], shape: [usize; 3]) -> Vec<f32> {
    let [batch, positions, width] = shape;
    let heads = parts.len() / batch.max(1);
    let part = width / heads.max(1);
    let mut out = vec![0.0; batch * positions * width];
    flex::for_each_row(&mut out, width, |at, out| {
        let row = at / positions;
        let position = at % positions;
        for (head, out) in out.chunks_exact_mut(part).enumerate() {
            out.copy_from_slice(&parts[row * heads + head].as_ref()[position * part..][..part]);
        }
    });
    out
}
