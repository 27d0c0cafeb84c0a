//! A constant matrix with rows and columns scaled, as one operation, for VeRA.
//!
//! burn would keep two matrices for the two products. This one keeps B and the vectors alone.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};
use ist_core::operation::{Operands, Operation, apply};

/// λ_d ⊙ B ⊙ λ_b: rows and columns of a constant B `[r, out]`, scaled. B and the vectors are kept.
pub(crate) fn rescaled(b: Tensor<2>, lambda_d: Tensor<1>, lambda_b: Tensor<1>) -> Tensor<2> {
    let operands = [lambda_d.into_dispatch(), lambda_b.into_dispatch(), b.into_dispatch()];
    apply(Rescaled, operands, [])
}

#[derive(Clone, Debug)]
struct Rescaled;

/// A vector along a dimension of a matrix.
fn along<B: Backend>(vector: FloatTensor<B>, dimension: usize) -> FloatTensor<B> {
    let mut shape = [1, 1];
    shape[dimension] = vector.shape().num_elements();
    B::float_reshape(vector, Shape::new(shape))
}

impl Operation for Rescaled {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [lambda_d, lambda_b, b] = inputs.floats();
        B::float_mul(B::float_mul(b, along::<B>(lambda_b, 1)), along::<B>(lambda_d, 0))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [lambda_d, lambda_b, b] = saved.floats();
        let shape_d = lambda_d.shape();
        let shape_b = lambda_b.shape();
        // Both gradients are sums of g ⊙ B, each over the other vector's dimension.
        let both = B::float_mul(gradient, b);
        let by_rows = B::float_mul(both.clone(), along::<B>(lambda_b, 1));
        let d_lambda_d = B::float_reshape(B::float_sum_dim(by_rows, 1), shape_d);
        let by_columns = B::float_mul(both, along::<B>(lambda_d, 0));
        let d_lambda_b = B::float_reshape(B::float_sum_dim(by_columns, 0), shape_b);
        // B is random and frozen, so it has no gradient.
        vec![Some(d_lambda_d), Some(d_lambda_b), None]
    }
}
