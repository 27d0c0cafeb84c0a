//! Response factors: how strongly each layer's PEFT modules speak.
//!
//! They are an argument of the forward pass and never state of the model, so a probe cannot change what it probes.

use crate::LayerSet;

/// One factor per layer on the output of its PEFT modules: 1 is the full response, 0 the frozen base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses(Vec<f64>);

impl Responses {
    /// Every layer at its full response.
    pub fn full(num_layers: usize) -> Self {
        Self(vec![1.0; num_layers])
    }

    /// The layers of `set` at `factor` (β in the paper, 0.25 by default), the others at their full response.
    pub fn suppressed(set: &LayerSet, factor: f64) -> Self {
        Self(
            (0..set.num_layers())
                .map(|layer| if set.contains(layer) { factor } else { 1.0 })
                .collect(),
        )
    }

    /// The factor of `layer`.
    ///
    /// # Panics
    /// If the model has fewer layers.
    pub fn get(&self, layer: usize) -> f64 {
        self.0[layer]
    }

    /// Layers of the model these factors are for.
    pub fn num_layers(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suppressed_layers_are_damped() {
        let set = LayerSet::new([1, 3], 4).unwrap();
        assert_eq!(Responses::suppressed(&set, 0.25), Responses(vec![1.0, 0.25, 1.0, 0.25]));
    }
}
