//! The norms of a decoder.

use ist_core::{LayerPass, burn};

use burn::tensor::Tensor;
use ist_peft::{Adapter, NormValues, PeftNorm};

use super::config::{DecoderConfig, Norm};
use crate::ops::layer_norm::layer_norm;
use crate::ops::rms_norm::rms_norm;

/// x `[batch, sequence, width]` normalised by `norm`.
pub(super) fn normalise<A: Adapter>(
    config: &DecoderConfig,
    norm: &PeftNorm<A>,
    x: Tensor<3>,
    pass: &LayerPass,
) -> Tensor<3> {
    let NormValues { weight, bias } = norm.values(x.dtype(), pass);
    match config.norm {
        Norm::Rms => rms_norm(x, weight, config.norm_eps),
        Norm::RmsPlusOne => rms_norm(x, weight.add_scalar(1.0), config.norm_eps),
        Norm::Layer => {
            let bias = bias.unwrap_or_else(|| weight.zeros_like());
            layer_norm(x, weight, bias, config.norm_eps)
        }
    }
}

/// The same, or x itself without a norm.
pub(super) fn normed<A: Adapter>(
    config: &DecoderConfig,
    norm: Option<&PeftNorm<A>>,
    x: Tensor<3>,
    pass: &LayerPass,
) -> Tensor<3> {
    match norm {
        Some(norm) => normalise(config, norm, x, pass),
        None => x,
    }
}
