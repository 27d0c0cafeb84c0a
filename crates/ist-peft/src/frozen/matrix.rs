//! A frozen matrix in its storage type, and its products with activations on any backend.
//!
//! A weight at rest in a narrow type is widened a panel of columns at a time, in each pass; the
//! graph holds the narrow one.

use ist_core::burn;

use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DispatchTensor, TensorMetadata};
use burn::tensor::{FloatDType, Shape, Slice, Tensor};
use ist_core::operation::Operands;

use crate::frozen::half;
use crate::frozen::int8::Int8Matrix;

/// A matrix `[in, out]` that operations widen themselves.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "handles, beside megabytes of weights")]
pub enum FrozenMatrix {
    /// Numbers of any float type.
    Float(Tensor<2>),
    /// Eight bits and a scale a block.
    Int8(Int8Matrix),
}

impl From<Tensor<2>> for FrozenMatrix {
    fn from(weight: Tensor<2>) -> Self {
        Self::Float(weight)
    }
}

impl FrozenMatrix {
    /// The float operand and, of a matrix in eight bits, the integer operand of an operation;
    /// [`Stored`] puts them together.
    pub(crate) fn operands(self) -> (DispatchTensor, Option<DispatchTensor>) {
        match self {
            Self::Float(weight) => (weight.into_dispatch(), None),
            Self::Int8(packed) => {
                (packed.scales.into_dispatch(), Some(packed.values.into_dispatch()))
            }
        }
    }
}

/// Elements of a narrow matrix that are widened at a time.
pub const PANEL: usize = 1 << 20;

/// A [`FrozenMatrix`] within an operation.
#[derive(Clone, Debug)]
pub enum Stored<B: Backend> {
    /// `[in, out]` in any float type.
    Float(FloatTensor<B>),
    /// Values `[out, in]` and scales `[out, blocks]`.
    Int8(IntTensor<B>, FloatTensor<B>),
}

impl<B: Backend> Stored<B> {
    /// The matrix whose float operand is `float`, among operands with these integers.
    pub(crate) fn of(float: FloatTensor<B>, ints: &[IntTensor<B>]) -> Self {
        match ints.first() {
            Some(values) => Self::Int8(values.clone(), float),
            None => Self::Float(float),
        }
    }

    /// The operands again, with `more` floats behind the matrix's.
    pub(crate) fn operands(self, more: impl IntoIterator<Item = FloatTensor<B>>) -> Operands<B> {
        let (float, ints) = match self {
            Self::Float(weight) => (weight, Vec::new()),
            Self::Int8(values, scales) => (scales, vec![values]),
        };
        Operands::new(std::iter::once(float).chain(more).collect(), ints)
    }

    /// `[in, out]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(weight) => weight.shape().dims::<2>(),
            Self::Int8(values, _) => {
                let [rows, width] = values.shape().dims::<2>();
                [width, rows]
            }
        }
    }

    /// Ranges of columns that are widened together; all of them when nothing has to be widened.
    fn panels(&self, x: &FloatTensor<B>) -> Vec<Range<usize>> {
        let [d_in, d_out] = self.dims();
        // In x's own type nothing is widened, and one product is faster than several.
        let whole = matches!(self, Self::Float(weight) if weight.dtype() == x.dtype());
        let width = if whole { d_out } else { panel_width(d_in, d_out) };
        (0..d_out).step_by(width.max(1)).map(|from| from..(from + width).min(d_out)).collect()
    }

    /// Some columns in x's type.
    pub(crate) fn columns(&self, range: Range<usize>, x: &FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Float(weight) => cast_like::<B>(columns::<B>(weight.clone(), range), x),
            Self::Int8(values, scales) => {
                let [_, width] = values.shape().dims::<2>();
                let [_, blocks] = scales.shape().dims::<2>();
                let values =
                    B::int_slice(values.clone(), &[range.clone(), 0..width].map(Slice::from));
                let values = B::int_into_float(values, FloatDType::from(x.dtype()));
                let values =
                    B::float_reshape(values, Shape::new([range.len(), blocks, width / blocks]));
                let scales =
                    B::float_slice(scales.clone(), &[range.clone(), 0..blocks].map(Slice::from));
                let scales = B::float_reshape(
                    cast_like::<B>(scales, x),
                    Shape::new([range.len(), blocks, 1]),
                );
                let wide = B::float_mul(values, scales);
                B::float_transpose(B::float_reshape(wide, Shape::new([range.len(), width])))
            }
        }
    }

    /// x W, in x's type; in the weight's where a GPU multiplies faster in it ([`half`]).
    pub fn product(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let shape = x.shape();
        let x = rows::<B>(x);
        if let Self::Float(weight) = self
            && let Some(out) = half::product::<B>(&x, weight)
        {
            return like::<B>(out, &shape);
        }
        let parts = self
            .panels(&x)
            .into_iter()
            .map(|range| B::float_matmul(x.clone(), self.columns(range, &x)));
        let mut parts: Vec<_> = parts.collect();
        let out = if parts.len() == 1 { parts.remove(0) } else { B::float_cat(parts, 1) };
        like::<B>(out, &shape)
    }

    /// g Wᵀ, in the same way.
    pub fn transposed_product(&self, gradient: FloatTensor<B>) -> FloatTensor<B> {
        let shape = gradient.shape();
        let gradient = rows::<B>(gradient);
        if let Self::Float(weight) = self
            && let Some(out) = half::product::<B>(&gradient, &B::float_transpose(weight.clone()))
        {
            return like::<B>(out, &shape);
        }
        // g Wᵀ sums over the columns of W, so the panels' products add up.
        let parts = self.panels(&gradient).into_iter().map(|range| {
            let panel = B::float_transpose(self.columns(range.clone(), &gradient));
            B::float_matmul(columns::<B>(gradient.clone(), range), panel)
        });
        like::<B>(parts.reduce(B::float_add).expect("a weight has columns"), &shape)
    }
}

/// Columns of `d_in` numbers that make a panel.
pub(crate) fn panel_width(d_in: usize, d_out: usize) -> usize {
    (PANEL / d_in.max(1)).clamp(1, d_out.max(1))
}

/// The tensor as a matrix of its last dimension's width.
pub(crate) fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    B::float_reshape(x, Shape::new([shape.num_elements() / width.max(1), width]))
}

/// A matrix in the shape of x but for the last dimension.
pub(crate) fn like<B: Backend>(matrix: FloatTensor<B>, x: &Shape) -> FloatTensor<B> {
    let mut shape = x.to_vec();
    *shape.last_mut().expect("x has a last dimension") = matrix.shape()[1];
    B::float_reshape(matrix, Shape::from(shape))
}

/// Zeros in the place of a product with x whose value nobody reads.
pub(crate) fn no_value<B: Backend>(x: &FloatTensor<B>, width: usize) -> FloatTensor<B> {
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last dimension") = width;
    B::float_zeros(Shape::from(shape), &x.device(), FloatDType::from(x.dtype()))
}

pub(crate) fn cast_like<B: Backend>(
    tensor: FloatTensor<B>,
    other: &FloatTensor<B>,
) -> FloatTensor<B> {
    if tensor.dtype() == other.dtype() {
        tensor
    } else {
        B::float_cast(tensor, other.dtype().into())
    }
}

/// Some columns of a matrix.
pub(crate) fn columns<B: Backend>(matrix: FloatTensor<B>, range: Range<usize>) -> FloatTensor<B> {
    let [height, width] = matrix.shape().dims::<2>();
    if range == (0..width) {
        return matrix;
    }
    B::float_slice(matrix, &[Slice::from(0..height), Slice::from(range)])
}
