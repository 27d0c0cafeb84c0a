//! An activation by itself, as in GPT's MLPs: y = a(x), which keeps x alone; dx = g ⊙ a'(x) for the gradient g.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use super::activation::{self, Activation};

/// a(x) of every element.
pub fn activate(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    apply(Activate { activation }, [x.into_dispatch()], [])
}

#[derive(Clone, Debug)]
struct Activate {
    activation: Activation,
}

impl Operation for Activate {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x] = inputs.floats();
        self.activation.value::<B>(&x)
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [x] = saved.floats();
        vec![Some(B::float_mul(gradient, self.activation.value_and_derivative::<B>(&x).1))]
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        if !flex::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        let [x] = inputs.floats();
        let shape = x.shape();
        let mut out = flex::into_vec(x);
        flex::for_each_part(&mut out, WIDTH, |_, x| activation::activate(self.activation, x));
        flex::tensor(out, shape)
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
        let [x] = saved.floats();
        let (shape, gradient) = (x.shape(), flex::contiguous(gradient));
        let (mut out, gradient) = (flex::into_vec(x), flex::slice(&gradient));
        flex::for_each_part(&mut out, WIDTH, |from, x| {
            activation::differentiate(self.activation, x, &gradient[from..]);
        });
        vec![Some(flex::tensor(out, shape))]
    }

    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        if !cube::all_f32(&inputs.floats) {
            return self.forward(inputs);
        }
        let [x] = inputs.floats();
        kernels::gated::activate(self.activation, x)
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
        let [x] = saved.floats();
        vec![Some(kernels::gated::differentiate(self.activation, x, gradient))]
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
