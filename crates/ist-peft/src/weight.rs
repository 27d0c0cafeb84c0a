//! A weight that is frozen unless it is asked to train.
//!
//! The frozen value is a plain tensor, which no module visitor sees, so it cannot be trained by accident. Training a weight
//! itself (pre-training, full layers, norms, biases) puts a f32 master beside it.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

/// A frozen tensor W₀ in its storage type and, when the weight itself trains, its f32 master W.
#[derive(Module, Debug)]
pub struct Weight<const D: usize> {
    frozen: Tensor<D>,
    trained: Option<Param<Tensor<D>>>,
}

impl<const D: usize> Weight<D> {
    /// A weight that does not train.
    pub fn frozen(value: Tensor<D>) -> Self {
        Self { frozen: value, trained: None }
    }

    /// The same weight with a master that trains, starting at the frozen value.
    #[must_use]
    pub fn train(self) -> Self {
        let master = self.frozen.clone().cast(DType::F32);
        Self { trained: Some(Param::from_tensor(master).set_require_grad(false)), frozen: self.frozen }
    }

    /// W₀ + f · (W - W₀) in the type `dtype`, where f is the response factor; W₀ when the weight does not train.
    pub fn value(&self, response: f64, dtype: DType) -> Tensor<D> {
        match &self.trained {
            Some(master) if (response - 1.0).abs() < f64::EPSILON => cast(master.val(), dtype),
            Some(master) => {
                let frozen = cast(self.frozen.clone(), dtype);
                frozen.clone() + (cast(master.val(), dtype) - frozen).mul_scalar(response)
            }
            None => cast(self.frozen.clone(), dtype),
        }
    }

    /// [`Weight::value`] in the storage type of a frozen weight, for operations that widen it themselves, and in f32 of one
    /// that trains.
    pub fn at_rest(&self, response: f64) -> Tensor<D> {
        if self.trains() { self.value(response, DType::F32) } else { self.frozen.clone() }
    }

    /// The value now, in its storage type: the master's where the weight trains.
    pub fn current(&self) -> Tensor<D> {
        self.trained.as_ref().map_or_else(|| self.frozen.clone(), |master| cast(master.val().inner(), self.dtype()))
    }

    /// Replaces the frozen value, for merging.
    pub fn replace(&mut self, value: Tensor<D>) {
        self.frozen = value;
    }

    /// Whether the weight itself trains.
    pub fn trains(&self) -> bool {
        self.trained.is_some()
    }

    /// The storage type of the frozen value.
    pub fn dtype(&self) -> DType {
        self.frozen.dtype()
    }

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        self.frozen.dims()
    }
}

fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_response_factor_moves_between_frozen_and_trained() {
        let device = Device::flex();
        let mut weight = Weight::frozen(Tensor::<1>::from_data([1.0f32, 2.0], &device)).train();
        weight.trained = weight.trained.map(|master| master.map(|value| value + 4.0));
        let at = |response| weight.value(response, DType::F32).into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(at(0.0), [1.0, 2.0]);
        assert_eq!(at(0.25), [2.0, 3.0]);
        assert_eq!(at(1.0), [5.0, 6.0]);
    }
}
