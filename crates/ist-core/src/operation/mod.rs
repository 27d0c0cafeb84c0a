//! Operations with a backward pass of their own.
//!
//! An automatic backward pass keeps every intermediate of a formula; the formula's own derivative
//! needs a few of them, and often none beyond the inputs. An [`Operation`] says both passes once,
//! in terms of any backend's primitives, and may add a second form for the `flex` backend, which
//! works on slices in place, and one for GPUs, which launches kernels of its own. [`apply`] runs it
//! on tensors of any device: without a graph when no input has one, else with a node of its own.
//!
//! A model or a PEFT method defines an operation in one file and needs nothing else of burn's
//! extension interface; the list of backends stands in `backends` alone.
//!
//! ```
//! use ist_core::burn::backend::{Backend, tensor::FloatTensor};
//! use ist_core::burn::tensor::{Device, Tensor};
//! use ist_core::operation::{Operands, Operation, apply};
//!
//! /// y = x², which keeps x alone.
//! #[derive(Clone, Debug)]
//! struct Square;
//!
//! impl Operation for Square {
//!     fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
//!         let [x] = inputs.floats();
//!         B::float_mul(x.clone(), x)
//!     }
//!     fn backward<B: Backend>(
//!         &self,
//!         saved: Operands<B>,
//!         gradient: FloatTensor<B>,
//!         _: &[bool],
//!     ) -> Vec<Option<FloatTensor<B>>> {
//!         let [x] = saved.floats();
//!         vec![Some(B::float_mul_scalar(B::float_mul(x, gradient), 2.0f64.into()))]
//!     }
//! }
//!
//! let x = Tensor::<1>::from_data([3.0f32], &Device::flex()).autodiff().require_grad();
//! let y: Tensor<1> = apply(Square, [x.clone().into_dispatch()], []);
//! let gradient = x.grad(&y.backward()).unwrap();
//! assert_eq!(gradient.into_data().to_vec::<f32>().unwrap(), [6.0]);
//! ```

mod backends;
mod graph;
mod operands;

#[cfg(feature = "cube")]
pub mod cube;
#[cfg(feature = "flex")]
pub mod flex;

use std::fmt::Debug;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchTensor};
use burn::tensor::Tensor;

pub use operands::Operands;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "cube")]
use cube::{CubeBackend, CubeTensor};

/// An operation's value, and what its backward pass needs.
pub type Recorded<B> = (FloatTensor<B>, Operands<B>);

/// A differentiable function of tensors whose derivative is written by hand.
///
/// Numbers beside the tensors (an epsilon, a seed) are the fields of the implementing type.
/// Gradients are taken with respect to the float operands; integer operands are constants.
pub trait Operation: Clone + Debug + Send + Sync + 'static {
    /// The value.
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B>;

    /// What of the inputs [`Operation::backward`] needs: all of them, unless this says otherwise.
    /// An input that is not kept may be written over by the forward pass.
    ///
    /// `wanted` says of each float operand whether its gradient will be asked for.
    fn kept<B: Backend>(&self, inputs: &Operands<B>, _wanted: &[bool]) -> Operands<B> {
        inputs.clone()
    }

    /// The value and what [`Operation::backward`] needs, where that is more than inputs.
    ///
    /// Gives the inputs back where it is not: then [`Operation::forward`] computes the value, in
    /// the form that suits the backend, and [`Operation::kept`] says what is needed.
    fn record<B: Backend>(
        &self,
        inputs: Operands<B>,
        _wanted: &[bool],
    ) -> Result<Recorded<B>, Operands<B>> {
        Err(inputs)
    }

    /// The vector-Jacobian product of `gradient` with the operation: one gradient for each float
    /// operand of the forward pass, `None` where it is not `wanted` or is zero.
    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>>;

    /// [`Operation::forward`] in a form for the `flex` backend.
    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FloatTensor<Flex> {
        self.forward(inputs)
    }

    /// [`Operation::record`] in a form for the `flex` backend.
    #[cfg(feature = "flex")]
    fn record_flex(
        &self,
        inputs: Operands<Flex>,
        wanted: &[bool],
    ) -> Result<Recorded<Flex>, Operands<Flex>> {
        self.record(inputs, wanted)
    }

    /// [`Operation::backward`] in a form for the `flex` backend.
    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FloatTensor<Flex>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Flex>>> {
        self.backward(saved, gradient, wanted)
    }

    /// [`Operation::forward`] in a form for GPUs.
    #[cfg(feature = "cube")]
    fn forward_cube(&self, inputs: Operands<CubeBackend>) -> CubeTensor {
        self.forward(inputs)
    }

    /// [`Operation::record`] in a form for GPUs.
    #[cfg(feature = "cube")]
    fn record_cube(
        &self,
        inputs: Operands<CubeBackend>,
        wanted: &[bool],
    ) -> Result<Recorded<CubeBackend>, Operands<CubeBackend>> {
        self.record(inputs, wanted)
    }

    /// [`Operation::backward`] in a form for GPUs.
    #[cfg(feature = "cube")]
    fn backward_cube(
        &self,
        saved: Operands<CubeBackend>,
        gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        self.backward(saved, gradient, wanted)
    }
}

/// Runs `operation` on the device of its operands.
///
/// `floats` and `ints` are tensors of any rank, taken out of their wrapper with `into_dispatch`.
/// Plain tensors are constants beside tracked ones, and the result is plain when all of them are.
pub fn apply<O: Operation, const D: usize>(
    operation: O,
    floats: impl IntoIterator<Item = DispatchTensor>,
    ints: impl IntoIterator<Item = DispatchTensor>,
) -> Tensor<D> {
    let operands = Operands::new(floats.into_iter().collect(), ints.into_iter().collect());
    Tensor::from_dispatch(<Dispatch as backends::Operations>::apply(operation, operands))
}
