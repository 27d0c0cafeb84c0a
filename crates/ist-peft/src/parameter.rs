//! Parameters of methods: made, laid out, and read from files the same way everywhere.

use ist_core::burn::module::Param;
use ist_core::burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

/// A parameter that rests: the step lifts copies of those it trains.
pub fn resting<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(tensor).set_require_grad(false)
}

/// The same tensor with its elements in row-major order.
///
/// Fresh parameters and those of a file are laid out alike, so that sums over them run in the same
/// order. That is what makes a resumed run bit-exact.
pub fn row_major<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let shape = tensor.shape();
    tensor.reshape([shape.num_elements()]).reshape(shape)
}

/// A file's matrix, transposed from PyTorch's `[out, in]`.
///
/// It is laid out as a fresh parameter.
pub fn transposed(data: TensorData, device: &Device) -> Tensor<2> {
    row_major(from_file::<2>(data, device).transpose())
}

/// A file's tensor as it is there.
pub fn from_file<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    let dtype = data.dtype();
    Tensor::from_data(data, (device, dtype))
}

/// A file's vector, of whatever shape it has there.
pub fn vector(data: TensorData, device: &Device) -> Tensor<1> {
    let dtype = data.dtype();
    let elements = data.num_elements();
    from_file(TensorData::from_bytes(data.into_bytes(), [elements], dtype), device)
}

/// The shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixShape {
    /// Rows: a linear layer's inputs.
    pub rows: usize,
    /// Columns: its outputs.
    pub columns: usize,
}

/// Kaiming-uniform with a = √5: uniform within ± 1/√`rows`, as PyTorch initialises a linear layer
/// with `rows` inputs.
pub fn kaiming_uniform(rng: &mut impl RngExt, shape: MatrixShape, device: &Device) -> Tensor<2> {
    let values = kaiming_values(rng, shape);
    Tensor::from_data(TensorData::new(values, [shape.rows, shape.columns]), device)
}

/// The elements of [`kaiming_uniform`], row by row.
pub(crate) fn kaiming_values(rng: &mut impl RngExt, shape: MatrixShape) -> Vec<f32> {
    let bound = 1.0 / (shape.rows as f64).sqrt();
    let elements = 0..shape.rows * shape.columns;
    elements.map(|_| rng.random_range(-bound..bound) as f32).collect()
}

/// The parameter's value in PyTorch's `[out, in]`.
pub fn to_file(parameter: &Param<Tensor<2>>) -> TensorData {
    parameter.val().inner().transpose().into_data()
}

/// The parameter's value as it is.
pub fn values<const D: usize>(parameter: &Param<Tensor<D>>) -> TensorData {
    parameter.val().inner().into_data()
}

/// Standard normal numbers.
pub fn standard_normal<const D: usize>(
    rng: &mut impl RngExt,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal(rng) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// One standard normal variate (Box and Muller).
pub fn normal(rng: &mut impl RngExt) -> f64 {
    let u: f64 = rng.random();
    let v: f64 = rng.random();
    // u can be 0 and never 1, so 1 - u has a logarithm.
    (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}
