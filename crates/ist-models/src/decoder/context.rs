//! What all layers share of a batch: positions and mask.

use std::sync::Arc;

use ist_core::burn::tensor::{DType, Device, Tensor};

use super::config::DecoderConfig;
use crate::ops::attention::{AttentionMask, Scores};
use crate::ops::rope::Rotation;

/// What all layers share of a batch, and the configuration they read.
#[derive(Clone, Debug)]
pub struct DecoderContext {
    pub(super) config: Arc<DecoderConfig>,
    rotations: Vec<Rotation>,
    mask: AttentionMask,
    slopes: Arc<[f32]>,
}

impl DecoderContext {
    /// The context of tokens at `positions`, one list a row or one for all rows, that see what `mask` says.
    pub(super) fn new(
        config: &Arc<DecoderConfig>,
        positions: &[Vec<usize>],
        mask: AttentionMask,
        (arithmetic, device): (DType, &Device),
    ) -> Self {
        let length = length_of(positions);
        let rotation = |rotary: &super::rotary::Rotary| {
            let frequencies = rotary.inverse_frequencies(length);
            let rotation = Rotation::new(&frequencies, positions, arithmetic, device);
            rotation.with_pairs(rotary.pairs).times(rotary.attention_factor())
        };
        let rotations = config.rotaries.iter().map(rotation).collect();
        Self { config: config.clone(), rotations, mask, slopes: config.slopes() }
    }

    /// Heads of that layer, turned as it turns them.
    pub(super) fn turned(&self, layer: usize, heads: Tensor<4>) -> Tensor<4> {
        match self.config.layers[layer].rotary {
            Some(rotary) => self.rotations[rotary].apply(heads),
            None => heads,
        }
    }

    /// What the queries of that layer see.
    pub(super) fn mask_of(&self, layer: usize) -> AttentionMask {
        match self.config.layers[layer].window {
            Some(window) => self.mask.within(window),
            None => self.mask.clone(),
        }
    }

    pub(super) fn scores(&self, layer: usize) -> Scores {
        self.config.scores(layer, &self.slopes)
    }
}

/// Positions from the first to the last that occurs.
pub(super) fn length_of(positions: &[Vec<usize>]) -> usize {
    positions.iter().flatten().max().map_or(0, |last| last + 1)
}
