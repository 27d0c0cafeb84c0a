//! Tensors of the base model that an adapter's file replaces.

/// A tensor of the base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseTensor {
    /// The weight.
    Weight,
    /// The bias.
    Bias,
    /// These rows of a table of tokens.
    Rows(Vec<usize>),
}

/// A tensor of the base model that an adapter's file holds too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The module's path.
    pub path: String,
    /// Which of its tensors.
    pub tensor: BaseTensor,
}
