//! The arithmetic that a step cannot do without.

use ist_core::LayerSet;
use ist_models::DecoderConfig;
use ist_models::decoder::layout;
use ist_peft::SiteKind;

/// Operations a token, a multiplication and an addition each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arithmetic {
    /// Scalars of the model.
    pub parameters: usize,
    /// Layers.
    layers: usize,
    /// The frozen products of one layer.
    frozen: f64,
    /// q kᵀ and P v of one layer, where a query sees half of the keys.
    attention: f64,
    /// The head.
    head: f64,
}

impl Arithmetic {
    /// Of records of `sequence` tokens.
    pub(super) fn of(config: &DecoderConfig, sequence: usize) -> Self {
        let sites = layout::sites(config);
        let of_layer =
            sites.iter().filter(|site| site.kind == SiteKind::Linear && site.layer == Some(0));
        let width = config.num_attention_heads * config.head_dim;
        Self {
            parameters: layout::parameter_count(config),
            layers: config.num_hidden_layers,
            frozen: of_layer.map(|site| 2.0 * (site.d_in * site.d_out) as f64).sum(),
            attention: 2.0 * 2.0 * (width * (sequence + 1)) as f64 / 2.0,
            head: 2.0 * (config.hidden_size * config.vocab_size) as f64,
        }
    }

    /// A step that trains those layers: every layer forwards, those from the lowest on backwards,
    /// where the frozen products give the gradient of their input alone and each of attention's
    /// that of both factors.
    pub(super) fn step(&self, trained: &LayerSet) -> f64 {
        let passed = trained.iter().min().map_or(0, |lowest| self.layers - lowest);
        let forward = self.layers as f64 * (self.frozen + self.attention) + self.head;
        let backward = passed as f64 * (self.frozen + 2.0 * self.attention) + self.head;
        forward + backward
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::bench::Shape;

    #[test]
    fn a_step_above_the_lowest_layer_costs_less() {
        let arithmetic = Arithmetic::of(&Shape::SevenBillion.config(), 256);
        // Twice the parameters of layers and head, without the embedding and the norms.
        assert!(
            (arithmetic.frozen * 32.0 + arithmetic.head - 2.0 * 6_607_077_376.0).abs() < 1.0,
            "{arithmetic:?}"
        );
        let set = |layers: &[usize]| {
            LayerSet::new(layers.iter().copied(), 32).expect("layers of the model")
        };
        let [all, upper] = [set(&[0]), set(&[24])].map(|set| arithmetic.step(&set));
        assert!(upper < 0.66 * all && upper > 0.6 * all, "{upper} {all}");
    }
}
