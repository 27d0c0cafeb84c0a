//! The modules of a layer in the order of [`layer_parts`](super::layout::layer_parts), for whatever
//! goes over all of them.

use ist_core::burn;

use burn::module::Module;
use ist_peft::{PeftLinear, PeftNorm, Weight};

use super::layer::DecoderLayer;

/// One module of a layer.
pub(super) enum Part<'a, A: Module> {
    Linear(&'a PeftLinear<A>),
    Norm(&'a PeftNorm<A>),
    Attention(Option<&'a A>),
    Router(&'a Weight<2>),
}

/// The same for changing it.
pub(super) enum PartMut<'a, A: Module> {
    Linear(&'a mut PeftLinear<A>),
    Norm(&'a mut PeftNorm<A>),
    Attention(&'a mut Option<A>),
    Router(&'a mut Weight<2>),
}

impl<'a, A: Module> Part<'a, A> {
    /// Whether an adapter can sit there.
    pub(super) fn is_site(&self) -> bool {
        !matches!(self, Self::Router(_))
    }

    /// What is trained there.
    pub(super) fn adapter(self) -> Option<&'a A> {
        match self {
            Self::Linear(linear) => linear.adapter.as_ref(),
            Self::Norm(norm) => norm.adapter.as_ref(),
            Self::Attention(prefix) => prefix,
            Self::Router(_) => None,
        }
    }
}

fn norm<A: Module>(norm: Option<&PeftNorm<A>>) -> Option<Part<'_, A>> {
    norm.map(Part::Norm)
}

fn linear<A: Module>(linear: Option<&PeftLinear<A>>) -> Option<Part<'_, A>> {
    linear.map(Part::Linear)
}

fn norm_mut<A: Module>(norm: &mut Option<PeftNorm<A>>) -> Option<PartMut<'_, A>> {
    norm.as_mut().map(PartMut::Norm)
}

fn linear_mut<A: Module>(linear: &mut Option<PeftLinear<A>>) -> Option<PartMut<'_, A>> {
    linear.as_mut().map(PartMut::Linear)
}

impl<A: Module> DecoderLayer<A> {
    /// The modules in the order of `layout::layer_parts`.
    pub(super) fn parts(&self) -> Vec<Part<'_, A>> {
        let attention = &self.self_attn;
        let mut parts = vec![
            norm(self.before_attention.as_ref()),
            Some(Part::Attention(attention.prefix.as_ref())),
        ];
        let projections =
            [&attention.q_proj, &attention.k_proj, &attention.v_proj, &attention.qkv_proj];
        parts.extend(projections.map(|module| linear(module.as_ref())));
        parts.extend([&attention.q_norm, &attention.k_norm].map(|module| norm(module.as_ref())));
        parts.push(Some(Part::Linear(&attention.o_proj)));
        parts.extend([&self.after_attention, &self.before_mlp].map(|module| norm(module.as_ref())));
        if let Some(mlp) = &self.mlp {
            parts.extend(
                [&mlp.gate_proj, &mlp.up_proj, &mlp.gate_up_proj]
                    .map(|module| linear(module.as_ref())),
            );
            parts.push(Some(Part::Linear(&mlp.down_proj)));
        }
        if let Some(experts) = &self.experts {
            parts.push(Some(Part::Router(&experts.router)));
            let linears =
                experts.experts.iter().flat_map(|e| [&e.gate_proj, &e.up_proj, &e.down_proj]);
            parts.extend(linears.map(|linear| Some(Part::Linear(linear))));
        }
        parts.push(norm(self.after_mlp.as_ref()));
        parts.into_iter().flatten().collect()
    }

    /// The same for changing them.
    pub(super) fn parts_mut(&mut self) -> Vec<PartMut<'_, A>> {
        let attention = &mut self.self_attn;
        let mut parts = vec![
            norm_mut(&mut self.before_attention),
            Some(PartMut::Attention(&mut attention.prefix)),
        ];
        parts.extend(
            [
                &mut attention.q_proj,
                &mut attention.k_proj,
                &mut attention.v_proj,
                &mut attention.qkv_proj,
            ]
            .map(linear_mut),
        );
        parts.extend([&mut attention.q_norm, &mut attention.k_norm].map(norm_mut));
        parts.push(Some(PartMut::Linear(&mut attention.o_proj)));
        parts.extend([&mut self.after_attention, &mut self.before_mlp].map(norm_mut));
        if let Some(mlp) = &mut self.mlp {
            parts.extend(
                [&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.gate_up_proj].map(linear_mut),
            );
            parts.push(Some(PartMut::Linear(&mut mlp.down_proj)));
        }
        if let Some(experts) = &mut self.experts {
            parts.push(Some(PartMut::Router(&mut experts.router)));
            let linears = experts.experts.iter_mut();
            let linears =
                linears.flat_map(|e| [&mut e.gate_proj, &mut e.up_proj, &mut e.down_proj]);
            parts.extend(linears.map(|linear| Some(PartMut::Linear(linear))));
        }
        parts.push(norm_mut(&mut self.after_mlp));
        parts.into_iter().flatten().collect()
    }
}
