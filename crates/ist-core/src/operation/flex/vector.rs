//! Vector instructions without naming any: loops compiled once per instruction set, picked at run
//! time.
//!
//! A [`Loop`] is a plain loop over slices in a function that is always inlined, so that it is
//! compiled with the instructions it is run with. A closure would not do: it is compiled once, with
//! the least that every processor has.

#![expect(
    clippy::inline_always,
    reason = "a loop is compiled for the instruction set it is run with only if it is inlined"
)]

use pulp::{Arch, Simd, WithSimd};

/// Partial sums that run beside each other.
const LANES: usize = 32;

/// A loop that [`vectorized`] compiles for every instruction set.
pub trait Loop {
    /// What the loop computes.
    type Output;

    /// The loop. Has to be marked `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

struct Compiled<L>(L);

impl<L: Loop> WithSimd for Compiled<L> {
    type Output = L::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> L::Output {
        self.0.run()
    }
}

/// Runs the loop with the widest instructions the processor has (AVX-512, AVX2, NEON, or none).
pub fn vectorized<L: Loop>(work: L) -> L::Output {
    Arch::new().dispatch(Compiled(work))
}

/// eˣ within 2 units in the last place for x ≤ 88; 0 below -87.3. For use inside a [`Loop`].
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; eʳ by its Taylor polynomial, 2ⁿ put into the exponent. No
/// branch and no table, so a loop over it becomes vector instructions, and a masked score costs
/// what any other does.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // 1.5 · 2²³. Adding it rounds to an integer, which then stands in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    // ln 2 in two parts. The first has few bits, so n times it is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // Within this range 2ⁿ is a normal number.
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = clamped - n * HIGH - n * LOW;
    // Horner's scheme.
    let polynomial = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    // n + 127 as the exponent field of an f32.
    let exponent = (shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127)) << 23;
    let value = polynomial * f32::from_bits(exponent);
    if x < -87.3 { 0.0 } else { value }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Loop for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // One sum would make every addition wait for the one before it.
        let a = self.0.chunks_exact(LANES);
        let b = self.1.chunks_exact(LANES);
        let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
        for (a, b) in a.zip(b) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        rest + lanes.iter().sum::<f32>()
    }
}

/// Σ aᵢ bᵢ, summed in 32 lanes.
///
/// # Panics
/// If the slices differ in length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "a dot product is of equally many numbers");
    vectorized(Dot(a, b))
}

struct Sum<'a>(&'a [f32]);

impl Loop for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let chunks = self.0.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().sum();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += chunk[lane];
            }
        }
        rest + lanes.iter().sum::<f32>()
    }
}

/// Σ xᵢ, summed in 32 lanes.
pub fn sum(values: &[f32]) -> f32 {
    vectorized(Sum(values))
}

struct Max<'a>(&'a [f32]);

impl Loop for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = self.0.chunks_exact(LANES);
        let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for chunk in chunks {
            for lane in 0..LANES {
                // A comparison is one vector instruction, `f32::max` with its rule for NaN is not.
                lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
            }
        }
        lanes.into_iter().fold(rest, f32::max)
    }
}

/// The largest element; -∞ of none.
pub fn max(values: &[f32]) -> f32 {
    vectorized(Max(values))
}

struct ExpAndSum<'a>(&'a mut [f32], f32);

impl Loop for ExpAndSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let mut chunks = self.0.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                chunk[lane] = exp(chunk[lane] - self.1);
                lanes[lane] += chunk[lane];
            }
        }
        let mut rest = 0.0;
        for value in chunks.into_remainder() {
            *value = exp(*value - self.1);
            rest += *value;
        }
        rest + lanes.iter().sum::<f32>()
    }
}

/// Replaces every x by e^(x - shift) and returns their sum.
pub fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
    vectorized(ExpAndSum(values, shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        for step in -8700..8800 {
            let x = step as f32 * 0.01 + 0.001_3;
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * exact;
            assert!((f64::from(exp(x)) - exact).abs() <= 2.0 * ulp, "{x}: {} {exact}", exp(x));
        }
        assert_eq!(
            (exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY), exp(-6e4)),
            (1.0, 0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn reductions_cover_the_last_elements() {
        let values: Vec<f32> = (0..75).map(|at| at as f32).collect();
        assert_eq!(dot(&values, &values), 75.0 * 74.0 * 149.0 / 6.0);
        assert_eq!(max(&values), 74.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        let mut powers = values.clone();
        let sum = exp_and_sum(&mut powers, 74.0);
        assert!((sum - powers.iter().sum::<f32>()).abs() < 1e-5 && powers[74] == 1.0);
    }
}
