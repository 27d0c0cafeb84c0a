//! Every architecture by the command line: planned, trained with IST, scored, merged, continued.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::Workbench;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ist-models/tests/fixtures/models")
}

fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A configuration of four steps, and the tokens it trains on.
fn bench(model: &Path) -> Workbench {
    let bench = Workbench::new("");
    let row = |row: usize| json!({"input_ids": (0..8 + row % 6).map(|t| 3 + (row * 7 + t * 5) % 50).collect::<Vec<_>>()});
    let tokens: String = (0..16).map(|at| format!("{}\n", row(at))).collect();
    bench.write("tokens.jsonl", &tokens);
    let model = model.display();
    bench.write(
        "model.toml",
        &format!(
            "[model]\npath = \"{model}\"\n[data]\ntrain = \"tokens.jsonl\"\ncutoff = 16\n\
             [adapter]\nmethod = \"lora\"\nr = 4\n\
             alpha = 8\n[policy]\nkind = \"ist\"\ninterval = 2\n[train]\nsteps = 4\nbatch = 4\n"
        ),
    );
    bench
}

#[test]
fn every_architecture_trains_scores_merges_and_continues() {
    for case in cases() {
        let model = fixtures().join(&case);
        let bench = bench(&model);
        let result = bench.json(&["train", "model.toml", "--output", "run", "--json", "--quiet"]);
        assert_eq!(result["status"], "finished", "{case}");
        assert_eq!(result["scoring"]["updates"], 1, "{case}");
        let model = model.to_str().unwrap();
        let adapted = ["--model", model, "--adapter", "run/adapter"];
        bench.run(&[&["merge"][..], &adapted, &["--output", "merged"]].concat(), 0);
        let loss = |of: &[&str]| {
            let scored =
                bench.json(&[&["score"][..], of, &["--tokens", "tokens.jsonl", "--json"]].concat());
            scored["loss"].as_f64().unwrap()
        };
        // A merged model is stored as the base is.
        let tolerance = if case.contains("bf16") { 1e-2 } else { 5e-6 };
        let (with, merged) = (loss(&adapted), loss(&["--model", "merged"]));
        assert!((with - merged).abs() <= tolerance * with, "{case}: {with} {merged}");
        let new = ["--input-ids", "5,6,7", "--max-new-tokens", "4", "--json"];
        let continued = bench.json(&[&["generate"][..], &adapted, &new].concat());
        assert!((1..=4).contains(&continued["output_ids"].as_array().unwrap().len()), "{case}");
    }
}

#[test]
fn published_models_are_planned_without_their_weights() {
    let published: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(fixtures().join("published.json")).unwrap())
            .unwrap();
    for model in published {
        let name = model["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), model["config"].to_string()).unwrap();
        let bench = bench(folder.path());
        let plan =
            bench.json(&["plan", "model.toml", "--set", "memory.budget=recompute", "--json"]);
        assert_eq!(plan["parameters"]["frozen"], model["parameters"], "{name}");
        let told = bench.json(&["inspect", folder.path().to_str().unwrap(), "--json"]);
        assert_eq!(told["parameters"], model["parameters"], "{name}");
    }
}
