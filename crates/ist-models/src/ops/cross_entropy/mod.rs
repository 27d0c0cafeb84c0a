//! The loss of predicted tokens from their logits, for heads that do more than one product.
//!
//! The loss of a row is -log p(target) with p = softmax(logits). Its gradient by the logits is
//! p - onehot(target), which the backward pass writes over them where nobody else holds them.

#[cfg(feature = "cube")]
pub(super) mod cube;
#[cfg(feature = "flex")]
pub(super) mod flex;

use ist_core::burn;

use burn::backend::tensor::{FloatTensor, IndexingUpdateOp, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Int, Shape, Tensor};
use ist_core::operation::{Operands, Operation, apply};
use ist_core::plan::tape::{Place, TapeOp, TapeValue};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// -log p(target) of every row.
///
/// # Shapes
/// logits `[rows, vocabulary]`, targets and the result `[rows]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    apply(CrossEntropy, [logits.into_dispatch()], [targets.into_dispatch()])
}

/// What a memory plan counts for the losses of `logits`, which are `bytes` long; `losses` is the
/// result's size.
///
/// The forward pass takes a copy of the logits, since the graph keeps them as they are. The
/// gradient lies where they were kept.
pub(crate) fn cost(logits: TapeValue, bytes: u64, losses: u64) -> TapeOp {
    TapeOp {
        reads: vec![logits],
        writes: losses,
        keeps: vec![logits],
        forward: bytes,
        gradient: Place::OverKept,
        ..TapeOp::default()
    }
}

#[derive(Clone, Debug)]
struct CrossEntropy;

/// What is computed of a row of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its loss.
    Loss,
    /// Its loss, and the loss's gradient by the logits.
    Gradient,
}

/// Indices `[rows]` as `[rows, 1]`.
fn column<B: Backend>(targets: IntTensor<B>) -> IntTensor<B> {
    let rows = targets.shape()[0];
    B::int_reshape(targets, Shape::new([rows, 1]))
}

/// A chunk's losses `[rows, 1]` and probabilities `[rows, vocabulary]`.
pub(super) struct Softmax<B: Backend> {
    pub(super) losses: FloatTensor<B>,
    pub(super) probabilities: FloatTensor<B>,
}

/// The softmax of logits `[rows, vocabulary]`, and -log of it at targets `[rows, 1]`.
pub(super) fn softmax<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> Softmax<B> {
    // Less the largest logit, so that no exponential overflows.
    let most = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, most);
    let powers = B::float_exp(shifted.clone());
    let sum = B::float_sum_dim(powers.clone(), 1);
    let losses = B::float_sub(B::float_log(sum.clone()), B::float_gather(1, shifted, targets));
    Softmax { losses, probabilities: B::float_div(powers, sum) }
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
        B::float_reshape(softmax::<B>(logits, targets).losses, Shape::new([rows]))
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
        let probabilities = softmax::<B>(logits, targets.clone()).probabilities;
        let factor = B::float_reshape(gradient, Shape::new([rows, 1]));
        vec![Some(B::float_mul(d_logits::<B>(probabilities, targets), factor))]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        flex::forward(self, inputs)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        flex::backward(self, saved, gradient, wanted)
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        cube::forward(self, inputs)
    }

    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        cube::backward(self, saved, gradient, wanted)
    }
}
