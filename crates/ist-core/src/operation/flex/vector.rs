//! Vector instructions without naming any: loops compiled once per instruction set, picked at run time.

use pulp::Arch;

/// Partial sums that run beside each other.
const LANES: usize = 32;

/// Runs `work` compiled for the widest instructions the processor has (AVX-512, AVX2, NEON, or none).
///
/// `work` should be small enough to be inlined and be made of plain loops over slices.
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// eˣ within 2 units in the last place for x ≤ 88; 0 below -87.3.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; eʳ by its Taylor polynomial, 2ⁿ put into the exponent. No branch and no table, so a
/// loop over it becomes vector instructions, and a masked score costs what any other does.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    const HIGH: f32 = 0.693_359_4; // ln 2 in two parts, the first with few bits
    const LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = clamped - n * HIGH - n * LOW;
    let polynomial = 1.0
        + r * (1.0
            + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    let exponent = (shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127)) << 23;
    let value = polynomial * f32::from_bits(exponent);
    if x < -87.3 { 0.0 } else { value }
}

/// Σ aᵢ bᵢ over the shorter of the two, summed in 32 lanes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled with its caller's instruction set")]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    rest + lanes.iter().sum::<f32>()
}

/// Σ xᵢ, summed in 32 lanes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled with its caller's instruction set")]
pub fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    rest + lanes.iter().sum::<f32>()
}

/// The largest element; -∞ of none.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled with its caller's instruction set")]
pub fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.into_iter().fold(rest, f32::max)
}

/// Replaces every x by e^(x - shift) and returns their sum.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it has to be compiled with its caller's instruction set")]
pub fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            lanes[lane] += chunk[lane];
        }
    }
    let mut rest = 0.0;
    for value in chunks.into_remainder() {
        *value = exp(*value - shift);
        rest += *value;
    }
    rest + lanes.iter().sum::<f32>()
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
        assert_eq!((exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY), exp(-6e4)), (1.0, 0.0, 0.0, 0.0));
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
