//! A weight that is frozen unless it is asked to train.
//!
//! The frozen value is a plain tensor, which no module visitor sees, so it cannot be trained by
//! accident. Training a weight itself (pre-training, full layers, norms, biases) puts a f32 master
//! beside it.

use ist_core::burn;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use crate::frozen::int8::Int8Matrix;
use crate::frozen::matrix::FrozenMatrix;
use crate::parameter::row_major;

/// How a frozen value is kept.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "handles, beside megabytes of weights; a module cannot be boxed"
)]
enum AtRest<const D: usize> {
    Float(Tensor<D>),
    /// Matrices only.
    Int8(Int8Matrix),
}

impl<const D: usize> AtRest<D> {
    /// The value as floats: of the type they are kept in, f32 for eight bits.
    fn float(&self) -> Tensor<D> {
        match self {
            Self::Float(value) => value.clone(),
            Self::Int8(packed) => packed.dequantise(DType::F32).reshape(self.dims()),
        }
    }

    fn dims(&self) -> [usize; D] {
        match self {
            Self::Float(value) => value.dims(),
            Self::Int8(packed) => {
                packed.dims().as_slice().try_into().expect("only matrices are kept in eight bits")
            }
        }
    }
}

/// A frozen tensor W₀ in its storage type and, when the weight itself trains, its f32 master W.
#[derive(Module, Debug)]
pub struct Weight<const D: usize> {
    frozen: AtRest<D>,
    trained: Option<Param<Tensor<D>>>,
}

impl<const D: usize> Weight<D> {
    /// A weight that does not train.
    pub fn frozen(value: Tensor<D>) -> Self {
        Self { frozen: AtRest::Float(value), trained: None }
    }

    /// The same weight with a master that trains, starting at the frozen value.
    #[must_use]
    pub fn train(self) -> Self {
        let master = self.frozen.float().cast(DType::F32);
        Self {
            trained: Some(Param::from_tensor(master).set_require_grad(false)),
            frozen: self.frozen,
        }
    }

    /// W₀ + f · (W - W₀) in the type `dtype`, where f is the response factor; W₀ when the weight
    /// does not train.
    pub fn value(&self, response: f64, dtype: DType) -> Tensor<D> {
        match &self.trained {
            Some(master) => self.towards(master.val(), response, dtype),
            None => cast(self.frozen.float(), dtype),
        }
    }

    /// W₀ + f · (W - W₀) in the type `dtype` for a W that stands elsewhere; with f = 1 W₀ is not
    /// read.
    pub(crate) fn towards(&self, trained: Tensor<D>, response: f64, dtype: DType) -> Tensor<D> {
        if is_full(response) {
            return cast(trained, dtype);
        }
        let frozen = cast(self.frozen.float(), dtype);
        frozen.clone() + (cast(trained, dtype) - frozen).mul_scalar(response)
    }

    /// The value now as a parameter begins: in f32 (f64 of one kept in f64), its elements in
    /// row-major order.
    pub(crate) fn as_parameter(&self) -> Tensor<D> {
        row_major(cast(self.current(), self.wide()))
    }

    fn wide(&self) -> DType {
        if self.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
    }

    /// [`Weight::value`] in the float type a frozen weight is kept in, and in f32 of one that
    /// trains.
    pub fn at_rest(&self, response: f64) -> Tensor<D> {
        if self.trains() { self.value(response, DType::F32) } else { self.frozen.float() }
    }

    /// The value now, in its storage type: the master's where the weight trains.
    pub fn current(&self) -> Tensor<D> {
        self.trained
            .as_ref()
            .map_or_else(|| self.frozen.float(), |master| cast(master.val().inner(), self.dtype()))
    }

    /// Replaces the frozen value by what `change` makes of it, for merging: computed in f32 (f64 of
    /// one kept in f64) and kept in the type it was kept in.
    pub(crate) fn replace_with(&mut self, change: impl FnOnce(Tensor<D>) -> Tensor<D>) {
        let stored = self.dtype();
        let wide = self.wide();
        self.frozen = AtRest::Float(cast(change(cast(self.current(), wide)), stored));
    }

    /// The value now as a frozen weight in f32 (f64 of one kept in f64).
    pub(crate) fn widened(&self) -> Self {
        Self::frozen(cast(self.current(), self.wide()))
    }

    /// Whether the weight itself trains.
    pub fn trains(&self) -> bool {
        self.trained.is_some()
    }

    /// The float type of the frozen value: f32 for eight bits.
    pub fn dtype(&self) -> DType {
        match &self.frozen {
            AtRest::Float(value) => value.dtype(),
            AtRest::Int8(_) => DType::F32,
        }
    }

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        self.frozen.dims()
    }
}

impl Weight<2> {
    /// A matrix that does not train, kept in eight bits.
    pub fn int8(packed: Int8Matrix) -> Self {
        Self { frozen: AtRest::Int8(packed), trained: None }
    }

    /// Whether it is kept in eight bits.
    pub fn is_int8(&self) -> bool {
        matches!(self.frozen, AtRest::Int8(_))
    }

    /// [`Weight::value`] for operations that read a matrix in its storage type.
    pub fn matrix(&self, response: f64) -> FrozenMatrix {
        match &self.frozen {
            AtRest::Int8(packed) if !self.trains() => FrozenMatrix::Int8(packed.clone()),
            _ => FrozenMatrix::Float(self.at_rest(response)),
        }
    }
}

/// The tensor in that type.
pub(crate) fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

/// Whether a response factor is 1.
pub(crate) fn is_full(response: f64) -> bool {
    (response - 1.0).abs() < f64::EPSILON
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
        let at = |response| {
            weight.value(response, DType::F32).into_data().iter::<f32>().collect::<Vec<_>>()
        };
        assert_eq!(at(0.0), [1.0, 2.0]);
        assert_eq!(at(0.25), [2.0, 3.0]);
        assert_eq!(at(1.0), [5.0, 6.0]);
    }
}
