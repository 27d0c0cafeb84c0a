//! The formulas as burn's functions say them. They stand here so that they stay what they are while
//! the operations change.

use ist_core::burn::tensor::{Int, Tensor, activation};

pub(super) fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let scale = x.clone().square().mean_dim(2).add_scalar(eps).sqrt().recip();
    x * scale * weight.unsqueeze()
}

/// x cos + rotate(x) sin with rotate([a, b]) = [-b, a], for tables of the whole width.
pub(super) fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let rotated =
        Tensor::cat(vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)], 3);
    x * cos + rotated * sin
}

/// q, k and v `[batch, positions, heads, head_dim]`, bias `[1, 1, queries, keys]`.
pub(super) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
    let scores = q.mul_scalar(scale).matmul(k.transpose()) + bias;
    activation::softmax(scores, 3).matmul(v).swap_dims(1, 2)
}

pub(super) fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    activation::silu(gate) * up
}

pub(super) fn geglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    activation::gelu(gate) * up
}

pub(super) fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    activation::log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1).neg()
}

/// x W + 2 · (x̃ A) B.
pub(super) fn lora(
    [x, dropped]: [Tensor<3>; 2],
    weight: Tensor<2>,
    [a, b]: [Tensor<2>; 2],
    _: Option<Tensor<1>>,
) -> Tensor<3> {
    let low = dropped.matmul(a.unsqueeze()).mul_scalar(2.0);
    x.matmul(weight.unsqueeze()) + low.matmul(b.unsqueeze())
}

/// x W + (m / n - 1) ⊙ x̃ W + m / n ⊙ 2 · (x̃ A) B with n_c = ‖W_c + 2 A B_c‖, a constant.
pub(super) fn dora(
    [x, dropped]: [Tensor<3>; 2],
    weight: Tensor<2>,
    [a, b]: [Tensor<2>; 2],
    magnitude: Option<Tensor<1>>,
) -> Tensor<3> {
    let sum = weight.clone() + a.clone().inner().matmul(b.clone().inner()).mul_scalar(2.0);
    let norms = sum.square().sum_dim(0).sqrt().squeeze_dim::<1>(0);
    let gain = (magnitude.expect("DoRA has magnitudes") / norms).unsqueeze::<3>();
    let low = dropped.clone().matmul(a.unsqueeze()).mul_scalar(2.0).matmul(b.unsqueeze());
    let weight = weight.unsqueeze::<3>();
    x.matmul(weight.clone()) + dropped.matmul(weight) * (gain.clone() - 1.0) + low * gain
}
