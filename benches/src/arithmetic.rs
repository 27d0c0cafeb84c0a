//! The matrix products that a step cannot do without, counted.
//!
//! Divided by the machine's peak they are the time below which no implementation of the step can
//! come.

use ist_core::LayerSet;
use ist_core::plan::Draw;
use ist_core::step::{LayerTreatment, Memory};

use crate::Shape;

/// Floating-point operations (a multiplication and an addition each) of the matrix products of one
/// training step with LoRA of rank `rank` on q, k, v, up and down: frozen maps, adapters, attention
/// over the keys that a query sees, the head.
pub fn step(shape: &Shape, rank: usize, chosen: &LayerSet, memory: Memory) -> f64 {
    let layer = Layer::of(shape, rank);
    let layers = Draw::of(chosen).treatments(memory, None).into_iter().enumerate().map(
        |(index, treatment)| {
            let forwards = if treatment == LayerTreatment::Recompute { 2.0 } else { 1.0 };
            let forward = forwards * layer.forward();
            match treatment {
                LayerTreatment::Skip => forward,
                _ => {
                    forward
                        + layer.backward(
                            chosen.contains(index),
                            chosen.iter().any(|lowest| lowest < index),
                        )
                }
            }
        },
    );
    // The head's gradient with respect to its input, and the head itself.
    let head = 2.0 * (shape.hidden * shape.vocabulary) as f64;
    2.0 * shape.tokens() as f64 * (layers.sum::<f64>() + head)
}

/// Floating-point operations of the matrix products of one forward pass.
pub fn forward(shape: &Shape, rank: usize) -> f64 {
    let head = (shape.hidden * shape.vocabulary) as f64;
    2.0 * shape.tokens() as f64 * (shape.layers as f64 * Layer::of(shape, rank).forward() + head)
}

/// Multiplications per token in one layer.
struct Layer {
    /// q, k and v; their input's gradient is of no use in the lowest layer that trains.
    inputs: f64,
    /// o, gate, up and down.
    others: f64,
    /// LoRA on q, k and v.
    input_adapters: f64,
    /// LoRA on up and down.
    other_adapters: f64,
    /// One product of queries and keys, where a query sees half of them.
    attention: f64,
}

impl Layer {
    fn of(shape: &Shape, rank: usize) -> Self {
        let Shape { hidden, intermediate, sequence, .. } = *shape;
        let adapter = |d_in: usize, d_out: usize| (rank * (d_in + d_out)) as f64;
        Self {
            inputs: (3 * hidden * hidden) as f64,
            others: (hidden * hidden + 3 * hidden * intermediate) as f64,
            input_adapters: 3.0 * adapter(hidden, hidden),
            other_adapters: 2.0 * adapter(hidden, intermediate),
            attention: ((sequence + 1) * hidden) as f64 / 2.0,
        }
    }

    fn forward(&self) -> f64 {
        self.inputs + self.others + self.input_adapters + self.other_adapters + 2.0 * self.attention
    }

    /// The gradients of all inputs, and of A and B in a layer that trains. Attention without its
    /// matrix of weights computes that again: five products.
    fn backward(&self, trains: bool, below_trains: bool) -> f64 {
        let adapters = self.input_adapters + self.other_adapters;
        // u = g Bᵀ and u Aᵀ pass the gradient on; xᵀ u and (x A)ᵀ g are those of A and B. Where
        // nothing below trains, u alone.
        let weights = if trains { adapters } else { 0.0 };
        let through = if below_trains {
            self.inputs + self.input_adapters
        } else {
            self.input_adapters / 2.0
        };
        weights + through + self.others + self.other_adapters + 5.0 * self.attention
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RANK, SMALL};

    #[test]
    fn the_cost_lies_above_the_lowest_chosen_layer() {
        let cost = |layers: &[usize], memory| {
            step(
                &SMALL,
                RANK,
                &LayerSet::new(layers.iter().copied(), SMALL.layers).unwrap(),
                memory,
            )
        };
        let [low, middle, high] =
            [[0, 1], [2, 5], [6, 7]].map(|layers| cost(&layers, Memory::Keep));
        assert!(low > middle && middle > high && high > forward(&SMALL, RANK));
        // Six layers of {2, 5} are run twice.
        let again = cost(&[2, 5], Memory::Recompute) - middle;
        assert!((again / forward(&SMALL, RANK) - 0.72).abs() < 0.03, "{again}");
    }

    #[test]
    fn a_step_of_all_layers_is_about_twice_a_forward_pass() {
        let ratio =
            step(&SMALL, RANK, &LayerSet::all(SMALL.layers), Memory::Keep) / forward(&SMALL, RANK);
        assert!((2.0..2.3).contains(&ratio), "{ratio}");
    }
}
