//! The loss of predicted tokens, from the rows that predict them.

use ist_core::burn::tensor::{Int, Tensor, activation};

/// log p(target) of every row: logits `[rows, vocabulary]`, targets `[rows]`, result `[rows]`.
pub fn token_log_probabilities(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    activation::log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}
