//! The backends that operations run on. The only file of the libraries that names them.

#![cfg_attr(
    feature = "ndarray",
    expect(
        deprecated,
        reason = "a separate implementation to check the others against; upstream keeps it for that alone"
    )
)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Operands, Operation};

#[cfg(feature = "wgpu")]
use burn::backend::Cube;
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;

/// Runs an operation on a backend, or on a backend with a graph.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "wgpu"),
    Autodiff,
)]
pub(super) trait Operations: Backend {
    /// The operation's value.
    fn apply<O: Operation>(operation: O, #[extension_type] operands: Operands<Self>) -> FloatTensor<Self>;
}

/// The form of an operation that suits a backend; the generic one unless the backend has its own.
pub(super) trait Kernels: Backend {
    /// [`Operation::forward`].
    fn forward<O: Operation>(operation: &O, inputs: Operands<Self>) -> FloatTensor<Self> {
        operation.forward(inputs)
    }

    /// [`Operation::record`].
    fn record<O: Operation>(
        operation: &O,
        inputs: Operands<Self>,
        wanted: &[bool],
    ) -> (FloatTensor<Self>, Operands<Self>) {
        operation.record(inputs, wanted)
    }

    /// [`Operation::backward`].
    fn backward<O: Operation>(
        operation: &O,
        saved: Operands<Self>,
        gradient: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>> {
        operation.backward(saved, gradient, wanted)
    }
}

macro_rules! without_graph {
    ($backend:ty) => {
        impl Operations for $backend {
            fn apply<O: Operation>(operation: O, operands: Operands<Self>) -> FloatTensor<Self> {
                <Self as Kernels>::forward(&operation, operands)
            }
        }
    };
}

#[cfg(feature = "ndarray")]
impl Kernels for NdArray {}
#[cfg(feature = "ndarray")]
without_graph!(NdArray);

#[cfg(feature = "wgpu")]
impl Kernels for Cube {}
#[cfg(feature = "wgpu")]
without_graph!(Cube);

#[cfg(feature = "flex")]
impl Kernels for Flex {
    fn forward<O: Operation>(operation: &O, inputs: Operands<Self>) -> FloatTensor<Self> {
        operation.forward_flex(inputs)
    }

    fn record<O: Operation>(
        operation: &O,
        inputs: Operands<Self>,
        wanted: &[bool],
    ) -> (FloatTensor<Self>, Operands<Self>) {
        operation.record_flex(inputs, wanted)
    }

    fn backward<O: Operation>(
        operation: &O,
        saved: Operands<Self>,
        gradient: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>> {
        operation.backward_flex(saved, gradient, wanted)
    }
}
#[cfg(feature = "flex")]
without_graph!(Flex);
