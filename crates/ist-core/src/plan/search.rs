//! The exact search for the treatments that recompute least within a budget.
//!
//! Every phase depends on the graphs kept below its layer and on that layer's own treatment, and never falls when more is
//! kept below. So the layers are decided from the lowest upwards, and of all ways to have saved the same work so far only
//! the one with the fewest bytes can lead to the best plan: the others are dropped. What remains is one way for each amount
//! of work, so n layers of equal work cost about n² operations.

use super::{Draw, Footprint, LayerFootprint, Phases, peak};
use crate::step::Treatment;

/// The treatments with the least recomputation whose peak is at most `budget`; `None` when no treatments have such a peak.
pub fn within(footprint: &Footprint, draw: &Draw, budget: u64) -> Option<Vec<Treatment>> {
    let all = draw.uniform(Treatment::Keep);
    if peak(footprint, draw, &all) <= budget {
        return Some(all);
    }
    Search::new(footprint, draw, budget).run()
}

/// Treatments whose peak no others undercut, and of those the ones with the least recomputation.
pub fn leanest(footprint: &Footprint, draw: &Draw) -> Vec<Treatment> {
    let mut best = draw.uniform(Treatment::Recompute);
    // Nothing meets `low`, and `best` meets `high`.
    let (mut low, mut high) = (0, peak(footprint, draw, &best));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match within(footprint, draw, middle) {
            Some(found) => {
                high = peak(footprint, draw, &found);
                best = found;
            }
            None => low = middle,
        }
    }
    within(footprint, draw, high).unwrap_or(best)
}

/// The layers decided so far.
#[derive(Clone, Copy)]
struct Way {
    /// Work of the layers that are kept.
    saved: u64,
    /// Bytes of their graphs.
    bytes: u64,
    /// Where in the trail it comes from.
    trail: usize,
}

struct Search<'a> {
    phases: Phases<'a>,
    budget: u64,
    /// Every decision that was taken: the one before it, and whether its layer is kept.
    trail: Vec<(usize, bool)>,
}

impl<'a> Search<'a> {
    fn new(footprint: &'a Footprint, draw: &Draw, budget: u64) -> Self {
        Self { phases: Phases::new(footprint, draw), budget, trail: vec![(0, false)] }
    }

    fn run(mut self) -> Option<Vec<Treatment>> {
        if self.phases.skipped() > self.budget {
            return None;
        }
        let layers = &self.phases.footprint.layers;
        let mut ways = vec![Way { saved: 0, bytes: 0, trail: 0 }];
        for (layer, LayerFootprint { work, .. }) in layers.iter().enumerate().skip(self.phases.lowest) {
            let decided = ways.iter().flat_map(|way| [false, true].map(|kept| (way, kept)));
            let allowed: Vec<(Way, bool)> = decided
                .filter(|(way, kept)| self.allows(layer, way.bytes, *kept))
                .map(|(way, kept)| (*way, kept))
                .collect();
            ways = allowed.into_iter().map(|(way, kept)| self.decide(layer, u64::from(*work), way, kept)).collect();
            drop_dominated(&mut ways);
        }
        let fits = |way: &&Way| self.phases.loss(way.bytes) <= self.budget;
        let best = *ways.iter().filter(fits).max_by_key(|way| way.saved)?;
        Some(self.treatments(best.trail))
    }

    fn allows(&self, layer: usize, below: u64, kept: bool) -> bool {
        let phases = &self.phases;
        phases.running(layer, below, kept).max(phases.backward(layer, below, kept)) <= self.budget
    }

    fn decide(&mut self, layer: usize, work: u64, way: Way, kept: bool) -> Way {
        self.trail.push((way.trail, kept));
        let bytes = way.bytes + self.phases.held(layer, kept);
        Way { saved: way.saved + if kept { work } else { 0 }, bytes, trail: self.trail.len() - 1 }
    }

    /// The decisions that end at that place of the trail.
    fn treatments(&self, mut at: usize) -> Vec<Treatment> {
        let (layers, lowest) = (self.phases.footprint.layers.len(), self.phases.lowest);
        let mut treatments = vec![Treatment::Skip; layers];
        for treatment in treatments[lowest..].iter_mut().rev() {
            let (before, kept) = self.trail[at];
            *treatment = if kept { Treatment::Keep } else { Treatment::Recompute };
            at = before;
        }
        treatments
    }
}

/// Keeps the ways that save more work than every other one of as few bytes.
fn drop_dominated(ways: &mut Vec<Way>) {
    ways.sort_unstable_by_key(|way| (way.bytes, std::cmp::Reverse(way.saved)));
    let mut most = None;
    ways.retain(|way| {
        let better = most.is_none_or(|most| way.saved > most);
        if better {
            most = Some(way.saved);
        }
        better
    });
}

#[cfg(test)]
mod tests {
    use super::super::{LayerCost, LossCost};
    use super::*;
    use crate::LayerSet;
    use proptest::prelude::*;

    fn cost() -> impl Strategy<Value = LayerCost> {
        (0u64..50, 0u64..30, 0u64..30, 0u64..40, 0u64..5).prop_map(|(graph, plain, extra, backward, gradients)| {
            LayerCost { graph, plain, tracked: graph + extra, backward: graph + backward, gradients }
        })
    }

    fn layer() -> impl Strategy<Value = LayerFootprint> {
        (cost(), cost(), cost(), 1u32..4).prop_map(|(resting, chosen, lowest, work)| {
            let resting = LayerCost { gradients: 0, ..resting };
            LayerFootprint { resting, chosen, lowest, work }
        })
    }

    fn footprint() -> impl Strategy<Value = Footprint> {
        let loss = (0u64..40, 0u64..60, 0u64..3);
        let loss = loss.prop_map(|(plain, tracked, gradients)| LossCost { plain, tracked, logits: 0, gradients });
        (0u64..9, 1u64..12, prop::collection::vec(layer(), 1..8), loss)
            .prop_map(|(held, hidden, layers, loss)| Footprint { held, hidden, layers, loss })
    }

    fn work(footprint: &Footprint, treatments: &[Treatment]) -> u32 {
        let again =
            footprint.layers.iter().zip(treatments).filter(|(_, treatment)| **treatment == Treatment::Recompute);
        again.map(|(layer, _)| layer.work).sum()
    }

    /// Peak and recomputed work of every way to treat the layers.
    fn every_way(footprint: &Footprint, draw: &Draw) -> Vec<(u64, u32)> {
        let free = footprint.layers.len() - draw.lowest();
        let way = |mask: usize| {
            let mut treatments = draw.uniform(Treatment::Recompute);
            for (bit, treatment) in treatments[draw.lowest()..].iter_mut().enumerate() {
                *treatment = if mask >> bit & 1 == 1 { Treatment::Keep } else { Treatment::Recompute };
            }
            (peak(footprint, draw, &treatments), work(footprint, &treatments))
        };
        (0..1 << free).map(way).collect()
    }

    proptest! {
        #[test]
        fn the_plan_is_the_best_of_all_ways(
            footprint in footprint(), mask in 0usize..256, budget in 0u64..500, embedding_trains: bool, accumulates: bool,
        ) {
            let layers = footprint.layers.len();
            let chosen = LayerSet::new((0..layers).filter(|layer| mask >> layer & 1 == 1), layers).unwrap();
            let draw = Draw { chosen: &chosen, embedding_trains, accumulates };
            let ways = every_way(&footprint, &draw);
            let best = ways.iter().filter(|(peak, _)| *peak <= budget).map(|(_, work)| *work).min();
            let found = within(&footprint, &draw, budget);
            prop_assert_eq!(found.as_ref().map(|treatments| work(&footprint, treatments)), best);
            if let Some(treatments) = found {
                prop_assert!(peak(&footprint, &draw, &treatments) <= budget);
            }
            let least = leanest(&footprint, &draw);
            prop_assert_eq!(Some(peak(&footprint, &draw, &least)), ways.iter().map(|(peak, _)| *peak).min());
        }

        #[test]
        fn a_larger_budget_never_recomputes_more(footprint in footprint(), mask in 1usize..256, budget in 0u64..500, more in 0u64..99) {
            let layers = footprint.layers.len();
            let chosen = LayerSet::new((0..layers).filter(|layer| mask >> layer & 1 == 1), layers).unwrap();
            let draw = Draw::of(&chosen);
            if let Some(small) = within(&footprint, &draw, budget) {
                let large = within(&footprint, &draw, budget + more).unwrap();
                prop_assert!(work(&footprint, &large) <= work(&footprint, &small));
            }
        }
    }

    #[test]
    fn high_layers_are_kept_before_low_ones() {
        let cost = LayerCost { graph: 100, plain: 30, tracked: 120, backward: 150, gradients: 0 };
        let layer = LayerFootprint { resting: cost, chosen: cost, lowest: cost, work: 1 };
        let loss = LossCost { plain: 10, tracked: 20, logits: 0, gradients: 0 };
        let footprint = Footprint { held: 0, hidden: 10, layers: vec![layer; 6], loss };
        let chosen = LayerSet::new([0, 3], 6).unwrap();
        let budget = peak(&footprint, &Draw::of(&chosen), &Draw::of(&chosen).uniform(Treatment::Recompute));
        let treatments = within(&footprint, &Draw::of(&chosen), budget).unwrap();
        assert_eq!(treatments[5], Treatment::Keep, "its graph is the first to go: {treatments:?}");
        assert_eq!(treatments[..5], [Treatment::Recompute; 5]);
    }

    #[test]
    fn a_hundred_layers_are_planned_at_once() {
        let cost = |graph| LayerCost { graph, plain: 30, tracked: graph + 20, backward: graph + 50, gradients: 1 };
        let layer = |work| LayerFootprint { resting: cost(100), chosen: cost(163), lowest: cost(150), work };
        let layers = (0..100).map(|index| layer(100 + index % 3)).collect();
        let footprint = Footprint { held: 0, hidden: 10, layers, loss: LossCost::default() };
        let chosen = LayerSet::new((0..100).step_by(4), 100).unwrap();
        let treatments = within(&footprint, &Draw::of(&chosen), 6000).unwrap();
        assert!(treatments.contains(&Treatment::Keep) && treatments.contains(&Treatment::Recompute));
    }
}
