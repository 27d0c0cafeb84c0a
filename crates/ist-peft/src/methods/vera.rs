//! VeRA: one pair of random matrices for all modules, and two trained vectors a module (Kopiczko et
//! al., [arXiv 2310.11454](https://arxiv.org/abs/2310.11454)). PEFT's type `VERA`.
//!
//! y = x W + b + f · ((dropout(x) A) ⊙ λ_d) B ⊙ λ_b, where f is the response factor. A
//! `[widest in, r]` and B `[r, widest out]` are frozen and shared. A module uses the first `in`
//! rows of A and the first `out` columns of B. λ_d `[r]` and λ_b `[out]` train: r + out parameters
//! a module. λ_d starts at `d_initial`, λ_b at 0, so a fresh adapter changes nothing. A and B are
//! uniform within ±√(6 / fan-in), fan-in being the widest in for A and r for B, drawn from
//! `projection_prng_key` alone. There is no alpha.
//!
//! The vectors go into B, λ_d ⊙ B ⊙ λ_b, so that the rest is a LoRA whose A is frozen. Of the input
//! r numbers a token are kept, and the gradient of that product gives those of both vectors.
//!
//! The file holds A and B once. PEFT can leave them out (`save_projection = false`) and draw them
//! again from PyTorch's generator, which this program does not have. That is refused.

use ist_core::{LayerPass, burn, streams};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, module};
use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::fields::setting::Setting;
use crate::fields::values::{Count, Finite, Probability, Seed};
use crate::fields::{Fields, number};
use crate::frozen::dropout::{DropoutMask, dropout};
use crate::frozen::lora_linear::{Factors, LoraLinear};
use crate::frozen::rescaled::rescaled;
use crate::frozen::{Base, FrozenLinear, add_bias};
use crate::method::{
    AdapterModule, LinearAdapter, MergeError, Method, MethodConfig, MethodInfo, Place, TensorSpec,
    TokenCost, key_of,
};
use crate::parameter::{resting, transposed, values, vector};
use crate::site::targets::Targets;
use crate::site::{Roles, Site};

/// The keys of A and B.
const SHARED: [&str; 2] = ["base_model.vera_A", "base_model.vera_B"];

const R: Setting<Count> = Setting::new("r", "The rank.", Count, 256);
const D_INITIAL: Setting<Finite> = Setting::new("d_initial", "What λ_d starts at.", Finite, 0.1);
const DROPOUT: Setting<Probability> =
    Setting::new("dropout", "Dropout on the input of the method's branch.", Probability, 0.0)
        .called("vera_dropout");
const PROJECTION_PRNG_KEY: Setting<Seed> = Setting::new(
    "projection_prng_key",
    "The seed of the random matrices that all modules share.",
    Seed,
    0,
);

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
}

/// One VeRA module.
#[derive(Module, Debug)]
pub struct Vera {
    /// A, all of it. Every module holds the same tensor.
    shared_a: Tensor<2>,
    /// B, all of it.
    shared_b: Tensor<2>,
    lambda_d: Param<Tensor<1>>,
    lambda_b: Param<Tensor<1>>,
    d_in: usize,
    dropout: f64,
}

/// The vectors of one module that train.
struct Lambdas {
    /// λ_d, `[r]`.
    d: Tensor<1>,
    /// λ_b, `[out]`.
    b: Tensor<1>,
}

impl Vera {
    fn new(config: &VeraConfig, site: &Site, shared: &Factors, lambdas: Lambdas) -> Self {
        Self {
            shared_a: shared.a.clone(),
            shared_b: shared.b.clone(),
            lambda_d: resting(lambdas.d),
            lambda_b: resting(lambdas.b),
            d_in: site.d_in,
            dropout: config.vera_dropout,
        }
    }

    /// A module from the tensors of [`MethodConfig::layout`].
    fn build(
        config: &VeraConfig,
        site: &Site,
        shared: &Factors,
        tensors: Vec<TensorData>,
        device: &Device,
    ) -> Self {
        let [b, d]: [TensorData; 2] =
            tensors.try_into().expect("one tensor for each entry of the layout");
        let lambdas = Lambdas { d: vector(d, device), b: vector(b, device) };
        Self::new(config, site, shared, lambdas)
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

impl MethodConfig for VeraConfig {
    fn usual_targets(&self, roles: &Roles) -> Vec<&'static str> {
        [roles.query, roles.value].concat()
    }

    fn peft_fields(&self, targets: &Targets) -> Map<String, Value> {
        Map::from_iter([
            ("r".to_owned(), json!(self.r)),
            ("d_initial".to_owned(), number(self.d_initial)),
            ("vera_dropout".to_owned(), json!(self.vera_dropout)),
            ("projection_prng_key".to_owned(), json!(self.projection_prng_key)),
            ("save_projection".to_owned(), json!(true)),
            ("bias".to_owned(), json!("none")),
            ("fan_in_fan_out".to_owned(), json!(targets.fan_in_fan_out())),
            ("init_weights".to_owned(), json!(true)),
        ])
    }

    fn layout(&self, site: &Site) -> Vec<TensorSpec> {
        vec![
            TensorSpec::new("vera_lambda_b", [site.d_out]),
            TensorSpec::new("vera_lambda_d", [self.r]),
        ]
    }

    /// The shared matrices come first, then the vectors of every module.
    fn file_layout(&self, sites: &[Site]) -> Vec<(String, Vec<usize>)> {
        let widest = Widest::of(sites);
        let shapes = [vec![self.r, widest.d_in], vec![widest.d_out, self.r]];
        let shared = SHARED.into_iter().map(str::to_owned).zip(shapes);
        let of = |site| {
            let specs = self.layout(site).into_iter();
            specs.map(move |spec| (key_of(site, spec.suffix), spec.shape))
        };
        shared.chain(sites.iter().flat_map(of)).collect()
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.r, self.vera_dropout, site)
    }
}

impl Method for Vera {
    const INFO: MethodInfo = MethodInfo {
        documented_defaults: &[("bias", "\"none\""), ("init_weights", "true")],
        settings: &[&R, &D_INITIAL, &DROPOUT, &PROJECTION_PRNG_KEY],
        ..MethodInfo::new(&["vera"], "VERA")
    };
    type Config = VeraConfig;

    fn read(fields: &mut Fields) -> VeraConfig {
        if !fields.flag("save_projection", true) {
            fields.fault(
                "save_projection",
                "= false is not supported: the projections would have to be drawn again from \
                 PyTorch's generator, which is not to be had here; save the adapter with its \
                 projections",
            );
        }
        VeraConfig {
            r: fields.get(&R),
            d_initial: fields.get(&D_INITIAL),
            vera_dropout: fields.get(&DROPOUT),
            projection_prng_key: fields.get(&PROJECTION_PRNG_KEY),
        }
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
        let shared = drawn(config, std::slice::from_ref(place), device);
        Self::build(config, &place.site, &shared, tensors, device)
    }

    fn init_all(config: &VeraConfig, places: &[Place], _: u64, device: &Device) -> Vec<Self> {
        let shared = drawn(config, places, device);
        let fresh = |place: &Place| {
            let lambdas = Lambdas {
                d: Tensor::full([config.r], config.d_initial, device),
                b: Tensor::zeros([place.site.d_out], device),
            };
            Self::new(config, &place.site, &shared, lambdas)
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
        let mut next = || tensors.next().expect("one tensor for each entry of the layout");
        let a = transposed(next(), device);
        let b = transposed(next(), device);
        let shared = Factors { a, b };
        let mut build = |place: &Place| {
            let own = tensors.by_ref().take(2).collect();
            Self::build(config, &place.site, &shared, own, device)
        };
        places.iter().map(&mut build).collect()
    }

    fn to_file(adapters: &[&Self]) -> Vec<TensorData> {
        let in_file = |matrix: &Tensor<2>| matrix.clone().transpose().into_data();
        let shared = adapters.first().map(|one| [&one.shared_a, &one.shared_b].map(in_file));
        let own = adapters.iter().flat_map(|adapter| adapter.tensors());
        shared.into_iter().flatten().chain(own).collect()
    }
}

impl AdapterModule for Vera {
    fn tensors(&self) -> Vec<TensorData> {
        [&self.lambda_b, &self.lambda_d].map(values).into()
    }

    fn merge(&self, base: Base) -> Result<Base, MergeError> {
        let delta = self.down().inner().matmul(self.up().inner());
        Ok(base.map_matrix(|weight| weight + delta))
    }

    fn as_linear(&self) -> Option<&dyn LinearAdapter> {
        Some(self)
    }

    fn token_cost(&self, site: &Site) -> TokenCost {
        token_cost(self.lambda_d.dims()[0], self.dropout, site)
    }
}

impl LinearAdapter for Vera {
    fn forward(&self, base: &FrozenLinear, x: Tensor<3>, pass: &LayerPass) -> Tensor<3> {
        if base.weight.trains() {
            // The fused operation has no dW, so a weight that trains itself goes through burn's
            // own.
            let input = dropout(x.clone(), self.dropout, pass.dropout);
            let low = module::linear(input, self.down(), None).mul_scalar(pass.response);
            return base.forward(x, pass.response) + module::linear(low, self.up(), None);
        }
        let bias = base.bias_value(x.dtype(), pass.response);
        let weight = base.weight.matrix(pass.response);
        let factors = Factors { a: self.down(), b: self.up() };
        let mask = DropoutMask::of(self.dropout, pass.dropout);
        let operation = LoraLinear { scale: pass.response, mask, value: pass.needs_output };
        add_bias(operation.apply(x, weight, factors, None), bias)
    }
}

/// The widest input and the widest output, which need not be of one module.
#[derive(Clone, Copy, Default)]
struct Widest {
    d_in: usize,
    d_out: usize,
}

impl Widest {
    fn of<'a>(sites: impl IntoIterator<Item = &'a Site>) -> Self {
        sites.into_iter().fold(Self::default(), |widest, site| Self {
            d_in: widest.d_in.max(site.d_in),
            d_out: widest.d_out.max(site.d_out),
        })
    }
}

/// Fresh A and B for all places.
fn drawn(config: &VeraConfig, places: &[Place], device: &Device) -> Factors {
    let widest = Widest::of(places.iter().map(|place| &place.site));
    let r = config.r;
    // A stream of its own for each matrix: B does not change with the length of A.
    let uniform = |name: &str, shape: [usize; 2], fan_in: usize| {
        let mut rng = streams::stream(config.projection_prng_key, name);
        let bound = (6.0 / fan_in as f64).sqrt();
        let elements = 0..shape[0] * shape[1];
        let values: Vec<f32> = elements.map(|_| rng.random_range(-bound..bound) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    };
    Factors {
        a: uniform("vera_A", [widest.d_in, r], widest.d_in),
        b: uniform("vera_B", [r, widest.d_out], r),
    }
}

/// The low-rank product stays.
fn token_cost(rank: usize, dropout: f64, site: &Site) -> TokenCost {
    let masked = if dropout > 0.0 { site.d_in } else { 0 };
    TokenCost { keeps_input: false, keeps_output: false, keeps: rank, scratch: rank + masked }
}
