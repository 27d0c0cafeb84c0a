//! The gated unit of MLPs: SwiGLU and GeGLU (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202)).
//!
//! y = a(gate) ⊙ up; with the gradient g of y, d gate = g ⊙ up ⊙ a'(gate) and d up = g ⊙ a(gate). Kept are gate and up, and
//! the backward pass writes over them where nobody else holds them.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use super::activation::{self, Activation};

/// a(gate) ⊙ up; both `[batch, sequence, intermediate]`.
pub fn gated(activation: Activation, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    apply(Gated { activation }, [gate.into_dispatch(), up.into_dispatch()], [])
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
        if flex::all_f32(&inputs.floats) {
            self.forward_in_place(inputs)
        } else {
            self.forward(inputs)
        }
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        if flex::all_f32(&saved.floats) {
            self.backward_in_place(saved, gradient)
        } else {
            self.backward(saved, gradient, wanted)
        }
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        if !cube::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        let [gate, up] = inputs.floats();
        kernels::gated::forward(self.activation, gate, up)
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
        let [gate, up] = saved.floats();
        kernels::gated::backward(self.activation, gate, up, gradient).map(Some).into()
    }
}

#[cfg(feature = "cube")]
use super::kernels;
#[cfg(feature = "cube")]
use ist_core::operation::cube::{self, CubeBackend, CubeTensor};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

/// Elements of one loop.
#[cfg(feature = "flex")]
const WIDTH: usize = 4096;

#[cfg(feature = "flex")]
impl Gated {
    fn forward_in_place(&self, inputs: Operands<Flex>) -> FlexTensor {
        let [gate, up] = inputs.floats();
        let (shape, gate) = (gate.shape(), flex::contiguous(gate));
        let (mut out, gates) = (flex::into_vec(up), flex::slice(&gate));
        flex::for_each_part(&mut out, WIDTH, |from, up| {
            activation::gated(self.activation, up, &gates[from..]);
        });
        flex::tensor(out, shape)
    }

    fn backward_in_place(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
    ) -> Vec<Option<FlexTensor>> {
        let [gate, up] = saved.floats();
        let (shape, gradient) = (gate.shape(), flex::contiguous(gradient));
        let (mut gate, mut up, gradient) =
            (flex::into_vec(gate), flex::into_vec(up), flex::slice(&gradient));
        flex::for_each_part_pair(&mut gate, &mut up, [WIDTH; 2], |part, gate, up| {
            activation::differentiate_gated(self.activation, gate, up, &gradient[part * WIDTH..]);
        });
        vec![Some(flex::tensor(gate, shape.clone())), Some(flex::tensor(up, shape))]
    }
}
