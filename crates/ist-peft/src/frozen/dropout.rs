//! Dropout whose mask is a function of a seed.
//!
//! The mask is drawn on the host from the seed of (run, step, micro-batch, layer, module): it never
//! depends on the order in which layers run, and a layer that is run again gets the same mask.

use ist_core::burn::backend::tensor::FloatTensor;
use ist_core::burn::backend::{Backend, TensorMetadata};
use ist_core::burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::frozen::matrix::cast_like;

/// x ⊙ m / (1 - p) with m ~ Bernoulli(1 - p) drawn from `seed`; x itself without a seed
/// (evaluation) or with p = 0.
pub fn dropout(x: Tensor<3>, probability: f64, seed: Option<u64>) -> Tensor<3> {
    match seed {
        Some(seed) if probability > 0.0 => {
            let mask = mask(x.shape().num_elements(), probability, seed);
            let mask = TensorData::new(mask, x.shape());
            let mask = Tensor::from_data(mask, (&x.device().inner(), x.dtype()));
            x * mask
        }
        _ => x,
    }
}

/// A mask that operations draw again in their backward pass, from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropoutMask {
    /// The probability of a 0, above 0.
    pub(crate) probability: f64,
    /// The seed of the module in this pass.
    pub(crate) seed: u64,
}

impl DropoutMask {
    /// The mask of a pass. `None` in evaluation and where nothing is dropped.
    pub(crate) fn of(probability: f64, seed: Option<u64>) -> Option<Self> {
        seed.filter(|_| probability > 0.0).map(|seed| Self { probability, seed })
    }
}

/// [`dropout`] within an operation.
pub(crate) fn masked<B: Backend>(x: FloatTensor<B>, by: Option<DropoutMask>) -> FloatTensor<B> {
    let Some(DropoutMask { probability, seed }) = by else { return x };
    let mask = TensorData::new(mask(x.shape().num_elements(), probability, seed), x.shape());
    let mask = B::float_from_data(mask, &x.device());
    B::float_mul(cast_like::<B>(mask, &x), x)
}

/// What each of `elements` numbers is multiplied with: 0, or 1 / (1 - p).
pub(crate) fn mask(elements: usize, probability: f64, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let threshold = (probability * 2f64.powi(32)) as u64;
    let kept = (1.0 / (1.0 - probability)) as f32;
    (0..elements).map(|_| if u64::from(rng.next_u32()) < threshold { 0.0 } else { kept }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_depends_on_the_seed_alone_and_keeps_the_mean() {
        let first = mask(40_000, 0.25, 3);
        assert_eq!(first, mask(40_000, 0.25, 3));
        assert_ne!(first, mask(40_000, 0.25, 4));
        let mean = first.iter().map(|&m| f64::from(m)).sum::<f64>() / 40_000.0;
        assert!((mean - 1.0).abs() < 0.015, "{mean}");
    }
}
