//! LLaMA with LoRA against central differences, against another implementation of its operations,
//! and against itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{
    IN_LAYERS, LAYERS, Model, Numbers, VOCABULARY, floats, named, padded, records, relative,
};
use ist_core::burn::tensor::{DType, Tensor, TensorData};
use ist_core::gradients::{OUTER, layer_of, layer_prefix, map_parameters};
use ist_core::step::Memory;
use ist_core::{LayerSet, LayeredModel, Responses, step};
use ist_models::{Decoder, Example, TokenBatch, generate};
use ist_peft::{Adapters, BuiltinAdapter, PeftModel};
use serde_json::{Value, json};

const OUTSIDE: [&str; 2] = ["embed_tokens", "lm_head"];

fn exact() -> Numbers {
    Numbers::ndarray(DType::F64)
}

fn everywhere() -> Vec<&'static str> {
    [&IN_LAYERS[..], &OUTSIDE[..]].concat()
}

fn mean_loss(model: &Model, batch: &TokenBatch) -> f64 {
    step::mean_loss(model, std::slice::from_ref(batch), &Responses::full(LAYERS)).0
}

fn evaluate(model: &Model, batch: &TokenBatch, layers: &LayerSet, factor: f64) -> f64 {
    step::evaluate(model, batch, &Responses::suppressed(layers, factor))
}

/// log p of every predicted token.
fn log_probabilities(model: &Model, batch: &TokenBatch) -> Vec<f64> {
    floats(model.token_log_probabilities(batch))
}

/// A parameter's new value from its name and its old one; `None` leaves it.
type Change<'a> = &'a dyn Fn(&str, Vec<f64>) -> Option<Vec<f64>>;

/// The model with the parameters for which `change` has an answer replaced by it.
fn with_parameters(model: &Model, change: Change) -> Model {
    let mut model = model.clone();
    let mut replace = |name: &str, value: Tensor<1>| {
        let options = (&value.device(), value.dtype());
        let new = change(name, floats(value))?;
        let shape = [new.len()];
        Some(Tensor::from_data(TensorData::new(new, shape), options))
    };
    let outer = map_parameters(OUTER, model.outer().clone(), &mut replace);
    *model.outer_mut() = outer;
    for index in 0..LAYERS {
        let layer =
            map_parameters(&layer_prefix(index), model.layers()[index].clone(), &mut replace);
        model.layers_mut()[index] = layer;
    }
    model
}

/// (loss(θ + h) - loss(θ - h)) / 2h in entry `at` of one parameter.
fn central_difference(model: &Model, batch: &TokenBatch, parameter: &str, at: usize) -> f64 {
    let h = 1e-5;
    let moved = |by: f64| {
        let change = |name: &str, mut value: Vec<f64>| {
            let entry = if name == parameter { value.get_mut(at) } else { None };
            *entry? += by;
            Some(value)
        };
        mean_loss(&with_parameters(model, &change), batch)
    };
    (moved(h) - moved(-h)) / (2.0 * h)
}

fn assert_central_differences(fields: &Value, tied: bool, parameters: usize) {
    let numbers = exact();
    let (model, _) = numbers.adapted(numbers.base(tied, |_, data| data), fields);
    let batch = numbers.batch(&records(3));
    let output = step::gradients(
        &model,
        std::slice::from_ref(&batch),
        &LayerSet::all(LAYERS),
        Memory::Keep,
        None,
    );
    assert_eq!(output.gradients.len(), parameters);
    for (name, gradient) in named(&output) {
        let largest = gradient.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let peak = gradient.iter().position(|value| value.abs() == largest).unwrap();
        for at in [peak, 0, gradient.len() / 2, gradient.len() - 1] {
            let expected = central_difference(&model, &batch, &name, at);
            let fault = (gradient[at] - expected).abs();
            assert!(
                fault <= 1e-7 * largest + 1e-10,
                "{name}[{at}]: {} against {expected}",
                gradient[at]
            );
        }
    }
}

#[test]
fn gradients_of_every_tensor_equal_central_differences() {
    let fields = json!({"r": 2, "alpha": 3, "targets": everywhere()});
    assert_central_differences(&fields, false, 2 * (7 * LAYERS + 2));
}

#[test]
fn gradients_with_rslora_and_patterns_equal_central_differences() {
    let fields = json!({"r": 2, "alpha": 3, "use_rslora": true, "targets": ["q_proj", "up_proj"],
        "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.mlp.up_proj": 5}});
    assert_central_differences(&fields, false, 4 * LAYERS);
}

#[test]
fn gradients_of_a_tied_model_equal_central_differences() {
    let fields = json!({"r": 2, "alpha": 3, "targets": ["v_proj", "embed_tokens"]});
    assert_central_differences(&fields, true, 2 * LAYERS + 2);
}

#[test]
fn rslora_divides_by_the_square_root_of_the_rank() {
    let numbers = exact();
    let model = |fields: Value| numbers.adapted(numbers.base(false, |_, data| data), &fields).0;
    let rslora = model(json!({"r": 4, "alpha": 6, "use_rslora": true, "targets": everywhere()}));
    let plain = |alpha: f64| model(json!({"r": 4, "alpha": alpha, "targets": everywhere()}));
    let batch = numbers.batch(&records(4));
    assert_eq!(mean_loss(&rslora, &batch), mean_loss(&plain(12.0), &batch));
    assert_ne!(mean_loss(&rslora, &batch), mean_loss(&plain(6.0), &batch));
}

#[test]
fn flex_equals_ndarray() {
    let run = |numbers: &Numbers| {
        let (model, _) = numbers.lora(&OUTSIDE, 0.2);
        step::gradients(
            &model,
            &[numbers.batch(&records(5))],
            &LayerSet::all(LAYERS),
            Memory::Keep,
            Some(3),
        )
    };
    let (flex, ndarray) = (run(&Numbers::flex()), run(&Numbers::ndarray(DType::F32)));
    assert!(
        (flex.loss - ndarray.loss).abs() <= 1e-6 * ndarray.loss,
        "{} {}",
        flex.loss,
        ndarray.loss
    );
    let (flex, ndarray) = (named(&flex), named(&ndarray));
    assert_eq!(flex.len(), ndarray.len());
    for ((name, found), (_, expected)) in flex.iter().zip(&ndarray) {
        assert!(relative(found, expected) <= 1e-5, "{name}: {:e}", relative(found, expected));
    }
}

#[test]
fn a_response_factor_multiplies_b() {
    let numbers = exact();
    let (model, _) = numbers.lora(&OUTSIDE, 0.2);
    let batch = numbers.batch(&records(6));
    let layers = LayerSet::new([0, 2], LAYERS).unwrap();
    for factor in [0.25, 0.7] {
        let damped = with_parameters(&model, &|name, value| {
            let suppressed = layer_of(name).is_some_and(|layer| layers.contains(layer))
                && name.rsplit('.').next() == Some("b");
            suppressed.then(|| value.into_iter().map(|b| factor * b).collect())
        });
        let expected = evaluate(&damped, &batch, &LayerSet::empty(LAYERS), 1.0);
        let found = evaluate(&model, &batch, &layers, factor);
        assert!(
            (found - expected).abs() <= 1e-12 * expected,
            "{factor}: {found} against {expected}"
        );
        assert!((found - evaluate(&model, &batch, &layers, 1.0)).abs() > 1e-3);
    }
}

#[test]
fn a_response_factor_of_one_changes_nothing() {
    for numbers in [Numbers::flex(), exact()] {
        let (model, _) = numbers.lora(&OUTSIDE, 0.2);
        let batch = numbers.batch(&records(7));
        let plain = -log_probabilities(&model, &batch).iter().sum::<f64>();
        let found = evaluate(&model, &batch, &LayerSet::all(LAYERS), 1.0);
        assert!((found - plain).abs() <= 1e-6 * plain, "{found} against {plain}");
        assert_eq!(found, evaluate(&model, &batch, &LayerSet::empty(LAYERS), 0.3));
        assert_eq!(found / batch.predicted_tokens() as f64, mean_loss(&model, &batch));
    }
}

#[test]
fn a_response_factor_of_zero_is_the_base_model() {
    for numbers in [Numbers::flex(), exact()] {
        let (model, _) = numbers.lora(&[], 0.2);
        let base = numbers.base(false, |_, data| data);
        let batch = numbers.batch(&records(8));
        let expected = evaluate(&base, &batch, &LayerSet::empty(LAYERS), 1.0);
        assert_eq!(evaluate(&model, &batch, &LayerSet::all(LAYERS), 0.0), expected);
        assert_ne!(evaluate(&model, &batch, &LayerSet::all(LAYERS), 1.0), expected);
    }
}

#[test]
fn a_fresh_adapter_is_the_base_model() {
    let numbers = Numbers::flex();
    let base = numbers.base(false, |_, data| data);
    let (mut model, mut config) = numbers.lora(&OUTSIDE, 0.1);
    let batch = numbers.batch(&records(9));
    assert_ne!(log_probabilities(&model, &batch), log_probabilities(&base, &batch));
    let sites = ist_peft::attach(&mut model, &mut config, 1, &numbers.device).unwrap();
    assert_eq!(sites.len(), 7 * LAYERS + 2);
    assert_eq!(log_probabilities(&model, &batch), log_probabilities(&base, &batch));
}

/// Merges and returns the model.
fn assert_merges(
    (mut model, _): (Model, Adapters<BuiltinAdapter>),
    batch: &TokenBatch,
    tolerance: f64,
) -> Model {
    let unmerged = floats(model.logits(batch));
    ist_peft::merge(&mut model).unwrap();
    assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
    let merged = floats(model.logits(batch));
    let worst = merged.iter().zip(&unmerged).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    assert!(worst <= tolerance, "{worst:e}");
    model
}

#[test]
fn merged_equals_unmerged() {
    for (numbers, tolerance) in [(Numbers::flex(), 5e-5), (exact(), 1e-10)] {
        let batch = numbers.batch(&records(10));
        assert_merges(numbers.lora(&OUTSIDE, 0.5), &batch, tolerance);
        let fields = json!({"r": 3, "alpha": 5, "use_rslora": true, "targets": IN_LAYERS,
            "rank_pattern": {"k_proj": 1}});
        let tied = assert_merges(
            numbers.adapted(numbers.base(true, |_, data| data), &fields),
            &batch,
            tolerance,
        );
        assert!(
            tied.config().tie_word_embeddings,
            "the table is untouched, so the head may go on sharing it"
        );
    }
}

#[test]
fn merging_the_embedding_of_a_tied_model_leaves_the_head_alone() {
    let numbers = exact();
    let fields = json!({"r": 2, "alpha": 3, "targets": ["q_proj", "embed_tokens"]});
    let adapted = numbers.adapted(numbers.base(true, |_, data| data), &fields);
    let merged = assert_merges(adapted, &numbers.batch(&records(10)), 1e-10);
    assert_eq!(merged.config_json()["tie_word_embeddings"], false);
    assert!(merged.weights().iter().any(|(name, _)| name == "lm_head.weight"));
}

#[test]
fn a_record_does_not_depend_on_the_others_of_its_batch() {
    for (numbers, tolerance) in [(Numbers::flex(), 1e-5), (exact(), 1e-12)] {
        let (model, _) = numbers.lora(&OUTSIDE, 0.0);
        let records = records(11);
        let together = log_probabilities(&model, &numbers.batch(&records));
        let alone: Vec<Vec<f64>> = records
            .iter()
            .map(|r| log_probabilities(&model, &numbers.batch(std::slice::from_ref(r))))
            .collect();
        assert!(alone.iter().all(|values| !values.is_empty()));
        assert!(
            relative(&together, &alone.concat()) <= tolerance,
            "{:e}",
            relative(&together, &alone.concat())
        );
    }
}

#[test]
fn padding_changes_no_record() {
    let numbers = exact();
    let (model, _) = numbers.lora(&OUTSIDE, 0.0);
    let tokens = [3, 1, 4, 1, 5, 9, 2];
    let values =
        |left, right| log_probabilities(&model, &numbers.batch(&[padded(&tokens, left, right)]));
    for (left, right) in [(3, 0), (0, 3), (2, 4)] {
        assert!(relative(&values(left, right), &values(0, 0)) <= 1e-12, "{left} {right}");
    }
}

const PROMPTS: [&[u32]; 4] = [&[1, 2, 3, 4, 5], &[7], &[9, 8, 7], &[11, 0, 11, 0, 3, 6, 2]];

/// Greedy continuation with everything computed anew for every token.
fn recomputed(model: &Model, numbers: &Numbers, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let mut batch = numbers.batch(&[Example::tokens(tokens.clone())]);
        batch.rows = Tensor::from_data([tokens.len() as i64 - 1], &numbers.device);
        let logits = floats(model.logits(&batch));
        tokens.push(
            (0..VOCABULARY)
                .max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]))
                .unwrap(),
        );
    }
    tokens.split_off(prompt.len())
}

#[test]
fn generation_with_a_cache_equals_full_recomputation() {
    for numbers in [Numbers::flex(), exact()] {
        let (model, _) = numbers.lora(&OUTSIDE, 0.2);
        let settings = generate::Settings { max_new_tokens: 16, ..generate::Settings::default() };
        for prompt in PROMPTS {
            let found =
                generate::generate(&model, &[prompt.to_vec()], &settings).unwrap().remove(0);
            assert_eq!(found, recomputed(&model, &numbers, prompt, 16));
        }
    }
}

#[test]
fn prompts_padded_on_the_left_give_what_each_gives_alone() {
    let numbers = Numbers::flex();
    let (model, _) = numbers.lora(&OUTSIDE, 0.2);
    let settings = generate::Settings {
        max_new_tokens: 16,
        end_tokens: vec![5],
        ..generate::Settings::default()
    };
    let prompts: Vec<Vec<u32>> = PROMPTS.iter().map(|prompt| prompt.to_vec()).collect();
    let together = generate::generate(&model, &prompts, &settings).unwrap();
    for (prompt, found) in prompts.iter().zip(&together) {
        assert_eq!(
            found,
            &generate::generate(&model, std::slice::from_ref(prompt), &settings).unwrap()[0]
        );
    }
    let distinct: std::collections::HashSet<&Vec<u32>> = together.iter().collect();
    assert!(distinct.len() > 1, "the prompts must matter: {together:?}");
}

#[test]
fn weights_in_eight_bits_give_the_gradients_of_the_model_they_stand_for() {
    let numbers = Numbers::flex();
    let fields = json!({"method": "lora", "r": 2, "alpha": 3, "targets": IN_LAYERS});
    let original: BTreeMap<String, TensorData> =
        numbers.base(false, |_, data| data).weights().into_iter().collect();
    let mut source = |name: &str, _: &[usize]| original[name].clone();
    let packed = Decoder::build(common::config(false), &mut source, DType::I8, &numbers.device);
    let widened: BTreeMap<String, TensorData> = packed.weights().into_iter().collect();
    let matrix = "model.layers.1.mlp.up_proj.weight";
    let error = relative(
        &widened[matrix].iter::<f64>().collect::<Vec<_>>(),
        &original[matrix].iter::<f64>().collect::<Vec<_>>(),
    );
    assert!(error > 1e-4 && error <= 1.0 / 254.0 * 1.001, "half a step of the largest: {error:e}");
    assert_eq!(
        widened["lm_head.weight"], original["lm_head.weight"],
        "only the layers' matrices are packed"
    );
    let (packed, _) = numbers.adapted(packed, &fields);
    let (widened, _) =
        numbers.adapted(numbers.base(false, |name, _| widened[name].clone()), &fields);
    let batch = [numbers.batch(&records(4))];
    for memory in [Memory::Keep, Memory::Recompute] {
        let [found, expected] = [&packed, &widened]
            .map(|model| step::gradients(model, &batch, &LayerSet::all(LAYERS), memory, None));
        for ((name, found), (_, expected)) in named(&found).iter().zip(named(&expected)) {
            assert!(relative(found, &expected) < 5e-6, "{name}: {:e}", relative(found, &expected));
        }
    }
}
