//! Every PEFT method equals PyTorch's and PEFT's on the fixtures `fixtures/method_*`: logits, loss,
//! every gradient, three AdamW steps, merging, greedy ids, and what is saved again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::collections::BTreeMap;

use fixture::{
    Expected, LOGITS, LOSS, Model, all_logits, assert_close, assert_logits, folder, laid_out,
    model, relative, tensors,
};
use ist_core::burn::tensor::{Device, TensorData};
use ist_core::gradients::Gradients;
use ist_core::optimizer::AdamWSettings;
use ist_core::policy::All;
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, Tuner, TunerConfig};
use ist_models::{DecoderConfig, TokenBatch, generate, gguf};
use ist_peft::files::named_tensors;
use ist_peft::model::attach::learning_rates;
use ist_peft::{Adapters, BuiltinAdapter, Dialect, Part, PeftModel, WeightedSum, attach};
use serde_json::{Value, json};

/// The cases with one adapter folder over the base that they name.
const CASES: &[&str] = &[
    "dora",
    "dora_rslora",
    "vera",
    "lora_fa",
    "loraplus",
    "ia3",
    "series",
    "adapterp",
    "parallel",
    "parallel_relu",
    "mixed",
    "ln_tuning",
    "ln_tuning_final",
    "bitfit",
    "full",
    "prefix_tuning",
    "lora_head",
    "lora_embeddings_head",
];

/// Gradients, relative to the largest of a tensor.
const GRADIENTS: f64 = 1e-5;
/// Parameters after three steps.
const AFTER: f32 = 1e-5;

struct Case {
    name: String,
    expected: Expected,
    model: Model,
    adapters: Adapters<BuiltinAdapter>,
}

impl Case {
    fn of(name: &str) -> Self {
        let name = format!("method_{name}");
        let expected = Expected::of(&name);
        let mut model = model(expected.json["base_model"].as_str().unwrap());
        let mut adapters =
            ist_peft::load(&mut model, &folder(&name).join("adapter"), &Device::flex()).unwrap();
        if let Some(fields) = training_fields(&name, &expected) {
            let mut part = adapters.parts()[0].clone();
            let given =
                Part::parse("", fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
            part.train_as(&given).unwrap();
            adapters = Adapters::new(vec![part]);
            ist_peft::restore(
                &mut model,
                &mut adapters,
                &folder(&name).join("adapter"),
                &Device::flex(),
            )
            .unwrap();
        }
        Self { name, expected, model, adapters }
    }

    fn all() -> impl Iterator<Item = Self> {
        CASES.iter().map(|name| Self::of(name))
    }

    fn batch(&self) -> TokenBatch {
        TokenBatch::new(&self.expected.examples(""), &Device::flex())
    }

    /// The tensors of the adapters, by the keys of their files.
    fn tensors(&self, model: &Model) -> BTreeMap<String, Vec<f32>> {
        tensors(model, &self.adapters)
    }

    /// The gradients by the same keys.
    fn gradients(&self, found: &Gradients) -> BTreeMap<String, Vec<f32>> {
        laid_out(&self.model, &self.adapters, found)
    }
}

/// What PEFT's file does not say of a case.
fn training_fields(name: &str, expected: &Expected) -> Option<Value> {
    match name {
        "method_lora_fa" => Some(json!({"method": "lora", "freeze_a": true})),
        "method_loraplus" => {
            Some(json!({"method": "lora", "loraplus_lr_ratio": expected.json["loraplus_lr_ratio"]}))
        }
        _ => None,
    }
}

/// Which numbers have a gradient above rounding. Of one within it, the difference of large terms,
/// AdamW makes a step of the whole rate, in whichever direction rounding says.
fn told_by_a_gradient(gradient: &[f32]) -> Vec<bool> {
    let largest = gradient.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let told: Vec<bool> =
        gradient.iter().map(|value| *value == 0.0 || value.abs() >= 1e-4 * largest).collect();
    let left_out = told.iter().filter(|told| !**told).count();
    assert!(left_out * 50 <= told.len(), "{left_out} of {} gradients are rounding", told.len());
    told
}

fn floats(data: &TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

#[test]
fn adapted_logits_equal_pefts() {
    for case in Case::all() {
        assert_logits(&case.model, &case.expected, "adapted_logits", LOGITS);
    }
}

#[test]
fn merged_logits_equal_the_adapted_ones() {
    for mut case in Case::all() {
        let names = case.expected.names("");
        match ist_peft::merge(&mut case.model) {
            Ok(()) => {
                let merged = if names.contains(&"merged_logits".to_owned()) {
                    "merged_logits"
                } else {
                    "adapted_logits"
                };
                assert_logits(&case.model, &case.expected, merged, 5e-5);
            }
            Err(error) => {
                assert!(!names.contains(&"merged_logits".to_owned()), "{}: {error}", case.name);
                assert!(
                    case.model.slots().iter().any(|slot| slot.adapter.is_some()),
                    "{}: nothing is lost",
                    case.name
                );
            }
        }
    }
}

#[test]
fn every_gradient_equals_pytorchs_whatever_is_kept() {
    for case in Case::all() {
        for memory in [Memory::Keep, Memory::Recompute] {
            let output =
                step::gradients(&case.model, &[case.batch()], &LayerSet::all(4), memory, None);
            assert_close(output.loss, case.expected.number("adapted_loss"), LOSS, &case.name);
            let found = case.gradients(&output.gradients);
            let keys = case.expected.names("grad.");
            assert!(!keys.is_empty());
            if case.name == "method_lora_fa" {
                assert_eq!(output.gradients.len(), keys.len(), "A has no gradient");
            }
            for key in keys {
                let worst = relative(&found[&key], &case.expected.floats(&format!("grad.{key}")));
                assert!(worst <= GRADIENTS, "{} {memory:?} {key}: {worst:e}", case.name);
            }
        }
    }
}

/// Three AdamW steps as the fixture's, whose losses and norms must agree.
fn three_steps(case: &mut Case) {
    let (adamw, expected) = (case.expected.json["adamw"].clone(), &case.expected);
    let settings = TunerConfig {
        learning_rate: adamw["lr"].as_f64().unwrap(),
        clip_norm: Some(expected.number("clip_norm")),
        adamw: AdamWSettings {
            weight_decay: adamw["weight_decay"].as_f64().unwrap(),
            ..AdamWSettings::default()
        },
        rates: learning_rates(&mut case.model),
        ..TunerConfig::default()
    };
    let mut tuner = Tuner::new(settings, Box::new(All::new(&LayerSet::all(4))), 0);
    for number in 0..3 {
        let report = tuner
            .step(&mut case.model, &[TokenBatch::new(&expected.examples(""), &Device::flex())])
            .unwrap();
        let of = |key: &str| expected.json[key][number].as_f64().unwrap();
        assert_close(report.loss, of("step_losses"), LOSS, &case.name);
        assert_close(report.grad_norm, of("step_grad_norms"), 2e-5, &case.name);
    }
}

#[test]
fn parameters_after_three_adamw_steps_equal_pytorchs() {
    for mut case in Case::all() {
        three_steps(&mut case);
        let found = case.tensors(&case.model);
        let keys = case.expected.names("after3.");
        assert!(!keys.is_empty());
        for key in keys {
            let wanted = case.expected.floats(&format!("after3.{key}"));
            let told = told_by_a_gradient(&case.expected.floats(&format!("grad.{key}")));
            let compared = found[&key].iter().zip(&wanted).zip(&told).filter(|(_, told)| **told);
            let worst = compared.fold(0.0f32, |most, ((a, b), _)| most.max((a - b).abs()));
            assert!(worst <= AFTER, "{} {key}: {worst:e}", case.name);
        }
    }
}

#[test]
fn greedy_ids_equal_transformers() {
    for case in Case::all() {
        let greedy = &case.expected.json["greedy"];
        let lists =
            |value: &Value| -> Vec<Vec<u32>> { serde_json::from_value(value.clone()).unwrap() };
        let (prompts, wanted) = (lists(&greedy["prompts"]), lists(&greedy["continuations"]));
        let settings = generate::Settings { max_new_tokens: 20, ..generate::Settings::default() };
        for (prompt, wanted) in prompts.iter().zip(&wanted) {
            let found =
                generate::generate(&case.model, std::slice::from_ref(prompt), &settings).unwrap();
            assert_eq!(&found[0], wanted, "{}", case.name);
        }
        let together = generate::generate(&case.model, &prompts, &settings).unwrap();
        assert_eq!(together, lists(&greedy["left_padded"]["continuations"]), "{}", case.name);
    }
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    let place = tempfile::tempdir().unwrap();
    // For `generate.py --check-saved`, which loads the folders with PEFT.
    let kept = std::env::var_os("IST_SAVE_ADAPTERS").map(std::path::PathBuf::from);
    for mut case in Case::all() {
        let before = case.tensors(&case.model);
        let saved = kept.as_deref().unwrap_or(place.path()).join(&case.name).join("adapter");
        ist_peft::save(&mut case.model, &case.adapters, &saved, "").unwrap();
        let mut again = model(case.expected.json["base_model"].as_str().unwrap());
        let adapters =
            ist_peft::load::<BuiltinAdapter>(&mut again, &saved, &Device::flex()).unwrap();
        let fields = |adapters: &Adapters<BuiltinAdapter>| {
            adapters.parts().iter().map(Part::peft_fields).collect::<Vec<_>>()
        };
        assert_eq!(fields(&adapters), fields(&case.adapters), "{}", case.name);
        assert_eq!(case.tensors(&again), before, "{}", case.name);
    }
}

#[test]
fn a_weighted_sum_of_adapters_equals_pefts() {
    let expected = Expected::of("method_weighted");
    let (mut model, mut sum) = (model("llama_gqa"), WeightedSum::default());
    let weights: Vec<f64> = serde_json::from_value(expected.json["weights"].clone()).unwrap();
    for (name, weight) in ["adapter_a", "adapter_b"].into_iter().zip(weights) {
        ist_peft::load::<BuiltinAdapter>(
            &mut model,
            &folder("method_weighted").join(name),
            &Device::flex(),
        )
        .unwrap();
        sum.add(&mut model, weight).unwrap();
    }
    sum.fold(&mut model);
    assert_logits(&model, &expected, "merged_logits", 5e-5);
}

#[test]
fn a_lora_for_llama_cpp_equals_the_gguf_packages_file() {
    for case in ["llama_gqa", "llama3_rope"] {
        let text = std::fs::read_to_string(folder(case).join("config.json")).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("adapter.gguf");
        let config = DecoderConfig::parse(&text).unwrap();
        gguf::write_llama_adapter(&folder(case).join("adapter"), &config, None, &path).unwrap();
        let expected = std::fs::read(folder("gguf").join(format!("{case}.gguf"))).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected, "{case}");
    }
    let config = DecoderConfig::parse(
        &std::fs::read_to_string(folder("llama_gqa").join("config.json")).unwrap(),
    )
    .unwrap();
    let refused = gguf::write_llama_adapter(
        &folder("method_dora").join("adapter"),
        &config,
        None,
        std::path::Path::new("x"),
    );
    assert!(refused.unwrap_err().to_string().contains("DoRA"));
}

/// A₀ and B₀ of the fixtures have other signs: row i of A and column i of B may be negated
/// together. By key the sign of each of ours.
fn signs(expected: &Expected, started: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let mut signs = BTreeMap::new();
    for key in expected.names("initial.").iter().filter(|key| key.contains("lora_A")) {
        let theirs = expected.floats(&format!("initial.{key}"));
        let ours = &started[key];
        let [rank, width] =
            expected.file().tensor(&format!("initial.{key}")).unwrap().shape().try_into().unwrap();
        let product = |row: usize| -> f32 {
            (0..width).map(|column| ours[row * width + column] * theirs[row * width + column]).sum()
        };
        signs.insert(key.clone(), (0..rank).map(|row| product(row).signum()).collect());
    }
    signs
}

/// The first r rows of a stored A, or the first r columns of a stored B of `2 r`, with the
/// fixtures' signs.
fn trained_part(key: &str, stored: &[f32], signs: &BTreeMap<String, Vec<f32>>) -> Vec<f32> {
    let signs = &signs[&key.replace("lora_B", "lora_A")];
    let rank = signs.len();
    if key.contains("lora_A") {
        let width = stored.len() / (2 * rank);
        return (0..rank * width).map(|at| stored[at] * signs[at / width]).collect();
    }
    let rows = stored.len() / (2 * rank);
    (0..rows * rank).map(|at| stored[at / rank * 2 * rank + at % rank] * signs[at % rank]).collect()
}

#[test]
fn adapters_that_start_in_the_weight_train_and_convert_as_pefts() {
    for method in ["pissa", "olora"] {
        let name = format!("method_{method}");
        let expected = Expected::of(&name);
        let mut model = model("llama_gqa");
        let fields = json!({"method": "lora", "init_lora_weights": method, "r": 2, "alpha": 4,
            "targets": ["q_proj", "v_proj", "up_proj", "down_proj"], "layers_to_transform": [0, 1,
            3]});
        let part = Part::parse("", fields.as_object().unwrap(), Dialect::Toml).unwrap().unwrap();
        let mut adapters = Adapters::<BuiltinAdapter>::new(vec![part]);
        attach(&mut model, &mut adapters, 0, &Device::flex()).unwrap();
        assert_logits(&model, &Expected::of("llama_gqa"), "logits", LOGITS);
        let mut case = Case { name, expected, model, adapters };

        let started = case.tensors(&case.model);
        let signs = signs(&case.expected, &started);
        for key in case.expected.names("initial.") {
            let found = trained_part(&key, &started[&key], &signs);
            let worst = relative(&found, &case.expected.floats(&format!("initial.{key}")));
            assert!(worst <= GRADIENTS, "{method} {key} starts apart: {worst:e}");
        }
        for memory in [Memory::Keep, Memory::Recompute] {
            let output =
                step::gradients(&case.model, &[case.batch()], &LayerSet::all(4), memory, None);
            let found = case.gradients(&output.gradients);
            assert_eq!(output.gradients.len(), case.expected.names("grad.").len());
            for key in case.expected.names("grad.") {
                let found = trained_part(&key, &found[&key], &signs);
                let worst = relative(&found, &case.expected.floats(&format!("grad.{key}")));
                assert!(worst <= GRADIENTS, "{method} {memory:?} {key}: {worst:e}");
            }
        }
        three_steps(&mut case);
        let found = case.tensors(&case.model);
        for key in case.expected.names("after3.") {
            let ours = trained_part(&key, &found[&key], &signs);
            let wanted = case.expected.floats(&format!("after3.{key}"));
            let told = told_by_a_gradient(&case.expected.floats(&format!("grad.{key}")));
            let compared = ours.iter().zip(&wanted).zip(&told).filter(|(_, told)| **told);
            let worst = compared.fold(0.0f32, |most, ((a, b), _)| most.max((a - b).abs()));
            assert!(worst <= AFTER, "{method} {key}: {worst:e}");
        }
        // What is saved is a plain LoRA of rank 4 on the untouched base, as what PEFT converts its
        // own to.
        let place = tempfile::tempdir().unwrap();
        ist_peft::save(&mut case.model, &case.adapters, place.path(), "").unwrap();
        let mut plain = fixture::model("llama_gqa");
        let read =
            ist_peft::load::<BuiltinAdapter>(&mut plain, place.path(), &Device::flex()).unwrap();
        let config: Value = serde_json::from_str(
            &std::fs::read_to_string(place.path().join("adapter_config.json")).unwrap(),
        )
        .unwrap();
        assert_eq!(
            (&config["r"], &config["lora_alpha"], &config["init_lora_weights"]),
            (&json!(4), &json!(8), &json!(true))
        );
        assert_eq!(named_floats(&mut plain, &read), found);
        let examples = case.expected.examples("");
        let worst = relative(&all_logits(&plain, &examples), &all_logits(&case.model, &examples));
        assert!(worst <= LOGITS, "{method}: {worst:e}");
        let theirs = folder(&case.name).join("adapter");
        ist_peft::load::<BuiltinAdapter>(&mut plain, &theirs, &Device::flex()).unwrap();
        assert_logits(&plain, &case.expected, "adapted_logits", LOGITS);
    }
}

fn named_floats(
    model: &mut Model,
    adapters: &Adapters<BuiltinAdapter>,
) -> BTreeMap<String, Vec<f32>> {
    named_tensors(model, adapters).into_iter().map(|(key, data)| (key, floats(&data))).collect()
}
