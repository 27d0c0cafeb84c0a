//! The backends that operations run on. The only file of the libraries that names them.

#![cfg_attr(
    feature = "ndarray",
    expect(
        deprecated,
        reason = "a separate implementation to check the others against; upstream keeps it for \
                  that alone"
    )
)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Operands, Operation, Recorded};

#[cfg(feature = "cube")]
use burn::backend::Cube;
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "ndarray")]
use burn::backend::NdArray;

/// Runs an operation on a backend, or on a backend with a graph.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Autodiff,
)]
pub(super) trait Operations: Backend {
    /// The operation's value.
    fn apply<O: Operation>(
        operation: O,
        #[extension_type] operands: Operands<Self>,
    ) -> FloatTensor<Self>;
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
    ) -> Result<Recorded<Self>, Operands<Self>> {
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

/// A backend whose operations are run in the generic form.
#[cfg(any(feature = "ndarray", all(feature = "cube", feature = "fusion")))]
macro_rules! generic {
    ($backend:ty) => {
        impl Kernels for $backend {}
        without_graph!($backend);
    };
}

/// A backend with forms of its own.
#[cfg(any(feature = "flex", all(feature = "cube", not(feature = "fusion"))))]
macro_rules! with_kernels {
    ($backend:ty, $forward:ident, $record:ident, $backward:ident) => {
        impl Kernels for $backend {
            fn forward<O: Operation>(operation: &O, inputs: Operands<Self>) -> FloatTensor<Self> {
                operation.$forward(inputs)
            }

            fn record<O: Operation>(
                operation: &O,
                inputs: Operands<Self>,
                wanted: &[bool],
            ) -> Result<Recorded<Self>, Operands<Self>> {
                operation.$record(inputs, wanted)
            }

            fn backward<O: Operation>(
                operation: &O,
                saved: Operands<Self>,
                gradient: FloatTensor<Self>,
                wanted: &[bool],
            ) -> Vec<Option<FloatTensor<Self>>> {
                operation.$backward(saved, gradient, wanted)
            }
        }
        without_graph!($backend);
    };
}

#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
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
generic!(NdArray);
#[cfg(feature = "flex")]
with_kernels!(Flex, forward_flex, record_flex, backward_flex);
#[cfg(all(feature = "cube", not(feature = "fusion")))]
with_kernels!(Cube, forward_cube, record_cube, backward_cube);
// Under fusion a tensor is a promise of one, which a kernel of ours cannot be launched on.
#[cfg(all(feature = "cube", feature = "fusion"))]
generic!(Cube);
