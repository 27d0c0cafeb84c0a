//! Weights at rest in the types that a device knows.

use ist_core::burn::tensor::{DType, Device, Tensor, TensorData};
use ist_peft::frozen::{FrozenMatrix, Int8Matrix, linear};

use super::numbers::{Numbers, distance, floats, random};
use super::{Check, Found, Outcome};

/// Of the largest element of a value or of a gradient.
const TOLERANCE: f64 = 1e-5;

/// The checks.
pub(super) fn checks() -> Vec<Check> {
    let cases = [(DType::BF16, "bfloat16"), (DType::F16, "float16"), (DType::I8, "int8")];
    let of = |(storage, name): (DType, &'static str)| {
        Check::new(
            "storage",
            format!("a product with a weight in {name}"),
            TOLERANCE,
            move |device| compare(device, storage, name),
        )
    };
    cases.into_iter().map(of).collect()
}

fn compare(device: &Device, storage: DType, name: &str) -> Found {
    if !device.supports_dtype(storage) {
        return Ok(Outcome::Skipped(format!("the device has no {name}")));
    }
    // Activations and gradients that the type holds: a device may multiply in it.
    let found = product(&Numbers::single(device), storage);
    Ok(Outcome::Distance(distance(&found, &expected(storage))?))
}

/// `[out, in]`, as in a file.
fn weight() -> TensorData {
    TensorData::new(random("weight", 864, 1.0), [36, 24])
}

/// Value and gradient of a map by the weight kept as `storage`.
fn product(numbers: &Numbers, storage: DType) -> Vec<Vec<f64>> {
    let weight = match storage {
        DType::I8 => FrozenMatrix::Int8(Int8Matrix::quantise(&weight(), &numbers.device)),
        float => Tensor::<2>::from_data(weight().convert_dtype(float), (&numbers.device, float))
            .transpose()
            .into(),
    };
    value_and_gradient(numbers, weight, storage)
}

/// The same by the rounded weight, in f64.
fn expected(storage: DType) -> Vec<Vec<f64>> {
    let exact = Numbers::exact();
    let weight = match storage {
        DType::I8 => Int8Matrix::quantise(&weight(), &exact.device).dequantise(DType::F64),
        float => {
            let rounded = weight().convert_dtype(float).convert_dtype(DType::F64);
            Tensor::<2>::from_data(rounded, (&exact.device, DType::F64)).transpose()
        }
    };
    value_and_gradient(&exact, weight.into(), storage)
}

fn value_and_gradient(numbers: &Numbers, weight: FrozenMatrix, storage: DType) -> Vec<Vec<f64>> {
    let given = |name: &str, shape: [usize; 3]| {
        let values = TensorData::new(random(name, shape.iter().product(), 1.0), shape);
        let rounded = if storage == DType::I8 { values } else { values.convert_dtype(storage) };
        Tensor::<3>::from_data(
            rounded.convert_dtype(numbers.dtype),
            (&numbers.device, numbers.dtype),
        )
    };
    let x = given("x", [2, 5, 24]).autodiff().require_grad();
    let value = linear(x.clone(), weight);
    let mut graph = (value.clone() * given("gradient", [2, 5, 36])).sum().backward();
    let gradient = x.grad_remove(&mut graph).map(floats).unwrap_or_default();
    vec![floats(value.inner()), gradient]
}
