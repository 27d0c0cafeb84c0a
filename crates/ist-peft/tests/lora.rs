//! LoRA from its configuration to its files and back, on a model of three linear modules and an
//! embedding.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Tiny, largest_difference, parse, random};
use ist_core::burn::tensor::{DType, Device, TensorData};
use ist_peft::files::{CONFIG_FILE, TENSORS_FILE, named_tensors, tensor_file};
use ist_peft::{
    Adapters, BuiltinConfig, Configured, Dialect, LoraConfig, PeftModel, Targets, TensorFile,
    attach, load, merge, save,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn lora(config: &Configured<BuiltinConfig>) -> (&LoraConfig, &Targets) {
    let BuiltinConfig::Lora(lora) = &config.settings else { panic!("{config:?} is no LoRA") };
    (lora, &config.targets)
}

/// Targets as lists, as a pattern and as PEFT's word, with whatever else a configuration can say.
fn configurations() -> impl Strategy<Value = Value> {
    let targets = prop::sample::select(vec![
        json!(["up_proj"]),
        json!(["mlp.down_proj", "embed_tokens", "lm_head"]),
        json!(["up_proj", "down_proj", "model.embed_tokens"]),
        json!(r".*\.1\.mlp\.(up|down)_proj|lm_head"),
        json!("all-linear"),
    ]);
    (targets, 1usize..5, 1u32..40, any::<bool>(), any::<bool>(), 1usize..4).prop_map(
        |(targets, r, alpha, use_rslora, patterns, rank)| {
            let mut fields = json!({"method": "lora", "targets": targets, "r": r,
                "alpha": f64::from(alpha) / 4.0,
                "dropout": 0.125, "use_rslora": use_rslora});
            if patterns {
                fields["rank_pattern"] = json!({"layers.1.*up_proj": rank, "lm_head": 2});
                fields["alpha_pattern"] = json!({"down_proj": 2.5, "embed_tokens": 7});
            }
            if fields["targets"].is_array() && rank == 1 {
                fields["exclude_modules"] = json!(["layers.0.mlp.up_proj"]);
            }
            fields
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn save_then_load_is_the_identity(
        fields in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Tiny::new(sizes, DType::F32);
        let mut again = Tiny::new(sizes, DType::F32);
        let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
        let count = model.adapt(&mut config);
        save(&mut model, &config, folder.path(), "some/base").unwrap();
        let loaded = load(&mut again, folder.path(), &Device::flex()).unwrap();
        prop_assert_eq!(lora(loaded.parts()[0].config()), lora(config.parts()[0].config()));
        let saved = named_tensors(&mut model, &config);
        let found = named_tensors(&mut again, &loaded);
        prop_assert_eq!(found.len(), 2 * count);
        for ((name, saved), (other, found)) in saved.iter().zip(&found) {
            prop_assert_eq!((name, saved.shape(), saved.as_bytes()), (other, found.shape(),
                found.as_bytes()));
        }
        prop_assert_eq!(model.forward(), again.forward());
    }

    #[test]
    fn merged_equals_unmerged(
        fields in configurations(),
        sizes in prop::array::uniform3(2usize..9),
    ) {
        let mut model = Tiny::new(sizes, DType::F64);
        let base = model.forward();
        model.adapt(&mut Adapters::one(parse(&fields, Dialect::Toml).unwrap()));
        let unmerged = model.forward();
        merge(&mut model).unwrap();
        prop_assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
        let scale = unmerged.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        prop_assert!(largest_difference(&model.forward(), &unmerged) <= 1e-12 * scale);
        prop_assert!(largest_difference(&base, &unmerged) > 1e-9, "the adapters must matter");
    }
}

/// A folder with adapters of rank 3 on every module of a model of sizes 7, 4, 5.
fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fields =
        json!({"r": 3, "alpha": 6, "targets": ["up_proj", "down_proj", "lm_head", "embed_tokens"]});
    let mut config = Adapters::one(parse(&fields, Dialect::Toml).unwrap());
    let mut model = Tiny::new([7, 4, 5], DType::F32);
    model.adapt(&mut config);
    save(&mut model, &config, folder.path(), "some/base").unwrap();
    folder
}

#[test]
fn keys_and_shapes_are_pefts() {
    let folder = saved();
    let file = TensorFile::open(&folder.path().join(TENSORS_FILE)).unwrap();
    let found: BTreeMap<String, Vec<usize>> =
        file.names().map(|name| (name.to_owned(), file.shape(name).unwrap())).collect();
    let layer = |n: usize| {
        let path = format!("base_model.model.model.layers.{n}.mlp");
        [
            ("up_proj.lora_A", [3, 4]),
            ("up_proj.lora_B", [5, 3]),
            ("down_proj.lora_A", [3, 5]),
            ("down_proj.lora_B", [4, 3]),
        ]
        .map(|(name, shape)| (format!("{path}.{name}.weight"), shape.to_vec()))
    };
    let outside = [
        ("model.embed_tokens.lora_embedding_A", [3, 7]),
        ("model.embed_tokens.lora_embedding_B", [4, 3]),
        ("lm_head.lora_A.weight", [3, 4]),
        ("lm_head.lora_B.weight", [7, 3]),
    ];
    let outside = outside.map(|(name, shape)| (format!("base_model.model.{name}"), shape.to_vec()));
    assert_eq!(found, layer(0).into_iter().chain(layer(1)).chain(outside).collect());
}

#[test]
fn the_configuration_file_has_pefts_names() {
    let text = std::fs::read_to_string(saved().path().join(CONFIG_FILE)).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "inference_mode": true, "r": 3, "lora_alpha": 6, "lora_dropout": 0.0, "use_rslora": false,
        "bias": "none",
        "target_modules": ["up_proj", "down_proj", "lm_head", "embed_tokens"],
        "layers_to_transform": null,
        "rank_pattern": {}, "alpha_pattern": {}});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
}

/// What PEFT 0.21 writes for a plain LoRA.
fn peft_document() -> Map<String, Value> {
    let document = json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": "/some/where", "bias": "none", "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05,
        "megatron_config": null,
        "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA",
        "peft_version": "0.21.0",
        "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": null,
        "target_modules": ["up_proj"],
        "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
        "use_dora": false,
        "use_qalora": false, "use_rslora": false,
    });
    document.as_object().unwrap().clone()
}

fn with(key: &str, value: &Value) -> Value {
    let mut document = peft_document();
    document.insert(key.to_owned(), value.clone());
    Value::Object(document)
}

#[test]
fn neutral_and_descriptive_fields_never_block() {
    let plain = parse(&Value::Object(peft_document()), Dialect::Peft).unwrap();
    for value in [json!(null), json!(false), json!({}), json!([]), json!("")] {
        for key in [
            "of_a_later_version",
            "use_dora",
            "modules_to_save",
            "loftq_config",
            "layers_to_transform",
            "rank_pattern",
        ] {
            if matches!(key, "layers_to_transform" | "rank_pattern")
                && (value == json!(false) || value == json!(""))
            {
                continue; // ill-typed for a field we read
            }
            if (key, &value) == ("layers_to_transform", &json!({}))
                || (key, &value) == ("rank_pattern", &json!([]))
            {
                continue;
            }
            let config = parse(&with(key, &value), Dialect::Peft);
            let config = config.unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
            assert_eq!(lora(&config), lora(&plain), "{key} = {value}");
        }
    }
    for key in
        ["base_model_name_or_path", "task_type", "peft_version", "inference_mode", "fan_in_fan_out"]
    {
        for value in [json!(null), json!("anything"), json!(true), json!(false)] {
            assert!(parse(&with(key, &value), Dialect::Peft).is_ok(), "{key} = {value}");
        }
    }
}

#[test]
fn fields_that_would_change_the_computation_are_refused_by_name() {
    let refused = json!({"modules_to_save": ["lm_head"],
        "layer_replication": [[0, 1]], "target_parameters": ["weight"],
        "alora_invocation_tokens": [1, 2], "megatron_config": {"a": 1}, "use_qalora": true,
        "init_lora_weights": "pissa", "of_a_later_version": 1});
    let mut all = peft_document();
    for (key, value) in refused.as_object().unwrap() {
        let error = parse(&with(key, value), Dialect::Peft).unwrap_err();
        assert_eq!(
            error.faults.iter().map(|fault| &fault.field).collect::<Vec<_>>(),
            [key],
            "{error}"
        );
        assert!(
            error.to_string().contains(&format!("`{key}`"))
                && error.to_string().contains(&value.to_string())
        );
        all.insert(key.clone(), value.clone());
    }
    let error = parse(&Value::Object(all), Dialect::Peft).unwrap_err();
    assert_eq!(error.faults.len(), refused.as_object().unwrap().len(), "all at once: {error}");
}

#[test]
fn settings_of_what_is_switched_off_pass() {
    for (key, value) in [("megatron_core", json!("another.core")), ("qalora_group_size", json!(32))]
    {
        assert!(parse(&with(key, &value), Dialect::Peft).is_ok(), "{key}");
    }
}

#[test]
fn unknown_keys_of_our_own_are_refused_whatever_their_value() {
    for value in [json!(null), json!(false), json!({}), json!(3)] {
        let fields = json!({"method": "lora", "rank": value, "megatron_core": "megatron.core",
            "lora_alpha": 8});
        let error = parse(&fields, Dialect::Toml).unwrap_err();
        let named: Vec<&str> = error.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(named, ["rank", "megatron_core", "lora_alpha"], "{error}");
    }
}

#[test]
fn values_out_of_range_are_refused_all_at_once() {
    for (dialect, alpha, dropout) in
        [(Dialect::Toml, "alpha", "dropout"), (Dialect::Peft, "lora_alpha", "lora_dropout")]
    {
        let fields = json!({"peft_type": "LORA", "r": 0, alpha: 0, dropout: 1.0,
            "use_rslora": "yes",
            "rank_pattern": {"up_proj": 0}, "alpha_pattern": {"up_proj": -1}});
        let mut fields = fields.as_object().unwrap().clone();
        if dialect == Dialect::Toml {
            fields.remove("peft_type");
        }
        let error = parse(&Value::Object(fields), dialect).unwrap_err();
        let named: Vec<&str> = error.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            named,
            ["r", alpha, dropout, "use_rslora", "rank_pattern", "alpha_pattern"],
            "{error}"
        );
        assert!(
            error.to_string().contains("`r` must be an integer of at least 1, found 0"),
            "{error}"
        );
    }
}

#[test]
fn targets_that_match_nothing_list_what_exists() {
    let mut config =
        Adapters::one(parse(&json!({"targets": ["q_proj", "proj"]}), Dialect::Toml).unwrap());
    let error = attach(&mut Tiny::new([7, 4, 5], DType::F32), &mut config, 1, &Device::flex())
        .unwrap_err()
        .to_string();
    for part in ["q_proj", "embed_tokens, up_proj, down_proj, lm_head"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut config = Adapters::one(
        parse(&json!({"targets": ["up_proj"], "layers_to_transform": [1, 2, 9]}), Dialect::Toml)
            .unwrap(),
    );
    let error = attach(&mut Tiny::new([7, 4, 5], DType::F32), &mut config, 1, &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(error.contains("[2, 9]") && error.contains("2 layers"), "{error}");
}

/// The folder's tensors after `change`.
fn rewrite(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) {
    let path = folder.join(TENSORS_FILE);
    let file = TensorFile::open(&path).unwrap();
    let mut tensors =
        file.names().map(|name| (name.to_owned(), file.data(name).unwrap())).collect();
    change(&mut tensors);
    tensor_file::write(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn tensors_that_do_not_fit_are_listed_in_one_error_and_nothing_is_attached() {
    let folder = saved();
    rewrite(folder.path(), |tensors| {
        tensors.insert("base_model.model.lm_head.lora_A.weight".to_owned(), random("", [3, 5]));
        tensors.insert(
            "base_model.model.model.embed_tokens.lora_embedding_B".to_owned(),
            random("", [3, 4]),
        );
        tensors.insert("base_model.model.model.norm.lora_A.weight".to_owned(), random("", [3, 4]));
        tensors.remove("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight").unwrap();
    });
    let mut model = Tiny::new([7, 4, 5], DType::F32);
    let error = load(&mut model, folder.path(), &Device::flex()).unwrap_err().to_string();
    let faults = [
        "lm_head.lora_A.weight has shape [3, 5], expected [3, 4]",
        "model.embed_tokens.lora_embedding_B has shape [3, 4], expected [4, 3]",
        "model.norm.lora_A.weight belongs to no module",
        "model.layers.1.mlp.up_proj.lora_B.weight is missing, expected shape [5, 3]",
        TENSORS_FILE,
    ];
    for fault in faults {
        assert!(error.contains(fault), "{fault}: {error}");
    }
    assert_eq!(error.lines().count(), 5, "nothing else is wrong: {error}");
    assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
}

#[test]
fn the_base_weights_peft_stores_beside_embedding_and_head_are_no_fault() {
    let folder = saved();
    rewrite(folder.path(), |tensors| {
        for (name, shape) in [("model.embed_tokens", [7, 4]), ("lm_head", [7, 4])] {
            tensors.insert(format!("base_model.model.{name}.base_layer.weight"), random("", shape));
        }
    });
    let mut model = Tiny::new([7, 4, 5], DType::F32);
    load(&mut model, folder.path(), &Device::flex()).unwrap();
    rewrite(folder.path(), |tensors| {
        tensors
            .insert("base_model.model.model.norm.base_layer.weight".to_owned(), random("", [1, 4]));
    });
    assert!(load(&mut model, folder.path(), &Device::flex()).is_err());
}

#[test]
fn an_adapter_of_another_rank_or_with_a_value_that_is_no_number_is_refused() {
    let folder = saved();
    rewrite(folder.path(), |tensors| {
        tensors.insert(
            "base_model.model.lm_head.lora_B.weight".to_owned(),
            TensorData::new(vec![f32::NAN; 21], [7, 3]),
        );
    });
    let mut model = Tiny::new([7, 4, 5], DType::F32);
    let error = load(&mut model, folder.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("lm_head.lora_B.weight") && error.contains("NaN"), "{error}");
    let path = folder.path().join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).unwrap().replace("\"r\": 3", "\"r\": 2");
    std::fs::write(&path, text).unwrap();
    let error = load(&mut model, folder.path(), &Device::flex()).unwrap_err().to_string();
    assert_eq!(error.matches("expected [").count(), 12, "{error}");
    assert!(model.slots().iter().all(|slot| slot.adapter.is_none()));
}
