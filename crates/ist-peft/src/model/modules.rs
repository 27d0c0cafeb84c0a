//! Frozen modules with an optional adapter.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::{DType, Int, Tensor, module};

use crate::frozen::weight::cast;
use crate::frozen::{FrozenLinear, FrozenNorm, NormValues, Weight};
use crate::set::Adapter;

/// A frozen linear layer with an optional adapter.
#[derive(Module, Debug)]
pub struct PeftLinear<A: Module> {
    /// The module's path within its layer, such as `self_attn.q_proj`; it seeds the module's
    /// dropout.
    pub name: String,
    /// The frozen part.
    pub base: FrozenLinear,
    /// The trainable part.
    pub adapter: Option<A>,
}

impl<A: Adapter> PeftLinear<A> {
    /// A linear layer without an adapter; `weight` is `[in, out]`.
    pub fn new(name: &str, weight: Weight<2>, bias: Option<Weight<1>>) -> Self {
        Self { name: name.to_owned(), base: FrozenLinear { weight, bias }, adapter: None }
    }

    /// `[batch, sequence, in]` to `[batch, sequence, out]`, with the adapter at the pass's response
    /// factor.
    pub fn forward(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        self.run(x, &pass.of_module(&self.name))
    }

    /// The same as a layer's last product, to which nothing but the residual is added: its value is
    /// zeros where nobody reads the layer's output and the adapter's gradients do not need it.
    pub fn forward_last(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        self.run(x, &LayerPass { needs_output: pass.needs_output, ..pass.of_module(&self.name) })
    }

    fn run(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        match self.adapter.as_ref().and_then(|adapter| adapter.view().as_linear()) {
            Some(adapter) => adapter.forward(&self.base, x, pass),
            None => self.base.forward_in(x, pass),
        }
    }
}

/// A frozen embedding table with an optional adapter.
#[derive(Module, Debug)]
pub struct PeftEmbedding<A: Module> {
    /// The table, `[vocabulary, hidden]`.
    pub weight: Weight<2>,
    /// The trainable part.
    pub adapter: Option<A>,
}

impl<A: Adapter> PeftEmbedding<A> {
    /// A table without an adapter.
    pub fn new(weight: Weight<2>) -> Self {
        Self { weight, adapter: None }
    }

    /// Token ids `[batch, sequence]` to rows of the table in the type `dtype`,
    /// `[batch, sequence, hidden]`.
    ///
    /// The rows are looked up in the storage type and widened afterwards, so that a table in bf16
    /// is never widened whole.
    pub fn forward(&self, ids: Tensor<2, Int>, dtype: DType, pass: &LayerPass) -> Tensor<3> {
        let rows =
            module::embedding(self.weight.value(pass.response, self.table_dtype()), ids.clone());
        let rows = cast(rows, dtype);
        match self.adapter.as_ref().and_then(|adapter| adapter.view().as_embedding()) {
            Some(adapter) => adapter.embed(rows, ids, &pass.of_module("embed_tokens")),
            None => rows,
        }
    }

    /// The table as the weight of a head that is tied to it, `[hidden, vocabulary]`.
    pub fn head_weight(&self, response: f64) -> Tensor<2> {
        self.weight.at_rest(response).transpose()
    }

    /// The type rows are looked up in: the master's f32 where the table trains, else the storage
    /// type.
    fn table_dtype(&self) -> DType {
        if self.weight.trains() { DType::F32 } else { self.weight.dtype() }
    }
}

/// A frozen normalisation with an optional adapter. It holds the values; the model knows the
/// formula.
#[derive(Module, Debug)]
pub struct PeftNorm<A: Module> {
    /// The frozen part.
    pub base: FrozenNorm,
    /// The trainable part.
    pub adapter: Option<A>,
}

impl<A: Adapter> PeftNorm<A> {
    /// A normalisation without an adapter.
    pub fn new(weight: Weight<1>, bias: Option<Weight<1>>) -> Self {
        Self { base: FrozenNorm { weight, bias }, adapter: None }
    }

    /// Weight and bias in the type `dtype`, with the adapter at the pass's response factor.
    pub fn values(&self, dtype: DType, pass: &LayerPass) -> NormValues {
        match self.adapter.as_ref().and_then(|adapter| adapter.view().as_norm()) {
            Some(adapter) => adapter.values(&self.base, dtype, pass),
            None => self.base.values(pass.response, dtype),
        }
    }
}
