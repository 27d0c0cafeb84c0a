//! The product of a few rows with a matrix whose columns lie in one piece.
//!
//! A token that is generated goes through every weight once, so reading the weights is the work.
//! The product for many rows first packs the matrix into the order its kernel wants. For one to
//! sixteen rows that costs more than all else. Here every column is read once, where it lies, for
//! all rows.

#![expect(
    clippy::inline_always,
    reason = "a loop is compiled for the instruction set it is run with only if it is inlined"
)]

use pulp::{Arch, Simd, WithSimd};

/// Rows up to which this is faster than [`multiply`](super::multiply).
pub const FEW_ROWS: usize = 16;

/// Rows that share one reading of a column from the nearest cache.
const GROUP: usize = 4;

/// Columns that share one reading of the rows where these fill more than half of the nearest cache.
const COLUMNS: usize = 4;
const HALF_A_CACHE: usize = 16 * 1024 / size_of::<f32>();

/// out (c, r) = `rows_r` · `columns_c`: `rows` `[n, length]`, `columns` `[count, length]`, `out`
/// `[count, n]`.
///
/// # Panics
/// If the slices have other sizes.
pub fn dot_products(out: &mut [f32], rows: &[f32], columns: &[f32], length: usize) {
    let n = rows.len() / length;
    let count = columns.len() / length;
    assert_eq!(
        (out.len(), rows.len(), columns.len()),
        (count * n, n * length, count * length),
        "sizes of dot products"
    );
    Arch::new().dispatch(DotProducts { out, rows, columns, length });
}

struct DotProducts<'a> {
    out: &'a mut [f32],
    rows: &'a [f32],
    columns: &'a [f32],
    length: usize,
}

impl WithSimd for DotProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, rows, columns, length } = self;
        // Rows that fit the nearest cache stay there, and need not be shared between columns.
        let count =
            if rows.len() > HALF_A_CACHE { columns.len() / length / COLUMNS * COLUMNS } else { 0 };
        let (out, out_rest) = out.split_at_mut(count * (rows.len() / length));
        let (columns, columns_rest) = columns.split_at(count * length);
        meet::<S, COLUMNS>(simd, out, rows, columns, length);
        meet::<S, 1>(simd, out_rest, rows, columns_rest, length);
    }
}

/// Every row with every column, `C` columns at a time.
#[inline(always)]
fn meet<S: Simd, const C: usize>(
    simd: S,
    out: &mut [f32],
    rows: &[f32],
    columns: &[f32],
    length: usize,
) {
    let n = rows.len() / length;
    for (out, columns) in out.chunks_exact_mut(C * n).zip(columns.chunks_exact(C * length)) {
        for first in (0..n).step_by(GROUP) {
            let group = &rows[first * length..];
            let put = |row: usize, column: usize, dot: f32| out[column * n + first + row] = dot;
            // The number of rows is a constant of each form, so that its sums stay in registers.
            match n - first {
                1 => dots::<S, 1, C>(simd, group, columns, length, put),
                2 => dots::<S, 2, C>(simd, group, columns, length, put),
                3 => dots::<S, 3, C>(simd, group, columns, length, put),
                _ => dots::<S, GROUP, C>(simd, group, columns, length, put),
            }
        }
    }
}

/// The products of the first `R` rows with the first `C` columns.
#[inline(always)]
fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    rows: &[f32],
    columns: &[f32],
    length: usize,
    mut put: impl FnMut(usize, usize, f32),
) {
    let rows: [_; R] = std::array::from_fn(|row| S::as_simd_f32s(&rows[row * length..][..length]));
    let columns: [_; C] =
        std::array::from_fn(|column| S::as_simd_f32s(&columns[column * length..][..length]));
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for at in 0..rows[0].0.len() {
        for (sums, (row, _)) in sums.iter_mut().zip(&rows) {
            for (sum, (column, _)) in sums.iter_mut().zip(&columns) {
                *sum = simd.mul_add_e_f32s(row[at], column[at], *sum);
            }
        }
    }
    for (r, (sums, (_, row))) in sums.iter().zip(&rows).enumerate() {
        for (c, (sum, (_, column))) in sums.iter().zip(&columns).enumerate() {
            // What is left beyond the last whole vector.
            let rest: f32 = row.iter().zip(*column).map(|(a, b)| a * b).sum();
            put(r, c, simd.reduce_sum_f32s(*sum) + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_column_up_to_its_last_element() {
        for (n, length) in [(1, 1), (2, 7), (3, 16), (4, 48), (5, 100), (FEW_ROWS, 75), (7, 1003)] {
            let number = |at: usize| ((at * 37) % 16) as f32 - 7.0;
            let rows: Vec<f32> = (0..n * length).map(number).collect();
            let columns: Vec<f32> = (0..6 * length).map(|at| number(at + 5)).collect();
            let mut out = vec![f32::NAN; 6 * n];
            dot_products(&mut out, &rows, &columns, length);
            let dot = |column: usize, row: usize| -> f32 {
                (0..length).map(|at| rows[row * length + at] * columns[column * length + at]).sum()
            };
            let expected: Vec<f32> = (0..6 * n).map(|at| dot(at / n, at % n)).collect();
            assert_eq!(out, expected, "{n} rows of {length}");
        }
    }
}
