//! The matrix product on parts of slices.
//!
//! burn's own product allocates its result and wants whole tensors. The operations add into results
//! that exist, and work on blocks of rows and on single heads.

#![expect(
    unsafe_code,
    reason = "gemm takes pointers; every access is checked against the slices first"
)]

use gemm::Parallelism;

/// Multiplications above which the product is shared between threads.
const PARALLEL: usize = 192 * 192 * 192;

/// A matrix within a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
}

impl<'a> Matrix<'a> {
    /// `rows` × `columns` elements; element (i, j) is `data[i · row_stride + j]`.
    ///
    /// # Panics
    /// If that reaches beyond the slice.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self::strided(data, [rows, columns], [row_stride as isize, 1])
    }

    /// Element (i, j) is `data[i · strides[0] + j · strides[1]]`; no stride is negative.
    ///
    /// # Panics
    /// If that reaches beyond the slice, or a stride is negative.
    pub fn strided(data: &'a [f32], shape: [usize; 2], strides: [isize; 2]) -> Self {
        check(data.len(), shape, strides);
        let [rows, columns] = shape;
        let [row_stride, column_stride] = strides;
        Self { data, rows, columns, row_stride, column_stride }
    }

    /// The transpose; nothing is copied.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Columns `from` .. `from + count`; nothing is copied.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn columns(self, from: usize, count: usize) -> Self {
        assert!(
            from + count <= self.columns,
            "columns {from}..{} of {}",
            from + count,
            self.columns
        );
        let data =
            if count == 0 { self.data } else { &self.data[from * self.column_stride as usize..] };
        Self { data, columns: count, ..self }
    }
}

/// A matrix within a slice that is written to; its columns lie beside each other.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: isize,
}

impl<'a> MatrixMut<'a> {
    /// `rows` × `columns` elements; element (i, j) is `data[i · row_stride + j]`.
    ///
    /// # Panics
    /// If that reaches beyond the slice or rows overlap.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows <= 1 || row_stride >= columns,
            "rows of {columns} elements overlap at a stride of {row_stride}"
        );
        check(data.len(), [rows, columns], [row_stride as isize, 1]);
        Self { data, rows, columns, row_stride: row_stride as isize }
    }
}

/// What the call of gemm relies on: every element lies within the slice.
fn check(length: usize, shape: [usize; 2], strides: [isize; 2]) {
    let [rows, columns] = shape;
    assert!(strides.iter().all(|&stride| stride >= 0), "a matrix is read forwards");
    // With no negative stride the last element is the furthest.
    if rows > 0 && columns > 0 {
        let last = (rows - 1) * strides[0] as usize + (columns - 1) * strides[1] as usize;
        assert!(
            last < length,
            "a matrix of {rows} × {columns} with strides {strides:?} in {length} elements"
        );
    }
}

/// out = alpha · a b, or out + alpha · a b when `accumulate`.
///
/// `threads` allows more than one thread when the product is large enough. Work that already runs
/// in parallel says no.
///
/// # Panics
/// If the shapes do not fit.
#[expect(clippy::needless_pass_by_value, reason = "the result is borrowed for this call alone")]
pub fn multiply(out: MatrixMut, a: Matrix, b: Matrix, alpha: f32, accumulate: bool, threads: bool) {
    assert_eq!(
        (out.rows, out.columns, a.columns),
        (a.rows, b.columns, b.rows),
        "shapes of a matrix product"
    );
    let large = out.rows * out.columns * a.columns >= PARALLEL;
    // SAFETY: constructors checked that every element of the three matrices lies within its slice,
    // `out` is borrowed mutably and its rows do not overlap.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            out.row_stride,
            accumulate,
            a.data.as_ptr(),
            a.column_stride,
            a.row_stride,
            b.data.as_ptr(),
            b.column_stride,
            b.row_stride,
            1.0f32,
            alpha,
            false,
            false,
            false,
            if threads && large { Parallelism::Rayon(0) } else { Parallelism::None },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_parts_are_added_where_they_belong() {
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0]; // [[1, 2], [3, 4]] in rows of three
        let b = [5.0, 6.0, 7.0, 8.0]; // [[5, 6], [7, 8]]
        let mut out = [1.0f32; 6];
        let a = Matrix::new(&a, 2, 2, 3);
        let b = Matrix::new(&b, 2, 2, 2);
        multiply(MatrixMut::new(&mut out, 2, 2, 3), a, b.transposed(), 2.0, true, false);
        assert_eq!(out, [1.0 + 34.0, 1.0 + 46.0, 1.0, 1.0 + 78.0, 1.0 + 106.0, 1.0]);
        multiply(MatrixMut::new(&mut out, 2, 1, 3), a, b.columns(1, 1), 1.0, false, false);
        assert_eq!([out[0], out[3]], [22.0, 50.0]);
    }

    #[test]
    #[should_panic(expected = "a matrix of 2 × 2")]
    fn a_matrix_beyond_its_slice_is_refused() {
        let _ = Matrix::new(&[0.0; 4], 2, 2, 3);
    }
}
