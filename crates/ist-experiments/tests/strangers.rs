//! Adapters and checkpoints of strangers by the command line: what is told, what is refused, what
//! is written.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::Workbench;
use serde_json::{Value, json};

fn fixture(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ist-models/tests/fixtures");
    fixtures.join(name).display().to_string()
}

fn bench() -> Workbench {
    let bench = Workbench::new("");
    let row = |row: usize| json!({"input_ids": (0..9).map(|t| 3 + (row * 7 + t * 5) % 50).collect::<Vec<_>>()});
    let tokens: String = (0..4).map(|at| format!("{}\n", row(at))).collect();
    bench.write("tokens.jsonl", &tokens);
    bench
}

fn losses(bench: &Workbench, more: &[&str]) -> Vec<f64> {
    let scored = bench.json(&[&["score", "--tokens", "tokens.jsonl", "--json"][..], more].concat());
    scored["records"].as_array().unwrap().iter().map(|row| row["loss"].as_f64().unwrap()).collect()
}

fn header(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut names: Vec<String> = header.as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

#[test]
fn a_model_that_also_sees_is_merged_whole() {
    for case in ["gemma3", "mistral3", "qwen2_5_vl"] {
        let bench = bench();
        let model = fixture(&format!("models/{case}"));
        let adapter = fixture(&format!("models/{case}/lora/adapter"));
        let adapted = ["--model", model.as_str(), "--adapter", adapter.as_str()];
        let told = bench.run(&[&["merge"][..], &adapted, &["--output", "merged"]].concat(), 0);
        let told = String::from_utf8(told.stderr).unwrap();
        assert!(told.contains("note: ") && told.contains("text model alone"), "{told}");
        let merged = losses(&bench, &["--model", "merged"]);
        for (merged, adapted) in merged.iter().zip(losses(&bench, &adapted)) {
            assert!((merged - adapted).abs() < 1e-5 * adapted, "{case}: {merged} {adapted}");
        }
        let names = |folder: PathBuf| header(&folder.join("model.safetensors"));
        assert_eq!(names(bench.path("merged")), names(PathBuf::from(&model)), "{case}");
        let config: Value = serde_json::from_str(&bench.read("merged/config.json")).unwrap();
        assert!(config["vision_config"].is_object() && config["text_config"].is_object());
    }
}

#[test]
fn nothing_is_written_for_an_adapter_that_cannot_be_used() {
    let bench = bench();
    let adapter = fixture("llama_gqa/adapter");
    let whole = ["convert", "--adapter", adapter.as_str(), "--to", "peft", "--output"];
    let other = fixture("models/gpt2");
    let own = fixture("llama_gqa");
    let message = bench.refused(&[&whole[..], &["wrong", "--model", other.as_str()]].concat());
    assert!(message.contains("match no module") && message.contains("c_attn"), "{message}");
    bench.run(&[&whole[..], &["right", "--model", own.as_str()]].concat(), 0);

    std::fs::create_dir(bench.path("broken")).unwrap();
    let text = bench.read("right/adapter_config.json").replace("\"r\": 4", "\"r\": 3");
    bench.write("broken/adapter_config.json", &text);
    std::fs::copy(
        bench.path("right/adapter_model.safetensors"),
        bench.path("broken/adapter_model.safetensors"),
    )
    .unwrap();
    let convert = ["convert", "--adapter", "broken", "--to", "peft", "--output", "again"];
    let message = bench.refused(&convert);
    assert!(message.contains("broken/adapter_model.safetensors"), "{message}");
    assert!(message.contains("lora_A.weight has shape [4, 32], expected [3, 32]"), "{message}");
    for folder in ["wrong", "again"] {
        assert!(!bench.path(folder).exists(), "{folder}");
    }
}

#[test]
fn an_adapter_of_mlx_is_converted_and_scored() {
    let bench = bench();
    let adapter = fixture("mlx/lora/adapter");
    let model = fixture("llama_gqa");
    let with = ["score", "--tokens", "tokens.jsonl", "--model", model.as_str(), "--adapter"];
    assert!(bench.refused(&[&with[..], &[adapter.as_str()]].concat()).contains("`ist convert"));
    bench.run(&["convert", "--adapter", &adapter, "--to", "peft", "--output", "peft"], 0);
    let base = losses(&bench, &["--model", &model]);
    assert_ne!(losses(&bench, &["--model", &model, "--adapter", "peft"]), base);
}

#[test]
fn names_that_mean_nothing_are_refused_in_a_configuration() {
    for (adapter, told) in [
        ("{r = 2, rank_pattern = {w_proj = 4}}", "w_proj"),
        ("{r = 2, alpha_pattern = {'layers.99.self_attn.q_proj' = 4}}", "layers.99"),
        ("{r = 2, modules_to_save = ['lm_head', 'score']}", "score"),
    ] {
        let bench = Workbench::new("");
        let text =
            bench.read("run.toml").replace("[adapter]\nr = 2\nalpha = 4\ndropout = 0.1\n", "");
        bench.write("run.toml", &format!("adapter = {adapter}\n{text}"));
        let message = bench.refused(&["train", "run.toml", "--output", "run"]);
        assert!(message.contains(told), "{adapter}: {message}");
        assert!(!bench.path("run").exists());
    }
}

#[test]
fn training_starts_from_an_adapter_that_carries_tensors_of_the_base_and_keeps_them() {
    let bench = bench();
    let model = fixture("llama3_rope");
    let adapter = fixture("strangers/bias_all/adapter");
    bench.write(
        "start.toml",
        &format!(
            "[model]\npath = \"{model}\"\n[data]\ntrain = \"tokens.jsonl\"\ncutoff = 9\n[adapter]\n\
             init_from = \"{adapter}\"\n\
             [policy]\nkind = \"all\"\n[optimizer]\nlr = 1e-12\n[train]\nsteps = 1\nbatch = 4\n"
        ),
    );
    let told = bench.run(&["train", "start.toml", "--output", "run"], 0);
    assert!(String::from_utf8(told.stderr).unwrap().contains("they do not train"));
    let from = losses(&bench, &["--model", &model, "--adapter", &adapter]);
    let to = losses(&bench, &["--model", &model, "--adapter", "run/adapter"]);
    for (from, to) in from.iter().zip(&to) {
        assert!((from - to).abs() < 1e-6 * from, "{from} {to}");
    }
    let written: Value =
        serde_json::from_str(&bench.read("run/adapter/adapter_config.json")).unwrap();
    assert_eq!(written["bias"], "all");
}
