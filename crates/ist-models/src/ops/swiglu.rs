//! The gated unit of LLaMA's MLP (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202)).

use ist_core::burn::tensor::{Tensor, activation};

/// silu(gate) ⊙ up with silu(x) = x σ(x); both `[batch, sequence, intermediate]`.
pub fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    activation::silu(gate) * up
}
