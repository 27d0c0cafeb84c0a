//! What the tests of several operations share.

use ist_core::{burn, streams};

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::RngExt;

use crate::frozen::int8::Int8Matrix;
use crate::frozen::matrix::FrozenMatrix;

#[expect(deprecated, reason = "a separate implementation to check the others against")]
pub(crate) fn ndarray() -> Device {
    Device::ndarray()
}

/// Numbers in [-1, 1) that depend on the name alone.
pub(crate) fn random<const D: usize>(
    name: &str,
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    let mut rng = streams::stream(3, name);
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (device, dtype))
}

/// `[out, in]`, as in a file, kept as `storage`.
pub(crate) fn stored(weight: Tensor<2>, storage: DType) -> FrozenMatrix {
    match storage {
        DType::I8 => FrozenMatrix::Int8(Int8Matrix::quantise(&weight.to_data(), &weight.device())),
        float => FrozenMatrix::Float(weight.cast(float).transpose()),
    }
}

/// The matrix in a wider type.
pub(crate) fn widened(weight: &FrozenMatrix, dtype: DType) -> Tensor<2> {
    match weight {
        FrozenMatrix::Float(weight) => weight.clone().cast(dtype),
        FrozenMatrix::Int8(packed) => packed.dequantise(dtype),
    }
}

/// The largest difference of any tensor, beside the largest number of that tensor.
pub(crate) fn distance(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    let lengths = |all: &[Vec<f64>]| all.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(found), lengths(expected));
    let mut worst = 0.0f64;
    for (found, expected) in found.iter().zip(expected) {
        let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        worst = worst.max(difference / largest);
    }
    worst
}
