//! One decoder layer: attention and MLP, and the norms around them.
//!
//! With the norms that the architecture has: h = x +
//! `after_attention`(attention(`before_attention`(x))), then h + `after_mlp`(mlp(`before_mlp`(h))).
//! In a parallel layer the MLP gets x as well, and both are added to it.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::Tensor;
use ist_peft::{Adapter, PeftNorm};

use super::attention::{DecoderAttention, LayerCache};
use super::config::{DecoderConfig, Residual};
use super::context::DecoderContext;
use super::experts::DecoderExperts;
use super::mlp::DecoderMlp;
use super::norm::{normalise, normed};

/// One decoder layer.
#[derive(Module, Debug)]
pub struct DecoderLayer<A: Module> {
    /// Which one, from 0.
    pub(super) index: usize,
    pub(super) before_attention: Option<PeftNorm<A>>,
    pub(super) self_attn: DecoderAttention<A>,
    pub(super) after_attention: Option<PeftNorm<A>>,
    pub(super) before_mlp: Option<PeftNorm<A>>,
    /// Absent where experts take its place.
    pub(super) mlp: Option<DecoderMlp<A>>,
    pub(super) experts: Option<DecoderExperts<A>>,
    pub(super) after_mlp: Option<PeftNorm<A>>,
}

impl<A: Adapter> DecoderLayer<A> {
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        if context.config.residual == Residual::Parallel {
            return self.both(x, context, pass, cache);
        }
        self.feed_forward(self.attend(x, context, pass, cache), context, pass)
    }

    /// Attention and MLP of a parallel layer. Without a norm of its own the MLP gets the
    /// attention's.
    fn both(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let config = &*context.config;
        let first = normed(config, self.before_attention.as_ref(), x.clone(), pass);
        let second = match &self.before_mlp {
            Some(norm) => normalise(config, norm, x.clone(), pass),
            None => first.clone(),
        };
        let attended = self.self_attn.forward(first, (self.index, true), context, pass, cache);
        x + (attended + self.transform(second, config, true, pass))
    }

    /// The first half: attention with its residual.
    pub(super) fn attend(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let config = &*context.config;
        let normal = normed(config, self.before_attention.as_ref(), x.clone(), pass);
        let attended =
            self.self_attn.forward(normal.clone(), (self.index, false), context, pass, cache);
        let attended = normed(config, self.after_attention.as_ref(), attended, pass);
        joined(config, x, normal, attended)
    }

    /// The second half: the MLP with its residual. It works position by position.
    pub(super) fn feed_forward(
        &self,
        x: Tensor<3>,
        context: &DecoderContext,
        pass: &LayerPass,
    ) -> Tensor<3> {
        let config = &*context.config;
        let normal = normed(config, self.before_mlp.as_ref(), x.clone(), pass);
        let added = self.transform(normal.clone(), config, self.after_mlp.is_none(), pass);
        let added = normed(config, self.after_mlp.as_ref(), added, pass);
        joined(config, x, normal, added)
    }

    fn transform(
        &self,
        x: Tensor<3>,
        config: &DecoderConfig,
        last: bool,
        pass: &LayerPass,
    ) -> Tensor<3> {
        match (&self.mlp, &self.experts) {
            (Some(mlp), _) => mlp.forward(x, config, last, pass),
            (None, Some(experts)) => experts.forward(x, config, pass),
            (None, None) => unreachable!("a layer has an MLP or experts"),
        }
    }
}

/// What the residual stream becomes: `added` to x, or to what the norm made of it.
fn joined(config: &DecoderConfig, x: Tensor<3>, normal: Tensor<3>, added: Tensor<3>) -> Tensor<3> {
    if config.residual == Residual::Normalised { normal + added } else { x + added }
}
