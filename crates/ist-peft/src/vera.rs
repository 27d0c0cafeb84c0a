//! VeRA: one pair of random matrices for all modules, and two trained vectors a module (Kopiczko et al.,
//! [arXiv 2310.11454](https://arxiv.org/abs/2310.11454)). PEFT's type `VERA`.
//!
//! y = x W + b + f · ((dropout(x) A) ⊙ λ_d) B ⊙ λ_b, where f is the response factor. A `[widest in, r]` and B `[r, widest out]`
//! are frozen and shared; a module uses the first `in` rows of A and the first `out` columns of B. λ_d `[r]` and λ_b `[out]`
//! train: r + out parameters a module. λ_d starts at `d_initial`, λ_b at 0, so a fresh adapter changes nothing. A and B are
//! uniform within ±√(6 / fan-in), fan-in being the widest in for A and r for B, drawn from `projection_prng_key` alone. There is
//! no alpha.
//!
//! The vectors go into B, λ_d ⊙ B ⊙ λ_b, so that the rest is a LoRA whose A is frozen: of the input r numbers a token are kept,
//! and the gradient of that product gives those of both vectors.
//!
//! The file holds A and B once. PEFT can leave them out (`save_projection = false`) and draw them again from PyTorch's generator,
//! which is not to be had here; that is refused.

use ist_core::burn;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::module::{Module, Param};
use burn::tensor::{Device, Shape, Tensor, TensorData, module};
use ist_core::operation::{Operands, Operation, apply};
use ist_core::{LayerPass, streams};
use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::dropout::dropout;
use crate::fields::{Fields, number};
use crate::files::key_of;
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::lora_config::LoraConfig;
use crate::lora_linear::LoraLinear;
use crate::method::{MergeError, Method, Place, TensorSpec, TokenCost};
use crate::parameter::{resting, transposed, values, vector};
use crate::site::{Roles, Site};
use crate::targets::Targets;

/// The keys of A and B.
const SHARED: [&str; 2] = ["base_model.vera_A", "base_model.vera_B"];

/// VeRA's checked configuration, with PEFT's field names.
#[derive(Clone, Debug, PartialEq)]
pub struct VeraConfig {
    /// Rank, at least 1.
    pub r: usize,
    /// What λ_d starts at.
    pub d_initial: f64,
    /// Dropout on the input of A, in [0, 1).
    pub vera_dropout: f64,
    /// The seed of A and B.
    pub projection_prng_key: u64,
    /// The modules to adapt.
    pub targets: Targets,
}

/// One VeRA module.
#[derive(Module, Debug)]
pub struct Vera {
    /// A, all of it; every module holds the same tensor.
    shared_a: Tensor<2>,
    /// B, all of it.
    shared_b: Tensor<2>,
    lambda_d: Param<Tensor<1>>,
    lambda_b: Param<Tensor<1>>,
    d_in: usize,
    dropout: f64,
}

impl Vera {
    fn new(
        config: &VeraConfig,
        site: &Site,
        shared: &[Tensor<2>; 2],
        [lambda_b, lambda_d]: [Tensor<1>; 2],
    ) -> Self {
        let [shared_a, shared_b] = shared.clone();
        let (lambda_d, lambda_b) = (resting(lambda_d), resting(lambda_b));
        Self {
            shared_a,
            shared_b,
            lambda_d,
            lambda_b,
            d_in: site.d_in,
            dropout: config.vera_dropout,
        }
    }

    /// This module's part of A, `[in, r]`.
    fn down(&self) -> Tensor<2> {
        self.shared_a.clone().narrow(0, 0, self.d_in)
    }

    /// λ_d ⊙ B ⊙ λ_b, `[r, out]`.
    fn up(&self) -> Tensor<2> {
        let b = self.shared_b.clone().narrow(1, 0, self.lambda_b.dims()[0]);
        rescaled(b, self.lambda_d.val(), self.lambda_b.val())
    }
}

impl Method for Vera {
    const NAME: &'static str = "vera";
    const PEFT_TYPE: &'static str = "VERA";
    const DOCUMENTED_DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("bias", "\"none\""), ("init_weights", "true")];
    type Config = VeraConfig;

    fn read(fields: &mut Fields) -> VeraConfig {
        if !fields.flag("save_projection", true) {
            fields.fault(
                "save_projection",
                "= false is not supported: the projections would have to be drawn again from PyTorch's generator, which is \
                 not to be had here; save the adapter with its projections",
            );
        }
        let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite());
        VeraConfig {
            r: fields.count("r", 256),
            d_initial: fields.checked("d_initial", 0.1, "a number", finite),
            vera_dropout: fields.probability(fields.spelt("dropout", "vera_dropout"), 0.0),
            projection_prng_key: fields.checked(
                "projection_prng_key",
                0,
                "an integer of at least 0",
                Value::as_u64,
            ),
            targets: fields.targets(),
        }
    }

    fn write(config: &VeraConfig) -> Map<String, Value> {
        Map::from_iter([
            ("r".to_owned(), json!(config.r)),
            ("d_initial".to_owned(), number(config.d_initial)),
            ("vera_dropout".to_owned(), json!(config.vera_dropout)),
            ("projection_prng_key".to_owned(), json!(config.projection_prng_key)),
            ("save_projection".to_owned(), json!(true)),
            ("bias".to_owned(), json!("none")),
            ("fan_in_fan_out".to_owned(), json!(config.targets.fan_in_fan_out())),
            ("init_weights".to_owned(), json!(true)),
        ])
    }

    fn targets(config: &VeraConfig) -> &Targets {
        &config.targets
    }

    fn targets_mut(config: &mut VeraConfig) -> &mut Targets {
        &mut config.targets
    }

    fn usual_targets(_: &VeraConfig, roles: &Roles) -> Vec<&'static str> {
        [roles.query, roles.value].concat()
    }

    fn layout(config: &VeraConfig, site: &Site) -> Vec<TensorSpec> {
        vec![
            TensorSpec::new("vera_lambda_b", [site.d_out]),
            TensorSpec::new("vera_lambda_d", [config.r]),
        ]
    }

    fn init(config: &VeraConfig, place: &Place, seed: u64, device: &Device) -> Self {
        Self::init_all(config, std::slice::from_ref(place), seed, device).remove(0)
    }

    fn from_tensors(
        config: &VeraConfig,
        place: &Place,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        build(
            config,
            &place.site,
            &drawn(config, std::slice::from_ref(place), device),
            tensors,
            device,
        )
    }

    fn tensors(&self) -> Vec<TensorData> {
        [&self.lambda_b, &self.lambda_d].map(values).into()
    }

    fn file_layout(config: &VeraConfig, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let [d_in, d_out] = widest(sites);
        let shared = [vec![config.r, d_in], vec![d_out, config.r]];
        let shared = SHARED.into_iter().map(str::to_owned).zip(shared);
        let of = |site| {
            Self::layout(config, site)
                .into_iter()
                .map(move |spec| (key_of(site, spec.suffix), spec.shape))
        };
        shared.chain(sites.iter().flat_map(of)).collect()
    }

    fn init_all(config: &VeraConfig, places: &[Place], _: u64, device: &Device) -> Vec<Self> {
        let shared = drawn(config, places, device);
        let fresh = |place: &Place| {
            let lambda_b = Tensor::zeros([place.site.d_out], device);
            let lambda_d = Tensor::full([config.r], config.d_initial, device);
            Self::new(config, &place.site, &shared, [lambda_b, lambda_d])
        };
        places.iter().map(fresh).collect()
    }

    fn from_file(
        config: &VeraConfig,
        places: &[Place],
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Vec<Self> {
        let mut tensors = tensors.into_iter();
        let mut shared =
            || transposed(tensors.next().expect("one tensor for each entry of the layout"), device);
        let shared = [shared(), shared()];
        places
            .iter()
            .map(|place| {
                build(config, &place.site, &shared, tensors.by_ref().take(2).collect(), device)
            })
            .collect()
    }

    fn to_file(_: &VeraConfig, adapters: &[(&Site, &Self)]) -> Vec<TensorData> {
        let shared =
            adapters.first().map(|(_, one)| [&one.shared_a, &one.shared_b].map(shared_to_file));
        shared
            .into_iter()
            .flatten()
            .chain(adapters.iter().flat_map(|(_, adapter)| adapter.tensors()))
            .collect()
    }

    fn token_cost(config: &VeraConfig, site: &Site) -> TokenCost {
        token_cost(config.r, config.vera_dropout, site)
    }

    fn token_cost_of(&self, site: &Site) -> TokenCost {
        token_cost(self.lambda_d.dims()[0], self.dropout, site)
    }

    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if base.weight.trains() {
            let low =
                module::linear(dropout(x.clone(), self.dropout, pass.dropout), self.down(), None);
            return base.forward(x, pass.response)
                + module::linear(low.mul_scalar(pass.response), self.up(), None);
        }
        let dropout = LoraConfig::dropout_of(self.dropout, pass.dropout);
        let bias = base.bias_value(x.dtype(), pass.response);
        let weight = base.weight.matrix(pass.response);
        let operation = LoraLinear { scale: pass.response, dropout, value: pass.needs_output };
        add_bias(operation.apply(x, weight, [self.down(), self.up()], None), bias)
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let delta = self.down().inner().matmul(self.up().inner());
        Ok(base.map_matrix(|weight| weight + delta))
    }
}

/// A module from its λ_b and λ_d.
fn build(
    config: &VeraConfig,
    site: &Site,
    shared: &[Tensor<2>; 2],
    tensors: Vec<TensorData>,
    device: &Device,
) -> Vera {
    let vectors: [TensorData; 2] =
        tensors.try_into().expect("one tensor for each entry of the layout");
    Vera::new(config, site, shared, vectors.map(|data| vector(data, device)))
}

/// A shared matrix in PyTorch's `[out, in]`.
fn shared_to_file(matrix: &Tensor<2>) -> TensorData {
    matrix.clone().transpose().into_data()
}

/// The widest input and the widest output, which need not be of one module.
fn widest<'a>(sites: impl IntoIterator<Item = &'a Site>) -> [usize; 2] {
    sites
        .into_iter()
        .fold([0; 2], |[d_in, d_out], site| [d_in.max(site.d_in), d_out.max(site.d_out)])
}

/// Fresh A and B for all places.
fn drawn(config: &VeraConfig, places: &[Place], device: &Device) -> [Tensor<2>; 2] {
    let ([d_in, d_out], r) = (widest(places.iter().map(|place| &place.site)), config.r);
    let uniform = |name: &str, shape: [usize; 2], fan_in: usize| {
        let (mut rng, bound) =
            (streams::stream(config.projection_prng_key, name), (6.0 / fan_in as f64).sqrt());
        let values: Vec<f32> =
            (0..shape[0] * shape[1]).map(|_| rng.random_range(-bound..bound) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    };
    [uniform("vera_A", [d_in, r], d_in), uniform("vera_B", [r, d_out], r)]
}

/// The low-rank product stays.
fn token_cost(rank: usize, dropout: f64, site: &Site) -> TokenCost {
    let masked = if dropout > 0.0 { site.d_in } else { 0 };
    TokenCost { keeps_input: false, keeps_output: false, keeps: rank, scratch: rank + masked }
}

/// λ_d ⊙ B ⊙ λ_b: rows and columns of a constant B `[r, out]`, scaled. B and the vectors are kept.
fn rescaled(b: Tensor<2>, lambda_d: Tensor<1>, lambda_b: Tensor<1>) -> Tensor<2> {
    apply(Rescaled, [lambda_d.into_dispatch(), lambda_b.into_dispatch(), b.into_dispatch()], [])
}

#[derive(Clone, Debug)]
struct Rescaled;

/// A vector along a dimension of a matrix.
fn along<B: Backend>(vector: FloatTensor<B>, dimension: usize) -> FloatTensor<B> {
    let mut shape = [1, 1];
    shape[dimension] = vector.shape().num_elements();
    B::float_reshape(vector, Shape::new(shape))
}

impl Operation for Rescaled {
    fn forward<B: Backend>(&self, inputs: Operands<B>) -> FloatTensor<B> {
        let [lambda_d, lambda_b, b] = inputs.floats();
        B::float_mul(B::float_mul(b, along::<B>(lambda_b, 1)), along::<B>(lambda_d, 0))
    }

    fn backward<B: Backend>(
        &self,
        saved: Operands<B>,
        gradient: FloatTensor<B>,
        _: &[bool],
    ) -> Vec<Option<FloatTensor<B>>> {
        let [lambda_d, lambda_b, b] = saved.floats();
        let shapes = [lambda_d.shape(), lambda_b.shape()];
        let both = B::float_mul(gradient, b);
        let d_lambda_d = B::float_sum_dim(B::float_mul(both.clone(), along::<B>(lambda_b, 1)), 1);
        let d_lambda_b = B::float_sum_dim(B::float_mul(both, along::<B>(lambda_d, 0)), 0);
        let [d, b] = shapes;
        vec![Some(B::float_reshape(d_lambda_d, d)), Some(B::float_reshape(d_lambda_b, b)), None]
    }
}
