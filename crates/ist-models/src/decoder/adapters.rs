//! A decoder's places for adapters.

use std::sync::Arc;

use ist_core::burn::tensor::Tensor;
use ist_peft::{Adapter, BaseMut, PeftLinear, PeftModel, Roles, Site, Slot, Weight};

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

    fn model_type(&self) -> &'static str {
        self.config.model_type
    }

    fn shared_head(&self) -> Option<Site> {
        layout::shared_head(&self.config)
    }

    fn untie(&mut self) {
        if self.outer.lm_head.is_none() {
            let head = self.outer.embed_tokens.weight.current().transpose();
            self.outer.lm_head =
                Some(PeftLinear::new(self.config.names.lm_head, Weight::frozen(head), None));
            Arc::make_mut(&mut self.config).set_tied(false);
        }
    }

    fn resize_vocabulary(&mut self, rows: usize) -> bool {
        let table = &mut self.outer.embed_tokens.weight;
        *table = Weight::frozen(with_rows(table.current(), rows));
        if let Some(head) = &mut self.outer.lm_head {
            let table = with_rows(head.base.weight.current().transpose(), rows);
            head.base.weight = Weight::frozen(table.transpose());
            head.base.bias = head.base.bias.take().map(|bias| {
                let column = with_rows(bias.current().unsqueeze_dim(1), rows);
                Weight::frozen(column.squeeze_dim(1))
            });
        }
        Arc::make_mut(&mut self.config).set_vocabulary(rows);
        true
    }
}

/// A table cut to that many rows, or filled up with zeros.
fn with_rows(table: Tensor<2>, rows: usize) -> Tensor<2> {
    let [found, width] = table.dims();
    if rows <= found {
        return table.narrow(0, 0, rows);
    }
    let more = Tensor::zeros([rows - found, width], (&table.device(), table.dtype()));
    Tensor::cat(vec![table, more], 0)
}
