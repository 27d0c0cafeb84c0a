//! A method from outside trains, is saved, scored and merged by the command line like a built-in
//! one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn ist(folder: &Path, arguments: &[&str], code: i32) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_gain-adapter"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn score(folder: &Path, arguments: &[&str]) -> f64 {
    let output =
        ist(folder, &[&["score", "--tokens", "data.jsonl", "--json"][..], arguments].concat(), 0);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["loss"].as_f64().unwrap()
}

#[test]
fn a_method_from_outside_is_trained_saved_scored_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let record = |n: u64| json!({"input_ids": (0..9).map(|t| 300 + (7 * n + 13 * t) % 500).collect::<Vec<_>>()});
    let lines: String = (0..8).map(|n| format!("{}\n", record(n))).collect();
    std::fs::write(folder.join("data.jsonl"), lines).unwrap();
    let toml = "model.path = 'builtin:village'\ndata.train = 'data.jsonl'\n\
                train = {steps = 8, batch = 4}\n\
                optimizer.lr = 0.05\npolicy.interval = 3\npolicy.score_batch = 4\n\
                [adapter]\nmethod = 'gain'\ntargets = ['q_proj', 'down_proj', 'embed_tokens']\n";
    std::fs::write(folder.join("run.toml"), toml).unwrap();
    ist(folder, &["train", "run.toml", "--output", "run", "--quiet"], 0);
    let config = std::fs::read_to_string(folder.join("run/adapter/adapter_config.json")).unwrap();
    assert!(config.contains("\"GAIN\""), "{config}");

    let base = score(folder, &["--model", "builtin:village"]);
    let adapted = score(folder, &["--model", "builtin:village", "--adapter", "run/adapter"]);
    assert!(adapted < base - 0.1, "{adapted} against {base}: the gains learn");
    std::fs::remove_dir_all(folder.join("run/checkpoints")).unwrap();
    ist(
        folder,
        &["merge", "--model", "builtin:village", "--adapter", "run/adapter", "--output", "merged"],
        0,
    );
    let merged = score(folder, &["--model", "merged"]);
    // The built-in model is stored in bf16, and so is the merged one.
    assert!((merged - adapted).abs() < 0.02 * (base - adapted), "{merged} against {adapted}");
    let output = ist(folder, &["train", "run.toml", "--set", "adapter.r=3"], 2);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("`adapter.r` is unknown"),
        "the method's own reader refuses it: {message}"
    );
}
