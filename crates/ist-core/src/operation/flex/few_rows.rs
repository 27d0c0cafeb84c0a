//! The product of a few rows with a matrix whose columns lie in one piece.
//!
//! A token that is generated goes through every weight once, so reading the weights is the work. The product for many rows
//! first packs the matrix into the order its kernel wants, which for one to sixteen rows costs more than all else; here every
//! column is read once, where it lies, for all rows.

#![expect(
    clippy::inline_always,
    reason = "a loop is compiled for the instruction set it is run with only if it is inlined"
)]

use pulp::{Arch, Simd, WithSimd};

/// Rows up to which this is faster than [`multiply`](super::multiply).
pub const FEW_ROWS: usize = 16;

/// Rows that share one reading of a column from the nearest cache.
const GROUP: usize = 4;

/// out (c, r) = `rows_r` · `columns_c`: `rows` `[n, length]`, `columns` `[count, length]`, `out` `[count, n]`.
///
/// # Panics
/// If the slices have other sizes.
pub fn dot_products(out: &mut [f32], rows: &[f32], columns: &[f32], length: usize) {
    let (n, count) = (rows.len() / length, columns.len() / length);
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
        for (out, column) in out.chunks_exact_mut(rows.len() / length).zip(columns.chunks_exact(length)) {
            for (out, rows) in out.chunks_mut(GROUP).zip(rows.chunks(GROUP * length)) {
                match out.len() {
                    1 => dots::<S, 1>(simd, out, rows, column),
                    2 => dots::<S, 2>(simd, out, rows, column),
                    3 => dots::<S, 3>(simd, out, rows, column),
                    _ => dots::<S, GROUP>(simd, out, rows, column),
                }
            }
        }
    }
}

/// The products of `R` rows with one column, each in two partial sums of a register's width.
#[inline(always)]
fn dots<S: Simd, const R: usize>(simd: S, out: &mut [f32], rows: &[f32], column: &[f32]) {
    let rows: [_; R] = std::array::from_fn(|row| S::as_simd_f32s(&rows[row * column.len()..][..column.len()]));
    let (column, rest) = S::as_simd_f32s(column);
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    let (pairs, last) = column.as_chunks::<2>();
    for (at, pair) in pairs.iter().enumerate() {
        for (sums, (row, _)) in sums.iter_mut().zip(&rows) {
            sums[0] = simd.mul_add_e_f32s(row[2 * at], pair[0], sums[0]);
            sums[1] = simd.mul_add_e_f32s(row[2 * at + 1], pair[1], sums[1]);
        }
    }
    for ((out, sums), (row, row_rest)) in out.iter_mut().zip(&mut sums).zip(&rows) {
        if let [last] = last {
            sums[0] = simd.mul_add_e_f32s(row[row.len() - 1], *last, sums[0]);
        }
        let rest: f32 = row_rest.iter().zip(rest).map(|(a, b)| a * b).sum();
        *out = simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1])) + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_column_up_to_its_last_element() {
        for (n, length) in [(1, 1), (2, 7), (3, 16), (4, 48), (5, 100), (FEW_ROWS, 75)] {
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
