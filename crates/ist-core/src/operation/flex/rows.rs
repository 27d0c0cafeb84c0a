//! Rows of a slice in parallel.

use rayon::prelude::*;

/// Elements of one task, and below which a second thread costs more than it saves.
const GRAIN: usize = 32 * 1024;

/// Calls `work` with the number and the elements of every row of `out`, which has rows of `width`
/// elements.
pub fn for_each_row(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    for_each_part(out, width, |from, row| work(from / width, row));
}

/// Calls `work` with the first index and the elements of every run of `width` elements; the last
/// may be shorter.
pub fn for_each_part(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let size = task_size(width);
    let run = |(task, chunk): (usize, &mut [f32])| {
        for (part, elements) in chunk.chunks_mut(width).enumerate() {
            work(task * size + part * width, elements);
        }
    };
    if out.len() <= size || alone() {
        out.chunks_mut(size).enumerate().for_each(run);
    } else {
        out.par_chunks_mut(size).enumerate().for_each(run);
    }
}

/// Calls `work` with the number of every run of `widths[0]` elements of `first`, the run itself and
/// the run of `widths[1]` elements of `second` under the same number; the last ones may be shorter.
pub fn for_each_part_pair(
    first: &mut [f32],
    second: &mut [f32],
    widths: [usize; 2],
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let parts = task_size(widths[0]) / widths[0].max(1);
    // The same number of runs in a task of either slice, so that their numbers agree.
    let chunks =
        first.par_chunks_mut(parts * widths[0]).zip(second.par_chunks_mut(parts * widths[1]));
    chunks.enumerate().for_each(|(task, (first, second))| {
        let pairs = first.chunks_mut(widths[0]).zip(second.chunks_mut(widths[1]));
        for (part, (first, second)) in pairs.enumerate() {
            work(task * parts + part, first, second);
        }
    });
}

/// A multiple of `width` near [`GRAIN`].
fn task_size(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1) * width.max(1)
}

/// The results of `work` for 0, 1, .. `count` - 1, computed in parallel, in order.
pub fn tasks<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    if count <= 1 || alone() {
        return (0..count).map(work).collect();
    }
    (0..count).into_par_iter().map(work).collect()
}

/// Makes the calling thread one of the `threads` that operations are spread over, in place of one
/// that works for it: an operation then starts where it is asked for instead of waking another
/// thread and waiting for it, which a short one takes longer for than for its work.
///
/// For a program's main thread, before its first operation; later calls, and calls of other
/// threads, change nothing. Operations of another thread need a thread of the pool that is free: a
/// program that waits in this one for such a thread needs two.
///
/// # Errors
///
/// What the system says when it cannot start so many. Operations cannot be computed then.
pub fn join_pool(threads: usize) -> std::io::Result<()> {
    use std::error::Error;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    match pool.build_global() {
        // A pool that exists stays as it is; only a system's refusal has a cause.
        Err(error) if error.source().is_some() => Err(std::io::Error::other(error.to_string())),
        _ => Ok(()),
    }
}

/// Whether the pool has one thread: to hand it the work and wait for it costs more than to do it
/// here.
fn alone() -> bool {
    rayon::current_num_threads() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_under_its_number() {
        for (rows, width) in [(3, 5), (700, 100), (2, 40_000)] {
            let mut first = vec![0.0; rows * width];
            let mut second = first.clone();
            for_each_row(&mut first, width, |row, elements| {
                for x in elements {
                    *x += row as f32;
                }
            });
            let expected: Vec<f32> = (0..rows * width).map(|at| (at / width) as f32).collect();
            assert_eq!(first, expected);
            for_each_part_pair(&mut first, &mut second, [width; 2], |row, a, b| {
                b.copy_from_slice(a);
                assert_eq!(row as f32, a[0]);
            });
            assert_eq!(second, expected);
        }
    }
}
