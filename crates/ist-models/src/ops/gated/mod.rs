//! The gated unit of MLPs: SwiGLU and GeGLU
//! (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202)).
//!
//! y = a(gate) ⊙ up. With the gradient g of y, d gate = g ⊙ up ⊙ a'(gate) and d up = g ⊙ a(gate).
//!
//! Kept are gate and up. The backward pass writes over them where nobody else holds them.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

use ist_core::burn;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};
use ist_core::plan::tape::{Place, TapeOp, TapeValue};

use super::activation::Activation;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{CubeBackend, CubeTensor};
#[cfg(feature = "flex")]
use ist_core::operation::flex::FlexTensor;

/// a(gate) ⊙ up.
///
/// # Shapes
/// all `[batch, sequence, intermediate]`
pub fn gated(activation: Activation, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    apply(Gated { activation }, [gate.into_dispatch(), up.into_dispatch()], [])
}

/// What a memory plan counts for a(gate) ⊙ up, which writes that many bytes.
///
/// The result lies where up lay unless a graph keeps that, and both gradients where gate and up
/// were kept.
pub(crate) fn cost(gate: TapeValue, up: TapeValue, writes: u64) -> TapeOp {
    TapeOp {
        reads: vec![up, gate],
        writes,
        keeps: vec![gate, up],
        in_place: true,
        gradient: Place::OverKept,
        ..TapeOp::default()
    }
}

#[derive(Clone, Debug)]
struct Gated {
    activation: Activation,
}

impl Operation for Gated {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [gate, up] = inputs.floats();
        B::float_mul(self.activation.value::<B>(&gate), up)
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [gate, up] = saved.floats();
        let (value, derivative) = self.activation.value_and_derivative::<B>(&gate);
        let d_gate =
            wanted[0].then(|| B::float_mul(B::float_mul(gradient.clone(), up), derivative));
        vec![d_gate, wanted[1].then(|| B::float_mul(gradient, value))]
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
