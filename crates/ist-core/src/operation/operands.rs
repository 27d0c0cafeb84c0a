//! The tensors an operation works on.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType,
};

/// Float and integer tensors of one backend, in an order that the operation defines.
#[derive(Clone, Debug)]
pub struct Operands<B: Backend> {
    /// What gradients can be taken of.
    pub floats: Vec<FloatTensor<B>>,
    /// Constants.
    pub ints: Vec<IntTensor<B>>,
}

impl<B: Backend> Operands<B> {
    /// Operands of those tensors.
    pub fn new(floats: Vec<FloatTensor<B>>, ints: Vec<IntTensor<B>>) -> Self {
        Self { floats, ints }
    }

    /// The float tensors, of which there are N.
    ///
    /// # Panics
    /// If there is another number of them, which is a fault of the operation.
    pub fn floats<const N: usize>(self) -> [FloatTensor<B>; N] {
        self.floats.try_into().expect("an operation is given the operands it asks for")
    }
}

/// How operands cross burn's dispatch: tensor by tensor.
impl<B: Backend> ExtensionType<B> for Operands<B> {
    type Target = Operands<Dispatch>;

    fn map_to_dispatch<F>(
        self,
        map_kind: F,
        autodiff: DispatchAutodiffContext,
    ) -> Operands<Dispatch>
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor { kind: map_kind(tensor), autodiff };
        let floats =
            self.floats.into_iter().map(|tensor| wrap(BackendTensor::Float(tensor))).collect();
        let ints = self.ints.into_iter().map(|tensor| wrap(BackendTensor::Int(tensor))).collect();
        Operands::new(floats, ints)
    }

    fn map_from_dispatch<F>(target: Operands<Dispatch>, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let floats = target.floats.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect();
        let ints = target.ints.into_iter().map(|tensor| unwrap_kind(tensor).int()).collect();
        Self::new(floats, ints)
    }

    fn routing_tensor(target: &Operands<Dispatch>) -> Option<&DispatchTensor> {
        target.floats.first().or(target.ints.first())
    }

    fn routing_float_tensor(target: &Operands<Dispatch>) -> Option<&DispatchTensor> {
        target.floats.first()
    }

    fn autodiff_context(target: &Operands<Dispatch>) -> DispatchAutodiffContext {
        // One tracked operand is enough for the operation to be a node of the graph.
        let contexts = target.floats.iter().chain(&target.ints).map(|tensor| tensor.autodiff);
        contexts.fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge)
    }
}
