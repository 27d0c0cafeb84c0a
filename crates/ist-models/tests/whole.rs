//! The methods that are no low-rank additions, on LLaMAs of random shapes: LayerNorm tuning,
//! BitFit, whole weights, prefixes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ist_core::burn::tensor::{DType, Device, Tensor, TensorData};
use ist_core::gradients::{
    OUTER, count_parameters, for_each_parameter, layer_prefix, map_parameters,
};
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, LayeredModel, Responses, streams};
use ist_models::{Decoder, DecoderConfig, Example, TokenBatch, generate};
use ist_peft::files::named_tensors;
use ist_peft::{
    Adapter, Adapters, BuiltinAdapter, Dialect, PeftModel, Slot, attach, load, merge, save,
};
use proptest::prelude::*;
use rand::RngExt;
use serde_json::{Value, json};

type Model = Decoder<BuiltinAdapter>;

/// Rounding in f64, with the sums of a few layers.
const EXACT: f64 = 1e-11;
const VOCABULARY: usize = 11;

#[derive(Clone, Debug)]
struct Shape {
    layers: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    widths: [usize; 2],
    tied: bool,
    bias: bool,
}

impl Shape {
    fn config(&self) -> DecoderConfig {
        let [hidden, inner] = self.widths;
        let document = json!({"model_type": "llama", "vocab_size": VOCABULARY,
            "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": self.layers, "num_attention_heads": self.kv_heads * self.group,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": 48,
            "tie_word_embeddings": self.tied, "attention_bias": self.bias, "mlp_bias": self.bias});
        DecoderConfig::parse(&document.to_string()).unwrap()
    }

    fn model(&self, dtype: DType) -> Model {
        let mut source = |name: &str, shape: &[usize]| random(name, dtype, shape);
        Decoder::build(self.config(), &mut source, dtype, &device(dtype))
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let heads = (1usize..3, 1usize..3, prop::sample::select(vec![2usize, 4]));
    (1usize..4, heads, prop::array::uniform2(2usize..8), any::<bool>(), any::<bool>()).prop_map(
        |(layers, (kv_heads, group, head_dim), widths, tied, bias)| Shape {
            layers,
            kv_heads,
            group,
            head_dim,
            widths,
            tied,
            bias,
        },
    )
}

/// The fields of every method of this file but the prefix, which has no base model to begin at.
fn copies() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({"method": "layernorm"}),
        json!({"method": "layernorm", "targets": r".*\.0\.input_layernorm|model\.norm"}),
        json!({"method": "bitfit"}),
        json!({"method": "bitfit", "targets": ["k_proj", "up_proj"], "layers_to_transform": [0]}),
        json!({"method": "full"}),
        json!({"method": "full", "targets": "all-linear", "exclude_modules": ["down_proj"]}),
        json!({"method": "full", "targets": EVERYTHING}),
    ])
}

/// Every module with a weight. A tied model has no `lm_head`.
const EVERYTHING: [&str; 12] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "input_layernorm",
    "post_attention_layernorm",
    "norm",
    "embed_tokens",
    "lm_head",
];

fn methods() -> impl Strategy<Value = Value> {
    let prefix = (1usize..5)
        .prop_map(|length| json!({"method": "prefix-tuning", "num_virtual_tokens": length}));
    prop_oneof![3 => copies(), 1 => prefix]
}

#[expect(deprecated, reason = "the backend that computes in f64")]
fn device(dtype: DType) -> Device {
    if dtype == DType::F64 { Device::ndarray() } else { Device::flex() }
}

/// Uniform within ± 0.8, a function of `name` alone.
fn random(name: &str, dtype: DType, shape: &[usize]) -> TensorData {
    let mut rng = streams::stream(8, name);
    let values = (0..shape.iter().product()).map(|_| rng.random_range(-0.8f32..0.8));
    TensorData::new(values.collect::<Vec<f32>>(), shape.to_vec()).convert_dtype(dtype)
}

/// The method on the model, fresh; `None` for biases of a model that has none.
fn fresh(shape: &Shape, dtype: DType, fields: &Value) -> Option<(Model, Adapters<BuiltinAdapter>)> {
    if fields["method"] == "bitfit" && !shape.bias {
        return None;
    }
    let mut model = shape.model(dtype);
    let config =
        BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
    let mut adapters = Adapters::one(config);
    attach(&mut model, &mut adapters, 1, &device(dtype)).unwrap();
    Some((model, adapters))
}

/// The same model with the adapters' tensors replaced by what `with` makes of their keys and
/// values.
fn replaced(
    model: &Model,
    adapters: &Adapters<BuiltinAdapter>,
    with: &dyn Fn(&str, TensorData) -> TensorData,
) -> Model {
    let (mut model, dtype) = (model.clone(), model.weights()[0].1.dtype());
    let tensors = named_tensors(&mut model, adapters).into_iter();
    let tensors = tensors.map(|(key, data)| with(&key, data.convert_dtype(dtype))).collect();
    let slots: Vec<_> = model.slots().into_iter().filter(|slot| slot.adapter.is_some()).collect();
    let places: Vec<_> = slots.iter().map(Slot::place).collect();
    let changed = BuiltinAdapter::from_file(
        &adapters.configs().next().unwrap().settings,
        &places,
        tensors,
        &device(dtype),
    );
    for (slot, adapter) in slots.into_iter().zip(changed) {
        *slot.adapter = Some(adapter);
    }
    model
}

/// The method on the model with random tensors, and the same model with fresh ones.
fn adapted(
    shape: &Shape,
    dtype: DType,
    fields: &Value,
) -> Option<(Model, Model, Adapters<BuiltinAdapter>)> {
    let (fresh, adapters) = fresh(shape, dtype, fields)?;
    let changed =
        replaced(&fresh, &adapters, &|key, data| random(key, dtype, data.shape().as_slice()));
    Some((changed, fresh, adapters))
}

fn batch(dtype: DType) -> TokenBatch {
    let padded = |tokens: Vec<u32>, left: usize| {
        let mut example = Example::tokens(tokens);
        for mask in &mut example.attention_mask[..left] {
            *mask = false;
        }
        example
    };
    TokenBatch::new(
        &[padded(vec![3, 1, 4, 1, 5, 9], 0), padded(vec![0, 0, 2, 6, 5], 2)],
        &device(dtype),
    )
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// log p of every predicted token.
fn outcome(model: &Model) -> Vec<f64> {
    floats(model.token_log_probabilities(&batch(model.weights()[0].1.dtype())))
}

fn loss(model: &Model, factor: f64) -> f64 {
    let all = LayerSet::all(model.layers().len());
    step::evaluate(
        model,
        &batch(model.weights()[0].1.dtype()),
        &Responses::suppressed(&all, factor),
    )
}

fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .fold(0.0, |most: f64, (a, b)| most.max((a - b).abs() / b.abs().max(1.0)))
}

/// Whether a tensor of a file belongs to a layer.
fn in_layers(key: &str) -> bool {
    key.contains(".layers.") || key == "prompt_embeddings"
}

/// W₀ + f · (W - W₀), or of a prefix its values f · W.
fn damped(
    shape: &Shape,
    key: &str,
    frozen: &TensorData,
    data: &TensorData,
    factor: f64,
) -> TensorData {
    let half = shape.kv_heads * shape.head_dim;
    let value = |(at, (frozen, value)): (usize, (f64, f64))| match key {
        "prompt_embeddings" if (at / half).is_multiple_of(2) => value,
        "prompt_embeddings" => factor * value,
        _ => frozen + factor * (value - frozen),
    };
    let values = frozen.iter::<f64>().zip(data.iter::<f64>()).enumerate().map(value);
    TensorData::new(values.collect::<Vec<f64>>(), data.shape())
}

/// The model with every parameter moved by `step` along a direction; also gradient · direction.
fn moved(model: &Model, gradients: &step::StepOutput, size: f64) -> (Model, f64) {
    let (mut model, mut along) = (model.clone(), 0.0);
    let mut walk = |name: &str, value: Tensor<1>| {
        let direction = random(name, DType::F64, &[value.dims()[0]]);
        let gradient = gradients.gradients.get(name).unwrap();
        along += floats(gradient.clone())
            .iter()
            .zip(direction.iter::<f64>())
            .map(|(g, d)| g * d)
            .sum::<f64>();
        let direction = Tensor::<1>::from_data(direction, (&device(DType::F64), DType::F64));
        Some(value + direction.mul_scalar(size))
    };
    *model.outer_mut() = map_parameters(OUTER, model.outer().clone(), &mut walk);
    for index in 0..model.layers().len() {
        let layer = map_parameters(&layer_prefix(index), model.layers()[index].clone(), &mut walk);
        model.layers_mut()[index] = layer;
    }
    (model, along)
}

fn parameters(model: &Model) -> usize {
    count_parameters(model.outer()) + model.layers().iter().map(count_parameters).sum::<usize>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fresh_copy_is_the_base_model(shape in shapes(), fields in copies()) {
        let Some((model, adapters)) = fresh(&shape, DType::F64, &fields) else { return Ok(()) };
        prop_assert!(adapters.configs().all(|config| config.settings.starts_at_base()));
        prop_assert!(parameters(&model) > 0);
        prop_assert!(distance(&outcome(&model), &outcome(&shape.model(DType::F64))) <= EXACT);
    }

    #[test]
    fn a_response_factor_moves_what_the_layers_carry_towards_the_base(
        shape in shapes(), fields in methods(), factor in prop::sample::select(vec![0.0, 0.25, 0.6]),
    ) {
        let Some((model, fresh, adapters)) = adapted(&shape, DType::F64, &fields) else { return Ok(()) };
        let before = named_tensors(&mut fresh.clone(), &adapters);
        let frozen = |key: &str| before.iter().find(|(name, _)| name == key).unwrap().1.clone();
        let expected = replaced(&model, &adapters, &|key, data| {
            if in_layers(key) { damped(&shape, key, &frozen(key), &data, factor) } else { data }
        });
        let (found, expected) = (loss(&model, factor), loss(&expected, 1.0));
        prop_assert!((found - expected).abs() <= EXACT * expected.abs(), "{} against {}", found,
            expected);
        prop_assert!(loss(&model, 1.0) != loss(&fresh, 1.0), "the adapters must matter");
    }

    #[test]
    fn merged_is_unmerged_to_the_last_bit(
        shape in shapes(),
        fields in copies(),
        single in any::<bool>(),
    ) {
        let dtype = if single { DType::F32 } else { DType::F64 };
        let Some((mut model, ..)) = adapted(&shape, dtype, &fields) else { return Ok(()) };
        let (unmerged, table) = (outcome(&model), model.slots()[0].adapter.is_some());
        merge(&mut model).unwrap();
        prop_assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
        prop_assert_eq!(outcome(&model), unmerged);
        prop_assert_eq!(model.config().tie_word_embeddings, shape.tied && !table);
    }

    #[test]
    fn save_then_load_is_the_identity(shape in shapes(), fields in methods()) {
        let Some((mut model, _, adapters)) = adapted(&shape, DType::F32, &fields) else { return Ok(()) };
        let folder = tempfile::tempdir().unwrap();
        save(&mut model, &adapters, folder.path(), "some/base").unwrap();
        let mut again = shape.model(DType::F32);
        let loaded = load::<BuiltinAdapter>(&mut again, folder.path(), &Device::flex()).unwrap();
        prop_assert_eq!(loaded.parts()[0].peft_fields(), adapters.parts()[0].peft_fields());
        let (saved, found) = (named_tensors(&mut model, &adapters), named_tensors(&mut again, &loaded));
        prop_assert_eq!(saved, found);
        prop_assert_eq!(outcome(&again), outcome(&model));
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss(
        shape in shapes(),
        fields in methods(),
        keep in any::<bool>(),
    ) {
        let Some((model, ..)) = adapted(&shape, DType::F64, &fields) else { return Ok(()) };
        let (batch, layers) = (batch(DType::F64), LayerSet::all(shape.layers));
        let memory = if keep { Memory::Keep } else { Memory::Recompute };
        let found = step::gradients(&model, std::slice::from_ref(&batch), &layers, memory, None);
        let tokens = found.tokens as f64;
        let at = |size: f64| step::evaluate(&moved(&model, &found, size).0, &batch, &Responses::full(shape.layers)) / tokens;
        let (slope, along) = ((at(1e-5) - at(-1e-5)) / 2e-5, moved(&model, &found, 0.0).1);
        prop_assert!((slope - along).abs() <= 1e-6 * (1.0 + along.abs()), "{} against {}", along,
            slope);
    }

    #[test]
    fn parameters_are_counted_before_they_exist(shape in shapes(), fields in methods()) {
        let Some((mut model, adapters)) = fresh(&shape, DType::F32, &fields) else { return Ok(()) };
        let config = adapters.configs().next().unwrap();
        let on = model.slots().into_iter().filter(|slot| slot.adapter.is_some());
        let counted: usize = on.map(|slot| config.settings.parameters(&slot.site)).sum();
        prop_assert_eq!(counted, parameters(&model));
        let [hidden, _] = shape.widths;
        if fields == json!({"method": "layernorm"}) {
            prop_assert_eq!(counted, (2 * shape.layers + 1) * hidden);
        } else if fields["targets"] == json!(EVERYTHING) {
            let all = shape.model(DType::F32).weights();
            // A tied head that trains has a table of its own, as in PEFT.
            let head = |name: &str| shape.tied && name == "model.embed_tokens.weight";
            let elements = all.iter().map(|(name, data)| {
                data.num_elements() * if head(name) { 2 } else { 1 }
            });
            prop_assert_eq!(counted, elements.sum::<usize>());
        } else if fields == json!({"method": "bitfit"}) {
            let biases = shape.model(DType::F32).weights().into_iter().filter(|(name, _)| name.contains("_proj.bias"));
            prop_assert_eq!(counted, biases.map(|(_, data)| data.num_elements()).sum::<usize>());
        } else if fields["method"] == "prefix-tuning" {
            let length = fields["num_virtual_tokens"].as_u64().unwrap() as usize;
            prop_assert_eq!(counted, 2 * shape.layers * length * shape.kv_heads * shape.head_dim);
        }
    }

    #[test]
    fn generation_behind_a_prefix_equals_full_recomputation(
        shape in shapes(),
        length in 1usize..5,
    ) {
        let fields = json!({"method": "prefix-tuning", "num_virtual_tokens": length});
        let (model, ..) = adapted(&shape, DType::F64, &fields).unwrap();
        let prompts = [vec![3, 1, 4], vec![7], vec![2, 8, 1, 8, 2]];
        let settings = generate::Settings { max_new_tokens: 6, ..generate::Settings::default() };
        let together = generate::generate(&model, &prompts, &settings).unwrap();
        for (prompt, found) in prompts.iter().zip(together) {
            let mut tokens = prompt.clone();
            for _ in 0..6 {
                let mut batch = TokenBatch::new(&[Example::tokens(tokens.clone())], &device(DType::F64));
                batch.rows = Tensor::from_data([tokens.len() as i64 - 1], &device(DType::F64));
                let logits = floats(model.logits(&batch));
                tokens.push((0..VOCABULARY).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32);
            }
            prop_assert_eq!(&found, &tokens[prompt.len()..]);
        }
    }
}

fn shape(layers: usize, kv_heads: usize, head_dim: usize) -> Shape {
    Shape { layers, kv_heads, group: 2, head_dim, widths: [6, 5], tied: false, bias: false }
}

fn refused(shape: &Shape, fields: &Value) -> String {
    let config = BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Toml).unwrap();
    let attached = config.map(|config| {
        attach(&mut shape.model(DType::F32), &mut Adapters::one(config), 1, &Device::flex())
    });
    match attached {
        Err(error) => error.to_string(),
        Ok(attached) => attached.unwrap_err().to_string(),
    }
}

#[test]
fn biases_of_a_model_that_has_none_are_refused_in_one_message() {
    for fields in [json!({"method": "bitfit"}), json!({"method": "bitfit", "targets": ["q_proj"]})]
    {
        let error = refused(&shape(2, 1, 4), &fields);
        assert_eq!(
            error,
            "bitfit sits on modules that have a bias, and the model has none; choose another method"
        );
    }
}

#[test]
fn a_prefix_is_in_every_layer_and_takes_no_targets() {
    for key in ["targets", "layers_to_transform", "exclude_modules"] {
        let error = refused(&shape(2, 1, 4), &json!({"method": "prefix-tuning", key: [0]}));
        assert!(error.contains(&format!("`{key}` is unknown")), "{error}");
    }
    let (_, adapters) =
        fresh(&shape(2, 1, 4), DType::F32, &json!({"method": "prefix-tuning"})).unwrap();
    assert!(!adapters.parts()[0].peft_fields().contains_key("target_modules"));
}

#[test]
fn a_prefix_of_zeros_is_not_the_base_model() {
    let fields =
        json!({"method": "prefix-tuning", "num_virtual_tokens": 3, "init_weights": "zero"});
    let (model, adapters) = fresh(&shape(2, 1, 4), DType::F64, &fields).unwrap();
    assert!(adapters.configs().all(|config| !config.settings.starts_at_base()));
    for_each_parameter("", &model.layers()[0], &mut |_, value| {
        assert!(floats(value).iter().all(|&x| x == 0.0));
    });
    assert!(distance(&outcome(&model), &outcome(&shape(2, 1, 4).model(DType::F64))) > 1e-6);
}

#[test]
fn a_prefix_for_another_model_is_refused_by_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    let fields = json!({"method": "prefix-tuning", "num_virtual_tokens": 3});
    let (mut model, adapters) = fresh(&shape(2, 2, 4), DType::F32, &fields).unwrap();
    save(&mut model, &adapters, folder.path(), "some/base").unwrap();
    let load = |shape: &Shape| {
        load::<BuiltinAdapter>(&mut shape.model(DType::F32), folder.path(), &Device::flex())
    };
    load(&shape(2, 2, 4)).unwrap();
    let error = load(&shape(4, 1, 4)).unwrap_err().to_string();
    for part in [
        "adapter_config.json",
        "`num_layers` is 2, but the layers of the model are 4",
        "`token_dim` is 8, but the numbers of a layer's key-value heads together are 4",
        "`num_attention_heads` is 2, but the key-value heads of the model are 1",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_prefix_file_with_a_projection_or_without_its_model_is_refused_all_at_once() {
    let fields = json!({"peft_type": "PREFIX_TUNING", "prefix_projection": true,
        "num_transformer_submodules": 2,
        "num_virtual_tokens": 3, "num_layers": 0, "init_weights": "normal",
        "encoder_hidden_size": 8});
    let error =
        BuiltinAdapter::parse(fields.as_object().unwrap(), Dialect::Peft).unwrap().unwrap_err();
    let named: Vec<&str> = error.faults.iter().map(|fault| fault.field.as_str()).collect();
    let expected = [
        "prefix_projection",
        "num_transformer_submodules",
        "num_layers",
        "token_dim",
        "num_attention_heads",
        "init_weights",
    ];
    assert_eq!(named, expected, "{error}");
}

#[test]
fn a_prefix_takes_its_length_of_the_context() {
    let fields = json!({"method": "prefix-tuning", "num_virtual_tokens": 40});
    let (model, adapters) = fresh(&shape(1, 1, 4), DType::F32, &fields).unwrap();
    assert_eq!(adapters.configs().next().unwrap().settings.positions_in_front(), 40);
    assert_eq!(model.max_position_embeddings(), 8);
    let generate = |new| {
        let settings = generate::Settings { max_new_tokens: new, ..generate::Settings::default() };
        generate::generate(&model, &[vec![1, 2, 3]], &settings)
    };
    generate(5).unwrap();
    assert!(generate(6).unwrap_err().to_string().contains("8 positions"));
}
