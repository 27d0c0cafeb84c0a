//! A linear map whose weight is read in its storage type.
//!
//! burn's own product needs the weight in the type of x, so a weight at rest in bf16 would stay
//! widened until the backward pass. This one keeps the weight as it is stored.

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use crate::frozen::matrix::{FrozenMatrix, Stored, cast_like, no_value, rows};
#[cfg(feature = "flex")]
use crate::frozen::product::{self, outer};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor, Matrix};

/// x W for x `[batch, sequence, in]` and W `[in, out]` in its storage type; the result has x's
/// type.
///
/// dx = g Wᵀ and dW = xᵀ g for the gradient g. x is kept only where W trains.
pub fn linear(x: Tensor<3>, weight: impl Into<FrozenMatrix>) -> Tensor<3> {
    linear_in(x, weight.into(), true)
}

/// The same, or zeros with the same graph where the `value` is not asked for.
pub(crate) fn linear_in(x: Tensor<3>, weight: FrozenMatrix, value: bool) -> Tensor<3> {
    let (weight, values) = weight.operands();
    apply(Linear { value }, [x.into_dispatch(), weight], values)
}

#[derive(Clone, Debug)]
struct Linear {
    value: bool,
}

/// x and the matrix.
fn split<B: Backend>(inputs: Operands<B>) -> (FloatTensor<B>, Stored<B>) {
    let ints = inputs.ints.clone();
    let [x, weight] = inputs.floats();
    (x, Stored::of(weight, &ints))
}

impl Operation for Linear {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let (x, weight) = split(inputs);
        if self.value { weight.product(x) } else { no_value::<B>(&x, weight.dims()[1]) }
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, wanted: &[bool]) -> Operands<B> {
        let (x, weight) = split(inputs.clone());
        weight.operands(wanted[1].then_some(x))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let mut floats = saved.floats.into_iter();
        let weight = floats.next().expect("the weight is always kept");
        // x was kept only where W trains, and it is the last operand then.
        let d_weight = floats.next().map(|x| {
            let d_weight =
                B::float_matmul(B::float_transpose(rows::<B>(x)), rows::<B>(gradient.clone()));
            cast_like::<B>(d_weight, &weight)
        });
        let d_x =
            wanted[0].then(|| Stored::<B>::of(weight, &saved.ints).transposed_product(gradient));
        vec![d_x, d_weight]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let (x, weight) = split(inputs);
        if self.value {
            product::product(x, &weight)
        } else {
            no_value::<Flex>(&x, weight.dims()[1])
        }
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        // The fast products read f32. Anything else takes the way of every backend.
        if !flex::all_f32(saved.floats.iter().skip(1).chain([&gradient])) {
            return self.backward(saved, gradient, wanted);
        }
        let weight = Stored::of(saved.floats[0].clone(), &saved.ints);
        let d_weight = saved.floats.get(1).map(|x| {
            let x = flex::contiguous(x.clone());
            let gradient = flex::contiguous(gradient.clone());
            let [d_in, d_out] = weight.dims();
            let [x_slice, g] = [&x, &gradient].map(flex::slice);
            let tokens = x_slice.len() / d_in;
            outer(
                Matrix::new(x_slice, tokens, d_in, d_in),
                Matrix::new(g, tokens, d_out, d_out),
                [d_in, d_out],
            )
        });
        vec![wanted[0].then(|| product::transposed_product(gradient, &weight)), d_weight]
    }
}
