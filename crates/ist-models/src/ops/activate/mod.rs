//! An activation by itself, as in GPT's MLPs.
//!
//! y = a(x), which keeps x alone; dx = g ⊙ a'(x) for the gradient g of y.

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

/// a(x) of every element.
pub fn activate(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    apply(Activate { activation }, [x.into_dispatch()], [])
}

/// What a memory plan counts for a(x), which writes that many bytes. The gradient lies where x was
/// kept.
pub(crate) fn cost(x: TapeValue, writes: u64) -> TapeOp {
    TapeOp {
        reads: vec![x],
        writes,
        keeps: vec![x],
        gradient: Place::OverKept,
        ..TapeOp::default()
    }
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
