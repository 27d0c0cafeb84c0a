//! The vector-Jacobian product of a graph with a gradient of its output.
//!
//! burn's backward pass begins at a tensor with the gradient 1. The sum of output ⊙ gradient has
//! the product wanted, but costs three tensors of the output's size. The operation here has the
//! value 0, and its derivative passes the gradient on.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Gradients as Graph, Shape, Tensor};

use crate::operation::{Operands, Operation, apply};

/// gradientᵀ · d output / d leaf for every leaf of the graph of `output`.
///
/// `gradient` is plain and has the shape of `output`.
pub(crate) fn pull_back(output: Tensor<3>, gradient: Tensor<3>) -> Graph {
    let root: Tensor<1> = apply(PullBack, [output.into_dispatch(), gradient.into_dispatch()], []);
    root.backward()
}

#[derive(Clone, Debug)]
struct PullBack;

impl Operation for PullBack {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [_, gradient] = inputs.floats();
        B::float_zeros(Shape::new([1]), &gradient.device(), FloatDType::from(gradient.dtype()))
    }

    fn kept<B: Backend>(&self, inputs: &Operands<B>, _: &[bool]) -> Operands<B> {
        // The gradient alone. Without the output its memory is free before the graph is walked.
        Operands::new(inputs.floats[1..].to_vec(), Vec::new())
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        _: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [gradient] = saved.floats();
        // The incoming gradient is the 1 that burn begins with, so this product is `gradient`
        // itself. The gradient has no gradient of its own.
        vec![Some(gradient), None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn every_leaf_gets_its_product() {
        let device = Device::flex();
        let x = Tensor::<3>::from_data([[[1.0f32, 2.0, 3.0]]], &device).autodiff().require_grad();
        let y = x.clone() * x.clone();
        let mut graph = pull_back(y, Tensor::from_data([[[1.0f32, 10.0, 100.0]]], &device));
        let found = x.grad_remove(&mut graph).expect("x is a leaf of the graph");
        assert_eq!(found.into_data().try_to_vec::<f32>().expect("floats"), [2.0, 40.0, 600.0]);
    }
}
