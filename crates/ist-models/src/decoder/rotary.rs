//! The angles of rotary positions and how they are changed for longer contexts, as in transformers'
//! `modeling_rope_utils`.
//!
//! Pair i of R features turns by position · θ^(-2i / R), where R may be less than a head has.

use std::f64::consts::PI;

use crate::ops::rope::Pairs;

/// One rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// R: features of a head that are turned, an even number.
    pub dims: usize,
    /// θ, the base of the frequencies.
    pub theta: f64,
    /// How they are changed.
    pub scaling: RopeScaling,
    /// Which features make a pair.
    pub pairs: Pairs,
}

/// How rotary frequencies are changed for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// Every frequency divided by `factor` (Chen et al., [arXiv
    /// 2306.15595](https://arxiv.org/abs/2306.15595)).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A larger base for texts longer than the context, which grows with their length.
    Dynamic {
        /// How fast it grows.
        factor: f64,
        /// The context.
        max_position_embeddings: f64,
    },
    /// LLaMA 3's: low frequencies divided by `factor`, high ones kept, those between interpolated.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Wavelengths above original / this are scaled.
        low_freq_factor: f64,
        /// Wavelengths below original / this are kept.
        high_freq_factor: f64,
        /// The context the model was first trained for.
        original_max_position_embeddings: f64,
    },
    /// The same idea by the number of turns within the original context (Peng et al.,
    /// [arXiv 2309.00071](https://arxiv.org/abs/2309.00071)).
    Yarn {
        /// The divisor.
        factor: f64,
        /// The factor on queries and keys.
        attention_factor: f64,
        /// Pairs of more turns are kept.
        beta_fast: f64,
        /// Pairs of fewer turns are divided.
        beta_slow: f64,
        /// The context the model was first trained for.
        original_max_position_embeddings: f64,
        /// Whether the bounds between are whole pairs.
        truncate: bool,
    },
    /// A divisor of its own for every pair, one list for short texts and one for long ones (Ding et
    /// al., [arXiv 2402.13753](https://arxiv.org/abs/2402.13753)).
    LongRope {
        /// The divisors up to the original context.
        short_factor: Vec<f64>,
        /// Those beyond.
        long_factor: Vec<f64>,
        /// The factor on queries and keys.
        attention_factor: f64,
        /// The context the model was first trained for.
        original_max_position_embeddings: f64,
    },
}

impl Rotary {
    /// The frequencies of all pairs, `[R / 2]`, for texts of `length` positions.
    pub fn inverse_frequencies(&self, length: usize) -> Vec<f64> {
        (0..self.dims / 2).map(|pair| self.frequency(pair, length as f64)).collect()
    }

    /// The factor on turned queries and keys.
    pub fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Yarn { attention_factor, .. }
            | RopeScaling::LongRope { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        }
    }

    /// Which of several sets of frequencies texts of that length have. Keys that were turned by
    /// another set are not theirs.
    pub fn regime(&self, length: usize) -> usize {
        match &self.scaling {
            RopeScaling::LongRope { original_max_position_embeddings: original, .. } => {
                usize::from(length as f64 > *original)
            }
            _ => 0,
        }
    }

    fn frequency(&self, pair: usize, length: f64) -> f64 {
        let at = |theta: f64| theta.powf(-2.0 * pair as f64 / self.dims as f64);
        let plain = at(self.theta);
        match &self.scaling {
            RopeScaling::Default => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Dynamic { factor, max_position_embeddings: context } => {
                let growth = factor * length.max(*context) / context - (factor - 1.0);
                at(self.theta * growth.powf(self.dims as f64 / (self.dims as f64 - 2.0)))
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            } => {
                let turns = original_max_position_embeddings * plain / (2.0 * PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * plain / factor + kept * plain
            }
            RopeScaling::Yarn { factor, .. } => {
                let [low, high] = self.yarn_bounds();
                let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                divided * plain / factor + (1.0 - divided) * plain
            }
            RopeScaling::LongRope { short_factor, long_factor, .. } => {
                plain
                    / if self.regime(length as usize) == 0 {
                        short_factor[pair]
                    } else {
                        long_factor[pair]
                    }
            }
        }
    }

    /// The pairs between which frequencies go over from kept to divided.
    fn yarn_bounds(&self) -> [f64; 2] {
        let RopeScaling::Yarn {
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            truncate,
            ..
        } = &self.scaling
        else {
            return [0.0, 1.0];
        };
        let pair_of = |turns: f64| {
            let dims = self.dims as f64;
            dims * (original_max_position_embeddings / (turns * 2.0 * PI)).ln()
                / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (pair_of(*beta_fast), pair_of(*beta_slow));
        if *truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
        [low, if low == high { high + 0.001 } else { high }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotary(scaling: RopeScaling) -> Rotary {
        Rotary { dims: 8, theta: 10_000.0, scaling, pairs: Pairs::Halves }
    }

    #[test]
    fn llama3_keeps_fast_and_divides_slow_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 100.0,
        };
        let found = rotary(scaling).inverse_frequencies(1);
        let plain = rotary(RopeScaling::Default).inverse_frequencies(1);
        assert_eq!((found[0], found[3]), (plain[0], plain[3] / 8.0));
        // 1.59 turns: 0.197 of the way from divided to kept.
        let kept = (100.0 * 0.1 / (2.0 * PI) - 1.0) / 3.0;
        assert!((found[1] - 0.1 * (kept + (1.0 - kept) / 8.0)).abs() < 1e-15);
    }

    #[test]
    fn a_dynamic_base_grows_beyond_the_context() {
        let dynamic = rotary(RopeScaling::Dynamic { factor: 2.0, max_position_embeddings: 16.0 });
        let plain = rotary(RopeScaling::Default).inverse_frequencies(1);
        assert_eq!(dynamic.inverse_frequencies(16), plain);
        let long = dynamic.inverse_frequencies(32);
        assert!(long[0] == plain[0] && long[3] < plain[3] / 2.0);
    }

    #[test]
    fn long_texts_have_factors_of_their_own() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0; 4],
            long_factor: vec![1.0, 2.0, 4.0, 8.0],
            attention_factor: 1.5,
            original_max_position_embeddings: 16.0,
        };
        let rotary = rotary(scaling);
        assert_eq!((rotary.regime(16), rotary.regime(17), rotary.attention_factor()), (0, 1, 1.5));
        assert_eq!(rotary.inverse_frequencies(17)[3], rotary.inverse_frequencies(16)[3] / 8.0);
    }
}
