//! The product with a frozen weight on the `flex` backend: into a result that exists, the weight in its storage type.
//!
//! A weight in f32 is read where it lies, transposed or not. One in bf16 is widened a panel of columns at a time.

use ist_core::burn;

use burn::tensor::{DType, bf16};
use ist_core::operation::flex::{self, FlexTensor, Matrix, MatrixMut, multiply};

/// Elements of a narrow weight that are widened at a time.
const PANEL: usize = 1 << 20;

/// Whether these functions read a weight of that type.
pub fn readable(weight: &FlexTensor) -> bool {
    matches!(weight.dtype(), DType::F32 | DType::BF16)
}

/// out = x W, or out + x W when `accumulate`: x `[n, in]`, W `[in, out]`, out `[n, out]`.
pub fn multiply_weight(out: &mut [f32], x: &[f32], weight: &FlexTensor, accumulate: bool) {
    let ([d_in, d_out], ..) = flex::strides(weight);
    let n = x.len() / d_in;
    for_each_panel(weight, |from, panel, width| {
        let out = MatrixMut::new(&mut out[from..], n, width, d_out);
        multiply(out, Matrix::new(x, n, d_in, d_in), panel, 1.0, accumulate, true);
    });
}

/// out = g Wᵀ, or out + g Wᵀ when `accumulate`: g `[n, out]`, W `[in, out]`, out `[n, in]`.
pub fn multiply_weight_transposed(out: &mut [f32], gradient: &[f32], weight: &FlexTensor, accumulate: bool) {
    let ([d_in, d_out], ..) = flex::strides(weight);
    let n = gradient.len() / d_out;
    for_each_panel(weight, |from, panel, width| {
        let gradient = Matrix::new(gradient, n, d_out, d_out).columns(from, width);
        let out = MatrixMut::new(out, n, d_in, d_in);
        multiply(out, gradient, panel.transposed(), 1.0, accumulate || from > 0, true);
    });
}

/// Calls `work` with the first column, the f32 elements and the width of every panel of the weight's columns.
fn for_each_panel(weight: &FlexTensor, mut work: impl FnMut(usize, Matrix, usize)) {
    let ([d_in, d_out], strides, start) = flex::strides(weight);
    if weight.dtype() == DType::F32 {
        return work(0, Matrix::strided(&weight.storage::<f32>()[start..], [d_in, d_out], strides), d_out);
    }
    let source = &weight.storage::<bf16>()[start..];
    let width = (PANEL / d_in.max(1)).clamp(1, d_out);
    let mut panel = vec![0.0; d_in * width];
    for from in (0..d_out).step_by(width) {
        let width = width.min(d_out - from);
        let panel = &mut panel[..d_in * width];
        // As in the files: the weight is the transpose of `[out, in]`, so a panel of columns is one run of storage.
        if strides == [1, d_in as isize] {
            widen(panel, &source[from * d_in..]);
            work(from, Matrix::strided(panel, [d_in, width], [1, d_in as isize]), width);
        } else {
            let [row_stride, column_stride] = strides.map(|stride| stride as usize);
            for (at, value) in panel.iter_mut().enumerate() {
                *value = source[at / width * row_stride + (from + at % width) * column_stride].to_f32();
            }
            work(from, Matrix::new(panel, d_in, width, width), width);
        }
    }
}

/// bf16 is the upper half of f32.
fn widen(out: &mut [f32], source: &[bf16]) {
    const WIDTH: usize = 1024;
    let rest = out.len() / WIDTH * WIDTH;
    flex::for_each_row(&mut out[..rest], WIDTH, |row, out| widen_row(out, &source[row * WIDTH..]));
    widen_row(&mut out[rest..], &source[rest..]);
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled with its caller's instruction set")]
fn widen_row(out: &mut [f32], source: &[bf16]) {
    for (out, value) in out.iter_mut().zip(source) {
        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::TensorData;

    fn weight(shape: [usize; 2], dtype: DType) -> FlexTensor {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|at| ((at * 37) % 64) as f32 / 32.0 - 1.0).collect();
        Flex::float_cast(flex::tensor(values, shape), dtype.into())
    }

    fn product(x: &[f32], weight: &FlexTensor) -> Vec<f32> {
        let x = Flex::float_from_data(TensorData::new(x.to_vec(), [2, 96]), &Default::default());
        let wide = Flex::float_cast(weight.clone(), DType::F32.into());
        flex::into_vec(Flex::float_matmul(x, wide))
    }

    #[test]
    fn every_layout_and_type_gives_the_product_and_its_transpose() {
        let x: Vec<f32> = (0..192).map(|at| (at % 7) as f32 - 3.0).collect();
        for dtype in [DType::F32, DType::BF16] {
            let plain = weight([96, 11_000], dtype);
            let transposed = Flex::float_transpose(weight([11_000, 96], dtype));
            for weight in [plain, transposed] {
                let expected = product(&x, &weight);
                let mut out = vec![1.0; 2 * 11_000];
                multiply_weight(&mut out, &x, &weight, true);
                let close = |a: &f32, b: &f32| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
                assert!(out.iter().zip(&expected).all(|(out, expected)| close(out, &(expected + 1.0))), "{dtype:?}");
                let mut back = vec![5.0; 192];
                multiply_weight_transposed(&mut back, &expected, &weight, false);
                let wide = Flex::float_cast(weight.clone(), DType::F32.into());
                let gradient = flex::tensor(expected, [2, 11_000]);
                let expected = flex::into_vec(Flex::float_matmul(gradient, Flex::float_transpose(wide)));
                let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                assert!(back.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{dtype:?}");
            }
        }
    }
}
