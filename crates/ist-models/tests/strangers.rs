//! Adapters as other people and programs save them compute what PEFT computes with them, on the
//! fixtures `fixtures/strangers/*` and on fixtures of PEFT's own whose files are spelt otherwise.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::path::Path;

use fixture::{Expected, LOGITS, Model, assert_logits, folder, model};
use ist_core::burn::tensor::{Device, TensorData};
use ist_models::{Example, TokenBatch};
use ist_peft::files::{CONFIG_FILE, TENSORS_FILE, foreign, tensor_file, usable};
use ist_peft::{Adapters, BuiltinAdapter, PeftModel, TensorFile};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Log-probabilities, relative to the largest of a case: PEFT's two attentions differ by up to
/// 5e-6.
const LOG_PROBABILITIES: f64 = 1e-5;

fn load(model: &mut Model, adapter: &Path) -> Adapters<BuiltinAdapter> {
    ist_peft::load(model, adapter, &Device::flex())
        .unwrap_or_else(|error| panic!("{}: {error}", adapter.display()))
}

fn refused(model: &mut Model, adapter: &Path) -> String {
    ist_peft::load::<BuiltinAdapter>(model, adapter, &Device::flex()).unwrap_err().to_string()
}

fn strangers() -> Vec<String> {
    let entries = std::fs::read_dir(folder("strangers")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn document(case: &str) -> Value {
    let text = std::fs::read_to_string(folder(case).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The log-probabilities of every predicted token of a base's batch.
fn log_probabilities(model: &Model, examples: &[Example]) -> Vec<f64> {
    let batch = TokenBatch::new(examples, &Device::flex());
    model.token_log_probabilities(&batch).into_data().iter::<f64>().collect()
}

fn assert_as_peft(model: &Model, case: &str) {
    assert_as_expected(model, &format!("strangers/{case}"), 3);
}

/// The log-probabilities of that many of the batch's rows are those of the case's document.
fn assert_as_expected(model: &Model, case: &str, rows: usize) {
    let document = document(case);
    let base = Expected::of(document["base_model"].as_str().unwrap());
    let found = log_probabilities(model, &base.examples("")[..rows]);
    let rows = document["adapted_token_logprobs"].as_array().unwrap().iter();
    let expected: Vec<f64> =
        rows.flat_map(|row| row.as_array().unwrap()).filter_map(Value::as_f64).collect();
    assert_eq!(found.len(), expected.len(), "{case}");
    let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let apart = (found - expected).abs() / largest;
        assert!(apart < LOG_PROBABILITIES, "{case}: {found}, not {expected}");
    }
}

#[test]
fn what_peft_saves_beside_a_method_is_loaded_as_peft_loads_it() {
    for case in strangers() {
        let name = format!("strangers/{case}");
        let mut model = model(document(&name)["base_model"].as_str().unwrap());
        load(&mut model, &folder(&name).join("adapter"));
        assert_as_peft(&model, &case);
    }
}

#[test]
fn what_was_loaded_beside_a_method_is_written_again() {
    let saved =
        std::env::var_os("IST_SAVE_ADAPTERS").map(|saved| Path::new(&saved).join("strangers"));
    for case in strangers() {
        let name = format!("strangers/{case}");
        let base = document(&name)["base_model"].as_str().unwrap().to_owned();
        let mut first = model(&base);
        let adapters = load(&mut first, &folder(&name).join("adapter"));
        let place = tempfile::tempdir().unwrap();
        let target =
            saved.as_ref().map_or_else(|| place.path().to_owned(), |saved| saved.join(&case));
        ist_peft::save(&mut first, &adapters, &target, "base").unwrap();
        let mut again = model(&base);
        load(&mut again, &target);
        assert_as_peft(&again, &case);
    }
}

#[test]
fn what_was_loaded_beside_a_method_is_in_the_merged_model() {
    for case in strangers() {
        let name = format!("strangers/{case}");
        let mut model = model(document(&name)["base_model"].as_str().unwrap());
        load(&mut model, &folder(&name).join("adapter"));
        ist_peft::merge(&mut model).unwrap();
        assert_as_peft(&model, &case);
        let rows = model.slots()[0].base.get().matrix().dims()[0];
        let document = model.config_json();
        assert_eq!(document["vocab_size"], json!(rows), "{case}");
        let weights = model.weights();
        let head = weights.iter().any(|(name, _)| name == "lm_head.weight");
        assert_eq!(document["tie_word_embeddings"], json!(!head), "{case}");
    }
}

/// A fixture's adapter with other fields and other keys.
fn respelt(
    adapter: &Path,
    fields: impl Fn(&mut serde_json::Map<String, Value>),
    key: impl Fn(&str) -> String,
) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(adapter.join(CONFIG_FILE)).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    fields(document.as_object_mut().unwrap());
    std::fs::write(place.path().join(CONFIG_FILE), document.to_string()).unwrap();
    let file = TensorFile::open(&adapter.join(TENSORS_FILE)).unwrap();
    let tensors: Vec<(String, TensorData)> =
        file.names().map(|name| (key(name), file.data(name).unwrap())).collect();
    tensor_file::write(&place.path().join(TENSORS_FILE), &tensors).unwrap();
    place
}

fn renamed(adapter: &Path, key: impl Fn(&str) -> String) -> TempDir {
    respelt(adapter, |_| {}, key)
}

/// What a program calls its wrapper, and a key as it writes it.
type Spelling<'a> = (&'a str, &'a dyn Fn(&str) -> String);

#[test]
fn keys_in_wrappers_are_read_and_told() {
    let adapter = folder("llama_gqa").join("adapter");
    let spellings: [Spelling; 7] = [
        ("_orig_mod", &|key| format!("_orig_mod.{key}")),
        ("module", &|key| format!("module.{key}")),
        ("_fsdp_wrapped_module", &|key| {
            key.replace(".self_attn.", "._fsdp_wrapped_module.self_attn.")
        }),
        ("_checkpoint_wrapped_module", &|key| {
            key.replace("layers.1.", "layers.1._checkpoint_wrapped_module.")
        }),
        ("default", &|key| key.replace(".weight", ".default.weight")),
        ("put in front", &|key| key.replace("base_model.model.", "")),
        ("base_model.model", &|key| format!("base_model.model.{key}")),
    ];
    for (told, spelling) in spellings {
        let place = renamed(&adapter, spelling);
        let mut model = model("llama_gqa");
        let adapters = load(&mut model, place.path());
        assert_logits(&model, &Expected::of("llama_gqa"), "adapted_logits", LOGITS);
        assert!(
            adapters.notes().iter().any(|note| note.contains(told)),
            "{told}: {:?}",
            adapters.notes()
        );
    }
    let mut model = model("llama_gqa");
    assert!(load(&mut model, &adapter).notes().is_empty());
}

#[test]
fn magnitudes_under_older_names_are_read() {
    let adapter = folder("method_dora").join("adapter");
    for end in ["lora_magnitude_vector.weight", "lora_magnitude_vector.default"] {
        let place = renamed(&adapter, |key| key.replace("lora_magnitude_vector", end));
        let mut model = model("llama_gqa");
        load(&mut model, place.path());
        assert_logits(&model, &Expected::of("method_dora"), "adapted_logits", LOGITS);
    }
}

#[test]
fn fields_that_change_nothing_pass_and_those_that_do_are_refused_by_name() {
    let adapter = folder("llama_gqa").join("adapter");
    let neutral = [
        json!({"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "tau": 0.99}}),
        json!({"init_lora_weights": "orthogonal", "corda_config": {"cache_file": "x"}}),
        json!({"unsloth_fixed": true, "qalora_group_size": 32, "megatron_core": "other"}),
        json!({"bias": "lora_only"}),
    ];
    for more in neutral {
        let place = respelt(
            &adapter,
            |fields| fields.extend(more.as_object().unwrap().clone()),
            str::to_owned,
        );
        let mut model = model("llama_gqa");
        load(&mut model, place.path());
        assert_logits(&model, &Expected::of("llama_gqa"), "adapted_logits", LOGITS);
    }
    let refusals = [
        (json!({"init_lora_weights": "pissa"}), "init_lora_weights"),
        (json!({"init_lora_weights": "corda"}), "init_lora_weights"),
        (json!({"init_lora_weights": "loftq"}), "LoftQ"),
        (json!({"layer_replication": [[0, 2], [1, 3]]}), "layer_replication"),
        (json!({"alora_invocation_tokens": [3]}), "alora_invocation_tokens"),
        (json!({"use_qalora": true}), "use_qalora"),
        (json!({"kasa_config": {"beta": 1.0}}), "kasa_config"),
        (json!({"bias": "some"}), "bias"),
        (json!({"lora_bias": true}), "lora_B.bias is missing"),
        (json!({"trainable_token_indices": [1]}), "trainable_token_indices"),
        (json!({"trainable_token_indices": {"lm_head": "1"}}), "trainable_token_indices"),
    ];
    for (more, named) in refusals {
        let place = respelt(
            &adapter,
            |fields| fields.extend(more.as_object().unwrap().clone()),
            str::to_owned,
        );
        let message = refused(&mut model("llama_gqa"), place.path());
        assert!(message.contains(named), "{more}: {message}");
    }
}

#[test]
fn null_targets_are_pefts_own_of_the_architecture() {
    let adapter = folder("method_lora_head").join("adapter");
    let null = |fields: &mut serde_json::Map<String, Value>| {
        fields.insert("target_modules".to_owned(), Value::Null);
    };
    let place = respelt(&adapter, null, str::to_owned);
    let mut llama = model("llama_gqa");
    load(&mut llama, place.path());
    assert_logits(&llama, &Expected::of("method_lora_head"), "adapted_logits", LOGITS);
    // PEFT has no modules of its own choice there.
    let place = respelt(&folder("models/olmo2/lora/adapter"), null, str::to_owned);
    let message = refused(&mut model("models/olmo2"), place.path());
    assert!(message.contains("`target_modules` is null") && message.contains("olmo2"), "{message}");
}

#[test]
fn tensors_that_peft_passes_over_are_told() {
    let adapter = folder("strangers/bias_lora_only/adapter");
    let place = renamed(&adapter, |key| key.replace(".base_layer.bias", ".bias"));
    let mut found = model("llama3_rope");
    let adapters = load(&mut found, place.path());
    let notes = adapters.notes();
    assert!(notes.iter().any(|note| note.contains("were not read, as PEFT does not")), "{notes:?}");
    // Without them the biases are the base model's.
    assert!(adapters.parts()[0].carried().is_empty());
}

#[test]
fn patterns_of_a_foreign_file_that_match_nothing_are_told() {
    let adapter = folder("llama_gqa").join("adapter");
    let pattern = |fields: &mut serde_json::Map<String, Value>| {
        fields.insert("alpha_pattern".to_owned(), json!({"w_proj": 3}));
    };
    let place = respelt(&adapter, pattern, str::to_owned);
    let notes = load(&mut model("llama_gqa"), place.path()).notes().to_vec();
    assert!(notes.iter().any(|note| note.contains("w_proj")), "{notes:?}");
}

#[test]
fn a_pickle_alone_is_named_with_what_to_do() {
    let adapter = folder("llama_gqa").join("adapter");
    let place = renamed(&adapter, str::to_owned);
    let tensors = place.path().join(TENSORS_FILE);
    std::fs::rename(&tensors, place.path().join("adapter_model.bin")).unwrap();
    let message = refused(&mut model("llama_gqa"), place.path());
    assert!(message.contains("pickled") && message.contains("save_file"), "{message}");
}

#[test]
fn adapters_of_mlx_are_converted_to_the_same_numbers() {
    for case in ["mlx/lora", "mlx/dora"] {
        let place = folder(case).join("adapter");
        let message = refused(&mut model("llama_gqa"), &place);
        assert!(message.contains("mlx-lm") && message.contains("ist convert"), "{message}");
        let target = tempfile::tempdir().unwrap();
        foreign::convert(&place, target.path()).unwrap();
        usable::check::<BuiltinAdapter>(target.path(), None).unwrap();
        let mut found = model("llama_gqa");
        load(&mut found, target.path());
        // Of the full row alone: mlx-lm takes no mask.
        assert_as_expected(&found, case, 1);
    }
}

#[test]
fn names_under_language_model_are_read_in_either_order() {
    for (case, other) in [
        ("gemma3", "language_model.model."),
        ("mistral3", "language_model.model."),
        ("qwen2_5_vl", "model."),
    ] {
        let base = format!("models/{case}");
        let older = |key: &str| {
            key.replace("model.language_model.", other)
                .replace("model.vision_tower", "vision_tower")
                .replace("model.visual", "visual")
                .replace("model.multi_modal_projector", "multi_modal_projector")
        };
        let place = tempfile::tempdir().unwrap();
        let file = TensorFile::open(&folder(&base).join("model.safetensors")).unwrap();
        let tensors: Vec<(String, TensorData)> =
            file.names().map(|name| (older(name), file.data(name).unwrap())).collect();
        tensor_file::write(&place.path().join("model.safetensors"), &tensors).unwrap();
        std::fs::copy(folder(&base).join("config.json"), place.path().join("config.json")).unwrap();
        let files = ist_models::ModelFiles::in_folder(place.path()).unwrap();
        let notes = files.notes().unwrap();
        assert!(notes.iter().any(|note| note.contains("text model alone")), "{case}: {notes:?}");
        let mut found: Model =
            ist_models::registry::load(&files, ist_core::burn::tensor::DType::F32, &Device::flex())
                .unwrap();
        assert_logits(&found, &Expected::of(&base), "logits", LOGITS);
        // What is written has every tensor again, under the names that it had.
        let mut names: Vec<String> =
            files.whole(found.weights()).unwrap().into_iter().map(|(name, _)| name).collect();
        let mut expected: Vec<String> = file.names().map(older).collect();
        names.sort();
        expected.sort();
        assert_eq!(names, expected, "{case}");
        let lora = folder(&format!("{base}/lora/adapter"));
        let place = renamed(&lora, |key| key.replace("model.language_model.", other));
        let adapters = load(&mut found, place.path());
        assert!(adapters.notes().iter().any(|note| note.contains("another version")));
    }
}

#[test]
fn an_adapter_that_no_model_can_take_is_not_usable() {
    let adapter = folder("llama_gqa").join("adapter");
    let whole = renamed(&adapter, str::to_owned);
    usable::check::<BuiltinAdapter>(whole.path(), None).unwrap();
    let wrong_rank =
        respelt(&adapter, |fields| drop(fields.insert("r".to_owned(), json!(5))), str::to_owned);
    let half = renamed(&adapter, |key| {
        key.replace("1.self_attn.q_proj.lora_A", "1.self_attn.q_proj.lora_C")
    });
    let no_target = respelt(
        &adapter,
        |fields| drop(fields.insert("target_modules".to_owned(), json!(["w1"]))),
        str::to_owned,
    );
    for place in [wrong_rank, half, no_target] {
        usable::check::<BuiltinAdapter>(place.path(), None).unwrap_err();
    }
    for case in strangers() {
        let adapter = folder(&format!("strangers/{case}/adapter"));
        usable::check::<BuiltinAdapter>(&adapter, None)
            .unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    for case in [
        "method_dora",
        "method_ia3",
        "method_vera",
        "method_series",
        "method_prefix_tuning",
        "method_ln_tuning",
        "method_full",
        "method_bitfit",
        "method_lora_embeddings_head",
    ] {
        let adapter = folder(case).join("adapter");
        usable::check::<BuiltinAdapter>(&adapter, None)
            .unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

/// A model's folder with another configuration.
fn reconfigured(case: &str, change: impl Fn(&mut serde_json::Map<String, Value>)) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let from = folder(case);
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(from.join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    place
}

#[test]
fn where_a_model_that_also_sees_does_not_say_its_files_tell_whether_the_head_is_tied() {
    for (case, tied) in [("gemma3", true), ("mistral3", false), ("qwen2_5_vl", true)] {
        let base = format!("models/{case}");
        let place = reconfigured(&base, |config| {
            config.remove("tie_word_embeddings");
            config["text_config"].as_object_mut().unwrap().remove("tie_word_embeddings");
        });
        let files = ist_models::ModelFiles::in_folder(place.path()).unwrap();
        let found: Model =
            ist_models::registry::load(&files, ist_core::burn::tensor::DType::F32, &Device::flex())
                .unwrap();
        assert_logits(&found, &Expected::of(&base), "logits", LOGITS);
        assert_eq!(found.config_json()["tie_word_embeddings"], json!(tied), "{case}");
    }
}

#[test]
fn an_adapter_on_what_sees_too_is_loaded_for_texts_and_known_as_partial() {
    let adapter = folder("models/mistral3/lora/adapter");
    let place = renamed(&adapter, str::to_owned);
    let file = TensorFile::open(&adapter.join(TENSORS_FILE)).unwrap();
    let mut tensors: Vec<(String, TensorData)> =
        file.names().map(|name| (name.to_owned(), file.data(name).unwrap())).collect();
    let beside = "base_model.model.model.vision_tower.transformer.layers.0.attention.q_proj";
    for end in ["lora_A.weight", "lora_B.weight"] {
        tensors.push((format!("{beside}.{end}"), TensorData::ones::<f32, _>([4, 4])));
    }
    tensor_file::write(&place.path().join(TENSORS_FILE), &tensors).unwrap();
    let mut found = model("models/mistral3");
    let adapters = load(&mut found, place.path());
    assert!(adapters.parts()[0].is_partial());
    assert!(adapters.notes().iter().any(|note| note.contains("text model alone")));
    let mut plain = model("models/mistral3");
    load(&mut plain, &adapter);
    let examples = Expected::of("models/mistral3").examples("");
    assert_eq!(log_probabilities(&found, &examples), log_probabilities(&plain, &examples));
    // On a model of text alone those tensors belong nowhere.
    let named = |fields: &mut serde_json::Map<String, Value>| {
        let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        fields.insert("target_modules".to_owned(), json!(modules));
        fields.insert("layers_to_transform".to_owned(), json!([0, 2]));
    };
    let place = respelt(place.path(), named, str::to_owned);
    let message = refused(&mut model("models/mistral"), place.path());
    assert!(message.contains("vision_tower"), "{message}");
}
