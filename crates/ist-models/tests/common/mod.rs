//! A tiny LLaMA with random weights and random adapters, the same in every number type, and padded
//! records for it.

use ist_core::burn::tensor::{DType, Device, Tensor, TensorData};
use ist_core::step::StepOutput;
use ist_core::streams;
use ist_models::{Decoder, DecoderConfig, Example, IGNORED_LABEL, TokenBatch};
use ist_peft::model::attach::targeted_sites;
use ist_peft::{Adapter, Adapters, BuiltinAdapter, Dialect, PeftModel, Slot};
use rand::RngExt;
use serde_json::{Value, json};

pub(crate) type Model = Decoder<BuiltinAdapter>;

pub(crate) const LAYERS: usize = 4;
pub(crate) const VOCABULARY: u32 = 13;
/// Every linear module of a layer.
pub(crate) const IN_LAYERS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Grouped-query attention with biases, and heads that are wider than hidden / heads.
pub(crate) fn config(tied: bool) -> DecoderConfig {
    let document = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 12, "intermediate_size": 10,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": tied,
        "attention_bias": true, "mlp_bias": true,
    });
    DecoderConfig::parse(&document.to_string()).unwrap()
}

/// Where numbers live and what they are.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) device: Device,
    pub(crate) dtype: DType,
}

impl Numbers {
    pub(crate) fn flex() -> Self {
        Self { device: Device::flex(), dtype: DType::F32 }
    }

    #[expect(deprecated, reason = "a separate implementation to check the others against")]
    pub(crate) fn ndarray(dtype: DType) -> Self {
        Self { device: Device::ndarray(), dtype }
    }

    /// Uniform within ± `width` around `middle`, a function of `name` alone.
    fn random(&self, name: &str, [middle, width]: [f64; 2], shape: &[usize]) -> TensorData {
        let mut rng = streams::stream(5, name);
        let values = (0..shape.iter().product())
            .map(|_| (middle + width * rng.random_range(-1.0..1.0)) as f32);
        TensorData::new(values.collect::<Vec<f32>>(), shape.to_vec()).convert_dtype(self.dtype)
    }

    /// The model without adapters. `change` may alter a weight by its name.
    pub(crate) fn base(
        &self,
        tied: bool,
        change: impl Fn(&str, TensorData) -> TensorData,
    ) -> Model {
        let mut source = |name: &str, shape: &[usize]| {
            let range = if name.contains("norm") { [1.0, 0.3] } else { [0.0, 0.5] };
            change(name, self.random(name, range, shape))
        };
        Decoder::build(config(tied), &mut source, self.dtype, &self.device)
    }

    /// `model` with LoRA whose A and B are random and non-zero; `fields` as in a configuration's
    /// `[adapter]` table.
    pub(crate) fn adapted(
        &self,
        mut model: Model,
        fields: &Value,
    ) -> (Model, Adapters<BuiltinAdapter>) {
        let config =
            BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
        let mut adapters = Adapters::one(config.clone());
        let sites = targeted_sites(&mut model, &mut adapters).unwrap().concat();
        let layout = config.settings.file_layout(&sites).into_iter();
        let tensors = layout.map(|(key, shape)| self.random(&key, [0.0, 0.4], &shape)).collect();
        let slots: Vec<_> =
            model.slots().into_iter().filter(|slot| sites.contains(&slot.site)).collect();
        let places: Vec<_> = slots.iter().map(Slot::place).collect();
        let made = BuiltinAdapter::from_file(&config.settings, &places, tensors, &self.device);
        for (slot, adapter) in slots.into_iter().zip(made) {
            *slot.adapter = Some(adapter);
        }
        (model, adapters)
    }

    /// The untied model with LoRA of rank 2 on every linear module of the layers and on `more`.
    pub(crate) fn lora(&self, more: &[&str], dropout: f64) -> (Model, Adapters<BuiltinAdapter>) {
        let targets = [&IN_LAYERS[..], more].concat();
        let fields =
            json!({"method": "lora", "r": 2, "alpha": 3, "dropout": dropout, "targets": targets});
        self.adapted(self.base(false, |_, data| data), &fields)
    }

    pub(crate) fn batch(&self, records: &[Example]) -> TokenBatch {
        TokenBatch::new(records, &self.device)
    }
}

/// `tokens` with `left` and `right` padding around them; every third label is left out.
pub(crate) fn padded(tokens: &[u32], left: usize, right: usize) -> Example {
    let labels = tokens
        .iter()
        .enumerate()
        .map(|(t, &id)| if t % 3 == 2 { IGNORED_LABEL } else { i64::from(id) });
    let around = |middle: Vec<i64>, pad: i64| [vec![pad; left], middle, vec![pad; right]].concat();
    Example {
        input_ids: around(tokens.iter().map(|&id| i64::from(id)).collect(), 0)
            .into_iter()
            .map(|id| id as u32)
            .collect(),
        labels: around(labels.collect(), IGNORED_LABEL),
        attention_mask: around(vec![1; tokens.len()], 0)
            .into_iter()
            .map(|real| real == 1)
            .collect(),
    }
}

/// Four records of unequal length: without padding, padded on the left, on the right, and on both
/// sides.
pub(crate) fn records(seed: u64) -> Vec<Example> {
    let mut rng = streams::stream(seed, "records");
    let mut tokens = |count: usize| {
        (0..count).map(|_| rng.random_range(0..VOCABULARY - 1)).collect::<Vec<u32>>()
    };
    vec![
        padded(&tokens(7), 0, 0),
        padded(&tokens(5), 2, 0),
        padded(&tokens(4), 0, 3),
        padded(&tokens(6), 1, 1),
    ]
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Name and value of every gradient.
pub(crate) fn named(output: &StepOutput) -> Vec<(String, Vec<f64>)> {
    let value = |name: &str| floats(output.gradients.get(name).unwrap().clone());
    output.gradients.names().map(|name| (name.to_owned(), value(name))).collect()
}

/// max |found - expected| / max |expected|; an `expected` of zeros is refused, since nothing would
/// be compared.
pub(crate) fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let worst = found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    assert!(largest > 0.0 && worst.is_finite(), "nothing to compare with: {largest}, {worst}");
    worst / largest
}
