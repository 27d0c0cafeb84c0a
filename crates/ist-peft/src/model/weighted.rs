//! A weighted sum of several adapters, folded into a model.
//!
//! W' = W + Σ wₖ (Wₖ - W), where Wₖ is the weight with adapter k folded in: the sum of what the
//! adapters change, each times its weight, of any sign. For low-rank methods that is Σ wₖ sₖ Aₖ Bₖ
//! exactly, PEFT's combination type `cat`; PEFT's `linear` sums the factors instead and has cross
//! terms.

use crate::frozen::Base;
use crate::method::MergeError;
use crate::model::attach::PeftModel;
use crate::set::Adapter;
use crate::site::SiteKind;

/// The sum so far: of each module the weights of its adapters and Σ wₖ Wₖ, in f32.
#[derive(Debug, Default)]
pub struct WeightedSum {
    modules: Vec<Option<(f64, Base)>>,
}

impl WeightedSum {
    /// Adds the adapters that are on the model now, with that weight, and takes them off. Nothing
    /// is changed when one of them cannot be folded in.
    ///
    /// # Errors
    /// A method that no weight can hold.
    pub fn add<A: Adapter>(
        &mut self,
        model: &mut impl PeftModel<A>,
        weight: f64,
    ) -> Result<(), MergeError> {
        let merged = model.slots().into_iter().map(|slot| {
            slot.adapter
                .as_ref()
                .map(|adapter| adapter.view().merge(slot.base.get().widened()))
                .transpose()
        });
        let merged = merged.collect::<Result<Vec<_>, _>>()?;
        self.modules.resize(merged.len(), None);
        for (sum, merged) in self.modules.iter_mut().zip(merged) {
            let Some(merged) = merged else { continue };
            *sum = Some(match sum.take() {
                Some((total, sum)) => (total + weight, sum.combine(1.0, &merged, weight)),
                None => (weight, merged.clone().combine(weight, &merged, 0.0)),
            });
        }
        for slot in model.slots() {
            *slot.adapter = None;
        }
        Ok(())
    }

    /// Puts the sum in the place of the model's weights. Before an embedding changes, a head tied
    /// to it gets a copy.
    pub fn fold<A: Adapter>(self, model: &mut impl PeftModel<A>) {
        let changes_table = |(slot, sum): (&crate::Slot<A>, &Option<_>)| {
            slot.site.kind == SiteKind::Embedding && sum.is_some()
        };
        if model.slots().iter().zip(&self.modules).any(changes_table) {
            model.untie();
        }
        for (mut slot, sum) in model.slots().into_iter().zip(self.modules) {
            if let Some((total, sum)) = sum {
                let own = slot.base.get();
                slot.base.set(own.combine(1.0 - total, &sum, 1.0));
            }
        }
    }
}
