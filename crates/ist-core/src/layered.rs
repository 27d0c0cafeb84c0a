//! What the training step needs to know of a model: it is a stack of layers between an embedding
//! and a loss.
//!
//! Only the [`Param`](burn::module::Param)s of the modules are parameters. Frozen weights are plain
//! tensors, which module visitors do not see, so no code path can train them by accident. Outside a
//! step every parameter is a plain tensor as well. The step lifts copies of those it trains:
//! handles are shared, nothing is copied.
//!
//! Response factors say how strongly each layer's PEFT modules speak. They are an argument of the
//! forward pass and never state of the model, so a probe cannot change what it probes.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Footprint, LayerSet};

/// What one forward pass asks of the PEFT modules of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerPass {
    /// The factor on the PEFT modules' response: 1 in training, β in a suppressed layer of a probe,
    /// 0 for the base model.
    pub response: f64,
    /// The seed of this layer's dropout in training. `None` in evaluation mode.
    pub dropout: Option<u64>,
    /// Whether anything reads the layer's output. Nothing does when the layer is run again for its
    /// graph alone. Then the operation that makes the output may skip whatever its own backward
    /// pass does not need, and answer with zeros.
    pub needs_output: bool,
}

impl LayerPass {
    /// Evaluation mode with the full response.
    pub const EVALUATION: Self = Self { response: 1.0, dropout: None, needs_output: true };

    /// Evaluation mode with that response factor.
    pub fn evaluation(response: f64) -> Self {
        Self { response, ..Self::EVALUATION }
    }

    /// Training mode with the full response. `dropout` seeds the layer's dropout.
    pub fn training(dropout: Option<u64>) -> Self {
        Self { dropout, ..Self::EVALUATION }
    }

    /// The pass of one module of the layer, whose output is always needed.
    #[must_use]
    pub fn of_module(&self, module: &str) -> Self {
        Self { dropout: self.dropout_of(module), needs_output: true, ..*self }
    }

    /// The dropout seed of one module of the layer, by its name. `None` in evaluation mode.
    pub fn dropout_of(&self, module: &str) -> Option<u64> {
        self.dropout.map(|seed| crate::streams::mix(seed, crate::streams::digest(module)))
    }
}

/// One factor per layer on the output of its PEFT modules: 1 is the full response, 0 the frozen
/// base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses(Vec<f64>);

impl Responses {
    /// Every layer at its full response.
    pub fn full(num_layers: usize) -> Self {
        Self(vec![1.0; num_layers])
    }

    /// The layers of `set` at `factor` (β in the paper, 0.25 by default), the others at their full
    /// response.
    pub fn suppressed(set: &LayerSet, factor: f64) -> Self {
        let of = |layer| if set.contains(layer) { factor } else { 1.0 };
        Self((0..set.num_layers()).map(of).collect())
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

/// One of the two parts of a layer, of which the second begins where the first ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The part that gets the layer's input.
    First,
    /// The part that makes its output.
    Second,
}

/// A stack of layers between an embedding and a summed loss.
///
/// The modules are arguments of the forward functions instead of being read from `self`, so that
/// the step can pass lifted copies of those that train.
pub trait LayeredModel {
    /// Everything outside the layers: embedding, final norm, head. Its parameters train in every
    /// step.
    type Outer: Module;
    /// One layer. Its parameters train in the steps that choose it.
    type Layer: Module;
    /// One micro-batch.
    type Batch;
    /// What all layers share of a batch, such as positions and mask: plain tensors.
    type Context;

    /// The modules outside the layers.
    fn outer(&self) -> &Self::Outer;
    /// The modules outside the layers, for the optimizer to replace.
    fn outer_mut(&mut self) -> &mut Self::Outer;
    /// The layers, first to last.
    fn layers(&self) -> &[Self::Layer];
    /// The layers, for the optimizer to replace.
    fn layers_mut(&mut self) -> &mut [Self::Layer];

    /// Computes what all layers share of `batch`.
    fn context(&self, batch: &Self::Batch) -> Self::Context;
    /// Tokens of `batch` that the loss predicts.
    fn predicted_tokens(&self, batch: &Self::Batch) -> usize;

    /// The first layer's input, `[batch, sequence, hidden]`.
    fn embed(&self, outer: &Self::Outer, batch: &Self::Batch, pass: &LayerPass) -> Tensor<3>;
    /// One layer, `[batch, sequence, hidden]` to the same shape.
    fn layer(
        &self,
        layer: &Self::Layer,
        x: Tensor<3>,
        context: &Self::Context,
        pass: &LayerPass,
    ) -> Tensor<3>;
    /// Half of a layer, `[batch, sequence, hidden]` to the same shape. The layer is its first half
    /// followed by its second.
    ///
    /// A model that does not say where its layers divide has empty first halves.
    fn half(
        &self,
        half: Half,
        layer: &Self::Layer,
        x: Tensor<3>,
        context: &Self::Context,
        pass: &LayerPass,
    ) -> Tensor<3> {
        match half {
            Half::First => x,
            Half::Second => self.layer(layer, x, context, pass),
        }
    }
    /// The *sum* of the token losses over the predicted positions, shape `[1]`, from the last
    /// layer's output.
    fn loss(
        &self,
        outer: &Self::Outer,
        x: Tensor<3>,
        batch: &Self::Batch,
        pass: &LayerPass,
    ) -> Tensor<1>;

    /// [`LayeredModel::loss`] of the last layer's output in evaluation mode, from that layer's
    /// input.
    ///
    /// A model whose layers work position by position after their attention may leave out those
    /// positions of the last layer that predict nothing.
    fn last_layer_loss(
        &self,
        layer: &Self::Layer,
        x: Tensor<3>,
        batch: &Self::Batch,
        context: &Self::Context,
        pass: &LayerPass,
    ) -> Tensor<1> {
        let output = self.layer(layer, x, context, pass);
        self.loss(self.outer(), output, batch, &LayerPass::EVALUATION)
    }

    /// What `batch` takes of memory, for a step that is to stay within a budget.
    ///
    /// A model that does not say is run again layer by layer under every budget. That is the
    /// leanest way known for it.
    fn footprint(&self, _batch: &Self::Batch) -> Option<Footprint> {
        None
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
