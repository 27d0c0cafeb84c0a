//! A layer as the list of its operations, from which its [`LayerCost`] follows.
//!
//! An architecture writes down, operation by operation, what each reads, writes and keeps for its backward pass. The tape is
//! then played forwards and backwards with the bytes alone: a value lives until its last reader is done or, where it is
//! kept, until the backward pass of whoever keeps it. Nothing is computed and no tensor exists.

use super::{KeptCost, LayerCost};

/// A value on a tape: the input or what an operation wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

/// One operation, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// What it reads. Gradients go to all of it.
    pub reads: Vec<Value>,
    /// The size of its result.
    pub writes: u64,
    /// Which values the backward pass needs again.
    pub keeps: Vec<Value>,
    /// Whether it needs its own result again, too.
    pub keeps_result: bool,
    /// What it keeps besides: statistics, a low-rank product.
    pub notes: u64,
    /// The gradients of its own parameters; 0 when none trains.
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
    operations: Vec<Operation>,
}

impl Tape {
    /// The value that the layer gets.
    pub const INPUT: Value = Value(0);

    /// A tape without operations, for an input of that many bytes.
    pub fn new(input: u64) -> Self {
        Self { input, operations: Vec::new() }
    }

    /// Adds an operation; what it writes.
    pub fn push(&mut self, mut operation: Operation) -> Value {
        let result = Value(self.operations.len() + 1);
        if operation.keeps_result {
            operation.keeps.push(result);
        }
        self.operations.push(operation);
        result
    }

    /// What the tape costs. `below_trains` says whether the input's gradient is asked for; without it the input counts to the
    /// layer itself, which needs it only as long as an operation reads it or it is kept.
    pub fn cost(&self, below_trains: bool) -> LayerCost {
        let tracked = self.tracked(below_trains);
        let (plain, _) = self.forwards(&vec![false; self.operations.len()], 0);
        let (most, graph) = self.forwards(&tracked, if below_trains { 0 } else { self.input });
        let gradients = self.operations.iter().map(|operation| operation.trains).sum();
        let backward = self.backwards(&tracked, below_trains, graph);
        LayerCost { graph, plain, tracked: most, backward, gradients, half: None }
    }

    /// What it takes to keep the graph of this tape alone where `second` follows it: that one begins with what this one writes,
    /// has no graph while it runs, and is run again with one before its backward pass.
    pub fn kept_before(&self, second: &Self, below_trains: bool) -> KeptCost {
        let trains = self.tracked(below_trains).pop().unwrap_or(below_trains);
        let (first, again, between) = (self.cost(below_trains), second.cost(trains), second.input);
        // What lies between counts to the second half itself where nobody asks for its gradient.
        let given = if trains { between } else { 0 };
        let last = if trains { again.gradients + first.backward } else { 0 };
        KeptCost {
            graph: first.graph + between,
            tracked: first.tracked.max(first.graph + between + again.plain),
            backward: last.max(first.graph + given + again.backward.max(again.tracked + between)),
        }
    }

    /// Which operations are nodes of a graph: those that train or read from one that is.
    fn tracked(&self, below_trains: bool) -> Vec<bool> {
        let mut values = vec![below_trains];
        for operation in &self.operations {
            values
                .push(operation.trains > 0 || operation.reads.iter().any(|value| values[value.0]));
        }
        values.split_off(1)
    }

    /// The size of a value. Of the input only that of its gradient matters here.
    fn bytes(&self, value: Value) -> u64 {
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
        for (operation, _) in self.operations.iter().zip(tracked).filter(|(_, tracked)| **tracked) {
            for value in &operation.keeps {
                keepers[value.0] += 1;
            }
        }
        keepers
    }

    /// The most live bytes while the operations run, and what stays for the backward pass. Of the input `input` bytes count.
    fn forwards(&self, tracked: &[bool], input: u64) -> (u64, u64) {
        let (last, keepers) = (self.last_readers(), self.keepers(tracked));
        let bytes = |value: &Value| if *value == Self::INPUT { input } else { self.bytes(*value) };
        let (mut live, mut most) = (input, 0);
        for (index, operation) in self.operations.iter().enumerate() {
            let ends = |value: &Value| keepers[value.0] == 0 && last[value.0] == index;
            let mut over: Vec<Value> = operation.reads.iter().copied().filter(ends).collect();
            over.dedup();
            let freed: u64 = over.iter().map(bytes).sum();
            let first =
                operation.reads.first().filter(|value| ends(value) && **value != Self::INPUT);
            let replaced = if operation.in_place && first.is_some() { operation.writes } else { 0 };
            let notes = if tracked[index] { operation.notes } else { 0 };
            most = most.max(live + operation.writes - replaced + notes + operation.forward);
            live = live + operation.writes + notes - freed;
        }
        let output = self.operations.last().map_or(0, |operation| operation.writes);
        (most, live - output)
    }

    /// The most live bytes beyond the input during the backward pass.
    fn backwards(&self, tracked: &[bool], below_trains: bool, graph: u64) -> u64 {
        let output = self.operations.last().map_or(0, |operation| operation.writes);
        let mut pass = Backwards {
            tape: self,
            keepers: self.keepers(tracked),
            wanted: [&[below_trains], tracked].concat(),
            held: vec![None; self.operations.len() + 1],
            gradients: Gradients::default(),
            live: graph,
            most: 0,
        };
        let incoming = pass.gradients.add(output);
        pass.held[self.operations.len()] = Some(incoming);
        pass.live += output;
        pass.most = pass.live;
        for index in self.backward_order().into_iter().filter(|index| tracked[*index]) {
            pass.operation(index, &self.operations[index]);
        }
        pass.most
    }

    /// The operations as burn's backward pass comes to them: those furthest from the input first, and of equally far ones
    /// those that were run first. So two branches go back side by side.
    fn backward_order(&self) -> Vec<usize> {
        let mut depths = vec![0usize];
        for operation in &self.operations {
            let deepest =
                operation.reads.iter().map(|value| depths[value.0]).max().unwrap_or_default();
            depths.push(deepest + 1);
        }
        let mut order: Vec<usize> = (0..self.operations.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(depths[index + 1]));
        order
    }
}

/// Gradients in memory, each with the number of values whose gradient it is.
#[derive(Default)]
struct Gradients(Vec<(u64, usize)>);

impl Gradients {
    fn add(&mut self, bytes: u64) -> usize {
        self.0.push((bytes, 1));
        self.0.len() - 1
    }

    /// One value fewer has this gradient; the bytes that become free.
    fn release(&mut self, gradient: usize) -> u64 {
        let (bytes, holders) = &mut self.0[gradient];
        *holders -= 1;
        if *holders == 0 { *bytes } else { 0 }
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
    gradients: Gradients,
    live: u64,
    most: u64,
}

impl Backwards<'_> {
    fn operation(&mut self, index: usize, operation: &Operation) {
        let Some(incoming) = self.held[index + 1].take() else { return };
        let freed = self.keeps_no_more(operation);
        if operation.gradient == Place::OverKept {
            self.live -= freed;
        }
        let unique = self.gradients.0[incoming].1 == 1;
        let mut reuse = operation.gradient == Place::OverIncoming && unique;
        self.live += operation.trains;
        let mut found = Vec::new();
        for value in operation.reads.iter().filter(|value| self.wanted[value.0]) {
            let gradient = if operation.gradient == Place::Incoming || std::mem::take(&mut reuse) {
                self.gradients.0[incoming].1 += 1;
                incoming
            } else {
                self.live += self.tape.bytes(*value);
                self.gradients.add(self.tape.bytes(*value))
            };
            found.push((*value, gradient));
        }
        self.most = self.most.max(self.live + operation.backward);
        self.live -= self.gradients.release(incoming);
        self.live -= if operation.gradient == Place::OverKept { 0 } else { freed };
        for (value, gradient) in found {
            self.accumulate(value, gradient);
        }
    }

    /// The bytes that nobody keeps once this operation is done.
    fn keeps_no_more(&mut self, operation: &Operation) -> u64 {
        let mut freed = operation.notes;
        for value in &operation.keeps {
            self.keepers[value.0] -= 1;
            if self.keepers[value.0] == 0 && *value != Tape::INPUT {
                freed += self.tape.bytes(*value);
            }
        }
        freed
    }

    /// Adds to the gradient of a value. The sum lies over one of its terms unless other values have both.
    fn accumulate(&mut self, value: Value, gradient: usize) {
        let Some(before) = self.held[value.0].replace(gradient) else { return };
        let bytes = self.tape.bytes(value);
        let shared = [before, gradient].map(|term| self.gradients.0[term].1 > 1);
        if shared == [true; 2] {
            self.live += bytes;
            self.most = self.most.max(self.live);
        }
        let (over, other) = if shared[1] { (before, gradient) } else { (gradient, before) };
        self.live -= self.gradients.release(other);
        if shared == [true; 2] {
            self.live -= self.gradients.release(over);
            self.held[value.0] = Some(self.gradients.add(bytes));
        } else {
            self.held[value.0] = Some(over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = x + f(g(x)) with g keeping x and f keeping g's result.
    fn residual(trains: u64) -> Tape {
        let mut tape = Tape::new(10);
        let inner = tape.push(Operation {
            reads: vec![Tape::INPUT],
            writes: 30,
            keeps: vec![Tape::INPUT],
            ..Operation::default()
        });
        let outer = tape.push(Operation {
            reads: vec![inner],
            writes: 10,
            keeps: vec![inner],
            notes: 1,
            trains,
            ..Operation::default()
        });
        tape.push(Operation {
            reads: vec![outer, Tape::INPUT],
            writes: 10,
            in_place: true,
            gradient: Place::Incoming,
            ..Operation::default()
        });
        tape
    }

    #[test]
    fn a_value_lives_until_its_last_reader_is_done() {
        let cost = residual(0).cost(true);
        assert_eq!(cost.plain, 30 + 10);
        assert_eq!((cost.graph, cost.tracked), (30 + 1, 30 + 10 + 1));
        // The graph, the output's gradient (shared by both branches) and the gradient of g's result.
        assert_eq!((cost.backward, cost.gradients), (31 + 10 + 30, 0));
    }

    #[test]
    fn nothing_is_kept_of_what_comes_before_the_first_that_trains() {
        let cost = residual(4).cost(false);
        assert_eq!((cost.graph, cost.gradients), (31, 4));
        assert_eq!(cost.backward, 31 + 10 + 4);
        assert_eq!(residual(0).cost(false).graph, 0);
    }

    #[test]
    fn a_graph_kept_in_half_makes_room_for_the_second_half_alone() {
        let (first, second) = (residual(0), residual(4));
        // The first half's graph and what lies between; under it the second half's graph, incoming gradient and its own.
        let KeptCost { graph, tracked, backward } = first.kept_before(&second, true);
        assert_eq!((graph, tracked, backward), (31 + 10, 41 + 30 + 10, 41 + 31 + 10 + 30 + 4));
        // A first half that does not train has no graph, and nobody asks for the gradient of what lies between.
        let KeptCost { graph, backward, .. } = first.kept_before(&second, false);
        assert_eq!(
            (graph, backward),
            (10, second.cost(false).backward.max(second.cost(false).tracked + 10))
        );
    }

    #[test]
    fn a_result_that_is_kept_counts_once_whoever_else_keeps_it_and_is_not_written_over() {
        let cost = |keeps_result, reader_keeps: bool| {
            let mut tape = Tape::new(10);
            let first = Operation {
                reads: vec![Tape::INPUT],
                writes: 30,
                keeps_result,
                trains: 1,
                ..Operation::default()
            };
            let inner = tape.push(first);
            let keeps = if reader_keeps { vec![inner] } else { Vec::new() };
            tape.push(Operation {
                reads: vec![inner],
                writes: 10,
                keeps,
                in_place: true,
                ..Operation::default()
            });
            tape.cost(true)
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
        let wide = tape.push(Operation {
            reads: vec![Tape::INPUT],
            writes: 50,
            keeps,
            ..Operation::default()
        });
        let operation =
            Operation { reads: vec![wide], writes: 10, keeps: vec![wide], ..Operation::default() };
        let cost = |gradient| {
            let mut tape = tape.clone();
            tape.push(Operation { gradient, ..operation.clone() });
            tape.cost(true).backward
        };
        assert_eq!((cost(Place::New), cost(Place::OverKept)), (50 + 10 + 50, 50 + 10));
    }
}
