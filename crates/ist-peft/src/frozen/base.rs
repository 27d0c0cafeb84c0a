//! Frozen modules as an adapter sees them: what it adds to, starts from, and is folded into.

use ist_core::{LayerPass, burn};

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use crate::frozen::linear::{linear, linear_in};
use crate::frozen::weight::Weight;

/// A frozen linear map y = x W + b with W `[in, out]`, and nothing beside it.
#[derive(Module, Debug)]
pub struct FrozenLinear {
    /// W, `[in, out]`.
    pub weight: Weight<2>,
    /// b, `[out]`.
    pub bias: Option<Weight<1>>,
}

impl FrozenLinear {
    /// x W + b for x `[.., in]`. A weight stored in a narrower type is widened a part at a time.
    pub fn forward(&self, x: Tensor<3>, response: f64) -> Tensor<3> {
        let bias = self.bias_value(x.dtype(), response);
        add_bias(linear(x, self.weight.matrix(response)), bias)
    }

    /// The same at the pass's response factor, where its value is asked for; else zeros with the
    /// graph of x W + b.
    pub fn forward_in(&self, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        let bias = self.bias_value(x.dtype(), pass.response);
        add_bias(linear_in(x, self.weight.matrix(pass.response), pass.needs_output), bias)
    }

    /// b in the type `dtype`.
    pub fn bias_value(&self, dtype: DType, response: f64) -> Option<Tensor<1>> {
        self.bias.as_ref().map(|bias| bias.value(response, dtype))
    }
}

/// y + b, or y without a bias.
pub(crate) fn add_bias(y: Tensor<3>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// A frozen normalisation: its weight and, in a LayerNorm, its bias.
#[derive(Module, Debug)]
pub struct FrozenNorm {
    /// The weight, `[width]`.
    pub weight: Weight<1>,
    /// The bias, `[width]`.
    pub bias: Option<Weight<1>>,
}

/// A weight and a bias of a normalisation, as it is applied.
#[derive(Clone, Debug)]
pub struct NormValues {
    /// The weight, `[width]`.
    pub weight: Tensor<1>,
    /// The bias, `[width]`.
    pub bias: Option<Tensor<1>>,
}

impl FrozenNorm {
    /// Weight and bias in the type `dtype`.
    pub fn values(&self, response: f64, dtype: DType) -> NormValues {
        let bias = self.bias.as_ref().map(|bias| bias.value(response, dtype));
        NormValues { weight: self.weight.value(response, dtype), bias }
    }
}

/// The frozen part of a module. Handles are shared: nothing is copied.
#[derive(Clone, Debug)]
pub enum Base {
    /// A linear layer.
    Linear(FrozenLinear),
    /// An embedding table, `[vocabulary, hidden]`.
    Embedding(Weight<2>),
    /// A normalisation.
    Norm(FrozenNorm),
    /// Self-attention as a whole, which has no weight of its own.
    Attention,
}

impl Base {
    /// The matrix of a linear layer `[in, out]` or of an embedding `[vocabulary, hidden]`.
    ///
    /// # Panics
    /// If the module has none; a method asks only on the kinds of module that it fits.
    pub fn matrix(&self) -> &Weight<2> {
        match self {
            Self::Linear(linear) => &linear.weight,
            Self::Embedding(table) => table,
            Self::Norm(_) | Self::Attention => {
                panic!("a matrix is asked of a module that has none")
            }
        }
    }

    /// The bias, where there is one.
    pub fn bias(&self) -> Option<&Weight<1>> {
        match self {
            Self::Linear(linear) => linear.bias.as_ref(),
            Self::Norm(norm) => norm.bias.as_ref(),
            Self::Embedding(_) | Self::Attention => None,
        }
    }

    /// The same module with another matrix, computed in f32 (or wider) and stored as it was.
    #[must_use]
    pub fn map_matrix(mut self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        if let Self::Linear(FrozenLinear { weight, .. }) | Self::Embedding(weight) = &mut self {
            weight.replace_with(change);
        }
        self
    }

    /// The same module with another bias, computed in f32 (or wider) and stored as it was.
    #[must_use]
    pub fn map_bias(mut self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        if let Self::Linear(FrozenLinear { bias: Some(bias), .. })
        | Self::Norm(FrozenNorm { bias: Some(bias), .. }) = &mut self
        {
            bias.replace_with(change);
        }
        self
    }

    /// The same module in f32 (f64 where it is kept in f64).
    #[must_use]
    pub fn widened(&self) -> Self {
        let bias = |bias: &Option<Weight<1>>| bias.as_ref().map(Weight::widened);
        match self {
            Self::Linear(linear) => Self::Linear(FrozenLinear {
                weight: linear.weight.widened(),
                bias: bias(&linear.bias),
            }),
            Self::Embedding(table) => Self::Embedding(table.widened()),
            Self::Norm(norm) => {
                Self::Norm(FrozenNorm { weight: norm.weight.widened(), bias: bias(&norm.bias) })
            }
            Self::Attention => Self::Attention,
        }
    }

    /// a · self + b · other, every tensor of it, computed in f32 (or wider) and stored as self is;
    /// `other` is a module of the same kind and shape.
    #[must_use]
    pub fn combine(self, a: f64, other: &Self, b: f64) -> Self {
        let sum = self.combine_matrix(a, other, b);
        let sum = match other.bias() {
            Some(bias) => {
                sum.map_bias(|own| own.mul_scalar(a) + bias.widened().current().mul_scalar(b))
            }
            None => sum,
        };
        match other {
            Self::Norm(norm) => sum
                .map_norm(|own| own.mul_scalar(a) + norm.weight.widened().current().mul_scalar(b)),
            _ => sum,
        }
    }

    fn combine_matrix(self, a: f64, other: &Self, b: f64) -> Self {
        match other {
            Self::Linear(_) | Self::Embedding(_) => {
                let matrix = other.matrix().widened().current().mul_scalar(b);
                self.map_matrix(|own| own.mul_scalar(a) + matrix)
            }
            Self::Norm(_) | Self::Attention => self,
        }
    }

    /// The same normalisation with another weight, computed in f32 (or wider) and stored as it was.
    #[must_use]
    pub fn map_norm(mut self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        if let Self::Norm(FrozenNorm { weight, .. }) = &mut self {
            weight.replace_with(change);
        }
        self
    }
}

/// The frozen part of a module in its place in a model.
#[derive(Debug)]
pub enum BaseMut<'a> {
    /// A linear layer.
    Linear(&'a mut FrozenLinear),
    /// An embedding table.
    Embedding(&'a mut Weight<2>),
    /// A normalisation.
    Norm(&'a mut FrozenNorm),
    /// Self-attention as a whole.
    Attention,
}

impl BaseMut<'_> {
    /// What is there.
    pub fn get(&self) -> Base {
        match self {
            Self::Linear(linear) => Base::Linear((*linear).clone()),
            Self::Embedding(table) => Base::Embedding((*table).clone()),
            Self::Norm(norm) => Base::Norm((*norm).clone()),
            Self::Attention => Base::Attention,
        }
    }

    /// Puts another module of the same kind in its place.
    ///
    /// # Panics
    /// If it is of another kind.
    pub fn set(&mut self, base: Base) {
        match (self, base) {
            (Self::Linear(linear), Base::Linear(new)) => **linear = new,
            (Self::Embedding(table), Base::Embedding(new)) => **table = new,
            (Self::Norm(norm), Base::Norm(new)) => **norm = new,
            (Self::Attention, Base::Attention) => {}
            (place, new) => {
                panic!("a module of the kind of {new:?} cannot take the place of {place:?}")
            }
        }
    }
}
