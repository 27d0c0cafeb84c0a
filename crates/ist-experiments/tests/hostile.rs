//! Files that strangers made to do harm: each command ends with exit code 2 and one short message
//! that names the file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::Workbench;
use serde_json::{Value, json};

/// A bench with the built-in model in the folder `model`.
fn bench() -> Workbench {
    let bench = Workbench::new("");
    std::fs::create_dir(bench.path("model")).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/village");
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(model.join(name), bench.path("model").join(name)).unwrap();
    }
    bench
}

/// Runs a command on a file with that text, and looks for the reason in its message.
fn refused(bench: &Workbench, file: &str, text: &str, arguments: &[&str], reason: &str) {
    bench.write(file, text);
    let begin = Instant::now();
    let message = bench.refused(arguments);
    let name = file.rsplit('/').next().unwrap();
    assert!(message.contains(reason), "{file}, {reason}: {message}");
    assert!(message.contains(name), "{file} is not named: {message}");
    assert!(message.len() < 5000, "{file}, {reason}: {} bytes", message.len());
    let codes = |c: char| c.is_control() && c != '\n';
    assert!(!message.contains(codes), "{file}, {reason}: {message:?}");
    assert!(begin.elapsed() < Duration::from_mins(1), "{file}, {reason}");
}

const CHAT: [&str; 6] = ["generate", "--model", "model", "--chat", "--prompt", "Hi"];
const GENERATE: [&str; 5] = ["generate", "--model", "model", "--prompt", "Hi"];
const ADAPTED: [&str; 7] =
    ["generate", "--model", "model", "--adapter", "adapter", "--input-ids", "1,2"];
const TRAIN: [&str; 3] = ["train", "run.toml", "--quiet"];

#[test]
fn a_chat_template_without_end_is_refused() {
    let bench = bench();
    let deep = format!("{{{{ {}1 }}}}", "not ".repeat(29_000));
    let cases = [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "steps of work",
        ),
        ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "a namespace cannot stand in"),
        ("{{ 'x\ny' | indent(2000000000) }}", "steps of work"),
        (deep.as_str(), "nests deeper than 2000 levels"),
        ("{{ raise_exception('\u{1b}[2J\u{202e}') }}", "\\x1b[2J\\u{202e}"),
    ];
    for (template, reason) in cases {
        let config = json!({"chat_template": template}).to_string();
        refused(&bench, "model/tokenizer_config.json", &config, &CHAT, reason);
    }
}

#[test]
fn a_tokenizer_that_would_break_its_library_is_refused() {
    let bench = bench();
    let whole: Value = serde_json::from_str(&bench.read("model/tokenizer.json")).unwrap();
    let fuse = json!({"type": "Fuse"});
    let nested = (0..200).fold(fuse, |rule, _| json!({"type": "Sequence", "decoders": [rule]}));
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"});
    let growing = json!({"type": "Sequence", "normalizers": vec![replace; 20]});
    for (key, value, reason) in [
        ("decoder", nested, "recursion limit"),
        ("normalizer", growing, "bytes of one"),
        ("decoder", json!({"type": "\u{1b}[31m"}), ""),
    ] {
        let mut document = whole.clone();
        document[key] = value;
        refused(&bench, "model/tokenizer.json", &document.to_string(), &GENERATE, reason);
    }
    let text = whole.to_string();
    let huge = text.replacen("\"id\":0", "\"id\":1e999", 1);
    assert_ne!(text, huge);
    refused(&bench, "model/tokenizer.json", &huge, &GENERATE, "number out of range");
}

#[test]
fn a_key_that_stands_twice_is_refused_by_its_name() {
    let bench = bench();
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        let file = format!("model/{file}");
        let whole = bench.read(&file);
        let twice = whole.trim_start().replacen('{', "{\"twice\": 1, \"twice\": 2,", 1);
        refused(&bench, &file, &twice, &GENERATE, "\"twice\" stands twice in one object");
        bench.write(&file, &whole);
    }
    let twice = r#"{"peft_type": "LORA", "r": 2, "r": 4}"#;
    std::fs::create_dir(bench.path("adapter")).unwrap();
    refused(&bench, "adapter/adapter_config.json", twice, &ADAPTED, "\"r\" stands twice");
    let records = "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1], \"input_ids\": [2]}\n";
    let reason = "line 2: malformed JSON: the key \"input_ids\" stands twice";
    refused(&bench, "train.jsonl", records, &TRAIN, reason);
    let index = r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#;
    let file = "model/model.safetensors.index.json";
    refused(&bench, file, index, &GENERATE, "\"a\" stands twice");
}

#[test]
fn what_is_huge_deep_or_full_of_codes_is_told_in_a_line() {
    let bench = bench();
    let long = "k\u{1b}[2J\u{202e}".repeat(1 << 18);
    let unknown = format!("{}\n", json!({"input_ids": [1, 2], &long: 1}));
    refused(&bench, "train.jsonl", &unknown, &TRAIN, "line 1");
    let wrong = format!("{}\n", json!({"input_ids": [long]}));
    refused(&bench, "train.jsonl", &wrong, &TRAIN, "line 1");
    let deep = format!("{{\"input_ids\": {}", "[".repeat(1 << 20));
    refused(&bench, "train.jsonl", &deep, &TRAIN, "recursion limit");
    std::fs::create_dir(bench.path("adapter")).unwrap();
    // A file of no tensors.
    let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
    std::fs::write(bench.path("adapter/adapter_model.safetensors"), empty).unwrap();
    for config in [
        json!({"peft_type": &long}),
        json!({"peft_type": "LORA", "r": &long}),
        json!({"peft_type": "LORA", &long: true}),
        json!({"peft_type": "LORA", "target_modules": [&long]}),
    ] {
        refused(&bench, "adapter/adapter_config.json", &config.to_string(), &ADAPTED, "");
    }
    let whole: Value = serde_json::from_str(&bench.read("model/config.json")).unwrap();
    for key in ["hidden_size", "model_type", "hidden_act", "rope_theta"] {
        let mut config = whole.clone();
        config[key] = json!(long);
        refused(&bench, "model/config.json", &config.to_string(), &GENERATE, "");
    }
}
