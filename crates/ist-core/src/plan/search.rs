//! The exact search for the treatments that recompute least within a budget.
//!
//! Every phase depends on the graphs kept below its layer and on that layer's own treatment. It
//! never falls when more is kept below. So the layers are decided from the lowest upwards. Of all
//! ways to have saved the same work so far, only the one with the fewest bytes can lead to the best
//! plan, and the others are dropped.
//!
//! One way remains for each amount of work. So n layers of equal work that do not divide cost about
//! n² operations, and up to n³ where they divide.

use super::footprint::{Footprint, LayerFootprint};
use super::phases::{Draw, Phases, peak};
use super::treatment::{LayerTreatment, Memory};

impl Draw<'_> {
    /// The treatment of every layer under `memory`.
    ///
    /// Under a budget that nothing meets it is the leanest. Under [`Memory::Recompute`] it keeps
    /// the layers whose graphs do not raise the peak. Without a footprint every layer is run again.
    pub fn treatments(&self, memory: Memory, footprint: Option<&Footprint>) -> Vec<LayerTreatment> {
        let again = self.uniform(LayerTreatment::Recompute);
        match (memory, footprint) {
            (Memory::Keep, _) => self.uniform(LayerTreatment::Keep),
            (Memory::Budget(bytes), Some(footprint)) => {
                within(footprint, self, bytes).unwrap_or_else(|| leanest(footprint, self))
            }
            (Memory::Recompute, Some(footprint)) => {
                // Its own peak as the budget: whatever fits under it is kept for free.
                let budget = peak(footprint, self, &again);
                within(footprint, self, budget).unwrap_or(again)
            }
            (Memory::Recompute | Memory::Budget(_), None) => again,
        }
    }
}

/// The treatments with the least recomputation whose peak is at most `budget`. `None` when no
/// treatments have such a peak.
pub fn within(footprint: &Footprint, draw: &Draw, budget: u64) -> Option<Vec<LayerTreatment>> {
    let all = draw.uniform(LayerTreatment::Keep);
    if peak(footprint, draw, &all) <= budget {
        return Some(all);
    }
    Search::new(footprint, draw, budget).run()
}

/// The treatments with the lowest possible peak, and of those the ones with the least
/// recomputation.
pub fn leanest(footprint: &Footprint, draw: &Draw) -> Vec<LayerTreatment> {
    let mut best = draw.uniform(LayerTreatment::Recompute);
    // Bisection: nothing meets `low`, and `best` meets `high`.
    let mut low = 0;
    let mut high = peak(footprint, draw, &best);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match within(footprint, draw, middle) {
            Some(found) => {
                // The peak found may lie well under the budget asked for, which saves rounds.
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
    /// Work that is not done again.
    saved: u64,
    /// Bytes of the graphs.
    bytes: u64,
    /// Where in the trail it comes from.
    trail: usize,
    /// The last decision.
    treatment: LayerTreatment,
}

/// One decision that may lead to the best plan.
struct Decision {
    /// The place in the trail of the decision before it.
    before: usize,
    /// Its layer's treatment.
    treatment: LayerTreatment,
}

struct Search<'a> {
    phases: Phases<'a>,
    budget: u64,
    /// The decisions of all ways, which share their beginnings.
    trail: Vec<Decision>,
}

impl<'a> Search<'a> {
    fn new(footprint: &'a Footprint, draw: &Draw, budget: u64) -> Self {
        Self { phases: Phases::new(footprint, draw), budget, trail: Vec::new() }
    }

    fn run(mut self) -> Option<Vec<LayerTreatment>> {
        // No decision changes this phase.
        if self.phases.skipped() > self.budget {
            return None;
        }
        let start = Way { saved: 0, bytes: 0, trail: 0, treatment: LayerTreatment::Skip };
        let mut ways = vec![start];
        for layer in self.phases.lowest..self.phases.footprint.layers.len() {
            ways = ways.into_iter().flat_map(|way| self.decisions(layer, way)).collect();
            drop_dominated(&mut ways);
            for way in &mut ways {
                // A way holds its last decision only, so extending one copies no list.
                self.trail.push(Decision { before: way.trail, treatment: way.treatment });
                way.trail = self.trail.len() - 1;
            }
        }
        // The loss is the one phase that sees all graphs, so it is checked last.
        let fits = |way: &&Way| self.phases.loss(way.bytes) <= self.budget;
        let best = *ways.iter().filter(fits).max_by_key(|way| way.saved)?;
        Some(self.treatments(best.trail))
    }

    /// `way` with every treatment of the next layer that stays within the budget.
    fn decisions(&self, layer: usize, way: Way) -> Vec<Way> {
        let phases = &self.phases;
        let footprint = &phases.footprint.layers[layer];
        let divides = phases.costs[layer].half.is_some();
        let allowed = |treatment: &LayerTreatment| {
            let running = phases.running(layer, way.bytes, *treatment);
            let backward = phases.backward(layer, way.bytes, *treatment);
            let possible = *treatment != LayerTreatment::KeepHalf || divides;
            possible && running.max(backward) <= self.budget
        };
        let decide = |treatment| Way {
            saved: way.saved + u64::from(footprint.work - work(footprint, treatment)),
            bytes: way.bytes + phases.held(layer, treatment),
            treatment,
            ..way
        };
        [LayerTreatment::Recompute, LayerTreatment::KeepHalf, LayerTreatment::Keep]
            .into_iter()
            .filter(allowed)
            .map(decide)
            .collect()
    }

    /// The decisions that end at that place of the trail.
    fn treatments(&self, mut at: usize) -> Vec<LayerTreatment> {
        let layers = self.phases.footprint.layers.len();
        let mut treatments = vec![LayerTreatment::Skip; layers];
        // From the last layer back to the lowest that trains. Those below it stay skipped.
        for treatment in treatments[self.phases.lowest..].iter_mut().rev() {
            let decision = &self.trail[at];
            *treatment = decision.treatment;
            at = decision.before;
        }
        treatments
    }
}

/// The work that is done again of a layer under that treatment.
fn work(layer: &LayerFootprint, treatment: LayerTreatment) -> u32 {
    match treatment {
        LayerTreatment::Recompute => layer.work,
        LayerTreatment::KeepHalf => layer.half_work,
        LayerTreatment::Skip | LayerTreatment::Keep => 0,
    }
}

/// Keeps the ways that save more work than every other one of as few bytes.
///
/// A dropped way can never overtake: whatever may follow it may follow the way that dominates it,
/// with no more bytes and no less work saved.
fn drop_dominated(ways: &mut Vec<Way>) {
    // Of equally many bytes the one that saves most comes first and drops the others.
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
    use super::*;
    use crate::LayerSet;
    use crate::plan::{KeptCost, LayerCost, LossCost};
    use proptest::prelude::*;

    fn kept() -> impl Strategy<Value = KeptCost> {
        (0u64..50, 0u64..30, 0u64..40).prop_map(|(graph, extra, backward)| KeptCost {
            graph,
            tracked: graph + extra,
            backward: graph + backward,
        })
    }

    fn cost() -> impl Strategy<Value = LayerCost> {
        (kept(), 0u64..30, 0u64..5, kept()).prop_map(|(whole, plain, gradients, half)| {
            let KeptCost { graph, tracked, backward } = whole;
            LayerCost { graph, plain, tracked, backward, gradients, half: Some(half) }
        })
    }

    fn layer() -> impl Strategy<Value = LayerFootprint> {
        (cost(), cost(), cost(), 1u32..6, 0u32..6, any::<bool>()).prop_map(
            |(resting, chosen, lowest, work, half_work, divides)| {
                let divided =
                    |cost: LayerCost| LayerCost { half: cost.half.filter(|_| divides), ..cost };
                let resting = LayerCost { gradients: 0, ..divided(resting) };
                LayerFootprint {
                    resting,
                    chosen: divided(chosen),
                    lowest: divided(lowest),
                    work,
                    half_work: half_work.min(work),
                }
            },
        )
    }

    fn footprint() -> impl Strategy<Value = Footprint> {
        let loss = (0u64..40, 0u64..60, 0u64..3);
        let loss = loss.prop_map(|(plain, tracked, gradients)| LossCost {
            plain,
            tracked,
            logits: 0,
            gradients,
        });
        (0u64..9, 1u64..12, prop::collection::vec(layer(), 1..7), loss)
            .prop_map(|(held, hidden, layers, loss)| Footprint { held, hidden, layers, loss })
    }

    fn total_work(footprint: &Footprint, treatments: &[LayerTreatment]) -> u32 {
        footprint
            .layers
            .iter()
            .zip(treatments)
            .map(|(layer, treatment)| work(layer, *treatment))
            .sum()
    }

    /// Peak and recomputed work of every way to treat the layers.
    fn every_way(footprint: &Footprint, draw: &Draw) -> Vec<(u64, u32)> {
        let mut ways = vec![draw.uniform(LayerTreatment::Skip)];
        for (index, layer) in footprint.layers.iter().enumerate().skip(draw.lowest()) {
            let divides = layer.resting.half.is_some();
            let possible =
                [LayerTreatment::Recompute, LayerTreatment::KeepHalf, LayerTreatment::Keep]
                    .into_iter();
            let possible =
                possible.filter(|treatment| divides || *treatment != LayerTreatment::KeepHalf);
            let with = |treatment| {
                ways.iter().map(move |way| {
                    let mut way = way.clone();
                    way[index] = treatment;
                    way
                })
            };
            ways = possible.flat_map(with).collect();
        }
        ways.iter().map(|way| (peak(footprint, draw, way), total_work(footprint, way))).collect()
    }

    /// The layers whose bit is set.
    fn masked(mask: usize, layers: usize) -> LayerSet {
        LayerSet::new((0..layers).filter(|layer| mask >> layer & 1 == 1), layers).unwrap()
    }

    proptest! {
        #[test]
        fn the_plan_is_the_best_of_all_ways(
            footprint in footprint(),
            mask in 0usize..256,
            budget in 0u64..500,
            embedding_trains: bool,
            accumulates: bool,
            updates_at_once: bool,
        ) {
            let layers = footprint.layers.len();
            let chosen = masked(mask, layers);
            let draw = Draw { chosen: &chosen, embedding_trains, accumulates, updates_at_once };
            let ways = every_way(&footprint, &draw);
            let best = ways.iter().filter(|(peak, _)| *peak <= budget).map(|(_, work)| *work).min();
            let found = within(&footprint, &draw, budget);
            let work = found.as_ref().map(|treatments| total_work(&footprint, treatments));
            prop_assert_eq!(work, best);
            if let Some(treatments) = found {
                prop_assert!(peak(&footprint, &draw, &treatments) <= budget);
            }
            let least = leanest(&footprint, &draw);
            let lowest = ways.iter().map(|(peak, _)| *peak).min();
            prop_assert_eq!(Some(peak(&footprint, &draw, &least)), lowest);
        }

        #[test]
        fn a_larger_budget_never_recomputes_more(
            footprint in footprint(),
            mask in 1usize..256,
            budget in 0u64..500,
            more in 0u64..99,
        ) {
            let layers = footprint.layers.len();
            let chosen = masked(mask, layers);
            let draw = Draw::of(&chosen);
            if let Some(small) = within(&footprint, &draw, budget) {
                let large = within(&footprint, &draw, budget + more).unwrap();
                prop_assert!(total_work(&footprint, &large) <= total_work(&footprint, &small));
            }
        }
    }

    #[test]
    fn nothing_is_kept_below_the_lowest_chosen_layer() {
        use LayerTreatment::{Keep, Recompute, Skip};
        let chosen = LayerSet::new([2, 3], 5).unwrap();
        let draw = Draw::of(&chosen);
        assert_eq!(draw.treatments(Memory::Keep, None), [Skip, Skip, Keep, Keep, Keep]);
        assert_eq!(
            draw.treatments(Memory::Recompute, None),
            [Skip, Skip, Recompute, Recompute, Recompute]
        );
        assert_eq!(
            Draw { embedding_trains: true, ..draw }.treatments(Memory::Keep, None),
            [Keep; 5]
        );
        assert_eq!(Draw::of(&LayerSet::empty(3)).treatments(Memory::Keep, None), [Skip; 3]);
    }

    #[test]
    fn a_model_that_tells_no_footprint_is_run_again_under_a_budget() {
        let chosen = LayerSet::new([1], 3).unwrap();
        assert_eq!(
            Draw::of(&chosen).treatments(Memory::Budget(u64::MAX), None),
            Draw::of(&chosen).treatments(Memory::Recompute, None)
        );
    }

    #[test]
    fn high_layers_are_kept_before_low_ones() {
        let cost = LayerCost {
            graph: 100,
            plain: 30,
            tracked: 120,
            backward: 150,
            ..LayerCost::default()
        };
        let layer =
            LayerFootprint { resting: cost, chosen: cost, lowest: cost, work: 1, half_work: 0 };
        let loss = LossCost { plain: 10, tracked: 20, logits: 0, gradients: 0 };
        let footprint = Footprint { held: 0, hidden: 10, layers: vec![layer; 6], loss };
        let chosen = LayerSet::new([0, 3], 6).unwrap();
        let draw = Draw::of(&chosen);
        let budget = peak(&footprint, &draw, &draw.uniform(LayerTreatment::Recompute));
        let treatments = within(&footprint, &draw, budget).unwrap();
        assert_eq!(
            treatments[5],
            LayerTreatment::Keep,
            "its graph is the first to go: {treatments:?}"
        );
        assert_eq!(treatments[..5], [LayerTreatment::Recompute; 5]);
    }

    #[test]
    fn a_hundred_layers_are_planned_at_once() {
        let cost = |graph| {
            let half = KeptCost { graph: graph / 3, tracked: graph, backward: graph + 40 };
            LayerCost {
                graph,
                plain: 30,
                tracked: graph + 20,
                backward: graph + 50,
                gradients: 1,
                half: Some(half),
            }
        };
        let layer = |work| {
            let half_work = 2 * work / 3;
            LayerFootprint {
                resting: cost(100),
                chosen: cost(163),
                lowest: cost(150),
                work,
                half_work,
            }
        };
        let layers = (0..100).map(|index| layer(100 + index % 3)).collect();
        let footprint = Footprint { held: 0, hidden: 10, layers, loss: LossCost::default() };
        let chosen = LayerSet::new((0..100).step_by(4), 100).unwrap();
        let treatments = within(&footprint, &Draw::of(&chosen), 6000).unwrap();
        for treatment in [LayerTreatment::Keep, LayerTreatment::KeepHalf, LayerTreatment::Recompute]
        {
            assert!(treatments.contains(&treatment), "{treatment:?}");
        }
    }
}
