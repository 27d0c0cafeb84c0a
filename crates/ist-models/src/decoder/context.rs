//! What all layers share of a batch: positions and mask.

use std::sync::Arc;

use ist_core::burn::tensor::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::rotary::Rotary;
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
    /// The context of tokens at `positions`, one list a row or one for all rows, that see what
    /// `mask` says; a row's text has its number of `lengths`.
    pub(super) fn new(
        config: &Arc<DecoderConfig>,
        positions: &[Vec<usize>],
        lengths: &[usize],
        mask: AttentionMask,
        (arithmetic, device): (DType, &Device),
    ) -> Self {
        let rotation = |rotary: &Rotary| {
            let rotation = turned_by(rotary, positions, lengths, (arithmetic, device));
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

/// The rotation of all rows. Where frequencies depend on the length of a text, each row has its
/// own: a record's figures do not depend on those beside it.
fn turned_by(
    rotary: &Rotary,
    positions: &[Vec<usize>],
    lengths: &[usize],
    (arithmetic, device): (DType, &Device),
) -> Rotation {
    let sets: Vec<Vec<f64>> =
        lengths.iter().map(|&length| rotary.inverse_frequencies(length)).collect();
    let first = sets.first().cloned().unwrap_or_else(|| rotary.inverse_frequencies(0));
    if sets.iter().all(|set| *set == first) {
        return Rotation::new(&first, positions, arithmetic, device);
    }
    let row = |(row, set): (usize, &Vec<f64>)| {
        let own = &positions[row.min(positions.len() - 1)];
        Rotation::new(set, std::slice::from_ref(own), arithmetic, device)
    };
    Rotation::of_rows(sets.iter().enumerate().map(row).collect())
}
