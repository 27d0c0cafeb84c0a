//! Routed experts (Shazeer et al., [arXiv 1701.06538](https://arxiv.org/abs/1701.06538); as in
//! Mixtral, [arXiv 2401.04088](https://arxiv.org/abs/2401.04088)).
//!
//! p = softmax(x R) over all experts; a token goes to the k likeliest ones and gets Σ p_e ·
//! `expert_e(x)`, with the p of the chosen divided by their sum where the model says so. An expert
//! runs on the tokens that chose it, and on nothing else. The choice itself has no derivative; p
//! has.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};
use ist_peft::frozen::linear;
use ist_peft::{Adapter, PeftLinear, Weight};

use super::config::{DecoderConfig, ExpertsConfig};
use crate::ops::gated::gated;

/// The experts of one layer.
#[derive(Module, Debug)]
pub struct DecoderExperts<A: Module> {
    /// R, `[hidden, experts]`.
    pub(super) router: Weight<2>,
    pub(super) experts: Vec<DecoderExpert<A>>,
}

/// One expert, a gated MLP.
#[derive(Module, Debug)]
pub struct DecoderExpert<A: Module> {
    pub(super) gate_proj: PeftLinear<A>,
    pub(super) up_proj: PeftLinear<A>,
    pub(super) down_proj: PeftLinear<A>,
}

impl<A: Adapter> DecoderExpert<A> {
    fn forward(&self, x: Tensor<3>, config: &DecoderConfig, pass: &LayerPass) -> Tensor<3> {
        let (gate, up) = (self.gate_proj.forward(x.clone(), pass), self.up_proj.forward(x, pass));
        self.down_proj.forward(gated(config.hidden_act, gate, up), pass)
    }
}

impl<A: Adapter> DecoderExperts<A> {
    /// What the experts make of x `[batch, sequence, hidden]`.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        config: &DecoderConfig,
        pass: &LayerPass,
    ) -> Tensor<3> {
        let Some(shape) = config.experts else { return x };
        let [batch, sequence, hidden] = x.dims();
        let tokens: Tensor<2> = x.clone().reshape([batch * sequence, hidden]);
        let (chosen, weights) = self.route(tokens.clone(), shape);
        let mut sum = tokens.clone().inner().zeros_like();
        for (expert, places) in self.experts.iter().zip(places(chosen, shape)) {
            if places.is_empty() {
                continue;
            }
            let ints = |of: fn(usize, usize) -> usize| {
                let of = places
                    .iter()
                    .map(|&place| of(place, shape.num_experts_per_tok) as i64)
                    .collect::<Vec<_>>();
                Tensor::<1, Int>::from_data(TensorData::new(of, [places.len()]), &sum.device())
            };
            let (rows, picks) = (ints(|place, k| place / k), ints(|place, _| place));
            let made =
                expert.forward(tokens.clone().select(0, rows.clone()).unsqueeze(), config, pass);
            let weighted =
                made.squeeze_dim::<2>(0) * weights.clone().select(0, picks).unsqueeze_dim(1);
            sum = sum.select_assign(0, rows, weighted, IndexingUpdateOp::Add);
        }
        sum.reshape([batch, sequence, hidden])
    }

    /// Of every token the experts it goes to, `[tokens, k]`, and their weights, flat.
    fn route(&self, tokens: Tensor<2>, shape: ExpertsConfig) -> (Tensor<2, Int>, Tensor<1>) {
        let logits = linear(tokens.unsqueeze(), self.router.at_rest(1.0));
        let shares = activation::softmax(logits.squeeze_dim::<2>(0), 1);
        let chosen = shares.clone().inner().topk_with_indices(shape.num_experts_per_tok, 1).1;
        let mut weights = shares.gather(1, chosen.clone());
        if shape.norm_topk_prob {
            weights = weights.clone() / weights.sum_dim(1);
        }
        (chosen, weights.flatten(0, 1))
    }
}

/// Of every expert the places of `chosen`, counted row by row, that name it.
fn places(chosen: Tensor<2, Int>, shape: ExpertsConfig) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); shape.num_experts];
    for (place, expert) in chosen.into_data().iter::<i64>().enumerate() {
        places[expert as usize].push(place);
    }
    places
}
