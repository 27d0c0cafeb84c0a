//! What a run makes of the records it is given: keys that nothing reads, several files, files that
//! are not there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Workbench, log};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// A workbench with conversations in `train.jsonl`, each with what `extra` adds to it.
fn conversations(extra: &Value) -> Workbench {
    let bench = Workbench::new("");
    let record = |n: usize| {
        let mut record = json!({"conversations": [
            {"from": "human", "value": format!("Who has kite {n}?")},
            {"from": "gpt", "value": format!("Mira {n}")},
        ]});
        record.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        format!("{record}\n")
    };
    bench.write("train.jsonl", &(0..12).map(record).collect::<String>());
    bench
}

/// A run of the bench; its notes and its result.
fn train(bench: &Workbench, name: &str, rest: &[&str]) -> (String, Value) {
    let arguments = [&["train", "run.toml", "--output", name, "--json"][..], rest].concat();
    let output = bench.run(&arguments, 0);
    let notes = String::from_utf8(output.stderr).unwrap();
    (notes, serde_json::from_slice(&output.stdout).unwrap())
}

/// A run that was stopped behind its checkpoint of step 3: a copy of another without the later
/// ones.
fn cut_back(bench: &Workbench, from: &str, to: &str) {
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([bench.path(from), bench.path(to)])
        .status()
        .unwrap();
    assert!(copied.success());
    let checkpoints = std::fs::read_dir(bench.path(to).join("checkpoints")).unwrap();
    let mut left = 0;
    for checkpoint in checkpoints.map(|entry| entry.unwrap()) {
        let step: usize = checkpoint.file_name().to_string_lossy().parse().unwrap();
        if step > 3 {
            std::fs::remove_dir_all(checkpoint.path()).unwrap();
        } else {
            left = left.max(step);
        }
    }
    assert_eq!(left, 3);
}

/// The losses of a run's steps.
fn losses(bench: &Workbench, name: &str) -> Vec<Value> {
    let lines = log(&bench.path(name), "metrics.jsonl");
    lines.iter().map(|line| line["loss"].clone()).filter(|loss| !loss.is_null()).collect()
}

#[test]
fn keys_that_nothing_reads_are_told_and_refused_when_asked() {
    let bench = conversations(&json!({"id": 7, "tools": "[{\"name\": \"w\"}]", "source": null}));
    let (notes, result) = train(&bench, "run", &[]);
    assert!(notes.contains("train.jsonl: `id` (12 times), `tools` (12 times)"), "{notes}");
    let dropped = &result["data"]["train"]["dropped_keys"];
    assert_eq!(*dropped, json!({"id": 12, "tools": 12}));
    let message = bench.refused(&["train", "run.toml", "--strict"]);
    assert!(message.contains("--strict") && message.contains("`id` (12 times)"), "{message}");
    assert!(!bench.path("runs").exists());
    let bench = conversations(&json!({"source": null}));
    let (notes, result) = train(&bench, "run", &["--strict"]);
    assert!(!notes.contains("warning"), "{notes}");
    assert_eq!(result["data"]["train"]["dropped_keys"], json!({}));
}

#[test]
fn a_system_text_beside_the_turns_is_learned_as_the_turn_it_is() {
    let beside = conversations(&json!({"system": "Be brief."}));
    let within = conversations(&json!({}));
    let text = within.read("train.jsonl");
    let system = "[{\"from\": \"system\", \"value\": \"Be brief.\"},";
    within.write("train.jsonl", &text.replace('[', system));
    let [(_, one), (_, other)] = [&beside, &within].map(|bench| train(bench, "run", &[]));
    assert_eq!(one["train"]["curve"], other["train"]["curve"]);
    let (_, without) = train(&conversations(&json!({})), "run", &[]);
    assert_ne!(one["train"]["curve"], without["train"]["curve"]);
}

#[test]
fn blank_records_and_answers_are_left_out_and_told_in_every_format() {
    let bench = Workbench::new("");
    for (blank, said) in [
        (json!({"text": " "}), json!({"text": "Mira has a kite."})),
        (
            json!({"instruction": "Who?", "output": ""}),
            json!({"instruction": "Who?", "output": "Mira"}),
        ),
        (
            json!({"prompt": "Who?", "completion": ""}),
            json!({"prompt": "Who?", "completion": "Mira"}),
        ),
        (
            json!({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant",
                "content": ""}]}),
            json!({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant",
                "content": "Mira"}]}),
        ),
    ] {
        let lines: String =
            (0..10).map(|n| format!("{}\n", if n == 5 { &blank } else { &said })).collect();
        bench.write("train.jsonl", &lines);
        let plan = bench.run(&["plan", "run.toml"], 0);
        assert!(!plan.stdout.is_empty());
        for (name, inputs) in [("with", "true"), ("without", "false")] {
            let set = format!("data.train_on_inputs={inputs}");
            let (notes, result) = train(&bench, name, &["--set", &set, "--set", "train.steps=1"]);
            let data = &result["data"]["train"];
            assert_eq!((&data["records"], &data["skipped"]), (&json!(10), &json!(1)), "{said}");
            assert_eq!(data["blank_answers"], 1, "{said}");
            assert!(notes.contains("1 answers are nothing but white space"), "{notes}");
            std::fs::remove_dir_all(bench.path(name)).unwrap();
        }
    }
}

#[test]
fn several_files_with_weights_make_an_epoch_and_a_resumed_run_goes_on_in_it() {
    let bench = Workbench::new("");
    let record = |n: usize| json!({"input_ids": [300 + n, 301, 302, 303]}).to_string() + "\n";
    std::fs::create_dir(bench.path("more")).unwrap();
    bench.write("more/a.jsonl", &(0..6).map(record).collect::<String>());
    bench.write("more/README.md", "not data");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all((10..14).map(record).collect::<String>().as_bytes()).unwrap();
    std::fs::write(bench.path("b.jsonl.gz"), packed.finish().unwrap()).unwrap();
    let train_on =
        |weight: &str| format!("data.train=[{{path = 'more', weight = {weight}}}, 'b.jsonl.gz']");
    let set = train_on("1.5");
    let keep = "train.keep_last=9";
    let (notes, result) = train(&bench, "whole", &["--set", &set, "--set", keep]);
    assert!(notes.contains("not read: README.md"), "{notes}");
    let files = result["data"]["train"]["files"].as_array().unwrap();
    let weights: Vec<&Value> = files.iter().map(|file| &file["weight"]).collect();
    assert_eq!(weights, [&json!(1.5), &json!(1.0)]);
    // 4 of the 10 records are held out; an epoch has 4 to 10 visits of the others, so 10 steps of 4
    // are several epochs.
    let epochs = log(&bench.path("whole"), "metrics.jsonl");
    assert!(epochs.iter().filter_map(|line| line["epoch"].as_f64()).any(|epoch| epoch > 2.0));
    cut_back(&bench, "whole", "parts");
    let resume = ["train", "run.toml", "--output", "parts", "--quiet", "--resume", "--set", keep];
    bench.run(&[&resume[..], &["--set", &set]].concat(), 0);
    assert_eq!(losses(&bench, "parts"), losses(&bench, "whole"));
    for name in ["selections.jsonl", "importance.jsonl"] {
        assert_eq!(log(&bench.path("parts"), name), log(&bench.path("whole"), name));
    }
    bench.run(&["train", "whole/config.toml", "--output", "again", "--quiet"], 0);
    assert_eq!(
        log(&bench.path("again"), "metrics.jsonl"),
        log(&bench.path("whole"), "metrics.jsonl")
    );
    let other = train_on("2");
    let message = bench.refused(&[&resume[..], &["--set", &other]].concat());
    assert!(message.contains("data.train"), "{message}");
}

#[test]
fn columns_of_other_names_are_read_under_the_names_that_the_configuration_gives() {
    let bench = Workbench::new("");
    let record = |n: usize| json!({"question": format!("Who {n}?"), "answer": "Mira", "text": "x"});
    let lines: String = (0..8).map(|n| format!("{}\n", record(n))).collect();
    bench.write("train.jsonl", &lines);
    let fields = "data.fields={instruction = 'question', output = 'answer'}";
    let (notes, result) = train(&bench, "run", &["--set", fields]);
    assert!(
        notes.contains("keys that nothing reads") && notes.contains("`text` (8 times)"),
        "{notes}"
    );
    assert_eq!(result["data"]["train"]["used"], 4);
    let wrong = "data.fields={instruction = 'question', output = 'answer', input = 'context'}";
    let message = bench.refused(&["train", "run.toml", "--set", wrong]);
    assert!(message.contains("`data.fields.input` names the column `context`"), "{message}");
}

#[test]
fn a_plan_counts_the_records_real_lengths_and_needs_the_data() {
    let bench = conversations(&json!({}));
    let plan = bench.json(&["plan", "run.toml", "--json"]);
    let longest = plan["micro_batch"]["sequence"].as_u64().unwrap();
    assert!((5..60).contains(&longest), "{plan}");
    std::fs::remove_file(bench.path("train.jsonl")).unwrap();
    let message = bench.refused(&["plan", "run.toml"]);
    assert!(message.contains("data.train") && message.contains("train.jsonl"), "{message}");
}

#[test]
fn a_resumed_run_may_save_and_evaluate_at_other_steps_but_not_round_otherwise() {
    let bench = Workbench::new("keep_last = 9\n");
    bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
    cut_back(&bench, "whole", "parts");
    let first = ["train", "run.toml", "--output", "parts", "--quiet"];
    let other = ["--resume", "--set", "train.save_every=4", "--set", "train.eval_every=5"];
    bench.run(&[&first[..], &other].concat(), 0);
    assert_eq!(losses(&bench, "parts"), losses(&bench, "whole"));
    for name in ["selections.jsonl", "importance.jsonl"] {
        assert_eq!(log(&bench.path("parts"), name), log(&bench.path("whole"), name));
    }
    let adapter = |name: &str| {
        std::fs::read(bench.path(name).join("adapter/adapter_model.safetensors")).unwrap()
    };
    assert_eq!(adapter("parts"), adapter("whole"));
    let refused = |set: &str| bench.refused(&[&first[..], &["--resume", "--set", set]].concat());
    let message = refused("train.micro_batch=4");
    assert!(message.contains("`train.micro_batch` was 2, is 4"), "{message}");
    let bench = Workbench::new("early_stopping = 5\n");
    bench.run(&first, 0);
    let message =
        bench.refused(&[&first[..], &["--resume", "--set", "train.eval_every=5"]].concat());
    assert!(message.contains("train.eval_every"), "{message}");
}
