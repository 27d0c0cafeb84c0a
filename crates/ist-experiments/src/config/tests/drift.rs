//! The schema, the gate and the shipped files say the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ist_peft::BuiltinAdapter;
use serde_json::Value;

use super::super::schema::{PRETRAIN, RUN, keys, names, property};
use super::super::*;
use super::{LEAST, least_and, read};

/// Configurations that together give every key.
const WHOLE: [&str; 10] = [
    r#"
    seed = 1
    model = {path = "org/name@main", dtype = "bfloat16"}
    memory.budget = "keep"
    logging.tensorboard = true
    [data]
    train = "train.jsonl"
    format = "prompt-completion"
    fields = {instruction = "a", input = "b", output = "c", system = "d", history = "e", prompt = "f", completion = "g", text = "h", messages = "i", conversations = "j", tools = "k", input_ids = "l", labels = "m", attention_mask = "n"}
    cutoff = 128
    train_on_inputs = false
    order = "sequential"
    validation = "held-out.jsonl"
    template = "none"
    padding = "right"
    [adapter]
    method = "lora"
    r = 8
    alpha = 16
    dropout = 0.05
    targets = ["q_proj"]
    use_rslora = true
    rank_pattern = {"layers.0" = 4}
    alpha_pattern = {"layers.0" = 8.5}
    loraplus_lr_ratio = 16
    freeze_a = false
    init_lora_weights = "pissa_niter_4"
    layers_to_transform = [0, 1]
    layers_pattern = "layers"
    exclude_modules = ["k_proj"]
    [policy]
    kind = "ist"
    layers_updated = 1
    layers_suppressed = 0.5
    candidates = 4
    suppression = 0.0
    interval = 5
    importance_lr = 3
    score_batch = 8
    reward = "normalized"
    [optimizer]
    kind = "adamw"
    lr = 1e-3
    weight_decay = 0.1
    betas = [0.8, 0.9]
    eps = 1e-6
    clip_norm = 0.5
    schedule = "cosine"
    warmup_steps = 3
    resting_state = "offload"
    [train]
    steps = 5
    batch = 8
    micro_batch = 4
    eval_every = 2
    save_every = 2
    keep_last = 1
    early_stopping = 3
    sample_prompts = ["Once"]
    sample_tokens = 4
    loss_scaling = "on"
    [eval]
    task = "exact-match"
    data = "test.jsonl"
    limit = 10
    max_new_tokens = 4
    "#,
    "model.path = 'x'\ndata = {train = 'x', validation_records = 3}\ntrain.epochs = 2\n\
     policy.kind = 'all'\n\
     adapter.init_from = 'a'",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     adapter = \
     {method = 'series', bottleneck_size = 4, non_linearity = 'relu', scaling = 0.5, dropout = 0.1}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     adapter = {method = 'prefix-tuning', num_virtual_tokens = 4, init_weights = 'zero'}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     adapter = {method = 'vera', r = 8, d_initial = 0.2, projection_prng_key = 3}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     adapter = \
     {method = 'ia3', feedforward_modules = ['down_proj'], modules_to_save = ['lm_head']}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     policy = {kind = 'rst', layers_updated = 0.5}\n\
     [[adapter]]\nname = 'a'\n[[adapter]]\nname = 'b'",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     policy = {kind = 'lisa', layers_updated = 0.5, interval = 3}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\npolicy = {kind = 'fixed', layers = [0]}",
    "model.path = 'x'\ndata.train = 'x'\ntrain.steps = 2\n\
     policy = {kind = 'replay', path = 's.jsonl'}",
];

fn keys_of(table: &toml::Table, schema: &Value, parent: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = super::super::document::join(parent, name);
        found.insert(key.clone());
        let inner = property(schema, name).unwrap();
        let tables = value.as_array().into_iter().flatten().filter_map(toml::Value::as_table);
        tables.for_each(|table| keys_of(table, inner, &key, found));
        if let (Some(table), false) = (value.as_table(), names(inner).is_empty()) {
            keys_of(table, inner, &key, found);
        }
    }
}

#[test]
fn the_keys_of_the_schema_are_the_keys_that_are_accepted() {
    let mut accepted = BTreeSet::new();
    for text in WHOLE {
        read(text).unwrap();
        keys_of(&text.parse().unwrap(), &RUN, "", &mut accepted);
    }
    assert_eq!(accepted, keys(&RUN).into_iter().collect());
}

#[test]
fn every_key_of_the_schema_is_refused_when_misspelt() {
    for key in keys(&RUN) {
        let misspelt = format!("{key}_x");
        let least =
            if key.contains('.') { LEAST.to_owned() } else { format!("'{misspelt}' = 1\n{LEAST}") };
        let overrides = [format!("{misspelt}=1")];
        let error = super::read_with(&least, &[&overrides[0]]).expect_err(&misspelt);
        let unknown = error
            .faults()
            .iter()
            .any(|fault| fault.key == misspelt && fault.message.contains("not a known key"));
        assert!(unknown, "{error}");
    }
}

#[test]
fn a_resolved_configuration_has_only_keys_of_the_schema() {
    for text in WHOLE {
        let written: toml::Table = read(text).unwrap().to_toml().parse().unwrap();
        keys_of(&written, &RUN, "", &mut BTreeSet::new());
    }
}

/// Every keyword is either enforced by the gate or says nothing about validity.
#[test]
fn the_schemas_use_no_keyword_that_the_gate_does_not_enforce() {
    const ENFORCED: [&str; 18] = [
        "type",
        "enum",
        "const",
        "oneOf",
        "anyOf",
        "not",
        "required",
        "properties",
        "additionalProperties",
        "items",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
    ];
    const ANNOTATIONS: [&str; 6] =
        ["$schema", "title", "description", "default", "format", "discriminator"];
    fn walk(schema: &Value) {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let known =
                ENFORCED.contains(&keyword.as_str()) || ANNOTATIONS.contains(&keyword.as_str());
            assert!(known, "{keyword} in {schema}");
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => properties.values().for_each(walk),
                ("oneOf" | "anyOf", Value::Array(branches)) => branches.iter().for_each(walk),
                ("items" | "not" | "additionalProperties", inner) => walk(inner),
                _ => {}
            }
        }
        assert!(schema["type"] != "object" || is_closed(schema), "{schema}");
    }
    /// A table either lists its keys and takes no others, or takes any key.
    fn is_closed(schema: &Value) -> bool {
        schema["additionalProperties"] == false
            || schema["additionalProperties"].is_object()
            || schema.get("discriminator").is_some()
    }
    walk(&json_schema());
    walk(&pretrain_json_schema());
}

#[test]
fn the_schema_carries_descriptions_and_defaults_for_editors() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for key in keys(&RUN) {
        let inner = key.split('.').fold(&*RUN, |schema, name| property(schema, name).unwrap());
        assert!(inner["description"].is_string() || inner.get("const").is_some(), "{key}: {inner}");
        assert_ne!(inner.get("default"), Some(&Value::Null), "{key}");
    }
    assert_eq!(schema["properties"]["optimizer"]["properties"]["lr"]["default"], 2e-4);
    let [extends, sweep, strict] = [0, 1, 2].map(|branch| &schema["anyOf"][branch]);
    assert_eq!(
        (&extends["required"][0], &sweep["required"][0]),
        (&"extends".into(), &"sweep".into())
    );
    assert_eq!(strict["required"], serde_json::json!(["model", "data", "train"]));
    assert_eq!(strict["properties"]["model"]["required"], serde_json::json!(["path"]));
    assert_eq!(
        strict["properties"]["train"]["oneOf"][1]["required"],
        serde_json::json!(["epochs"])
    );
    for key in ["extends", "seeds", "sweep"] {
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
    let [table, list] = [0, 1].map(|branch| &schema["properties"]["adapter"]["anyOf"][branch]);
    assert_eq!(
        (&table["type"], &list["items"]),
        (&"object".into(), table),
        "a table, or a list of them"
    );
}

#[test]
fn the_defaults_in_the_schema_are_those_that_are_filled_in() {
    let written = serde_json::to_value(least_and("eval.data = 'x'").unwrap()).unwrap();
    let mut compared = 0;
    for key in keys(&RUN).iter().filter(|key| !key.starts_with("policy.")) {
        let default = key
            .split('.')
            .fold(&*RUN, |schema, name| property(schema, name).unwrap())
            .get("default");
        let value = key.split('.').try_fold(&written, |value, name| value.get(name));
        if let (Some(default), Some(value)) = (default, value)
            && !default.is_object()
        {
            assert_eq!(value, default, "{key}");
            compared += 1;
        }
    }
    assert!(compared > 25, "{compared}");
    assert!(!keys(&PRETRAIN).is_empty());
}

#[test]
fn every_shipped_experiment_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut seen = BTreeSet::new();
    for path in shipped(&folder) {
        let is_pretraining = path.file_stem().unwrap().to_str().unwrap().starts_with("pretrain");
        if is_pretraining {
            load_pretrain(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            continue;
        }
        let within = path.strip_prefix(&folder).unwrap();
        let group = within.parent().unwrap().to_str().unwrap().to_owned();
        // What needs a model or data from outside is checked without them; all else must be there.
        let outside = ["paper", "grid", "real"].contains(&group.as_str());
        let expansion = study(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let members = expansion
            .members::<BuiltinAdapter>(!outside)
            .unwrap_or_else(|error| panic!("{error}"))
            .members;
        assert!((1..=1000).contains(&members.len()), "{}: {} runs", path.display(), members.len());
        let rereads = |member: &Member| {
            parse_with::<BuiltinAdapter>(
                Path::new("/x/config.toml"),
                &member.config.to_toml(),
                false,
            )
            .unwrap()
                == member.config
        };
        assert!(members.iter().all(rereads), "{}", path.display());
        seen.insert(group);
    }
    assert!(
        ["", "grid", "paper", "real", "small"].iter().all(|group| seen.contains(*group)),
        "{seen:?}"
    );
}

/// Every configuration in the folder and those in it.
fn shipped(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let inner = entries.iter().filter(|path| path.is_dir() && !path.ends_with("results"));
    let inner: Vec<PathBuf> = inner.flat_map(|path| shipped(path)).collect();
    entries.into_iter().filter(|path| is_toml(path)).chain(inner).collect()
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}
