//! A model of two layers with two linear modules each, an embedding and a head, to put adapters on.

use ist_core::burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ist_core::{LayerPass, streams};
use ist_peft::{
    Adapter, Adapters, BaseMut, BuiltinAdapter, BuiltinConfig, Configured, Dialect, PeftEmbedding,
    PeftLinear, PeftModel, Roles, Site, Slot, Weight, attach,
};
use rand::RngExt;
use serde_json::Value;

/// `[vocabulary, hidden, inner]`.
pub(crate) type Sizes = [usize; 3];

static ROLES: Roles = Roles {
    usual: &["up_proj"],
    query: &["up_proj"],
    key: &[],
    value: &["down_proj"],
    linear: &["up_proj", "down_proj"],
    mlp_in: &["up_proj"],
    mlp_out: &["down_proj"],
    norms: &[],
    final_norm: &[],
    attention: &[],
};

/// embedding, then in each of two layers x + `down_proj(up_proj(x))`, then the head.
#[derive(Clone)]
pub(crate) struct Tiny {
    sizes: Sizes,
    embedding: PeftEmbedding<BuiltinAdapter>,
    layers: Vec<[PeftLinear<BuiltinAdapter>; 2]>,
    head: PeftLinear<BuiltinAdapter>,
}

pub(crate) fn random(name: &str, shape: impl Into<Vec<usize>>) -> TensorData {
    let shape = shape.into();
    let mut rng = streams::stream(3, name);
    let values =
        (0..shape.iter().product()).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<f32>>();
    TensorData::new(values, shape)
}

#[expect(deprecated, reason = "the backend that computes in f64")]
fn ndarray() -> Device {
    Device::ndarray()
}

impl Tiny {
    /// The model in f32, or in f64 on another backend.
    pub(crate) fn new(sizes: Sizes, dtype: DType) -> Self {
        let device = if dtype == DType::F64 { ndarray() } else { Device::flex() };
        let [vocabulary, hidden, inner] = sizes;
        let weight = |name: &str, shape| {
            Weight::frozen(Tensor::from_data(random(name, shape), (&device, dtype)))
        };
        let linear = |name: &str, shape| PeftLinear::new(name, weight(name, shape), None);
        let layer = [linear("up_proj", [hidden, inner]), linear("down_proj", [inner, hidden])];
        Self {
            sizes,
            embedding: PeftEmbedding::new(weight("embed_tokens", [vocabulary, hidden])),
            layers: vec![layer.clone(), layer],
            head: linear("lm_head", [hidden, vocabulary]),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.embedding.weight.dtype()
    }

    pub(crate) fn forward(&self) -> Vec<f64> {
        self.forward_at(1.0)
    }

    /// The output at a response factor, on a batch of two records.
    pub(crate) fn forward_at(&self, response: f64) -> Vec<f64> {
        let device = self.embedding.weight.current().device();
        let ids: Vec<i64> = (0..6).map(|at| at % self.sizes[0] as i64).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 3]), &device);
        let pass = LayerPass { response, ..LayerPass::EVALUATION };
        let x = self
            .layers
            .iter()
            .fold(self.embedding.forward(ids, self.dtype(), &pass), |x, [up, down]| {
                x.clone() + down.forward(up.forward(x, &pass), &pass)
            });
        self.head.forward(x, &pass).into_data().iter::<f64>().collect()
    }

    /// Puts adapters on the model whose tensors are random and non-zero; returns how many.
    pub(crate) fn adapt(&mut self, adapters: &mut Adapters<BuiltinAdapter>) -> usize {
        let dtype = self.dtype();
        let device = self.embedding.weight.current().device();
        let sites = attach(self, adapters, 1, &device).unwrap();
        let config = adapters.parts()[0].config();
        let layout = config.settings.file_layout(&sites).into_iter();
        let tensors = layout.map(|(key, shape)| random(&key, shape).convert_dtype(dtype)).collect();
        let slots: Vec<_> =
            self.slots().into_iter().filter(|slot| slot.adapter.is_some()).collect();
        let places: Vec<_> = slots.iter().map(Slot::place).collect();
        let adapters = BuiltinAdapter::from_file(&config.settings, &places, tensors, &device);
        for (slot, adapter) in slots.into_iter().zip(adapters) {
            *slot.adapter = Some(adapter);
        }
        sites.len()
    }
}

fn slot(site: Site, module: &mut PeftLinear<BuiltinAdapter>) -> Slot<'_, BuiltinAdapter> {
    Slot { site, base: BaseMut::Linear(&mut module.base), adapter: &mut module.adapter }
}

impl PeftModel<BuiltinAdapter> for Tiny {
    fn slots(&mut self) -> Vec<Slot<'_, BuiltinAdapter>> {
        let [vocabulary, hidden, inner] = self.sizes;
        let base = BaseMut::Embedding(&mut self.embedding.weight);
        let site = Site::embedding("model.embed_tokens", vocabulary, hidden);
        let mut slots = vec![Slot { site, base, adapter: &mut self.embedding.adapter }];
        for (index, [up, down]) in self.layers.iter_mut().enumerate() {
            let site = |name: &str, d_in, d_out| {
                Site::linear(format!("model.layers.{index}.mlp.{name}"), Some(index), d_in, d_out)
            };
            slots.push(slot(site("up_proj", hidden, inner), up));
            slots.push(slot(site("down_proj", inner, hidden), down));
        }
        slots.push(slot(Site::linear("lm_head", None, hidden, vocabulary), &mut self.head));
        slots
    }

    fn roles(&self) -> &'static Roles {
        &ROLES
    }

    fn num_layers(&self) -> usize {
        self.layers.len()
    }
}

pub(crate) fn parse(
    fields: &Value,
    dialect: Dialect,
) -> Result<Configured<BuiltinConfig>, ist_peft::ConfigError> {
    BuiltinAdapter::parse(fields.as_object().unwrap(), dialect).unwrap()
}

pub(crate) fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()))
}
