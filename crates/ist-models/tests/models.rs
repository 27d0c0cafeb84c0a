//! Every architecture equals transformers on the fixtures `fixtures/models/*`: logits, losses with
//! padding, greedy ids, and with PEFT's adapters their logits, every gradient, merging and what is
//! saved again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use fixture::{
    Expected, LOGITS, LOSS, Model, all_logits, assert_close, assert_logits, folder, laid_out,
    model, relative, tensors,
};
use ist_core::burn::tensor::{Device, TensorData};
use ist_core::gradients::Gradients;
use ist_core::step::{self, Memory};
use ist_core::{LayerSet, LayeredModel, Responses};
use ist_models::architectures::ARCHITECTURES;
use ist_models::decoder::layout;
use ist_models::{DecoderConfig, Example, TokenBatch, generate};
use ist_peft::files::named_tensors;
use ist_peft::{Adapters, BuiltinAdapter};
use serde_json::Value;

/// Gradients, relative to the largest of a tensor.
const GRADIENTS: f64 = 2e-5;

/// The folders of models.
fn cases() -> Vec<String> {
    folders(&folder("models"))
}

fn folders(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A model, its own expectations, and those of an adapter on it.
struct Adapted {
    name: String,
    base: Expected,
    expected: Expected,
    model: Model,
    adapters: Adapters<BuiltinAdapter>,
}

/// Adapters on experts as transformers 5 keeps them, one parameter for all of a layer, which are
/// refused.
const REFUSED: &str = "lora_experts";

impl Adapted {
    fn all() -> impl Iterator<Item = Self> {
        let of = |case: String| {
            let adapters = folders(&folder(&format!("models/{case}")))
                .into_iter()
                .filter(|name| name != REFUSED);
            adapters.map(|adapter| Self::of(&case, &adapter)).collect::<Vec<_>>()
        };
        cases().into_iter().flat_map(of)
    }

    fn of(case: &str, adapter: &str) -> Self {
        let (base, name) = (format!("models/{case}"), format!("models/{case}/{adapter}"));
        let mut model = model(&base);
        let adapters = ist_peft::load(&mut model, &folder(&name).join("adapter"), &Device::flex());
        let adapters = adapters.unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { base: Expected::of(&base), expected: Expected::of(&name), name, model, adapters }
    }

    fn batch(&self) -> TokenBatch {
        TokenBatch::new(&self.base.examples(""), &Device::flex())
    }

    /// The tensors of the adapters, by the keys of their files.
    fn tensors(&self, model: &Model) -> BTreeMap<String, Vec<f32>> {
        tensors(model, &self.adapters)
    }

    /// The gradients by the same keys.
    fn gradients(&self, found: &Gradients) -> BTreeMap<String, Vec<f32>> {
        laid_out(&self.model, &self.adapters, found)
    }

    /// How far the logits of this model are from the named ones, relative to the largest.
    fn distance(&self, model: &Model, name: &str) -> f64 {
        let examples = self.base.examples("");
        let real: Vec<bool> =
            examples.iter().flat_map(|example| example.attention_mask.clone()).collect();
        let (found, wanted) = (all_logits(model, &examples), self.expected.floats(name));
        let vocabulary = found.len() / real.len();
        let masked = |values: &[f32]| {
            let kept = values.iter().enumerate().filter(|(at, _)| real[at / vocabulary]);
            kept.map(|(_, value)| *value).collect::<Vec<_>>()
        };
        relative(&masked(&found), &masked(&wanted))
    }
}

#[test]
fn logits_and_losses_equal_transformers() {
    for case in cases() {
        let name = format!("models/{case}");
        let (expected, model) = (Expected::of(&name), model(&name));
        eprintln!("{name}");
        assert_logits(&model, &expected, "logits", LOGITS);
        let batch = TokenBatch::new(&expected.examples(""), &Device::flex());
        let (loss, _) = step::mean_loss(&model, &[batch], &Responses::full(model.layers().len()));
        assert_close(loss, expected.number("loss"), LOSS, &name);
    }
}

fn lists(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_greedy(model: &Model, greedy: &Value, name: &str) {
    let (prompts, wanted) = (lists(&greedy["prompts"]), lists(&greedy["continuations"]));
    let settings = generate::Settings { max_new_tokens: 20, ..generate::Settings::default() };
    for (prompt, wanted) in prompts.iter().zip(&wanted) {
        let found = generate::generate(model, std::slice::from_ref(prompt), &settings).unwrap();
        assert_eq!(&found[0], wanted, "{name}");
    }
    let together = generate::generate(model, &prompts, &settings).unwrap();
    assert_eq!(together, lists(&greedy["left_padded"]["continuations"]), "{name}");
}

#[test]
fn greedy_ids_equal_transformers() {
    for case in cases() {
        let name = format!("models/{case}");
        let expected = Expected::of(&name);
        if expected.json.get("greedy").is_some() {
            assert_greedy(&model(&name), &expected.json["greedy"], &name);
        }
    }
    for case in Adapted::all().filter(|case| case.expected.json.get("greedy").is_some()) {
        assert_greedy(&case.model, &case.expected.json["greedy"], &case.name);
    }
}

#[test]
fn adapted_and_merged_logits_equal_pefts() {
    for mut case in Adapted::all() {
        let worst = case.distance(&case.model, "adapted_logits");
        assert!(worst <= LOGITS, "{}: {worst:e}", case.name);
        if case.expected.names("").contains(&"merged_logits".to_owned()) {
            ist_peft::merge(&mut case.model).unwrap();
            let worst = case.distance(&case.model, "merged_logits");
            assert!(worst <= LOGITS, "{} merged: {worst:e}", case.name);
        }
    }
}

#[test]
fn every_gradient_equals_pytorchs_whatever_is_kept() {
    for case in Adapted::all() {
        for memory in [Memory::Keep, Memory::Recompute] {
            let all = LayerSet::all(case.model.layers().len());
            let output = step::gradients(&case.model, &[case.batch()], &all, memory, None);
            assert_close(output.loss, case.expected.number("adapted_loss"), LOSS, &case.name);
            let found = case.gradients(&output.gradients);
            let keys = case.expected.names("grad.");
            assert!(!keys.is_empty(), "{}", case.name);
            for key in keys {
                let worst = relative(&found[&key], &case.expected.floats(&format!("grad.{key}")));
                assert!(worst <= GRADIENTS, "{} {memory:?} {key}: {worst:e}", case.name);
            }
        }
    }
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    let place = tempfile::tempdir().unwrap();
    for mut case in Adapted::all() {
        let before = case.tensors(&case.model);
        let saved = place.path().join(&case.name);
        ist_peft::save(&mut case.model, &case.adapters, &saved, "").unwrap();
        let base = case.name.rsplit_once('/').unwrap().0;
        let mut again = model(base);
        let adapters =
            ist_peft::load::<BuiltinAdapter>(&mut again, &saved, &Device::flex()).unwrap();
        let named = named_tensors(&mut again, &adapters);
        let found: BTreeMap<String, Vec<f32>> =
            named.into_iter().map(|(key, data)| (key, data.iter::<f32>().collect())).collect();
        assert_eq!(found, before, "{}", case.name);
    }
}

/// A list may name experts that a file has nothing of, but not some experts of several.
#[test]
fn an_adapter_that_lacks_some_experts_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let from = folder("models/mixtral/lora_experts_old/adapter");
    std::fs::copy(from.join("adapter_config.json"), place.path().join("adapter_config.json"))
        .unwrap();
    let file = ist_peft::TensorFile::open(&from.join("adapter_model.safetensors")).unwrap();
    let kept = file.names().filter(|name| !name.contains(".experts.2."));
    let kept: Vec<_> = kept.map(|name| (name.to_owned(), file.data(name).unwrap())).collect();
    ist_peft::files::tensor_file::write(&place.path().join("adapter_model.safetensors"), &kept)
        .unwrap();
    let mut model = model("models/mixtral");
    let error =
        ist_peft::load::<BuiltinAdapter>(&mut model, place.path(), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains(".experts.2.w1.lora_A.weight is missing"), "{error}");
}

#[test]
fn both_spellings_of_a_configuration_mean_the_same() {
    let mut seen = 0;
    for case in cases() {
        let read =
            |name: &str| std::fs::read_to_string(folder(&format!("models/{case}")).join(name));
        let Ok(old) = read("config_old.json") else { continue };
        let parse = |text: &str| DecoderConfig {
            document: Value::Null,
            ..DecoderConfig::parse(text).unwrap()
        };
        assert_eq!(parse(&old), parse(&read("config.json").unwrap()), "{case}");
        seen += 1;
    }
    assert!(seen >= 7);
}

#[test]
fn a_model_is_written_as_it_was_read() {
    for case in cases() {
        let model = model(&format!("models/{case}"));
        let written: BTreeMap<String, TensorData> = model.weights().into_iter().collect();
        let shapes: BTreeMap<_, _> = layout::tensors(model.config()).collect();
        assert_eq!(written.keys().collect::<Vec<_>>(), shapes.keys().collect::<Vec<_>>(), "{case}");
        for (name, data) in &written {
            assert_eq!(data.shape().to_vec(), shapes[name], "{case} {name}");
        }
        let scalars: usize = written.values().map(TensorData::num_elements).sum();
        assert_eq!(scalars, layout::parameter_count(model.config()), "{case}");
        // Built again from what it writes, it is the same model.
        let again = model.store_as(ist_core::burn::tensor::DType::F32);
        let examples = Expected::of(&format!("models/{case}")).examples("");
        assert_eq!(all_logits(&again, &examples), all_logits(&model, &examples), "{case}");
    }
}

#[test]
fn parameters_of_published_models_are_the_published_ones() {
    let text = std::fs::read_to_string(folder("models/published.json")).unwrap();
    let published: Vec<Value> = serde_json::from_str(&text).unwrap();
    for model in published {
        let config =
            DecoderConfig::from_json(model["config"].as_object().unwrap().clone()).unwrap();
        assert_eq!(
            layout::parameter_count(&config) as u64,
            model["parameters"].as_u64().unwrap(),
            "{}",
            model["name"]
        );
    }
}

#[test]
fn every_architecture_has_a_fixture_and_a_row_in_the_book() {
    let book = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/models.md"),
    )
    .unwrap();
    let fixtures: Vec<String> = cases()
        .into_iter()
        .map(|case| model(&format!("models/{case}")).config().model_type.to_owned())
        .chain(["llama_gqa".to_owned()].map(|case| model(&case).config().model_type.to_owned()))
        .collect();
    for architecture in ARCHITECTURES {
        let name = architecture.model_type;
        assert!(fixtures.iter().any(|found| found == name), "{name} has no fixture");
        assert!(book.contains(&format!("| `{name}` |")), "{name} has no row in docs/src/models.md");
    }
}

/// Where frequencies depend on the length of a text, it is the text's own.
#[test]
fn a_record_does_not_depend_on_those_beside_it() {
    for case in cases() {
        let model = model(&format!("models/{case}"));
        let rows: Vec<Example> =
            [5u32, 14, 9].map(|length| Example::tokens((3..3 + length).collect())).into();
        let of = |rows: &[Example]| {
            let values = model.token_log_probabilities(&TokenBatch::new(rows, &Device::flex()));
            values.into_data().iter::<f32>().collect::<Vec<_>>()
        };
        let alone: Vec<f32> = rows.iter().flat_map(|row| of(std::slice::from_ref(row))).collect();
        assert!(relative(&of(&rows), &alone) < 1e-5, "{case}");
        // Nor does a text that grows token by token.
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.input_ids[..3].to_vec()).collect();
        let settings = generate::Settings { max_new_tokens: 4, ..generate::Settings::default() };
        let alone = prompts
            .iter()
            .map(|prompt| generate::generate(&model, std::slice::from_ref(prompt), &settings));
        let alone: Vec<Vec<u32>> = alone.map(|found| found.unwrap().remove(0)).collect();
        assert_eq!(generate::generate(&model, &prompts, &settings).unwrap(), alone, "{case}");
    }
}

/// A generation that outgrows the original context is what it would be with the long factors from
/// its first token.
#[test]
fn a_text_that_outgrows_the_short_factors_is_read_again_with_the_long_ones() {
    let model = model("models/phi3_longrope_short");
    let prompt: Vec<u32> = (0..30).map(|at| 3 + at % 50).collect();
    let settings = generate::Settings { max_new_tokens: 6, ..generate::Settings::default() };
    let whole =
        generate::generate(&model, std::slice::from_ref(&prompt), &settings).unwrap().remove(0);
    let mut text = prompt;
    for expected in whole {
        let mut cache = model.new_cache(1);
        let logits =
            model.extend(std::slice::from_ref(&text), &[vec![true; text.len()]], &mut cache);
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let best =
            (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        assert_eq!(best, expected);
        text.push(expected);
    }
}
