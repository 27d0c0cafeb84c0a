//! A layer as the list of its operations, from which its [`LayerCost`] follows.
//!
//! An architecture writes down, operation by operation, what each reads, writes and keeps for its
//! backward pass. The tape is then played forwards and backwards with the bytes alone. A value
//! lives until its last reader is done or, where it is kept, until the backward pass of the
//! operation that keeps it. Nothing is computed and no tensor exists.

use super::footprint::{KeptCost, LayerCost};
use super::treatment::Below;

/// A value on a tape: the input or what an operation wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapeValue(usize);

/// One operation, in bytes.
#[derive(Clone, Debug, Default)]
pub struct TapeOp {
    /// The values it reads. Gradients go to all of them.
    pub reads: Vec<TapeValue>,
    /// The size of its result.
    pub writes: u64,
    /// The values that the backward pass needs again.
    pub keeps: Vec<TapeValue>,
    /// Whether it needs its own result again, too.
    pub keeps_result: bool,
    /// What it keeps besides: statistics, a low-rank product.
    pub notes: u64,
    /// The gradients of its own parameters. 0 when none trains.
    pub trains: u64,
    /// What the forward pass needs for a moment, beside its result.
    pub forward: u64,
    /// What the backward pass needs for a moment, beside its results.
    pub backward: u64,
    /// Whether the result may lie where the first value read lay.
    pub in_place: bool,
    /// Where the gradients lie.
    pub gradient: Place,
}

/// Where an operation's backward pass puts the gradients of what it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In memory of their own.
    #[default]
    New,
    /// The first where the incoming gradient lay, if nobody else needs that.
    OverIncoming,
    /// Where the values lay that were kept.
    OverKept,
    /// They are the incoming gradient.
    Incoming,
}

/// The operations of one layer in order. The last one writes the layer's output.
#[derive(Clone, Debug)]
pub struct Tape {
    input: u64,
    operations: Vec<TapeOp>,
}

/// What the forward pass takes.
struct Forwards {
    /// The most live bytes while the operations run.
    most: u64,
    /// What stays for the backward pass.
    kept: u64,
}

impl Tape {
    /// The value that the layer gets.
    pub const INPUT: TapeValue = TapeValue(0);

    /// A tape without operations, for an input of that many bytes.
    pub fn new(input: u64) -> Self {
        Self { input, operations: Vec::new() }
    }

    /// Adds an operation and returns the value it writes.
    pub fn push(&mut self, mut operation: TapeOp) -> TapeValue {
        let result = TapeValue(self.operations.len() + 1);
        if operation.keeps_result {
            operation.keeps.push(result);
        }
        self.operations.push(operation);
        result
    }

    /// What the tape costs.
    ///
    /// Where nothing below trains the input counts to the layer itself. The layer then needs it
    /// only while an operation reads it or it is kept.
    pub fn cost(&self, below: Below) -> LayerCost {
        let tracked = self.tracked(below);
        let without_graph = vec![false; self.operations.len()];
        let plain = self.forwards(&without_graph, 0);
        // Where something below trains, the input is held for the walk anyway and counts there.
        let own_input = if below.trains() { 0 } else { self.input };
        let with_graph = self.forwards(&tracked, own_input);
        LayerCost {
            graph: with_graph.kept,
            plain: plain.most,
            tracked: with_graph.most,
            backward: self.backwards(&tracked, below, with_graph.kept),
            gradients: self.operations.iter().map(|operation| operation.trains).sum(),
            half: None,
        }
    }

    /// What it takes to keep the graph of this tape alone where `second` follows it.
    ///
    /// `second` begins with what this tape writes and has no graph while it runs. It is run again
    /// with one before its backward pass.
    pub fn kept_before(&self, second: &Self, below: Below) -> KeptCost {
        let trains = self.tracked(below).pop().unwrap_or(below.trains());
        let first = self.cost(below);
        let again = second.cost(Below::of(trains));
        let between = second.input;
        // Where the gradient of what lies between is not needed, the second half counts it itself.
        let given = if trains { between } else { 0 };
        // The first half's backward pass comes last, with the second half's gradients found.
        let last = if trains { again.gradients + first.backward } else { 0 };
        KeptCost {
            graph: first.graph + between,
            tracked: first.tracked.max(first.graph + between + again.plain),
            backward: last.max(first.graph + given + again.backward.max(again.tracked + between)),
        }
    }

    /// Which operations are nodes of a graph: those that train or read from one that is.
    fn tracked(&self, below: Below) -> Vec<bool> {
        let mut values = vec![below.trains()];
        for operation in &self.operations {
            let reads_tracked = operation.reads.iter().any(|value| values[value.0]);
            values.push(operation.trains > 0 || reads_tracked);
        }
        // Values count from the input, operations from the first one.
        values.split_off(1)
    }

    /// The size of a value. Of the input only that of its gradient matters here.
    fn bytes(&self, value: TapeValue) -> u64 {
        if value == Self::INPUT { self.input } else { self.operations[value.0 - 1].writes }
    }

    /// Of every value the last operation that reads it.
    fn last_readers(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.operations.len() + 1];
        for (index, operation) in self.operations.iter().enumerate() {
            for value in &operation.reads {
                last[value.0] = index;
            }
        }
        last
    }

    /// How many of the operations that are tracked keep each value.
    fn keepers(&self, tracked: &[bool]) -> Vec<usize> {
        let mut keepers = vec![0; self.operations.len() + 1];
        for (operation, tracked) in self.operations.iter().zip(tracked) {
            // Without a backward pass nothing is kept for it.
            if !tracked {
                continue;
            }
            for value in &operation.keeps {
                keepers[value.0] += 1;
            }
        }
        keepers
    }

    /// Plays the operations forwards. Of the input `input` bytes count.
    fn forwards(&self, tracked: &[bool], input: u64) -> Forwards {
        let last = self.last_readers();
        let keepers = self.keepers(tracked);
        let bytes =
            |value: &TapeValue| if *value == Self::INPUT { input } else { self.bytes(*value) };
        let mut live = input;
        let mut most = 0;
        for (index, operation) in self.operations.iter().enumerate() {
            let ends = |value: &TapeValue| keepers[value.0] == 0 && last[value.0] == index;
            let mut over: Vec<TapeValue> = operation.reads.iter().copied().filter(ends).collect();
            // An operation may read a value twice (x · x), which frees it once.
            over.dedup();
            let freed: u64 = over.iter().map(bytes).sum();
            // The layer's input belongs to the walk, so nothing is written over it.
            let first =
                operation.reads.first().filter(|value| ends(value) && **value != Self::INPUT);
            let replaced = if operation.in_place && first.is_some() { operation.writes } else { 0 };
            let notes = if tracked[index] { operation.notes } else { 0 };
            // While it runs, what it reads is still there beside what it writes.
            most = most.max(live + operation.writes - replaced + notes + operation.forward);
            live = live + operation.writes + notes - freed;
        }
        // The output is the next layer's input, which counts there.
        let output = self.operations.last().map_or(0, |operation| operation.writes);
        Forwards { most, kept: live - output }
    }

    /// The most live bytes beyond the input during the backward pass.
    fn backwards(&self, tracked: &[bool], below: Below, graph: u64) -> u64 {
        let output = self.operations.last().map_or(0, |operation| operation.writes);
        let mut pass = Backwards {
            tape: self,
            keepers: self.keepers(tracked),
            wanted: [&[below.trains()], tracked].concat(),
            held: vec![None; self.operations.len() + 1],
            gradients: GradientPool::default(),
            live: graph,
            most: 0,
        };
        // It begins with the gradient of the layer's output.
        let incoming = pass.gradients.add(output);
        pass.held[self.operations.len()] = Some(incoming);
        pass.live += output;
        pass.most = pass.live;
        for index in self.backward_order() {
            if tracked[index] {
                pass.operation(index, &self.operations[index]);
            }
        }
        pass.most
    }

    /// The operations as burn's backward pass comes to them: those furthest from the input first,
    /// and of equally far ones those that were run first. So two branches go back side by side.
    fn backward_order(&self) -> Vec<usize> {
        let mut depths = vec![0usize];
        for operation in &self.operations {
            let deepest =
                operation.reads.iter().map(|value| depths[value.0]).max().unwrap_or_default();
            depths.push(deepest + 1);
        }
        let mut order: Vec<usize> = (0..self.operations.len()).collect();
        // A stable sort, which leaves equally far operations in the order of the forward pass.
        order.sort_by_key(|index| std::cmp::Reverse(depths[index + 1]));
        order
    }
}

/// A gradient in memory.
struct PooledGradient {
    bytes: u64,
    /// The number of values whose gradient it is.
    holders: usize,
}

/// The gradients in memory.
#[derive(Default)]
struct GradientPool(Vec<PooledGradient>);

impl GradientPool {
    /// Adds a gradient of one value and returns its place.
    fn add(&mut self, bytes: u64) -> usize {
        self.0.push(PooledGradient { bytes, holders: 1 });
        self.0.len() - 1
    }

    /// Makes it the gradient of one value more.
    fn share(&mut self, gradient: usize) {
        self.0[gradient].holders += 1;
    }

    /// Whether other values have it too.
    fn is_shared(&self, gradient: usize) -> bool {
        self.0[gradient].holders > 1
    }

    /// One value fewer has this gradient. Returns the bytes that become free.
    fn release(&mut self, gradient: usize) -> u64 {
        let gradient = &mut self.0[gradient];
        gradient.holders -= 1;
        if gradient.holders == 0 { gradient.bytes } else { 0 }
    }
}

struct Backwards<'a> {
    tape: &'a Tape,
    /// Operations still to come that keep each value.
    keepers: Vec<usize>,
    /// Values whose gradient is asked for.
    wanted: Vec<bool>,
    /// The gradient of every value so far.
    held: Vec<Option<usize>>,
    gradients: GradientPool,
    live: u64,
    most: u64,
}

impl Backwards<'_> {
    fn operation(&mut self, index: usize, operation: &TapeOp) {
        let Some(incoming) = self.held[index + 1].take() else { return };
        let freed = self.keeps_no_more(operation);
        let over_kept = operation.gradient == Place::OverKept;
        if over_kept {
            // The new gradients take this place, so it is free before they exist.
            self.live -= freed;
        }
        let unique = !self.gradients.is_shared(incoming);
        let mut reuse = operation.gradient == Place::OverIncoming && unique;
        self.live += operation.trains;
        let mut found = Vec::new();
        for value in operation.reads.iter().filter(|value| self.wanted[value.0]) {
            // Only the first gradient fits where the incoming one lay.
            let over_incoming = std::mem::take(&mut reuse);
            let gradient = if operation.gradient == Place::Incoming || over_incoming {
                self.gradients.share(incoming);
                incoming
            } else {
                self.live += self.tape.bytes(*value);
                self.gradients.add(self.tape.bytes(*value))
            };
            found.push((*value, gradient));
        }
        self.most = self.most.max(self.live + operation.backward);
        self.live -= self.gradients.release(incoming);
        if !over_kept {
            self.live -= freed;
        }
        for (value, gradient) in found {
            self.accumulate(value, gradient);
        }
    }

    /// The bytes that nobody keeps once this operation is done.
    fn keeps_no_more(&mut self, operation: &TapeOp) -> u64 {
        let mut freed = operation.notes;
        for value in &operation.keeps {
            self.keepers[value.0] -= 1;
            if self.keepers[value.0] == 0 && *value != Tape::INPUT {
                freed += self.tape.bytes(*value);
            }
        }
        freed
    }

    /// Adds to the gradient of a value. The sum lies over one of its terms unless other values have
    /// both.
    fn accumulate(&mut self, value: TapeValue, gradient: usize) {
        let Some(before) = self.held[value.0].replace(gradient) else { return };
        let bytes = self.tape.bytes(value);
        let before_shared = self.gradients.is_shared(before);
        let gradient_shared = self.gradients.is_shared(gradient);
        if before_shared && gradient_shared {
            // Neither term may be written over, so for a moment the sum lies beside both.
            self.live += bytes;
            self.most = self.most.max(self.live);
            self.live -= self.gradients.release(before);
            self.live -= self.gradients.release(gradient);
            self.held[value.0] = Some(self.gradients.add(bytes));
        } else if gradient_shared {
            self.live -= self.gradients.release(gradient);
            self.held[value.0] = Some(before);
        } else {
            self.live -= self.gradients.release(before);
            self.held[value.0] = Some(gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = x + f(g(x)) with g keeping x and f keeping g's result.
    fn residual(trains: u64) -> Tape {
        let mut tape = Tape::new(10);
        let inner = tape.push(TapeOp {
            reads: vec![Tape::INPUT],
            writes: 30,
            keeps: vec![Tape::INPUT],
            ..TapeOp::default()
        });
        let outer = tape.push(TapeOp {
            reads: vec![inner],
            writes: 10,
            keeps: vec![inner],
            notes: 1,
            trains,
            ..TapeOp::default()
        });
        tape.push(TapeOp {
            reads: vec![outer, Tape::INPUT],
            writes: 10,
            in_place: true,
            gradient: Place::Incoming,
            ..TapeOp::default()
        });
        tape
    }

    #[test]
    fn a_value_lives_until_its_last_reader_is_done() {
        let cost = residual(0).cost(Below::Trains);
        assert_eq!(cost.plain, 30 + 10);
        assert_eq!((cost.graph, cost.tracked), (30 + 1, 30 + 10 + 1));
        // The graph, the output's gradient (shared by both branches) and the gradient of g's
        // result.
        assert_eq!((cost.backward, cost.gradients), (31 + 10 + 30, 0));
    }

    #[test]
    fn nothing_is_kept_of_what_comes_before_the_first_that_trains() {
        let cost = residual(4).cost(Below::Rests);
        assert_eq!((cost.graph, cost.gradients), (31, 4));
        assert_eq!(cost.backward, 31 + 10 + 4);
        assert_eq!(residual(0).cost(Below::Rests).graph, 0);
    }

    #[test]
    fn a_graph_kept_in_half_makes_room_for_the_second_half_alone() {
        let first = residual(0);
        let second = residual(4);
        // The first half's graph and what lies between; under it the second half's graph, incoming
        // gradient and its own.
        let KeptCost { graph, tracked, backward } = first.kept_before(&second, Below::Trains);
        assert_eq!((graph, tracked, backward), (31 + 10, 41 + 30 + 10, 41 + 31 + 10 + 30 + 4));
        // A first half that does not train has no graph, and nobody asks for the gradient of what
        // lies between.
        let KeptCost { graph, backward, .. } = first.kept_before(&second, Below::Rests);
        assert_eq!(
            (graph, backward),
            (10, second.cost(Below::Rests).backward.max(second.cost(Below::Rests).tracked + 10))
        );
    }

    #[test]
    fn a_result_that_is_kept_counts_once_whoever_else_keeps_it_and_is_not_written_over() {
        let cost = |keeps_result, reader_keeps: bool| {
            let mut tape = Tape::new(10);
            let first = TapeOp {
                reads: vec![Tape::INPUT],
                writes: 30,
                keeps_result,
                trains: 1,
                ..TapeOp::default()
            };
            let inner = tape.push(first);
            let keeps = if reader_keeps { vec![inner] } else { Vec::new() };
            tape.push(TapeOp {
                reads: vec![inner],
                writes: 10,
                keeps,
                in_place: true,
                ..TapeOp::default()
            });
            tape.cost(Below::Trains)
        };
        assert_eq!(
            [cost(false, false), cost(true, false), cost(false, true)].map(|cost| cost.graph),
            [0, 30, 30]
        );
        assert_eq!(cost(true, true).graph, 30);
        assert_eq!([cost(false, false), cost(true, false)].map(|cost| cost.tracked), [30, 40]);
    }

    #[test]
    fn a_gradient_may_lie_over_what_was_kept() {
        let mut tape = Tape::new(10);
        let keeps = vec![Tape::INPUT];
        let wide =
            tape.push(TapeOp { reads: vec![Tape::INPUT], writes: 50, keeps, ..TapeOp::default() });
        let operation =
            TapeOp { reads: vec![wide], writes: 10, keeps: vec![wide], ..TapeOp::default() };
        let cost = |gradient| {
            let mut tape = tape.clone();
            tape.push(TapeOp { gradient, ..operation.clone() });
            tape.cost(Below::Trains).backward
        };
        assert_eq!((cost(Place::New), cost(Place::OverKept)), (50 + 10 + 50, 50 + 10));
    }
}
