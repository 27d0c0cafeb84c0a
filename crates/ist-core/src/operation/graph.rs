//! An operation as one node of burn's autodiff graph.

use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::backends::{Kernels, Operations};
use super::{Operands, Operation};

impl<B: Kernels + Operations, C: CheckpointStrategy> Operations for Autodiff<B, C> {
    fn apply<O: Operation>(operation: O, operands: Operands<Self>) -> FloatTensor<Self> {
        // burn's nodes have as many parents as a constant says.
        match operands.floats.len() {
            1 => track::<B, C, O, 1>(&operation, operands),
            2 => track::<B, C, O, 2>(&operation, operands),
            3 => track::<B, C, O, 3>(&operation, operands),
            4 => track::<B, C, O, 4>(&operation, operands),
            5 => track::<B, C, O, 5>(&operation, operands),
            6 => track::<B, C, O, 6>(&operation, operands),
            count => panic!("operations have one to six float operands, not {count}"),
        }
    }
}

fn track<B: Kernels, C: CheckpointStrategy, O: Operation, const N: usize>(
    operation: &O,
    operands: Operands<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    // Plain operands have a node too, so the tensors say which are tracked.
    let wanted: Vec<bool> =
        operands.floats.iter().map(FloatTensor::<Autodiff<B, C>>::is_tracked).collect();
    let nodes: Vec<_> = operands.floats.iter().map(FloatTensor::<Autodiff<B, C>>::node).collect();
    let nodes: [_; N] = nodes.try_into().expect("one node for each float operand");
    let floats =
        operands.floats.into_iter().map(FloatTensor::<Autodiff<B, C>>::into_primitive).collect();
    let inputs = Operands::<B>::new(floats, operands.ints);
    let node =
        Node { operation: operation.clone(), wanted: wanted.clone(), backend: PhantomData::<B> };
    match node.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(node) => {
            // `kept` is asked before `forward`, which may write over the inputs that it leaves out.
            let (output, saved) = B::record(operation, inputs, &wanted).unwrap_or_else(|inputs| {
                let kept = operation.kept(&inputs, &wanted);
                (B::forward(operation, inputs), kept)
            });
            node.finish(saved, output)
        }
        OpsKind::UnTracked(node) => node.finish(B::forward(operation, inputs)),
    }
}

/// An operation between its two passes.
#[derive(Debug)]
struct Node<B, O> {
    operation: O,
    wanted: Vec<bool>,
    backend: PhantomData<B>,
}

impl<B: Kernels, O: Operation, const N: usize> Backward<B, N> for Node<B, O> {
    type State = Operands<B>;

    fn backward(self, ops: Ops<Operands<B>, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let found = B::backward(&self.operation, ops.state, gradient, &self.wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}
