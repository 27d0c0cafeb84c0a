//! An activation by itself, as in GPT's MLPs: y = a(x), which keeps x alone; dx = g ⊙ a'(x) for the gradient g.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Tensor;
use ist_core::operation::{Operands, Operation, apply};

use super::activation::Activation;

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
        let (shape, activation) = (x.shape(), self.activation);
        let mut out = flex::into_vec(x);
        flex::for_each_part(&mut out, WIDTH, |_, out| {
            for x in out {
                *x *= activation.gate_and_slope_at(*x).0;
            }
        });
        flex::tensor(out, shape)
    }

    #[cfg(feature = "flex")]
    fn backward_flex(&self, saved: Operands<Flex>, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        if !flex::all_f32(&saved.floats) {
            return self.backward(saved, gradient, wanted);
        }
        let [x] = saved.floats();
        let (shape, activation, gradient) = (x.shape(), self.activation, flex::contiguous(gradient));
        let (mut out, gradient) = (flex::into_vec(x), flex::slice(&gradient));
        flex::for_each_part(&mut out, WIDTH, |from, out| {
            for (x, gradient) in out.iter_mut().zip(&gradient[from..]) {
                let (factor, slope) = activation.gate_and_slope_at(*x);
                *x = gradient * (factor + *x * slope);
            }
        });
        vec![Some(flex::tensor(out, shape))]
    }
}

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};

/// Elements that one call of the inner loop handles.
#[cfg(feature = "flex")]
const WIDTH: usize = 512;
