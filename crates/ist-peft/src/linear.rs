//! A linear map whose weight is read in its storage type.
//!
//! burn's own product needs the weight in the type of x, so a weight at rest in bf16 would stay widened until the backward
//! pass. Here it is widened a panel of columns at a time, in each pass, and the graph holds the narrow one.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, Tensor};
use ist_core::operation::{Operands, Operation, apply};

/// x W for x `[batch, sequence, in]` and W `[in, out]` in any float type; the result has x's type.
///
/// dx = g Wᵀ and dW = xᵀ g for the gradient g. x is kept only where W trains.
pub fn linear(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    apply(Linear, [x.into_dispatch(), weight.into_dispatch()], [])
}

/// Elements of a weight that are widened at a time.
const PANEL: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Linear;

impl Operation for Linear {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, weight] = inputs.floats();
        product::<B>(x, weight)
    }

    fn record<B: Backend>(&self, inputs: Operands<B>, wanted: &[bool]) -> (FloatTensor<B>, Operands<B>) {
        let [x, weight] = inputs.floats();
        let saved = if wanted[1] { vec![weight.clone(), x.clone()] } else { vec![weight.clone()] };
        (product::<B>(x, weight), Operands::new(saved, Vec::new()))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let mut saved = saved.floats.into_iter();
        let weight = saved.next().expect("the weight is always kept");
        let d_weight = saved.next().map(|x| {
            let d_weight = B::float_matmul(B::float_transpose(rows::<B>(x)), rows::<B>(gradient.clone()));
            cast_like::<B>(d_weight, &weight)
        });
        let d_x = wanted[0].then(|| transposed_product::<B>(gradient, weight));
        vec![d_x, d_weight]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let fast = fits(&inputs.floats[0], &inputs.floats[1]);
        let [x, weight] = inputs.floats();
        if fast { flex_product(x, &weight) } else { product::<Flex>(x, weight) }
    }

    #[cfg(feature = "flex")]
    fn record_flex(&self, inputs: Operands<Flex>, wanted: &[bool]) -> (FlexTensor, Operands<Flex>) {
        let [x, weight] = inputs.clone().floats();
        let saved = if wanted[1] { vec![weight, x] } else { vec![weight] };
        (self.forward_flex(inputs), Operands::new(saved, Vec::new()))
    }

    #[cfg(feature = "flex")]
    fn backward_flex(&self, saved: Operands<Flex>, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let weight = &saved.floats[0];
        if wanted[1] || !fits(&gradient, weight) {
            return self.backward(saved, gradient, wanted);
        }
        vec![Some(flex_transposed_product(gradient, weight)), None]
    }
}

#[cfg(feature = "flex")]
use crate::frozen_product::{multiply_weight, multiply_weight_transposed, readable};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

#[cfg(feature = "flex")]
pub(crate) fn fits(x: &FlexTensor, weight: &FlexTensor) -> bool {
    flex::all_f32([x]) && readable(weight) && x.shape().num_elements() > 0
}

#[cfg(feature = "flex")]
fn flex_product(x: FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let x = flex::contiguous(x);
    let (mut shape, [d_in, d_out]) = (x.shape().to_vec(), weight.shape().dims::<2>());
    let mut out = vec![0.0; x.shape().num_elements() / d_in * d_out];
    multiply_weight(&mut out, flex::slice(&x), weight, false);
    *shape.last_mut().expect("x has a last dimension") = d_out;
    flex::tensor(out, shape)
}

#[cfg(feature = "flex")]
fn flex_transposed_product(gradient: FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let gradient = flex::contiguous(gradient);
    let (mut shape, [d_in, d_out]) = (gradient.shape().to_vec(), weight.shape().dims::<2>());
    let mut out = vec![0.0; gradient.shape().num_elements() / d_out * d_in];
    multiply_weight_transposed(&mut out, flex::slice(&gradient), weight, false);
    *shape.last_mut().expect("the gradient has a last dimension") = d_in;
    flex::tensor(out, shape)
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

pub(crate) fn cast_like<B: Backend>(tensor: FloatTensor<B>, other: &FloatTensor<B>) -> FloatTensor<B> {
    if tensor.dtype() == other.dtype() { tensor } else { B::float_cast(tensor, other.dtype().into()) }
}

/// Ranges of the weight's columns that hold about [`PANEL`] elements each; one range when nothing has to be widened.
fn panels<B: Backend>(weight: &FloatTensor<B>, x: &FloatTensor<B>) -> Vec<std::ops::Range<usize>> {
    let [d_in, d_out] = weight.shape().dims::<2>();
    let width = if weight.dtype() == x.dtype() { d_out } else { (PANEL / d_in.max(1)).clamp(1, d_out.max(1)) };
    (0..d_out).step_by(width.max(1)).map(|from| from..(from + width).min(d_out)).collect()
}

fn columns<B: Backend>(matrix: FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let [height, width] = matrix.shape().dims::<2>();
    if range == (0..width) {
        return matrix;
    }
    B::float_slice(matrix, &[Slice::from(0..height), Slice::from(range)])
}

/// x W.
pub(crate) fn product<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let x = rows::<B>(x);
    let parts = panels::<B>(&weight, &x).into_iter().map(|range| {
        let panel = cast_like::<B>(columns::<B>(weight.clone(), range), &x);
        B::float_matmul(x.clone(), panel)
    });
    let mut parts: Vec<_> = parts.collect();
    let out = if parts.len() == 1 { parts.remove(0) } else { B::float_cat(parts, 1) };
    like::<B>(out, &shape)
}

/// g Wᵀ.
pub(crate) fn transposed_product<B: Backend>(gradient: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let shape = gradient.shape();
    let gradient = rows::<B>(gradient);
    let parts = panels::<B>(&weight, &gradient).into_iter().map(|range| {
        let panel = cast_like::<B>(columns::<B>(weight.clone(), range.clone()), &gradient);
        B::float_matmul(columns::<B>(gradient.clone(), range), B::float_transpose(panel))
    });
    let sum = parts.reduce(B::float_add).expect("a weight has columns");
    like::<B>(sum, &shape)
}
