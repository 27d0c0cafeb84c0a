//! The loss of predicted tokens from their logits, for heads that do more than one product.
//!
//! -log p(target) of every row with p = softmax(logits); the logits' gradient is p - onehot(target), which the backward pass
//! writes over them where nobody else holds them.

use ist_core::burn;

use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Int, Shape, Tensor};
use ist_core::operation::{Operands, Operation, apply};

/// -log p(target) of every row: logits `[rows, vocabulary]`, targets `[rows]`, the result `[rows]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    apply(CrossEntropy, [logits.into_dispatch()], [targets.into_dispatch()])
}

#[derive(Clone, Debug)]
struct CrossEntropy;

fn column<B: Backend>(targets: IntTensor<B>) -> IntTensor<B> {
    let rows = targets.shape()[0];
    B::int_reshape(targets, Shape::new([rows, 1]))
}

/// A chunk's losses `[rows, 1]` and probabilities.
pub(super) fn softmax<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let most = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, most);
    let powers = B::float_exp(shifted.clone());
    let sum = B::float_sum_dim(powers.clone(), 1);
    let loss = B::float_sub(B::float_log(sum.clone()), B::float_gather(1, shifted, targets));
    (loss, B::float_div(powers, sum))
}

/// p - onehot(target).
pub(super) fn d_logits<B: Backend>(
    probabilities: FloatTensor<B>,
    targets: IntTensor<B>,
) -> FloatTensor<B> {
    let dtype = FloatDType::from(probabilities.dtype());
    let ones = B::float_ones(targets.shape(), &probabilities.device(), dtype);
    B::float_scatter(1, probabilities, targets, B::float_neg(ones), IndexingUpdateOp::Add)
}

impl Operation for CrossEntropy {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let targets = column::<B>(inputs.ints[0].clone());
        let [logits] = inputs.floats();
        let rows = logits.shape()[0];
        B::float_reshape(softmax::<B>(logits, targets).0, Shape::new([rows]))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let targets = column::<B>(saved.ints[0].clone());
        let [logits] = saved.floats();
        let rows = logits.shape()[0];
        let (_, probabilities) = softmax::<B>(logits, targets.clone());
        let factor = B::float_reshape(gradient, Shape::new([rows, 1]));
        vec![Some(B::float_mul(d_logits::<B>(probabilities, targets), factor))]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if !flex::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        let targets = host(&inputs.ints[0]);
        let [logits] = inputs.floats();
        let [rows, vocabulary] = logits.shape().dims::<2>();
        let (mut logits, mut losses) = (flex::into_vec(logits), vec![0.0; rows]);
        flex::for_each_part_pair(&mut logits, &mut losses, [vocabulary, 1], |row, logits, loss| {
            loss[0] = differentiate(logits, targets[row], false);
        });
        flex::tensor(losses, [rows])
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        if !flex::all_f32(&saved.floats) {
            return self.backward(saved, gradient, wanted);
        }
        let targets = host(&saved.ints[0]);
        let [logits] = saved.floats();
        let ([rows, vocabulary], gradient) =
            (logits.shape().dims::<2>(), flex::contiguous(gradient));
        let (mut logits, gradient) = (flex::into_vec(logits), flex::slice(&gradient));
        flex::for_each_row(&mut logits, vocabulary, |row, logits| {
            differentiate(logits, targets[row], true);
            for value in logits {
                *value *= gradient[row];
            }
        });
        vec![Some(flex::tensor(logits, [rows, vocabulary]))]
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        if !cube::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        let targets = inputs.ints[0].clone();
        let [logits] = inputs.floats();
        kernels::cross_entropy::differentiate(logits, targets, None, None, Wanted::Losses).0
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        if !cube::all_f32(&saved.floats) {
            return self.backward(saved, gradient, wanted);
        }
        let targets = saved.ints[0].clone();
        let [logits] = saved.floats();
        vec![Some(
            kernels::cross_entropy::differentiate(
                logits,
                targets,
                None,
                None,
                Wanted::Times(gradient),
            )
            .1,
        )]
    }
}

#[cfg(feature = "cube")]
use super::kernels::{self, cross_entropy::Wanted};
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

/// The targets as indices.
#[cfg(feature = "flex")]
pub(super) fn host(targets: &IntTensor<Flex>) -> Vec<usize> {
    targets.clone().into_data().iter::<i64>().map(|id| id as usize).collect()
}

/// The loss of one row of logits, which become p - onehot(target) where the gradient is wanted.
#[cfg(feature = "flex")]
pub(super) fn differentiate(logits: &mut [f32], target: usize, gradient: bool) -> f32 {
    let (most, chosen) = (flex::max(logits), logits[target]);
    let sum = flex::exp_and_sum(logits, most);
    if gradient {
        let factor = 1.0 / sum;
        for probability in &mut *logits {
            *probability *= factor;
        }
        logits[target] -= 1.0;
    }
    sum.ln() + most - chosen
}
