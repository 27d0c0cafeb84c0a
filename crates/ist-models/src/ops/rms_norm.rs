//! Root-mean-square normalisation (Zhang & Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467)).

use ist_core::burn::tensor::Tensor;

/// x / sqrt(mean(x²) + eps) · w over the last dimension: x `[batch, sequence, hidden]`, w `[hidden]`.
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let scale = x.clone().square().mean_dim(2).add_scalar(eps).sqrt().recip();
    x * scale * weight.unsqueeze()
}
