//! Tasks: answers in replies against `fixtures/tasks/generate.py`, and `ist eval` from files to
//! rows and predictions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::Workbench;
use ist_experiments::evaluate::tasks::named;
use ist_experiments::evaluate::tasks::score::Accuracy;
use serde_json::{Value, json};

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn answers_are_found_as_an_independent_program_finds_them() {
    for case in expected()["replies"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let answers = named(text("task")).unwrap().answers();
        let found = answers.extract(text("reply").trim());
        let same = match &case["extracted"] {
            Value::Null => found.is_none(),
            number if text("task") == "gsm8k" => {
                found.as_deref().map(number_of) == number.as_str().map(number_of)
            }
            word => found.as_deref() == word.as_str(),
        };
        assert!(same, "{case}: {found:?}");
        let correct = found.is_some_and(|found| answers.is_correct(&found, text("answer")));
        assert_eq!(correct, case["correct"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn intervals_are_those_of_their_definition() {
    for case in expected()["intervals"].as_array().unwrap() {
        let count = |at: usize| case[at].as_u64().unwrap() as usize;
        let interval = Accuracy::new(count(0), count(1)).interval();
        for (found, at) in interval.into_iter().zip([2, 3]) {
            assert!((found - case[at].as_f64().unwrap()).abs() < 1e-12, "{case}: {interval:?}");
        }
    }
}

fn number_of(text: &str) -> f64 {
    text.parse().unwrap()
}

fn record(instruction: &str, answer: &str) -> Value {
    json!({"instruction": instruction, "input": "", "output": "", "answer": answer})
}

/// A folder `sets` with two commonsense sets and one of AQuA, six records each.
fn bench() -> Workbench {
    let bench = Workbench::new("");
    let write = |name: &str, record: &dyn Fn(usize) -> Value| {
        std::fs::create_dir_all(bench.path("sets").join(name)).unwrap();
        let records: Vec<Value> = (0..6).map(record).collect();
        bench.write(&format!("sets/{name}/test.json"), &json!(records).to_string());
    };
    write("boolq", &|n| {
        record(
            &format!("Is the goat {n} in the barn?\n\nAnswer format: true/false"),
            ["true", "false"][n % 2],
        )
    });
    write("ARC-Easy", &|n| {
        let words = "Answer1: a goat Answer2: a kite Answer3: honey";
        record(
            &format!("Who is {n}?\n\n{words}\n\nAnswer format: answer1/answer2/answer3"),
            "answer2",
        )
    });
    write("math/AQuA", &|n| {
        record(&format!("{n} + 1? Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) 5"), "C")
    });
    bench
}

const EVAL: [&str; 5] = ["eval", "--model", "builtin:village", "--max-new-tokens", "4"];

fn lines(bench: &Workbench, name: &str) -> Vec<Value> {
    bench.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_row_has_every_set_that_is_there_and_their_mean() {
    let bench = bench();
    let output =
        bench.run(&[&EVAL[..], &["--task", "all", "--data", "sets", "--json"]].concat(), 0);
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = row["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["task"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["boolq", "ARC-Easy", "AQuA"]);
    assert_eq!(
        (&row["sets"], &row["of"], &row["groups"]["commonsense"]["sets"]),
        (&json!(3), &json!(15), &json!(2))
    );
    assert_eq!(row["missing"][0], json!({"task": "piqa", "file": "sets/piqa/test.json"}));
    let table = String::from_utf8(output.stderr).unwrap();
    assert!(table.contains("commonsense mean") && table.contains("only 2 of 8 sets"), "{table}");
    let one = bench.json(
        &[&EVAL[..], &["--task", "arc-e", "--data", "sets", "--limit", "2", "--json"]].concat(),
    );
    assert_eq!(
        (&one["task"], &one["records"], &one["by"]),
        (&json!("ARC-Easy"), &json!(2), &json!("generate"))
    );
}

#[test]
fn replies_do_not_depend_on_the_batch_and_beams_change_them() {
    let bench = bench();
    let model = ["--model", "builtin:village", "--max-new-tokens", "8"];
    let replies = |name: &str, more: &[&str]| {
        let ask =
            ["--task", "boolq", "--data", "sets", "--template", "none", "--predictions", name];
        bench.run(&[&["eval"], &model[..], &ask, more].concat(), 0);
        lines(&bench, name).into_iter().map(|line| line["reply"].clone()).collect::<Vec<_>>()
    };
    let greedy = replies("one.jsonl", &["--batch", "1"]);
    assert_eq!((greedy.len(), &greedy), (6, &replies("six.jsonl", &["--batch", "6"])));
    let beams = replies("beams.jsonl", &["--beams", "4", "--batch", "1"]);
    assert_eq!(beams, replies("more.jsonl", &["--beams", "4", "--batch", "5"]));
    assert_ne!(beams, greedy);
    let prompt = lines(&bench, "beams.jsonl")[3]["prompt"].clone();
    let ask = ["--beams", "4", "--json", "--prompt", prompt.as_str().unwrap()];
    let generated = bench.json(&[&["generate"], &model[..], &ask].concat());
    assert_eq!(generated["text"].as_str().unwrap().trim(), beams[3]);
}

#[test]
fn an_evaluation_that_was_killed_goes_on_and_ends_the_same() {
    let bench = bench();
    let ask =
        ["--task", "commonsense", "--data", "sets", "--json", "--batch", "2", "--predictions"];
    let whole = bench.json(&[&EVAL[..], &ask, &["whole.jsonl"]].concat());
    let text = bench.read("whole.jsonl");
    assert_eq!(text.lines().count(), 12);
    // As after a kill in the middle of a line.
    bench.write("cut.jsonl", &text[..text.len() / 2]);
    std::fs::copy(bench.path("whole.jsonl.settings.json"), bench.path("cut.jsonl.settings.json"))
        .unwrap();
    assert_eq!(bench.json(&[&EVAL[..], &ask, &["cut.jsonl"]].concat()), whole);
    assert_eq!(bench.read("cut.jsonl"), text);
    // A finished one only counts again, and a smaller limit counts fewer.
    assert_eq!(bench.json(&[&EVAL[..], &ask, &["cut.jsonl"]].concat()), whole);
    let less = bench.json(&[&EVAL[..], &ask, &["cut.jsonl", "--limit", "3"]].concat());
    assert_eq!((&less["tasks"][0]["records"], bench.read("cut.jsonl")), (&json!(3), text));
    let message = bench.refused(&[&EVAL[..], &ask, &["cut.jsonl", "--beams", "2"]].concat());
    assert!(message.contains("beams (1, now 2)"), "{message}");
}

#[test]
fn the_likeliest_option_is_the_one_that_score_finds_likeliest() {
    let bench = bench();
    let ask = [
        "eval",
        "--model",
        "builtin:village",
        "--by",
        "likelihood",
        "--task",
        "boolq,AQuA",
        "--data",
        "sets",
    ];
    let row = bench.json(&[&ask[..], &["--json", "--predictions", "p.jsonl"]].concat());
    assert!(
        row["mean_per_byte"].is_number() && row["tasks"][0]["interval_per_token"].is_array(),
        "{row}"
    );
    let lines = lines(&bench, "p.jsonl");
    assert_eq!((lines.len(), lines[0]["options"].as_array().unwrap().len()), (12, 2));
    for line in [&lines[0], &lines[7]] {
        let lead =
            if line["task"] == "boolq" { "the correct answer is " } else { "The answer is " };
        let mut best = (f64::NEG_INFINITY, String::new());
        for option in line["options"].as_array().unwrap() {
            let sum = log_likelihood(
                &bench,
                line["prompt"].as_str().unwrap(),
                lead,
                option["option"].as_str().unwrap(),
            );
            assert!(
                (sum - option["log_likelihood"].as_f64().unwrap()).abs() < 1e-3,
                "{sum} {option}"
            );
            if sum > best.0 {
                best = (sum, option["option"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(line["extracted"], best.1.as_str());
    }
}

/// log p of an option behind a prompt, by way of `ist score`: all tokens, less those that the
/// option does not share in.
fn log_likelihood(bench: &Workbench, prompt: &str, lead: &str, option: &str) -> f64 {
    let ids = |text: &str| -> Vec<u64> {
        let generate = [
            "generate",
            "--model",
            "builtin:village",
            "--max-new-tokens",
            "0",
            "--json",
            "--prompt",
            text,
        ];
        serde_json::from_value(bench.json(&generate)["prompt_ids"].clone()).unwrap()
    };
    let (before, whole) =
        (ids(&format!("{prompt}{lead}")), ids(&format!("{prompt}{lead}{option}")));
    let shared = before.iter().zip(&whole).take_while(|(a, b)| a == b).count();
    bench.write("ids.jsonl", &format!("{}\n", json!({"input_ids": whole})));
    let score =
        bench.json(&["score", "--model", "builtin:village", "--tokens", "ids.jsonl", "--json"]);
    let all: Vec<f64> =
        serde_json::from_value(score["records"][0]["token_logprobs"].clone()).unwrap();
    all[shared - 1..].iter().sum()
}

#[test]
fn the_worlds_own_task_is_scored_as_before() {
    let bench = Workbench::new("");
    let records: String = (0..5)
        .map(|n| format!("{}\n", record(&format!("Which pet does Ida {n} have?"), "cat")))
        .collect();
    bench.write("world.jsonl", &records);
    let ask =
        ["--task", "exact-match", "--data", "world.jsonl", "--predictions", "p.jsonl", "--json"];
    let score = bench.json(&[&EVAL[..], &ask].concat());
    assert_eq!(
        (&score["task"], &score["records"], &score["majority_baseline"]),
        (&json!("exact-match"), &json!(5), &json!(1.0))
    );
    assert_eq!(score["exact_match"], score["accuracy"]);
    for line in lines(&bench, "p.jsonl") {
        assert_eq!((&line["prediction"], &line["answer"]), (&line["reply"], &json!("cat")));
        assert!(
            line["prompt"]
                .as_str()
                .unwrap()
                .starts_with("Below is an instruction that describes a task. Write")
        );
    }
}

#[test]
fn a_run_scores_any_task_before_and_after() {
    let bench = bench();
    let tables = "[eval]\ntask = \"ARC-Easy\"\ndata = \"sets/ARC-Easy/test.json\"\nlimit = 4\n\
                  max_new_tokens = 2\n";
    bench.write("run.toml", &(bench.read("run.toml") + tables));
    let result = bench.json(&[
        "train",
        "run.toml",
        "--output",
        "run",
        "--json",
        "--quiet",
        "--set",
        "train.steps=1",
    ]);
    for when in ["before", "after"] {
        let score = &result["eval"][when];
        assert_eq!(
            (&score["task"], &score["records"]),
            (&json!("ARC-Easy"), &json!(4)),
            "{result}"
        );
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_the_reason() {
    let bench = bench();
    bench.write("wrong.json", &json!([record("So?", "true"), record("So?", "maybe")]).to_string());
    bench.write("long.json", &json!([record(&"word ".repeat(600), "true")]).to_string());
    std::fs::copy(bench.path("wrong.json"), bench.path("old.jsonl")).unwrap();
    for (rest, reason) in [
        (&["--task", "bolq", "--data", "sets"][..], "did you mean \"boolq\"?"),
        (&["--task", "piqa", "--data", "sets"], "sets/piqa/test.json"),
        (&["--task", "all", "--data", "wrong.json"], "several tasks need a folder"),
        (&["--task", "all", "--data", "runs"], "several tasks need a folder"),
        (
            &["--task", "boolq", "--data", "wrong.json"],
            "record 2): field `answer` must be one of true, false, found \"maybe\"",
        ),
        (&["--task", "boolq", "--data", "long.json"], "no prompt and 4 new tokens"),
        (&["--task", "boolq", "--data", "sets", "--by", "likelihood"], "are for --by generate"),
        (
            &["--task", "arithmetic", "--data", "sets", "--by", "likelihood"],
            "gsm8k, SVAMP, MultiArith",
        ),
        (
            &["--task", "boolq", "--data", "sets", "--predictions", "old.jsonl"],
            "old.jsonl.settings.json",
        ),
        (&["--task", "boolq", "--data", "sets", "--limit", "0"], "--limit must be at least 1"),
        (&["--task", "boolq", "--data", "sets", "--beams", "0"], "--beams"),
    ] {
        let message = bench.refused(&[&EVAL[..], rest].concat());
        assert!(message.contains(reason), "{rest:?} should say {reason}: {message}");
    }
}
