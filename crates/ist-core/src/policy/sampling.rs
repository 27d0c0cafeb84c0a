//! Weighted sampling of layers without replacement, in log space.
//!
//! The law is that of drawing one layer with probability proportional to its weight, removing it,
//! renormalising and drawing again (`torch.multinomial(weights, k, replacement=False)`). The
//! Gumbel-top-k trick has the same law and needs only logarithms of weights. So scores far from 0
//! never leave too few non-zero weights.

use rand::{Rng, RngExt};

use crate::LayerSet;

/// log σ(x) = -log(1 + e^(-x)), without overflow for any finite x.
pub fn log_sigmoid(x: f64) -> f64 {
    // With x < 0 as x - log(1 + e^x), so that the exponent is never positive.
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// σ(x) = 1 / (1 + e^(-x)), without overflow for any finite x.
pub fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
}

/// Draws `count` distinct layers without replacement with weights exp(`log_weights`)
/// (Gumbel-top-k).
///
/// A weight of 0 has the logarithm -∞ and is drawn last. `count` is capped to the number of layers.
/// Ties, which have probability 0, go to the lower index.
pub fn without_replacement(log_weights: &[f64], count: usize, rng: &mut dyn Rng) -> LayerSet {
    let mut keyed: Vec<(f64, usize)> = log_weights
        .iter()
        .enumerate()
        .map(|(layer, weight)| (weight + gumbel(rng), layer))
        .collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let chosen = keyed.into_iter().take(count).map(|(_, layer)| layer);
    LayerSet::new(chosen, log_weights.len()).expect("every drawn index enumerates the weights")
}

/// Draws `count` of `layers`, every subset of that size equally likely.
pub fn uniform(layers: &LayerSet, count: usize, rng: &mut dyn Rng) -> LayerSet {
    let weight = |layer| if layers.contains(layer) { 0.0 } else { f64::NEG_INFINITY };
    let log_weights: Vec<f64> = (0..layers.num_layers()).map(weight).collect();
    without_replacement(&log_weights, count, rng)
}

/// A standard Gumbel variate, -log(-log u) with u uniform on the open interval (0, 1).
fn gumbel(rng: &mut dyn Rng) -> f64 {
    // `random` is a multiple of 2⁻⁵³ in [0, 1). Half a step more keeps it off 0 and below 1.
    let half_step = 0.5_f64.powi(54);
    let uniform: f64 = rng.random::<f64>() + half_step;
    -(-uniform.ln()).ln()
}

/// The largest number of `count`-element subsets of `num_layers` layers, capped at `cap`.
pub fn subsets_up_to(num_layers: usize, count: usize, cap: usize) -> usize {
    let count = count.min(num_layers);
    let mut total: u128 = 1;
    for i in 0..count.min(num_layers - count) {
        // Divides evenly: after i + 1 factors the product is a binomial coefficient again.
        total = total * (num_layers - i) as u128 / (i as u128 + 1);
        if total >= cap as u128 {
            return cap;
        }
    }
    (total as usize).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    /// The exact law by enumeration: P(set) = Σ over orders of Π w_i / (remaining weight).
    fn exact(weights: &[f64], count: usize) -> BTreeMap<Vec<usize>, f64> {
        fn go(
            weights: &[f64],
            left: usize,
            drawn: &mut Vec<usize>,
            p: f64,
            out: &mut BTreeMap<Vec<usize>, f64>,
        ) {
            if left == 0 {
                let mut key = drawn.clone();
                key.sort_unstable();
                *out.entry(key).or_default() += p;
                return;
            }
            let rest: f64 =
                (0..weights.len()).filter(|i| !drawn.contains(i)).map(|i| weights[i]).sum();
            for i in 0..weights.len() {
                if !drawn.contains(&i) {
                    drawn.push(i);
                    go(weights, left - 1, drawn, p * weights[i] / rest, out);
                    drawn.pop();
                }
            }
        }
        let mut out = BTreeMap::new();
        go(weights, count, &mut Vec::new(), 1.0, &mut out);
        out
    }

    #[test]
    fn frequencies_follow_the_exact_law() {
        let weights = [0.9, 0.5, 0.05, 0.3, 0.7];
        let logs: Vec<f64> = weights.iter().map(|w: &f64| w.ln()).collect();
        let draws = 60_000;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for count in [1, 2, 3] {
            let mut seen: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
            for _ in 0..draws {
                let drawn = without_replacement(&logs, count, &mut rng).as_slice().to_vec();
                *seen.entry(drawn).or_default() += 1.0;
            }
            let chi_square: f64 = exact(&weights, count)
                .iter()
                .map(|(set, p)| {
                    let expected = p * f64::from(draws);
                    (seen.get(set).copied().unwrap_or(0.0) - expected).powi(2) / expected
                })
                .sum();
            // At most 9 degrees of freedom: 33.7 is the 99.99 % quantile.
            assert!(chi_square < 33.7, "chi-square {chi_square} for {count} of 5");
        }
    }

    #[test]
    fn extreme_scores_still_fill_the_set() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let logs: Vec<f64> =
            [2000.0, -2000.0, -2000.0, 1900.0].iter().map(|&s| log_sigmoid(s)).collect();
        assert_eq!(without_replacement(&logs, 3, &mut rng).len(), 3);
        assert_eq!(without_replacement(&logs, 2, &mut rng).as_slice(), [0, 3]);
    }

    proptest! {
        #[test]
        fn log_sigmoid_agrees_with_its_definition(x in -30.0f64..30.0) {
            prop_assert!((log_sigmoid(x) - (1.0 / (1.0 + (-x).exp())).ln()).abs() < 1e-12);
            prop_assert!((sigmoid(x) + sigmoid(-x) - 1.0).abs() < 1e-12);
        }

        #[test]
        fn draws_have_the_asked_size(layers in 1usize..20, count in 0usize..25, seed: u64) {
            let set = uniform(&LayerSet::all(layers), count, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(set.len(), count.min(layers));
        }

        #[test]
        fn subset_counts_are_binomials(layers in 1usize..12, count in 1usize..12) {
            let count = count.min(layers);
            let of_size = |bits: &u32| bits.count_ones() as usize == count;
            let all = (0u32..1 << layers).filter(of_size).count();
            prop_assert_eq!(subsets_up_to(layers, count, 10_000), all);
            prop_assert_eq!(subsets_up_to(layers, count, 3), all.min(3));
        }
    }
}
