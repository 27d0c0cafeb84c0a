//! A tensor as rows along its last dimension, and a vector beside each of them.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

/// A vector `[width]` as `[1, .., 1, width]`, of x's rank, so that it applies to every row of x.
pub(super) fn broadcast<B: Backend>(vector: FloatTensor<B>, x: &FloatTensor<B>) -> FloatTensor<B> {
    let mut shape = vec![1; x.shape().num_dims()];
    *shape.last_mut().expect("x has a last dimension") = vector.shape()[0];
    B::float_reshape(vector, Shape::from(shape))
}

/// The sum over all rows, as a vector `[width]`.
pub(super) fn sum_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = B::float_reshape(x, Shape::new([shape.num_elements() / width, width]));
    B::float_reshape(B::float_sum_dim(rows, 0), Shape::new([width]))
}
