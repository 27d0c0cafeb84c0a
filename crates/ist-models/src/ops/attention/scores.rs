//! What a query and a key weigh before the softmax.

use std::sync::Arc;

/// The scores s · q kᵀ, their cap and what a key's position adds: c · tanh(s · q kᵀ / c) + m ·
/// position.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// s.
    pub scale: f64,
    /// c, which bounds the scores (Gemma 2, [arXiv 2408.00118](https://arxiv.org/abs/2408.00118)).
    pub soft_cap: Option<f64>,
    /// m of every query head: attention with linear biases (Press et al., [arXiv
    /// 2108.12409](https://arxiv.org/abs/2108.12409)). A key's position is the number of real keys
    /// before it. Empty without.
    pub slopes: Arc<[f32]>,
}

impl Scores {
    /// q kᵀ / √`head_dim`.
    pub fn scaled(head_dim: usize) -> Self {
        Self { scale: 1.0 / (head_dim as f64).sqrt(), soft_cap: None, slopes: Arc::default() }
    }

    /// The same with the slopes of attention with linear biases for that many heads.
    #[must_use]
    pub fn with_linear_biases(self, heads: usize) -> Self {
        Self { slopes: slopes(heads), ..self }
    }
}

/// The slopes of linear biases. For a power of two n of heads they are 2^(-8 / n)^1 .. ^n.
/// Otherwise those of the next lower power come first, and every second one of the next higher
/// power makes up the rest.
pub fn slopes(heads: usize) -> Arc<[f32]> {
    let series =
        |count: usize| (1..=count).map(move |at| 2f64.powf(-8.0 * at as f64 / count as f64) as f32);
    let lower = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let rest = series(2 * lower).step_by(2).take(heads - lower);
    series(lower).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_an_odd_number_of_heads_come_from_two_series() {
        let of = |heads| Scores::scaled(4).with_linear_biases(heads).slopes.to_vec();
        assert_eq!(of(8), [1, 2, 3, 4, 5, 6, 7, 8].map(|power| 0.5f32.powi(power)));
        assert_eq!(of(3), [0.0625, 0.003_906_25, 0.25]);
    }
}
