//! A decoder's places for adapters.

use std::sync::Arc;

use ist_peft::{Adapter, BaseMut, PeftLinear, PeftModel, Roles, Slot, Weight};

use super::config::DecoderConfig;
use super::parts::PartMut;
use super::{Decoder, layout};

impl<A: Adapter> PeftModel<A> for Decoder<A> {
    fn slots(&mut self) -> Vec<Slot<'_, A>> {
        let sites = layout::sites(&self.config).into_iter();
        let outer = &mut self.outer;
        let embedding =
            (BaseMut::Embedding(&mut outer.embed_tokens.weight), &mut outer.embed_tokens.adapter);
        let norms = outer
            .embedding_norm
            .iter_mut()
            .map(|norm| (BaseMut::Norm(&mut norm.base), &mut norm.adapter));
        let mut places: Vec<_> = std::iter::once(embedding).chain(norms).collect();
        for layer in &mut self.layers {
            places.extend(layer.parts_mut().into_iter().filter_map(|part| match part {
                PartMut::Linear(linear) => {
                    Some((BaseMut::Linear(&mut linear.base), &mut linear.adapter))
                }
                PartMut::Norm(norm) => Some((BaseMut::Norm(&mut norm.base), &mut norm.adapter)),
                PartMut::Attention(prefix) => Some((BaseMut::Attention, prefix)),
                PartMut::Router(_) => None,
            }));
        }
        places.push((BaseMut::Norm(&mut outer.norm.base), &mut outer.norm.adapter));
        places.extend(
            outer
                .lm_head
                .iter_mut()
                .map(|head| (BaseMut::Linear(&mut head.base), &mut head.adapter)),
        );
        sites.zip(places).map(|(site, (base, adapter))| Slot { site, base, adapter }).collect()
    }

    fn roles(&self) -> &'static Roles {
        self.config.roles
    }

    fn num_layers(&self) -> usize {
        self.layers.len()
    }

    fn untie(&mut self) {
        if self.outer.lm_head.is_none() {
            let head = self.outer.embed_tokens.weight.current().transpose();
            self.outer.lm_head =
                Some(PeftLinear::new(self.config.names.lm_head, Weight::frozen(head), None));
            let config: &mut DecoderConfig = Arc::make_mut(&mut self.config);
            config.tie_word_embeddings = false;
            config.document["tie_word_embeddings"] = false.into();
        }
    }
}
