//! The product with a frozen weight on the `flex` backend: into a result that exists, the weight in
//! its storage type.
//!
//! A weight in f32 is read where it lies, transposed or not. A narrower one is widened a panel of
//! columns at a time. Few rows, as generation has them, take a way of their own.

use ist_core::burn;

use std::ops::Range;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, bf16};
use ist_core::operation::flex::{self, FlexTensor, Loop, Matrix, MatrixMut, multiply};

use crate::frozen::matrix::{Stored, panel_width};

/// Whether these functions take x and read the weight; else [`Stored`]'s own do.
pub fn fits(x: &FlexTensor, weight: &Stored<Flex>) -> bool {
    let readable = match weight {
        Stored::Float(weight) => matches!(weight.dtype(), DType::F32 | DType::BF16),
        Stored::Int8(..) => true,
    };
    readable && flex::all_f32([x]) && x.shape().num_elements() > 0
}

/// x W for x of any rank.
pub(crate) fn product(x: FlexTensor, weight: &Stored<Flex>) -> FlexTensor {
    if !fits(&x, weight) {
        return weight.product(x);
    }
    let x = flex::contiguous(x);
    let [d_in, d_out] = weight.dims();
    let mut out = vec![0.0; x.shape().num_elements() / d_in * d_out];
    multiply_weight(&mut out, flex::slice(&x), weight, false);
    with_width(out, &x, d_out)
}

/// g Wᵀ for g of any rank.
pub(crate) fn transposed_product(gradient: FlexTensor, weight: &Stored<Flex>) -> FlexTensor {
    if !fits(&gradient, weight) {
        return weight.transposed_product(gradient);
    }
    let gradient = flex::contiguous(gradient);
    let [d_in, d_out] = weight.dims();
    let mut out = vec![0.0; gradient.shape().num_elements() / d_out * d_in];
    multiply_weight_transposed(&mut out, flex::slice(&gradient), weight, false);
    with_width(out, &gradient, d_in)
}

/// Elements in the shape of x but for the last dimension.
pub(crate) fn with_width(elements: Vec<f32>, x: &FlexTensor, width: usize) -> FlexTensor {
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last dimension") = width;
    flex::tensor(elements, shape)
}

/// aᵀ b, of the given shape.
pub(crate) fn outer(a: Matrix, b: Matrix, shape: [usize; 2]) -> FlexTensor {
    let mut out = vec![0.0; shape[0] * shape[1]];
    multiply(
        MatrixMut::new(&mut out, shape[0], shape[1], shape[1]),
        a.transposed(),
        b,
        1.0,
        false,
        true,
    );
    flex::tensor(out, shape)
}

/// out = x W, or out + x W when `accumulate`: x `[n, in]`, W `[in, out]`, out `[n, out]`.
pub fn multiply_weight(out: &mut [f32], x: &[f32], weight: &Stored<Flex>, accumulate: bool) {
    let [d_in, d_out] = weight.dims();
    let n = x.len() / d_in;
    if (1..=flex::FEW_ROWS).contains(&n) && columns_in_one_piece(weight) {
        return multiply_few_rows(out, x, weight, accumulate);
    }
    for_each_panel(weight, |from, panel, width| {
        let out = MatrixMut::new(&mut out[from..], n, width, d_out);
        multiply(out, Matrix::new(x, n, d_in, d_in), panel, 1.0, accumulate, true);
    });
}

/// out = g Wᵀ, or out + g Wᵀ when `accumulate`: g `[n, out]`, W `[in, out]`, out `[n, in]`.
pub fn multiply_weight_transposed(
    out: &mut [f32],
    gradient: &[f32],
    weight: &Stored<Flex>,
    accumulate: bool,
) {
    let [d_in, d_out] = weight.dims();
    let n = gradient.len() / d_out;
    for_each_panel(weight, |from, panel, width| {
        let gradient = Matrix::new(gradient, n, d_out, d_out).columns(from, width);
        let out = MatrixMut::new(out, n, d_in, d_in);
        // Panels are parts of the sum over columns, so all but the first add to what is there.
        multiply(out, gradient, panel.transposed(), 1.0, accumulate || from > 0, true);
    });
}

/// Whether the elements of a column lie beside each other and columns behind each other, as in
/// files.
fn columns_in_one_piece(weight: &Stored<Flex>) -> bool {
    match weight {
        Stored::Float(weight) => {
            let ([d_in, _], strides, _) = flex::strides(weight);
            strides == [1, d_in as isize]
        }
        Stored::Int8(..) => true,
    }
}

/// Elements of the weight that one task goes through: fewer are read before another thread has
/// woken up.
const FEW_ROWS_TASK: usize = 1 << 18;
/// Elements that are widened at a time, few enough for the nearest cache.
const FEW_ROWS_PANEL: usize = 1 << 12;

/// [`multiply_weight`] of few rows with a weight whose columns lie in one piece: parts of the
/// columns in parallel.
fn multiply_few_rows(out: &mut [f32], x: &[f32], weight: &Stored<Flex>, accumulate: bool) {
    let [d_in, d_out] = weight.dims();
    let n = x.len() / d_in;
    let count = (FEW_ROWS_TASK / d_in).clamp(1, d_out);
    let part = |task: usize| {
        let from = task * count;
        few_rows_part(x, weight, from..d_out.min(from + count))
    };
    // The columns of a part are scattered over the rows of `out`, so tasks return them.
    let parts = flex::tasks(d_out.div_ceil(count), part);
    for (column, products) in parts.iter().flat_map(|part| part.chunks_exact(n)).enumerate() {
        for (row, product) in products.iter().enumerate() {
            let out = &mut out[row * d_out + column];
            *out = if accumulate { *out + product } else { *product };
        }
    }
}

/// The products of every row with some columns, `[columns, n]`.
fn few_rows_part(x: &[f32], weight: &Stored<Flex>, columns: Range<usize>) -> Vec<f32> {
    let d_in = weight.dims()[0];
    let n = x.len() / d_in;
    let mut out = vec![0.0; columns.len() * n];
    if let Stored::Float(weight) = weight
        && weight.dtype() == DType::F32
    {
        let start = flex::strides(weight).2;
        let elements =
            &weight.storage::<f32>()[start + columns.start * d_in..start + columns.end * d_in];
        if n == 1 {
            // A single row needs no packing, and gemm's product for it is the fastest there is.
            let count = columns.len();
            let row = Matrix::new(x, 1, d_in, d_in);
            let columns = Matrix::strided(elements, [d_in, count], [1, d_in as isize]);
            multiply(MatrixMut::new(&mut out, 1, count, count), row, columns, 1.0, false, false);
        } else {
            flex::dot_products(&mut out, x, elements, d_in);
        }
        return out;
    }
    let size = (FEW_ROWS_PANEL / d_in).max(1);
    let mut panel = vec![0.0; d_in * size.min(columns.len())];
    for (out, from) in out.chunks_mut(size * n).zip(columns.step_by(size)) {
        let panel = &mut panel[..d_in * (out.len() / n)];
        widen(panel, weight, from);
        flex::dot_products(out, x, panel, d_in);
    }
    out
}

/// Calls `work` with the first column, the f32 elements and the width of every panel of the
/// weight's columns.
fn for_each_panel(weight: &Stored<Flex>, mut work: impl FnMut(usize, Matrix, usize)) {
    let [d_in, d_out] = weight.dims();
    if let Stored::Float(weight) = weight
        && weight.dtype() == DType::F32
    {
        let (shape, strides, start) = flex::strides(weight);
        return work(0, Matrix::strided(&weight.storage::<f32>()[start..], shape, strides), d_out);
    }
    let size = panel_width(d_in, d_out);
    let mut panel = vec![0.0; d_in * size];
    for from in (0..d_out).step_by(size) {
        let width = size.min(d_out - from);
        let panel = &mut panel[..d_in * width];
        widen(panel, weight, from);
        work(from, Matrix::strided(panel, [d_in, width], [1, d_in as isize]), width);
    }
}

/// Fills `panel` with the columns of the weight from `from` on; a column of the weight is a row of
/// the panel, as in files.
///
/// The weight is one that [`fits`].
pub(crate) fn widen(panel: &mut [f32], weight: &Stored<Flex>, from: usize) {
    match weight {
        Stored::Float(weight) if weight.dtype() == DType::F32 => copy_f32(panel, weight, from),
        Stored::Float(weight) => widen_bf16(panel, weight, from),
        Stored::Int8(values, scales) => widen_int8(panel, values, scales, from),
    }
}

/// The columns of a f32 weight from `from` on.
fn copy_f32(panel: &mut [f32], weight: &FlexTensor, from: usize) {
    let ([d_in, _], [row_stride, column_stride], start) = flex::strides(weight);
    let source = &weight.storage::<f32>()[start..];
    flex::for_each_row(panel, d_in, |column, panel| {
        let source = &source[(from + column) * column_stride as usize..];
        if row_stride == 1 {
            panel.copy_from_slice(&source[..d_in]);
        } else {
            for (out, value) in panel.iter_mut().zip(source.iter().step_by(row_stride as usize)) {
                *out = *value;
            }
        }
    });
}

/// The columns of a bf16 weight from `from` on. bf16 is the upper half of f32.
fn widen_bf16(panel: &mut [f32], weight: &FlexTensor, from: usize) {
    let ([d_in, _], [row_stride, column_stride], start) = flex::strides(weight);
    let source = &weight.storage::<bf16>()[start..];
    flex::for_each_row(panel, d_in, |column, panel| {
        let source = &source[(from + column) * column_stride as usize..];
        if row_stride == 1 {
            flex::vectorized(WidenBf16(panel, source));
        } else {
            for (out, value) in panel.iter_mut().zip(source.iter().step_by(row_stride as usize)) {
                *out = value.to_f32();
            }
        }
    });
}

struct WidenBf16<'a>(&'a mut [f32], &'a [bf16]);

impl Loop for WidenBf16<'_> {
    type Output = ();

    #[expect(
        clippy::inline_always,
        reason = "compiled for the instruction set it is run with only if it is inlined"
    )]
    #[inline(always)]
    fn run(self) {
        for (out, value) in self.0.iter_mut().zip(self.1) {
            *out = f32::from_bits(u32::from(value.to_bits()) << 16);
        }
    }
}

/// The columns of a weight in eight bits from `from` on.
fn widen_int8(panel: &mut [f32], values: &FlexTensor, scales: &FlexTensor, from: usize) {
    let [_, width] = values.shape().dims::<2>();
    let [_, blocks] = scales.shape().dims::<2>();
    let values = values.as_slice::<i8>().expect("a packed weight is contiguous");
    let scales = flex::slice(scales);
    let size = width / blocks;
    flex::for_each_row(panel, width, |row, panel| {
        let values = values[(from + row) * width..][..width].chunks_exact(size);
        let scales = &scales[(from + row) * blocks..][..blocks];
        for ((panel, values), scale) in panel.chunks_exact_mut(size).zip(values).zip(scales) {
            for (out, value) in panel.iter_mut().zip(values) {
                *out = f32::from(*value) * scale;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::flex::FlexDevice;
    use burn::backend::ops::{FloatTensorOps, IntTensorOps};
    use burn::tensor::TensorData;

    /// Numbers that bf16 and eight bits with a scale hold exactly.
    fn weight(shape: [usize; 2], dtype: DType) -> FlexTensor {
        let values: Vec<f32> =
            (0..shape[0] * shape[1]).map(|at| ((at * 37) % 64) as f32 / 32.0 - 1.0).collect();
        Flex::float_cast(flex::tensor(values, shape), dtype.into())
    }

    fn wide(weight: &FlexTensor) -> FlexTensor {
        Flex::float_cast(weight.clone(), DType::F32.into())
    }

    fn int8(weight: &FlexTensor) -> Stored<Flex> {
        let [d_in, d_out] = weight.shape().dims::<2>();
        let numbers = flex::into_vec(Flex::float_transpose(weight.clone()));
        let size = crate::frozen::int8::block(d_in);
        let mut values = Vec::new();
        let mut scales = Vec::new();
        for block in numbers.chunks(size) {
            values.extend(block.iter().map(|number| (number * 32.0) as i8));
            scales.push(1.0f32 / 32.0);
        }
        let values = Flex::int_from_data(TensorData::new(values, [d_out, d_in]), &FlexDevice);
        Stored::Int8(values, flex::tensor(scales, [d_out, d_in / size]))
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        let largest = b.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
    }

    #[test]
    fn every_layout_and_type_gives_the_product_and_its_transpose() {
        let [f32s, bf16s] = [DType::F32, DType::BF16].map(|dtype| weight([96, 11_000], dtype));
        let transposed = |dtype| Flex::float_transpose(weight([11_000, 96], dtype));
        let weights = [f32s.clone(), bf16s, transposed(DType::F32), transposed(DType::BF16)];
        let cases = weights.map(|weight| (wide(&weight), Stored::Float(weight))).into_iter();
        for (wide, weight) in cases.chain([(f32s.clone(), int8(&f32s))]) {
            // Few rows take a way of their own, and a single one again.
            for rows in [1, 2, flex::FEW_ROWS, 20] {
                agrees(rows, &wide, &weight);
            }
        }
    }

    fn agrees(rows: usize, wide: &FlexTensor, weight: &Stored<Flex>) {
        let x: Vec<f32> = (0..rows * 96).map(|at| (at % 7) as f32 - 3.0).collect();
        let expected =
            flex::into_vec(Flex::float_matmul(flex::tensor(x.clone(), [rows, 96]), wide.clone()));
        let mut out = vec![1.0; rows * 11_000];
        multiply_weight(&mut out, &x, weight, true);
        let added: Vec<f32> = expected.iter().map(|value| value + 1.0).collect();
        assert!(largest_difference(&out, &added) < 1e-6);
        // gemm adds up the terms of a single row one after the other: of 11 000 of one sign, four
        // digits remain.
        if rows > 1 {
            let mut back = vec![5.0; rows * 96];
            multiply_weight_transposed(&mut back, &expected, weight, false);
            let numbers = flex::into_vec(wide.clone());
            // In f64: a sum of 11 000 terms in f32 is itself no reference.
            let exact = |(gradient, weight): (&[f32], &[f32])| -> f32 {
                gradient.iter().zip(weight).map(|(g, w)| f64::from(*g) * f64::from(*w)).sum::<f64>()
                    as f32
            };
            let pairs = expected
                .chunks(11_000)
                .flat_map(|row| numbers.chunks(11_000).map(move |weight| (row, weight)));
            let expected: Vec<f32> = pairs.map(exact).collect();
            let difference = largest_difference(&back, &expected);
            assert!(difference < 1e-5, "{difference} with {rows} rows");
        }
    }
}
