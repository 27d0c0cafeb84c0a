//! Equality with PyTorch, transformers and PEFT on the fixtures beside this file
//! (`fixtures/generate.py` makes them).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::collections::BTreeMap;

use fixture::{
    Expected, LOGITS, LOSS, Model, assert_close, assert_logits, folder, model, relative,
};
use ist_core::burn::tensor::{DType, Device};
use ist_core::gradients::{self, layer_prefix};
use ist_core::optimizer::AdamWSettings;
use ist_core::policy::{All, Ist, IstConfig, LayerPolicy, PolicyError};
use ist_core::schedule::Schedule;
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, LayeredModel, Responses, Tuner, TunerConfig};
use ist_models::{ModelFiles, TokenBatch, generate, registry};
use ist_peft::{Adapters, BuiltinAdapter};
use rand::Rng;
use serde_json::Value;

/// Our name of the parameter behind a PEFT key.
fn parameter_name(key: &str) -> String {
    let path = key.strip_prefix("base_model.model.model.").unwrap();
    let (module, tensor) = if let Some(module) = path.strip_suffix(".lora_A.weight") {
        (module, "a")
    } else {
        (path.strip_suffix(".lora_B.weight").unwrap(), "b")
    };
    format!("{module}.adapter.Lora.{tensor}")
}

/// A flattened parameter of ours, `[in, r]` or `[r, out]`, in PEFT's layout.
fn as_peft(flat: &[f32], columns_in_peft: usize) -> Vec<f32> {
    let rows_in_peft = flat.len() / columns_in_peft;
    (0..flat.len())
        .map(|at| flat[(at % columns_in_peft) * rows_in_peft + at / columns_in_peft])
        .collect()
}

fn columns(expected: &Expected, name: &str) -> usize {
    expected.file().tensor(name).unwrap().shape()[1]
}

fn parameters(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let mut found = BTreeMap::new();
    for (index, layer) in model.layers().iter().enumerate() {
        gradients::for_each_parameter(&layer_prefix(index), layer, &mut |name, value| {
            found.insert(name.to_owned(), value.into_data().iter::<f32>().collect());
        });
    }
    found
}

fn adapted(case: &str, adapter: &str) -> (Model, Adapters<BuiltinAdapter>) {
    let mut model = model(case);
    let adapters = ist_peft::load(&mut model, &folder(adapter), &Device::flex()).unwrap();
    (model, adapters)
}

const CASES: [&str; 2] = ["llama_gqa", "llama3_rope"];

#[test]
fn logits_and_losses_equal_transformers() {
    for case in CASES {
        let (expected, model) = (Expected::of(case), model(case));
        assert_logits(&model, &expected, "logits", LOGITS);
        let batch = TokenBatch::new(&expected.examples(""), &Device::flex());
        let (loss, _) = step::mean_loss(&model, &[batch], &Responses::full(4));
        assert_close(loss, expected.number("loss"), LOSS, case);
    }
}

#[test]
fn adapted_and_merged_logits_equal_peft() {
    for case in CASES {
        let expected = Expected::of(case);
        let (mut model, _) = adapted(case, &format!("{case}/adapter"));
        assert_logits(&model, &expected, "adapted_logits", LOGITS);
        ist_peft::merge(&mut model).unwrap();
        assert_logits(&model, &expected, "merged_logits", 5e-5);
    }
    let (model, _) = adapted("llama3_rope", "llama3_rope/adapter_regex");
    assert_logits(&model, &Expected::of("llama3_rope"), "adapted_logits", LOGITS);
}

#[test]
fn token_log_probabilities_equal_transformers() {
    for case in CASES {
        let expected = Expected::of(case);
        let (model, _) = adapted(case, &format!("{case}/adapter"));
        let batch = TokenBatch::new(&expected.examples(""), &Device::flex());
        let values = model.token_log_probabilities(&batch);
        let found: Vec<f64> = values.into_data().iter::<f64>().collect();
        let rows = expected.json["adapted_token_logprobs"].as_array().unwrap();
        let wanted: Vec<f64> =
            rows.iter().flat_map(|row| row.as_array().unwrap()).filter_map(Value::as_f64).collect();
        assert_eq!(found.len(), wanted.len(), "{case}: as many predicted tokens");
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= LOGITS), "{case}");
    }
}

#[test]
fn gradients_of_every_lora_parameter_equal_pytorchs() {
    for case in CASES {
        let expected = Expected::of(case);
        let (model, _) = adapted(case, &format!("{case}/adapter"));
        let batch = TokenBatch::new(&expected.examples(""), &Device::flex());
        let output = step::gradients(&model, &[batch], &LayerSet::all(4), Memory::Keep, None);
        assert_close(output.loss, expected.number("adapted_loss"), LOSS, case);
        let keys = expected.names("grad.");
        assert_eq!(keys.len(), output.gradients.len(), "{case}: as many gradients");
        for key in keys {
            let gradient =
                output.gradients.get(&parameter_name(&key)).unwrap_or_else(|| panic!("{key}"));
            let name = format!("grad.{key}");
            let found: Vec<f32> = gradient.clone().into_data().iter::<f32>().collect();
            let worst =
                relative(&as_peft(&found, columns(&expected, &name)), &expected.floats(&name));
            assert!(worst <= 1e-5, "{case} {key}: {worst:e}");
        }
    }
}

#[test]
fn parameters_after_three_adamw_steps_equal_pytorchs() {
    for case in CASES {
        let expected = Expected::of(case);
        let (mut model, _) = adapted(case, &format!("{case}/adapter"));
        let adamw = &expected.json["adamw"];
        let settings = TunerConfig {
            learning_rate: adamw["lr"].as_f64().unwrap(),
            clip_norm: Some(expected.number("clip_norm")),
            adamw: AdamWSettings {
                weight_decay: adamw["weight_decay"].as_f64().unwrap(),
                ..AdamWSettings::default()
            },
            ..TunerConfig::default()
        };
        let mut tuner = Tuner::new(settings, Box::new(All::new(&LayerSet::all(4))), 0);
        for number in 0..3 {
            let batch = TokenBatch::new(&expected.examples(""), &Device::flex());
            let report = tuner.step(&mut model, &[batch]).unwrap();
            let of = |key: &str| expected.json[key][number].as_f64().unwrap();
            assert_close(report.loss, of("step_losses"), LOSS, "loss");
            assert_close(report.grad_norm, of("step_grad_norms"), 2e-5, "norm");
        }
        let found = parameters(&model);
        assert_eq!(expected.names("after3.").len(), found.len(), "{case}");
        for key in expected.names("after3.") {
            let name = format!("after3.{key}");
            let found = as_peft(&found[&parameter_name(&key)], columns(&expected, &name));
            let worst = found
                .iter()
                .zip(expected.floats(&name))
                .fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(worst <= 1e-5, "{case} {key}: {worst:e}");
        }
    }
}

#[test]
fn greedy_ids_equal_transformers() {
    for case in CASES {
        let expected = Expected::of(case);
        let (model, _) = adapted(case, &format!("{case}/adapter"));
        let greedy = &expected.json["greedy"];
        let lists =
            |value: &Value| -> Vec<Vec<u32>> { serde_json::from_value(value.clone()).unwrap() };
        let (prompts, wanted) = (lists(&greedy["prompts"]), lists(&greedy["continuations"]));
        let settings = generate::Settings { max_new_tokens: 20, ..generate::Settings::default() };
        for (prompt, wanted) in prompts.iter().zip(&wanted) {
            assert_eq!(
                &generate::generate(&model, std::slice::from_ref(prompt), &settings).unwrap()[0],
                wanted,
                "{case}"
            );
        }
        let together = generate::generate(&model, &prompts, &settings).unwrap();
        assert_eq!(together, lists(&greedy["left_padded"]["continuations"]), "{case}");
    }
}

#[test]
fn half_precision_and_sharded_weights_equal_transformers() {
    for case in ["llama3_rope_bf16", "llama_gqa_f16_sharded", "llama_tied_head_only"] {
        assert_logits(&model(case), &Expected::of(case), "logits", LOGITS);
    }
}

#[test]
fn weights_kept_in_half_precision_compute_the_same() {
    for (case, storage) in
        [("llama3_rope_bf16", DType::BF16), ("llama_gqa_f16_sharded", DType::F16)]
    {
        let files = ModelFiles::in_folder(&folder(case)).unwrap();
        let model = registry::load(&files, storage, &Device::flex()).unwrap();
        assert_logits(&model, &Expected::of(case), "logits", LOGITS);
    }
}

#[test]
fn old_and_new_spellings_of_the_configuration_mean_the_same() {
    let config = |case: &str| {
        let text = std::fs::read_to_string(folder(case).join("config.json")).unwrap();
        ist_models::DecoderConfig {
            document: Value::Null,
            ..ist_models::DecoderConfig::parse(&text).unwrap()
        }
    };
    assert_eq!(config("llama_gqa"), config("llama_gqa_old_config"));
    assert_eq!(config("llama3_rope"), config("llama3_rope_old_config"));
    assert_eq!(config("llama3_rope"), config("llama3_rope_older_config"));
}

/// IST with its draws replaced by given ones.
#[derive(Debug)]
struct Injected {
    ist: Ist,
    layers: Vec<LayerSet>,
    candidates: BTreeMap<usize, Vec<LayerSet>>,
}

impl LayerPolicy for Injected {
    fn name(&self) -> &'static str {
        "injected"
    }

    fn select(&mut self, step: usize, _: &mut dyn Rng) -> Result<LayerSet, PolicyError> {
        Ok(self.layers[step].clone())
    }

    fn candidates(&mut self, step: usize, _: &mut dyn Rng) -> Vec<LayerSet> {
        self.candidates.get(&step).cloned().unwrap_or_default()
    }

    fn suppression(&self) -> f64 {
        self.ist.suppression()
    }

    fn observe(
        &mut self,
        candidates: &[LayerSet],
        losses: &[f64],
    ) -> Result<Vec<f64>, PolicyError> {
        self.ist.observe(candidates, losses)
    }

    fn scores(&self) -> Option<&[f64]> {
        self.ist.scores()
    }

    fn largest_set(&self) -> usize {
        2
    }
}

fn layer_set(value: &Value) -> LayerSet {
    let layers: Vec<usize> = serde_json::from_value(value.clone()).unwrap();
    LayerSet::new(layers, 4).unwrap()
}

#[test]
fn an_ist_run_on_given_draws_equals_the_reference() {
    let expected = Expected::of("ist_trajectory");
    let (mut model, _) = adapted("llama_gqa", "ist_trajectory/adapter");
    let steps = expected.json["steps"].as_array().unwrap();
    let updates: BTreeMap<usize, &Value> = expected.json["updates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| (u["step"].as_u64().unwrap() as usize, u))
        .collect();
    let sets =
        |update: &Value| update["suppressed"].as_array().unwrap().iter().map(layer_set).collect();
    let policy = Injected {
        ist: Ist::new(&LayerSet::all(4), IstConfig::default()).unwrap(),
        layers: steps.iter().map(|step| layer_set(&step["layers"])).collect(),
        candidates: updates.iter().map(|(&step, update)| (step, sets(update))).collect(),
    };
    let settings = &expected.json["settings"];
    let config = TunerConfig {
        learning_rate: settings["lr"].as_f64().unwrap(),
        schedule: Schedule::Linear,
        warmup_steps: settings["warmup_steps"].as_u64().unwrap() as usize,
        total_steps: steps.len(),
        clip_norm: settings["clip_norm"].as_f64(),
        ..TunerConfig::default()
    };
    let mut tuner = Tuner::new(config, Box::new(policy), 0);
    let device = Device::flex();
    for (t, wanted) in steps.iter().enumerate() {
        let candidates = tuner.candidates();
        assert_eq!(candidates.is_empty(), !updates.contains_key(&t));
        if !candidates.is_empty() {
            let batch = TokenBatch::new(&expected.examples(&format!("score.{t}.")), &device);
            let update = tuner.score(&model, &[batch], candidates).unwrap();
            for (key, found) in [
                ("losses", &update.losses),
                ("rewards", &update.rewards),
                ("scores", &update.scores),
            ] {
                let wanted: Vec<f64> = serde_json::from_value(updates[&t][key].clone()).unwrap();
                assert_eq!(found.len(), wanted.len(), "{key} at {t}");
                assert!(
                    found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-5),
                    "{key} at {t}: {found:?} {wanted:?}"
                );
            }
        }
        let rows = expected.examples(&format!("batch.{t}."));
        let batches: Vec<TokenBatch> =
            rows.iter().map(|row| TokenBatch::new(std::slice::from_ref(row), &device)).collect();
        let report = tuner.step(&mut model, &batches).unwrap();
        assert_close(report.learning_rate, wanted["lr"].as_f64().unwrap(), 1e-12, "lr");
        assert_close(report.loss, wanted["loss"].as_f64().unwrap(), LOSS, "loss");
        assert_close(report.grad_norm, wanted["grad_norm"].as_f64().unwrap(), 5e-5, "norm");
    }
    let found = parameters(&model);
    assert_eq!(expected.names("final.").len(), found.len());
    for key in expected.names("final.") {
        let name = format!("final.{key}");
        let found = as_peft(&found[&parameter_name(&key)], columns(&expected, &name));
        let worst = found
            .iter()
            .zip(expected.floats(&name))
            .fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(worst <= 1e-5, "{key}: {worst:e}");
    }
}
