//! The decoder that every architecture here is made of.
//!
//! Decoders differ in a few places: the kind and the place of norms, how positions are told apart,
//! whether projections are fused, the form of the MLP, scales and bounds, and what modules are
//! called. [`DecoderConfig`] says which of these a model has, an architecture's file says how its
//! `config.json` becomes one, and this module computes it. So training, memory plan, adapters and
//! generation are written once and hold for all.

mod adapters;
mod attention;
mod build;
pub mod config;
mod context;
mod experts;
mod generation;
mod layer;
pub mod layout;
pub mod memory;
mod mlp;
pub mod names;
mod norm;
mod parts;
pub mod rotary;

use ist_core::{Footprint, Half, LayerPass, LayeredModel, burn, streams};

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ist_peft::frozen::linear;
use ist_peft::parameter::normal;
use ist_peft::{Adapter, FrozenLinear, PeftEmbedding, PeftLinear, PeftNorm, PrefixAdapter, Weight};

use crate::TokenBatch;
use crate::ops::cross_entropy::cross_entropy;
use crate::ops::linear_cross_entropy::{Head, linear_cross_entropy};
use crate::shape::{AdaptedSite, BatchShape, Resident};

use build::{Builder, TensorSource};
use norm::{normalise, normed};
use parts::{Part, PartMut};

pub use attention::DecoderAttention;
pub use build::WeightSource;
pub use config::DecoderConfig;
pub use context::DecoderContext;
pub use experts::{DecoderExpert, DecoderExperts};
pub use generation::DecoderCache;
pub use layer::DecoderLayer;
pub use mlp::DecoderMlp;

/// What stands outside the layers.
#[derive(Module, Debug)]
pub struct DecoderOuter<A: Module> {
    embed_tokens: PeftEmbedding<A>,
    /// A vector for every position, `[positions, hidden]`, where positions are learned.
    embed_positions: Option<Weight<2>>,
    embedding_norm: Option<PeftNorm<A>>,
    norm: PeftNorm<A>,
    /// Absent when the head is the embedding.
    lm_head: Option<PeftLinear<A>>,
}

/// A decoder with adapters of the set `A`.
#[derive(Clone, Debug)]
pub struct Decoder<A: Adapter = ist_peft::BuiltinAdapter> {
    config: Arc<DecoderConfig>,
    outer: DecoderOuter<A>,
    layers: Vec<DecoderLayer<A>>,
    device: Device,
    arithmetic: DType,
}

impl<A: Adapter> Decoder<A> {
    /// The model whose weights `source` gives, kept as `storage`: f32, bf16, f16 or f64, or i8 for
    /// the layers' matrices in eight bits and all else in f32. Arithmetic is f32, or f64 for f64.
    pub fn build(
        config: DecoderConfig,
        source: &mut WeightSource<'_>,
        storage: DType,
        device: &Device,
    ) -> Self {
        Self::built(config, TensorSource::Values(source), storage, device)
    }

    fn built(
        config: DecoderConfig,
        source: TensorSource<'_, '_>,
        storage: DType,
        device: &Device,
    ) -> Self {
        let mut builder = Builder { config: &config, source, storage, device };
        let outer = builder.outer();
        let layers = (0..config.num_hidden_layers).map(|index| builder.layer(index)).collect();
        let arithmetic = if storage == DType::F64 { DType::F64 } else { DType::F32 };
        Self { config: Arc::new(config), outer, layers, device: device.clone(), arithmetic }
    }

    /// A model with random weights: matrices normal with deviation 0.02, output projections of the
    /// residual branches smaller by √(2 layers), norms the identity, biases 0.
    pub fn random(config: DecoderConfig, seed: u64, device: &Device) -> Self {
        let residual = 0.02 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let names = [config.names.output, config.names.down, config.names.expert[2]];
        let ends = names.map(|name| format!(".{name}.weight"));
        let identity = if config.norm == config::Norm::RmsPlusOne { 0.0 } else { 1.0 };
        let mut source = |name: &str, shape: &[usize]| {
            let mut rng = streams::stream(seed, name);
            let deviation =
                if ends.iter().any(|end| name.ends_with(end)) { residual } else { 0.02 };
            let values: Vec<f32> = match shape.len() {
                1 => vec![if name.ends_with("bias") { 0.0 } else { identity }; shape[0]],
                _ => (0..shape.iter().product())
                    .map(|_| (deviation * normal(&mut rng)) as f32)
                    .collect(),
            };
            TensorData::new(values, shape.to_vec())
        };
        Self::build(config, &mut source, DType::F32, device)
    }

    /// A model to measure: random numbers that never were on the host, kept as `storage`, a float
    /// type. burn's generator, which is the process's, makes them from `seed`; two devices make
    /// different ones.
    pub fn random_on_device(
        config: DecoderConfig,
        seed: u64,
        storage: DType,
        device: &Device,
    ) -> Self {
        device.seed(seed);
        Self::built(config, TensorSource::Device, storage, device)
    }

    /// The same model with every weight training, for pre-training.
    #[must_use]
    pub fn train_everything(mut self) -> Self {
        let outer = &mut self.outer;
        outer.embed_tokens.weight = outer.embed_tokens.weight.clone().train();
        outer.embed_positions = outer.embed_positions.take().map(Weight::train);
        outer.embedding_norm.iter_mut().chain([&mut outer.norm]).for_each(train_norm);
        outer.lm_head.iter_mut().for_each(|head| train_linear(&mut head.base));
        for part in self.layers.iter_mut().flat_map(DecoderLayer::parts_mut) {
            match part {
                PartMut::Linear(linear) => train_linear(&mut linear.base),
                PartMut::Norm(norm) => train_norm(norm),
                PartMut::Router(router) => *router = router.clone().train(),
                PartMut::Attention(_) => {}
            }
        }
        self
    }

    /// The model with its weights as they are now, frozen and kept as `storage`; adapters are left
    /// out.
    #[must_use]
    pub fn store_as(&self, storage: DType) -> Self {
        let mut weights: std::collections::HashMap<String, TensorData> =
            self.weights().into_iter().collect();
        let mut source = |name: &str, shape: &[usize]| {
            weights.remove(name).unwrap_or_else(|| TensorData::zeros::<f32, _>(shape.to_vec()))
        };
        Self::build((*self.config).clone(), &mut source, storage, &self.device)
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The modules with adapters and what those take.
    fn adapted_sites(&self) -> Vec<AdaptedSite> {
        let outer = &self.outer;
        let mut adapters = vec![outer.embed_tokens.adapter.as_ref()];
        adapters.extend(outer.embedding_norm.iter().map(|norm| norm.adapter.as_ref()));
        let parts = self.layers.iter().flat_map(DecoderLayer::parts);
        adapters.extend(parts.filter(Part::is_site).map(Part::adapter));
        adapters.push(outer.norm.adapter.as_ref());
        adapters.extend(outer.lm_head.iter().map(|head| head.adapter.as_ref()));
        let adapted = layout::sites(&self.config).into_iter().zip(adapters);
        adapted.filter_map(|(site, adapter)| Some(AdaptedSite::of(adapter?, site))).collect()
    }

    /// Positions in front of all tokens: those of a prefix, which every layer has or none.
    fn prefix_length(&self) -> usize {
        self.layers
            .iter()
            .find_map(|layer| layer.self_attn.prefix.as_ref())
            .and_then(|adapter| adapter.view().as_prefix())
            .map_or(0, PrefixAdapter::length)
    }

    /// Rows of the embedding at their positions, `[batch, sequence, hidden]`.
    fn embedded(
        &self,
        outer: &DecoderOuter<A>,
        ids: Tensor<2, Int>,
        positions: &[Vec<usize>],
        pass: &LayerPass,
    ) -> Tensor<3> {
        let mut x = outer.embed_tokens.forward(ids, self.arithmetic, pass);
        if self.config.embedding_scale != 1.0 {
            x = x.mul_scalar(self.config.embedding_scale);
        }
        if let Some(table) = &outer.embed_positions {
            x = x + self.position_rows(table, positions, pass);
        }
        normed(&self.config, outer.embedding_norm.as_ref(), x, pass)
    }

    fn position_rows(
        &self,
        table: &Weight<2>,
        positions: &[Vec<usize>],
        pass: &LayerPass,
    ) -> Tensor<3> {
        let [rows, sequence] = [positions.len(), positions.first().map_or(0, Vec::len)];
        let ids: Vec<i64> = positions.iter().flatten().map(|&position| position as i64).collect();
        let ids: Tensor<1, Int> =
            Tensor::from_data(TensorData::new(ids, [rows * sequence]), &self.device);
        let table =
            table.value(pass.response, if table.trains() { DType::F32 } else { table.dtype() });
        let width = table.dims()[1];
        table.select(0, ids).cast(self.arithmetic).reshape([rows, sequence, width])
    }

    /// Final norm and head, `[.., hidden]` to `[.., vocabulary]`.
    fn head(&self, outer: &DecoderOuter<A>, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let x = normalise(&self.config, &outer.norm, x, pass);
        let logits = match &outer.lm_head {
            Some(head) => head.forward(x, pass),
            None => linear(x, outer.embed_tokens.head_weight(pass.response)),
        };
        self.capped(logits)
    }

    fn capped(&self, logits: Tensor<3>) -> Tensor<3> {
        match self.config.logits_soft_cap {
            Some(cap) => logits.mul_scalar(1.0 / cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// The last layer's output at the predicting positions, `[1, predicted, hidden]`.
    fn last_hidden(&self, batch: &TokenBatch, pass: &LayerPass) -> Tensor<3> {
        let context = self.context(batch);
        let embedded = self.embed(&self.outer, batch, pass);
        match self.layers.split_last() {
            Some((last, layers)) => {
                let x =
                    layers.iter().fold(embedded, |x, layer| layer.forward(x, &context, pass, None));
                self.finish(last, x, batch, &context, pass)
            }
            None => predicting(embedded, batch),
        }
    }

    /// The last layer's output at the predicting positions alone, `[1, predicted, hidden]`, from
    /// its input.
    fn finish(
        &self,
        last: &DecoderLayer<A>,
        x: Tensor<3>,
        batch: &TokenBatch,
        context: &DecoderContext,
        pass: &LayerPass,
    ) -> Tensor<3> {
        if self.config.divides() {
            return last.feed_forward(
                predicting(last.attend(x, context, pass, None), batch),
                context,
                pass,
            );
        }
        predicting(last.forward(x, context, pass, None), batch)
    }

    /// -log p of every predicted token, `[predicted]`, from the last layer's output at the
    /// predicting positions `[1, predicted, hidden]`.
    ///
    /// Under an adapter of its own the head's logits exist in full.
    fn token_losses(
        &self,
        outer: &DecoderOuter<A>,
        x: Tensor<3>,
        batch: &TokenBatch,
        pass: &LayerPass,
    ) -> Tensor<1> {
        let x = normalise(&self.config, &outer.norm, x, pass);
        let (weight, bias) = match &outer.lm_head {
            Some(head)
                if head.adapter.is_some()
                    || head.base.bias.as_ref().is_some_and(Weight::trains) =>
            {
                let logits = self.capped(head.forward(x, pass));
                return cross_entropy(logits.squeeze_dim(0), batch.targets.clone());
            }
            Some(head) => (
                head.base.weight.at_rest(pass.response),
                head.base.bias_value(self.arithmetic, pass.response),
            ),
            None => (outer.embed_tokens.head_weight(pass.response), None),
        };
        let head = Head { weight, bias, soft_cap: self.config.logits_soft_cap };
        linear_cross_entropy(x.squeeze_dim(0), head, batch.targets.clone())
    }
}

/// The predicting positions of x `[batch, sequence, hidden]`: `[1, predicted, hidden]`.
fn predicting(x: Tensor<3>, batch: &TokenBatch) -> Tensor<3> {
    let [rows, sequence, hidden] = x.dims();
    x.reshape([rows * sequence, hidden]).select(0, batch.rows.clone()).unsqueeze()
}

fn train_norm<A: Adapter>(norm: &mut PeftNorm<A>) {
    norm.base.weight = norm.base.weight.clone().train();
    norm.base.bias = norm.base.bias.take().map(Weight::train);
}

fn train_linear(linear: &mut FrozenLinear) {
    linear.weight = linear.weight.clone().train();
    linear.bias = linear.bias.take().map(Weight::train);
}

impl<A: Adapter> LayeredModel for Decoder<A> {
    type Outer = DecoderOuter<A>;
    type Layer = DecoderLayer<A>;
    type Batch = TokenBatch;
    type Context = DecoderContext;

    fn outer(&self) -> &DecoderOuter<A> {
        &self.outer
    }

    fn outer_mut(&mut self) -> &mut DecoderOuter<A> {
        &mut self.outer
    }

    fn layers(&self) -> &[DecoderLayer<A>] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [DecoderLayer<A>] {
        &mut self.layers
    }

    fn context(&self, batch: &TokenBatch) -> DecoderContext {
        let prefix = self.prefix_length();
        let mask = batch.mask.after_prefix(prefix);
        let lengths: Vec<usize> = batch.lengths.iter().map(|length| length + prefix).collect();
        let place = (self.arithmetic, &self.device);
        DecoderContext::new(&self.config, &positions(batch, prefix), &lengths, mask, place)
    }

    fn predicted_tokens(&self, batch: &TokenBatch) -> usize {
        batch.predicted_tokens()
    }

    fn embed(&self, outer: &DecoderOuter<A>, batch: &TokenBatch, pass: &LayerPass) -> Tensor<3> {
        self.embedded(outer, batch.input_ids.clone(), &positions(batch, self.prefix_length()), pass)
    }

    fn layer(
        &self,
        layer: &DecoderLayer<A>,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
    ) -> Tensor<3> {
        layer.forward(x, context, pass, None)
    }

    fn half(
        &self,
        half: Half,
        layer: &DecoderLayer<A>,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
    ) -> Tensor<3> {
        match half {
            Half::First if self.config.divides() => layer.attend(x, context, pass, None),
            Half::Second if self.config.divides() => layer.feed_forward(x, context, pass),
            Half::First => x,
            Half::Second => layer.forward(x, context, pass, None),
        }
    }

    fn loss(
        &self,
        outer: &DecoderOuter<A>,
        x: Tensor<3>,
        batch: &TokenBatch,
        pass: &LayerPass,
    ) -> Tensor<1> {
        if batch.predicted_tokens() == 0 {
            return Tensor::zeros([1], (&self.device, self.arithmetic));
        }
        self.token_losses(outer, predicting(x, batch), batch, pass).sum()
    }

    fn last_layer_loss(
        &self,
        layer: &DecoderLayer<A>,
        x: Tensor<3>,
        batch: &TokenBatch,
        context: &DecoderContext,
        pass: &LayerPass,
    ) -> Tensor<1> {
        if batch.predicted_tokens() == 0 {
            return Tensor::zeros([1], (&self.device, self.arithmetic));
        }
        let x = self.finish(layer, x, batch, context, pass);
        self.token_losses(&self.outer, x, batch, &LayerPass::EVALUATION).sum()
    }

    /// `None` where weights themselves train.
    fn footprint(&self, batch: &TokenBatch) -> Option<Footprint> {
        let packed = self.layers.iter().any(|layer| layer.self_attn.o_proj.base.weight.is_int8());
        let storage = if packed { DType::I8 } else { self.outer.embed_tokens.weight.dtype() };
        let adapted = self.adapted_sites();
        let resident = Resident { adapted: &adapted, storage, arithmetic: self.arithmetic };
        let frozen = !self.outer.norm.base.weight.trains();
        frozen.then(|| memory::footprint(&self.config, resident, BatchShape::from(batch)))
    }
}

/// A batch's positions behind a prefix, one list for all rows.
fn positions(batch: &TokenBatch, prefix: usize) -> [Vec<usize>; 1] {
    [(prefix..prefix + batch.input_ids.dims()[1]).collect()]
}

#[cfg(test)]
mod tests;
