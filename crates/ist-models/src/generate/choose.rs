//! The next token of a row from its logits.

use rand::{Rng, RngExt};

use super::Settings;

/// The next token: the likeliest when the temperature is 0 (the lowest id among equals), else a
/// draw.
pub(super) fn choose(logits: &[f64], settings: &Settings, rng: &mut impl Rng) -> u32 {
    let ascending = |a: &usize, b: &usize| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a));
    if settings.temperature == 0.0 {
        return (0..logits.len()).max_by(ascending).map_or(0, |id| id as u32);
    }
    let mut ranked: Vec<usize> = (0..logits.len()).collect();
    ranked.sort_by(|a, b| ascending(b, a));
    ranked.truncate(settings.top_k.unwrap_or(usize::MAX).max(1));
    let peak = logits[ranked[0]];
    let weights: Vec<f64> =
        ranked.iter().map(|&id| ((logits[id] - peak) / settings.temperature).exp()).collect();
    let kept = nucleus(&weights, settings.top_p.unwrap_or(1.0));
    let mut left = rng.random::<f64>() * weights[..kept].iter().sum::<f64>();
    for (id, weight) in ranked.iter().zip(&weights[..kept]) {
        left -= weight;
        if left < 0.0 {
            return *id as u32;
        }
    }
    ranked[kept - 1] as u32
}

/// How many of the descending `weights` it takes to reach the share `top_p` of their sum.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    let needed = top_p * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= needed
    });
    reached.map_or(weights.len(), |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ist_core::streams;

    fn frequencies(settings: &Settings) -> [f64; 4] {
        let mut rng = streams::stream(1, "test");
        let logits = [0.1f64, 0.4, 0.2, 0.3].map(f64::ln);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[choose(&logits, settings, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn close(found: [f64; 4], expected: [f64; 4]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.015)
    }

    #[test]
    fn temperature_one_draws_from_the_softmax() {
        let settings = Settings { temperature: 1.0, ..Settings::default() };
        assert!(close(frequencies(&settings), [0.1, 0.4, 0.2, 0.3]));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let settings = Settings { temperature: 1.0, top_k: Some(2), ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]));
        let settings = Settings { temperature: 1.0, top_p: Some(0.75), ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]));
    }

    #[test]
    fn a_low_temperature_approaches_greedy() {
        let settings = Settings { temperature: 0.02, ..Settings::default() };
        assert!(close(frequencies(&settings), [0.0, 1.0, 0.0, 0.0]));
        assert_eq!(choose(&[1.0, 3.0, 3.0], &Settings::default(), &mut streams::stream(0, "")), 1);
    }
}
