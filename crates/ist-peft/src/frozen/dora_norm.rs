//! The column norms of a frozen matrix with a low-rank addition, n_c = ‖W_c + s A B_c‖.
//!
//! Columns are added up a panel at a time; the whole sum never exists. The expansion ‖W_c‖² + 2 s
//! ⟨W_c, A B_c⟩ + s² ‖A B_c‖² needs no panel and as many multiplications (Aᵀ W instead of A B), but
//! it cancels where A B comes near -W: at n_c = ‖W_c‖ / 100 it is wrong by 1e-2 in f32, or by 3e-3
//! with its r × r part in f64, the sum below by 2e-6.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};
use ist_core::operation::{Operands, Operation, apply};

use crate::frozen::matrix::{FrozenMatrix, Stored, columns, panel_width};

/// n `[out]` for W `[in, out]` in its storage type, A `[in, r]` and B `[r, out]`; a constant to any
/// graph.
pub(crate) fn column_norms(
    weight: FrozenMatrix,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
) -> Tensor<1> {
    let (weight, values) = weight.operands();
    apply(
        ColumnNorms { scale },
        [weight, a.inner().into_dispatch(), b.inner().into_dispatch()],
        values,
    )
}

#[derive(Clone, Debug)]
struct ColumnNorms {
    scale: f64,
}

impl Operation for ColumnNorms {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let ints = inputs.ints.clone();
        let [weight, a, b] = inputs.floats();
        norms::<B>(&Stored::of(weight, &ints), &a, &b, self.scale)
    }

    fn backward<B: Backend>(
        &self,
        _: Operands<B>,
        _: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        wanted.iter().map(|_| None).collect()
    }

    #[cfg(feature = "flex")]
    fn forward_flex(&self, inputs: Operands<Flex>) -> FlexTensor {
        let weight = Stored::of(inputs.floats[0].clone(), &inputs.ints);
        if !fits(&inputs.floats[1], &weight) || !flex::all_f32(&inputs.floats[1..]) {
            return self.forward(inputs);
        }
        let [a, b] = [1, 2].map(|at| flex::contiguous(inputs.floats[at].clone()));
        let norms = norms_flex(&weight, &a, &b, self.scale as f32);
        let count = norms.len();
        flex::tensor(norms, [count])
    }
}

/// n `[out]` in A's type.
pub(crate) fn norms<B: Backend>(
    weight: &Stored<B>,
    a: &FloatTensor<B>,
    b: &FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let [d_in, d_out] = weight.dims();
    let width = panel_width(d_in, d_out);
    // Squares of a column add up over all rows, so panels are of whole columns.
    let panel = |from: usize| {
        let range = from..(from + width).min(d_out);
        let added = B::float_matmul(a.clone(), columns::<B>(b.clone(), range.clone()));
        let sum = B::float_add(weight.columns(range, a), B::float_mul_scalar(added, scale.into()));
        B::float_sum_dim(B::float_mul(sum.clone(), sum), 0)
    };
    let mut squares: Vec<_> = (0..d_out).step_by(width).map(panel).collect();
    let squares = if squares.len() == 1 { squares.remove(0) } else { B::float_cat(squares, 1) };
    B::float_reshape(B::float_sqrt(squares), Shape::new([d_out]))
}

#[cfg(feature = "flex")]
use crate::frozen::product::{fits, widen};
#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

/// Elements of a panel of one thread: 128 KiB, which a processor's second cache holds.
#[cfg(feature = "flex")]
const BLOCK: usize = 1 << 15;

/// The same in parallel over panels; A and B are contiguous and the weight is one that [`fits`].
#[cfg(feature = "flex")]
pub(crate) fn norms_flex(
    weight: &Stored<Flex>,
    a: &FlexTensor,
    b: &FlexTensor,
    scale: f32,
) -> Vec<f32> {
    let [d_in, d_out] = weight.dims();
    let rank = a.shape()[1];
    let a = Matrix::new(flex::slice(a), d_in, rank, rank);
    let b = Matrix::new(flex::slice(b), rank, d_out, d_out);
    let width = (BLOCK / d_in).clamp(1, d_out);
    let panels = flex::tasks(d_out.div_ceil(width), |index| {
        let from = index * width;
        let count = width.min(d_out - from);
        // A column of the sum is a row of the panel.
        let mut panel = vec![0.0; count * d_in];
        widen(&mut panel, weight, from);
        let out = MatrixMut::new(&mut panel, count, d_in, d_in);
        // Threads are busy with panels already, so the product takes one.
        multiply(out, b.columns(from, count).transposed(), a.transposed(), scale, true, false);
        panel
            .chunks_exact(d_in)
            .map(|column| flex::dot(column, column).sqrt())
            .collect::<Vec<f32>>()
    });
    panels.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::int8::Int8Matrix;
    use burn::tensor::{DType, Device, TensorData};
    use ist_core::streams;
    use rand::RngExt;

    const SIZES: [usize; 3] = [301, 270, 5]; // in, out, rank: several panels, the last one shorter
    const SCALE: f64 = 1.75;

    fn random(name: &str, shape: [usize; 2]) -> Vec<f32> {
        let mut rng = streams::stream(4, name);
        (0..shape[0] * shape[1]).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    /// A, B, and W `[out, in]` = `distance` · noise - s A B, or noise alone.
    fn factors(distance: Option<f64>) -> [Vec<f32>; 3] {
        let [d_in, d_out, rank] = SIZES;
        let a = random("a", [d_in, rank]);
        let b = random("b", [rank, d_out]);
        let product = |at: usize| -> f64 {
            let column = at / d_in;
            let row = at % d_in;
            (0..rank).map(|k| f64::from(a[row * rank + k]) * f64::from(b[k * d_out + column])).sum()
        };
        let noise = random("w", [d_out, d_in]);
        let near = |(at, noise): (usize, &f32)| {
            distance.map_or(*noise, |distance| {
                (distance * f64::from(*noise) - SCALE * product(at)) as f32
            })
        };
        let weight = noise.iter().enumerate().map(near).collect();
        [a, b, weight]
    }

    /// The largest relative error of the norms of those factors, and the smallest norm beside W's.
    fn error(
        [a, b, weight]: &[Vec<f32>; 3],
        stored: FrozenMatrix,
        device: &Device,
        dtype: DType,
    ) -> [f64; 2] {
        let [d_in, d_out, rank] = SIZES;
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(
                TensorData::new(values.to_vec(), shape).convert_dtype(dtype),
                (device, dtype),
            )
        };
        let found = column_norms(stored, tensor(a, [d_in, rank]), tensor(b, [rank, d_out]), SCALE);
        let found: Vec<f64> = found.into_data().iter::<f64>().collect();
        assert_eq!(found.len(), d_out);
        let mut error = 0.0f64;
        let mut smallest = f64::INFINITY;
        for (column, found) in found.iter().enumerate() {
            let of = |row: usize| f64::from(weight[column * d_in + row]);
            let added = |row: usize| {
                (0..rank)
                    .map(|k| f64::from(a[row * rank + k]) * f64::from(b[k * d_out + column]))
                    .sum::<f64>()
            };
            let exact =
                (0..d_in).map(|row| (of(row) + SCALE * added(row)).powi(2)).sum::<f64>().sqrt();
            let whole = (0..d_in).map(|row| of(row).powi(2)).sum::<f64>().sqrt();
            error = error.max((found - exact).abs() / exact);
            smallest = smallest.min(exact / whole);
        }
        [error, smallest]
    }

    fn stored(weight: &[f32], storage: DType, device: &Device) -> FrozenMatrix {
        let [d_in, d_out, _] = SIZES;
        let data = TensorData::new(weight.to_vec(), [d_out, d_in]).convert_dtype(storage);
        FrozenMatrix::Float(Tensor::<2>::from_data(data, (device, storage)).transpose())
    }

    #[expect(deprecated, reason = "a separate implementation to check the others against")]
    fn ndarray() -> Device {
        Device::ndarray()
    }

    #[test]
    fn norms_are_those_of_the_sum_also_where_it_nearly_cancels() {
        let flex = Device::flex();
        let exact = ndarray();
        for (distance, single) in
            [(None, 1e-6), (Some(1.0), 1e-6), (Some(1e-2), 3e-6), (Some(1e-4), 3e-4)]
        {
            let factors = factors(distance);
            let [error_single, smallest] =
                error(&factors, stored(&factors[2], DType::F32, &flex), &flex, DType::F32);
            assert!(
                error_single < single,
                "{distance:?}: {error_single:e} at {smallest:e} of the weight's norm"
            );
            let [error_double, _] =
                error(&factors, stored(&factors[2], DType::F64, &exact), &exact, DType::F64);
            assert!(error_double < 1e-11, "{distance:?}: {error_double:e}");
            if distance == Some(1e-4) {
                assert!(smallest < 1e-3, "{smallest}: the case must cancel");
            }
        }
    }

    #[test]
    fn norms_of_a_narrow_weight_are_those_of_the_weight_widened() {
        let device = Device::flex();
        let [a, b, weight] = factors(None);
        let [d_in, d_out, _] = SIZES;
        let narrow: Vec<f32> = weight.iter().map(|w| half::bf16::from_f32(*w).to_f32()).collect();
        let [found, _] = error(
            &[a.clone(), b.clone(), narrow],
            stored(&weight, DType::BF16, &device),
            &device,
            DType::F32,
        );
        assert!(found < 1e-6, "{found:e}");
        let packed = Int8Matrix::quantise(&TensorData::new(weight, [d_out, d_in]), &device);
        let wide: Vec<f32> =
            packed.dequantise(DType::F32).transpose().into_data().iter::<f32>().collect();
        let [found, _] = error(&[a, b, wide], FrozenMatrix::Int8(packed), &device, DType::F32);
        assert!(found < 1e-6, "{found:e}");
    }
}
