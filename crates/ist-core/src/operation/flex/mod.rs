//! What operations share in their form for the `flex` backend: slices of a tensor, rows in
//! parallel, vector instructions and the matrix product on parts of a slice.

mod few_rows;
mod matrix;
mod rows;
mod vector;

pub use few_rows::{FEW_ROWS, dot_products};
pub use matrix::{Matrix, MatrixMut, multiply};
pub use rows::{for_each_part, for_each_part_pair, for_each_row, join_pool, tasks};
pub use vector::{Loop, dot, exp, exp_and_sum, max, sum, vectorized};

use burn::backend::flex::FlexDevice;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorData};
use burn::tensor::{DType, Shape};

/// A tensor of the `flex` backend.
pub type FlexTensor = FloatTensor<Flex>;

/// Whether all tensors hold f32, which is what the fast forms are written for.
pub fn all_f32<'a>(tensors: impl IntoIterator<Item = &'a FlexTensor>) -> bool {
    tensors.into_iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The same tensor with its elements in row-major order, copied only if they are not.
#[must_use]
pub fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous f32 tensor.
///
/// # Panics
/// If it is neither.
pub fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the tensor was made contiguous")
}

/// The elements of a contiguous f32 tensor for writing. A copy of them when others hold the tensor
/// too.
pub fn into_vec(tensor: FlexTensor) -> Vec<f32> {
    let tensor = contiguous(tensor);
    // burn's own way out of a shared tensor copies it twice.
    if !tensor.is_unique() {
        return slice(&tensor).to_vec();
    }
    tensor.into_data().try_into_vec().expect("the tensor holds f32")
}

/// A tensor of those elements.
///
/// # Panics
/// If the shape has another number of elements.
pub fn tensor(elements: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    Flex::float_from_data(TensorData::new(elements, shape.into()), &FlexDevice)
}

/// Where the elements of a matrix-shaped tensor lie: its storage from the first element on, and its
/// strides.
///
/// # Panics
/// If the tensor does not have rank 2.
pub fn strides(tensor: &FlexTensor) -> ([usize; 2], [isize; 2], usize) {
    let layout = tensor.layout();
    let [row, column] = layout.strides() else {
        panic!("a matrix has two dimensions, not {}", layout.num_dims())
    };
    (layout.shape().dims::<2>(), [*row, *column], layout.start_offset())
}
