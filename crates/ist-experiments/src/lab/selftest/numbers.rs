//! Numbers that are the same on every device, and how far two sets of them are apart.

use ist_core::burn::tensor::{DType, Device, Gradients as Graph, Int, Tensor, TensorData};
use ist_core::streams;
use rand::RngExt;

use super::{Found, Outcome};

/// Where numbers live and what they are.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Where.
    pub device: Device,
    /// What.
    pub dtype: DType,
}

impl Numbers {
    /// f32 on a device.
    pub fn single(device: &Device) -> Self {
        Self { device: device.clone(), dtype: DType::F32 }
    }

    /// f64 on the reference.
    #[cfg(feature = "ndarray")]
    pub fn exact() -> Self {
        Self { device: crate::machine::device::ndarray(), dtype: DType::F64 }
    }

    /// Without the reference the suite has nothing to compare with.
    #[cfg(not(feature = "ndarray"))]
    pub fn exact() -> Self {
        panic!("the reference is not compiled in: build with the feature `ndarray`")
    }

    /// Those values as a tensor.
    pub fn tensor<const D: usize>(&self, values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (&self.device, self.dtype))
    }
}

/// Numbers within ± `width`, a function of `name`, that f32 holds exactly.
pub(super) fn random(name: &str, count: usize, width: f64) -> Vec<f64> {
    let mut rng = streams::stream(3, name);
    (0..count).map(|_| f64::from((width * rng.random_range(-1.0..1.0)) as f32)).collect()
}

/// A tensor's elements.
pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The sum of a value's elements, each times a fixed number.
pub(super) fn mixed<const D: usize>(value: Tensor<D>, numbers: &Numbers) -> Tensor<1> {
    let (shape, count) = (value.dims(), value.shape().num_elements());
    (value * numbers.tensor(random("mixture", count, 1.0), shape)).sum()
}

/// A function of flat tensors, whose shapes it knows.
pub(super) type Formula = dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// The value, and the gradient of its mixture for every tracked input: all of them, or one.
fn evaluate(
    formula: &Formula,
    inputs: &[Vec<f64>],
    tracked: Option<usize>,
    numbers: &Numbers,
) -> Vec<Vec<f64>> {
    let leaves = inputs.iter().enumerate().map(|(at, values)| {
        let plain = numbers.tensor(values.clone(), [values.len()]);
        if tracked.is_none_or(|only| only == at) { plain.autodiff().require_grad() } else { plain }
    });
    let leaves: Vec<Tensor<1>> = leaves.collect();
    let value = formula(&leaves);
    let mut graph: Graph = mixed(value.clone(), numbers).backward();
    let gradients = leaves.into_iter().filter_map(|leaf| leaf.grad_remove(&mut graph));
    std::iter::once(value.inner()).chain(gradients).map(floats).collect()
}

/// How far value and gradients of a formula on a device are from the reference's, with all inputs
/// tracked and with each alone.
pub(super) fn compare(formula: &Formula, inputs: &[Vec<f64>], device: &Device) -> Found {
    let mut worst = 0.0f64;
    for tracked in std::iter::once(None).chain((0..inputs.len()).map(Some)) {
        let run = |numbers: &Numbers| evaluate(formula, inputs, tracked, numbers);
        worst = worst.max(distance(&run(&Numbers::single(device)), &run(&Numbers::exact()))?);
    }
    Ok(Outcome::Distance(worst))
}

/// The largest distance of several sets, each relative to its largest expected number.
pub(super) fn distance(found: &[Vec<f64>], expected: &[Vec<f64>]) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{} results where the reference has {}", found.len(), expected.len()));
    }
    let mut each = found.iter().zip(expected).map(|(found, expected)| relative(found, expected));
    each.try_fold(0.0f64, |most, one| Ok(most.max(one?)))
}

fn relative(found: &[f64], expected: &[f64]) -> Result<f64, String> {
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    if found.len() != expected.len() || largest == 0.0 {
        return Err(format!("{} numbers where the reference has {}", found.len(), expected.len()));
    }
    if found.iter().any(|number| !number.is_finite()) {
        return Err("a result is no finite number".to_owned());
    }
    let worst = found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    Ok(worst / largest)
}

/// Token ids on the device of `like`.
pub(super) fn targets(count: usize, vocabulary: usize, like: &Tensor<1>) -> Tensor<1, Int> {
    let ids: Vec<i64> = (0..count).map(|at| ((at * 7 + 3) % vocabulary) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [count]), &like.device().inner())
}

/// A constant of that many numbers on the device and in the type of `like`.
pub(super) fn constant(name: &str, count: usize, like: &Tensor<1>) -> Tensor<1> {
    let data = TensorData::new(random(name, count, 1.0), [count]).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}
