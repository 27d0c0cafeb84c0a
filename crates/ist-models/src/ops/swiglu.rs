//! The gated unit of LLaMA's MLP (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202)).

use ist_core::burn::tensor::{DType, Tensor, activation};

/// silu(gate) ⊙ up with silu(x) = x σ(x); both `[batch, sequence, intermediate]`.
pub fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    silu(gate) * up
}

/// x σ(x). burn's own goes through f32 whatever the type is, so f64 takes the equal (x / 2) (1 + tanh(x / 2)).
fn silu(x: Tensor<3>) -> Tensor<3> {
    if x.dtype() != DType::F64 {
        return activation::silu(x);
    }
    let half = x.mul_scalar(0.5);
    half.clone() * half.tanh().add_scalar(1.0)
}
