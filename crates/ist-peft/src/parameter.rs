//! Parameters of methods: made, laid out, and read from files the same way everywhere.

use ist_core::burn::module::Param;
use ist_core::burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

/// A parameter that rests: the step lifts copies of those it trains.
pub fn resting<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(tensor).set_require_grad(false)
}

/// A file's matrix, transposed from PyTorch's `[out, in]`.
///
/// It is laid out as a fresh parameter, so that sums over it run in the same order: a resumed run is bit-exact.
pub fn transposed(data: TensorData, device: &Device) -> Tensor<2> {
    let dtype = data.dtype();
    let tensor = Tensor::<2>::from_data(data, (device, dtype)).transpose();
    let [rows, columns] = tensor.dims();
    tensor.reshape([rows * columns]).reshape([rows, columns])
}

/// A file's vector, of whatever shape it has there.
pub fn vector(data: TensorData, device: &Device) -> Tensor<1> {
    let (dtype, elements) = (data.dtype(), data.num_elements());
    let data = TensorData::from_bytes(data.into_bytes(), [elements], dtype);
    Tensor::from_data(data, (device, dtype))
}

/// Kaiming-uniform with a = √5: uniform within ± 1/√`rows`, as PyTorch initialises a linear layer with `rows` inputs.
pub fn kaiming_uniform(rng: &mut impl RngExt, [rows, columns]: [usize; 2], device: &Device) -> Tensor<2> {
    let bound = 1.0 / (rows as f64).sqrt();
    let values: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-bound..bound) as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// The parameter's value in PyTorch's `[out, in]`.
pub fn to_file(parameter: &Param<Tensor<2>>) -> TensorData {
    parameter.val().inner().transpose().into_data()
}
