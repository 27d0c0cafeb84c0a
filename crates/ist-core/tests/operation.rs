//! What an operation leaves unsaid is filled in consistently on every backend.

#![expect(deprecated, reason = "the reference backend")]

use ist_core::burn::backend::ops::FloatTensorOps;
use ist_core::burn::backend::{Backend, Flex, tensor::FloatTensor};
use ist_core::burn::tensor::{Device, Tensor};
use ist_core::operation::{Operands, Operation, Recorded, apply};

/// y = x³, which keeps its slope 3 x² in place of x.
#[derive(Clone, Debug)]
struct Cubed;

impl Operation for Cubed {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x] = inputs.floats();
        B::float_powi_scalar(x, 3.into())
    }

    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        _: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        let [x] = inputs.clone().floats();
        let slope = B::float_mul_scalar(B::float_mul(x.clone(), x), 3.0f64.into());
        Ok((self.forward(inputs), Operands::new(vec![slope], Vec::new())))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [slope] = saved.floats();
        vec![Some(B::float_mul(slope, gradient))]
    }
}

/// y = x k, of which the form for flex says 2 x k, to be told from the other. Keeps k alone.
#[derive(Clone, Debug)]
struct Scaled;

impl Operation for Scaled {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [x, k] = inputs.floats();
        B::float_mul(x, k)
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, _: &[bool]) -> Operands<B> {
        Operands::new(vec![inputs.floats[1].clone()], Vec::new())
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [k] = saved.floats();
        vec![Some(B::float_mul(k, gradient)), None]
    }

    fn forward_flex(&self, inputs: Operands<Flex>) -> FloatTensor<Flex> {
        <Flex as FloatTensorOps<Flex>>::float_mul_scalar(self.forward(inputs), 2.0f64.into())
    }
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[test]
fn a_record_of_its_own_is_used_where_there_is_no_form_for_the_backend() {
    for device in [Device::flex(), Device::ndarray()] {
        let x = Tensor::<1>::from_data([-2.0f32, 0.5], &device).autodiff().require_grad();
        let y: Tensor<1> = apply(Cubed, [x.clone().into_dispatch()], []);
        assert_eq!(values(y.clone().inner()), [-8.0, 0.125]);
        assert_eq!(values(x.grad(&y.backward()).unwrap()), [12.0, 0.75]);
    }
}

#[test]
fn without_one_the_value_is_in_the_form_of_the_backend_and_what_is_kept_comes_back() {
    for (device, value) in [(Device::flex(), [12.0, 20.0]), (Device::ndarray(), [6.0, 10.0])] {
        let x = Tensor::<1>::from_data([2.0f32, 5.0], &device).autodiff().require_grad();
        let k = Tensor::<1>::from_data([3.0f32, 2.0], &device).autodiff();
        let y: Tensor<1> = apply(Scaled, [x.clone().into_dispatch(), k.into_dispatch()], []);
        assert_eq!(values(y.clone().inner()), value);
        assert_eq!(values(x.grad(&y.backward()).unwrap()), [3.0, 2.0]);
    }
}
