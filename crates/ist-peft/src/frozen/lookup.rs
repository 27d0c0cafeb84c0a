//! Rows of a table that trains.
//!
//! burn's own backward pass makes the table's gradient twice, once empty and once filled. A table
//! of a vocabulary is the largest tensor there is, so this one adds the rows into the first.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Int, Tensor};
use ist_core::operation::{Operands, Operation, apply};

/// The rows of the table `[vocabulary, hidden]` that ids `[batch, sequence]` name,
/// `[batch, sequence, hidden]`.
///
/// The table's gradient is dense: each row the sum of the gradients of the tokens that read it.
/// Nothing but the ids is kept.
pub fn lookup(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    apply(Lookup, [table.into_dispatch()], [ids.into_dispatch()])
}

#[derive(Clone, Debug)]
struct Lookup;

impl Operation for Lookup {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let ids = inputs.ints[0].clone();
        let [table] = inputs.floats();
        B::embedding(table, ids)
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let ids = saved.ints[0].clone();
        let [table] = saved.floats();
        vec![Some(B::embedding_backward(table, gradient, ids))]
    }

    #[cfg(feature = "flex")]
    fn backward_flex(
        &self,
        saved: Operands<Flex>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [vocabulary, hidden] = saved.floats[0].shape().dims::<2>();
        if !flex::all_f32([&gradient]) {
            return self.backward(saved, gradient, wanted);
        }
        let gradient = flex::contiguous(gradient);
        let mut table = vec![0.0; vocabulary * hidden];
        let ids = saved.ints[0].clone().into_data();
        // A token may stand several times in a batch, so its row is a sum.
        for (id, gradient) in ids.iter::<i64>().zip(flex::slice(&gradient).chunks(hidden.max(1))) {
            let row = &mut table[id as usize * hidden..][..hidden];
            for (sum, value) in row.iter_mut().zip(gradient) {
                *sum += value;
            }
        }
        vec![Some(flex::tensor(table, [vocabulary, hidden]))]
    }
}

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "flex")]
use ist_core::operation::flex::{self, FlexTensor};
