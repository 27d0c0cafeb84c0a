//! Gradients by parameter name, and the module walks that lift, collect and replace parameters.
//!
//! A name is `outer.` or `layers.I.` followed by the path inside the module. Names, unlike burn's
//! random parameter ids, are the same in every process, so they can key a saved state and fix the
//! order of sums.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients as Graph, Tensor};

/// The prefix of parameters outside the layers.
pub const OUTER: &str = "outer";

/// The prefix of layer `index`'s parameters.
pub fn layer_prefix(index: usize) -> String {
    format!("layers.{index}")
}

/// The layer a parameter's name belongs to; `None` outside the layers.
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("layers.")?.split('.').next()?.parse().ok()
}

/// Gradients of one optimizer step, flattened, by parameter name.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// The names that have a gradient, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The flattened gradient of that parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor<1>> {
        self.0.get(name)
    }

    /// How many parameters have a gradient.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the gradient of that parameter out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
    }

    /// Σ g² of every gradient with its name, in the order of names. Read from the device all at
    /// once.
    pub fn squares(&self) -> impl Iterator<Item = (&str, f64)> {
        let sums: Vec<Tensor<1>> =
            self.0.values().map(|gradient| gradient.clone().square().sum()).collect();
        // One read waits for the device once, however many gradients there are.
        let read = || Tensor::cat(sums, 0).into_data().iter::<f64>().collect();
        let sums: Vec<f64> = if self.is_empty() { Vec::new() } else { read() };
        self.names().zip(sums)
    }

    /// The global norm, sqrt(Σ g²) over every gradient there is, summed in f64 in the order of
    /// names.
    pub fn norm(&self) -> f64 {
        self.squares().map(|(_, square)| square).sum::<f64>().sqrt()
    }

    /// Multiplies by min(1, `max_norm` / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_`.
    /// Returns the norm before.
    pub fn clip(&mut self, max_norm: f64) -> f64 {
        let norm = self.norm();
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.multiply(factor);
        }
        norm
    }

    /// Multiplies every gradient.
    pub(crate) fn multiply(&mut self, factor: f64) {
        for gradient in self.0.values_mut() {
            *gradient = gradient.clone().mul_scalar(factor);
        }
    }

    /// Adds what a backward pass left in `graph` for the parameters of `module`.
    pub(crate) fn collect<M: Module>(&mut self, prefix: &str, module: &M, graph: &mut Graph) {
        module.visit(&mut Collector { path: FieldPath::new(prefix), graph, gradients: self });
    }

    fn add(&mut self, name: String, gradient: Tensor<1>) {
        let sum = match self.0.remove(&name) {
            Some(earlier) => earlier + gradient,
            None => gradient,
        };
        self.0.insert(name, sum);
    }
}

/// The value of a one-element tensor of any float type.
pub fn scalar(tensor: Tensor<1>) -> f64 {
    tensor.into_data().iter::<f64>().next().expect("a sum has one element")
}

/// A copy of `module` whose parameters are leaves of a new graph. Handles are shared: no weight is
/// copied.
pub fn lift<M: Module>(module: &M) -> M {
    module.clone().map(&mut Lift)
}

/// Calls `with` on the name and the flattened value of every parameter of `module`.
pub fn for_each_parameter<M: Module>(
    prefix: &str,
    module: &M,
    with: &mut dyn FnMut(&str, Tensor<1>),
) {
    module.visit(&mut Reader { path: FieldPath::new(prefix), with });
}

/// The name and the id of every parameter of `module`. Ids are random; names are the same in every
/// process.
pub fn parameter_ids<M: Module>(prefix: &str, module: &M) -> Vec<(String, ParamId)> {
    let mut names = Names { path: FieldPath::new(prefix), found: Vec::new() };
    module.visit(&mut names);
    names.found
}

/// The number of trainable scalars in `module`.
pub fn count_parameters<M: Module>(module: &M) -> usize {
    let mut count = 0;
    for_each_parameter("", module, &mut |_, value| count += value.dims()[0]);
    count
}

/// Replaces every parameter of `module` by what `with` makes of its name and its flattened value.
/// `None` leaves it.
pub fn map_parameters<M: Module>(
    prefix: &str,
    module: M,
    with: &mut dyn FnMut(&str, Tensor<1>) -> Option<Tensor<1>>,
) -> M {
    module.map(&mut Writer { path: FieldPath::new(prefix), with })
}

struct Lift;

impl ModuleMapper for Lift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // A parameter that was lifted before would otherwise keep its old graph.
        param.map(|tensor| tensor.inner().autodiff()).set_require_grad(true)
    }
}

/// The path of the field a visitor stands in.
struct FieldPath(Vec<String>);

impl FieldPath {
    fn new(prefix: &str) -> Self {
        Self(vec![prefix.to_owned()])
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

macro_rules! track_path {
    () => {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.0.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.0.pop();
        }
    };
}

struct Collector<'a> {
    path: FieldPath,
    graph: &'a mut Graph,
    gradients: &'a mut Gradients,
}

impl ModuleVisitor for Collector<'_> {
    track_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.graph) {
            self.gradients.add(self.path.name(), flat(gradient));
        }
    }
}

struct Reader<'a> {
    path: FieldPath,
    with: &'a mut dyn FnMut(&str, Tensor<1>),
}

impl ModuleVisitor for Reader<'_> {
    track_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        (self.with)(&self.path.name(), flat(param.val().inner()));
    }
}

struct Names {
    path: FieldPath,
    found: Vec<(String, ParamId)>,
}

impl ModuleVisitor for Names {
    track_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.name(), param.id));
    }
}

struct Writer<'a> {
    path: FieldPath,
    with: &'a mut dyn FnMut(&str, Tensor<1>) -> Option<Tensor<1>>,
}

impl ModuleMapper for Writer<'_> {
    track_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        match (self.with)(&self.path.name(), flat(value.clone())) {
            Some(new) => param.map(|_| new.reshape(value.shape())),
            None => param,
        }
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}
