//! The commands' contract: documents on stdout, exit codes, files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Workbench, log};
use serde_json::{Value, json};

const MODEL: [&str; 2] = ["--model", "builtin:village"];

fn with_model<'a>(command: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&[command][..], &MODEL, rest].concat()
}

#[test]
fn a_run_leaves_every_file_of_the_contract() {
    let bench = Workbench::new("");
    let result = bench.json(&["train", "run.toml", "--output", "run", "--json", "--quiet"]);
    let file: Value = serde_json::from_str(&bench.read("run/result.json")).unwrap();
    assert_eq!(result, file);
    assert_eq!(result["status"], "finished");
    assert_eq!(result["train"]["steps"], 10);
    assert!(result["train"]["peak_bytes"].as_u64().unwrap() > 1_000_000);
    let run = bench.path("run");
    let metrics = log(&run, "metrics.jsonl");
    let steps: Vec<u64> = metrics
        .iter()
        .filter(|line| line.get("loss").is_some())
        .map(|l| l["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (0..10).collect::<Vec<_>>());
    assert_eq!(metrics.iter().filter(|line| line.get("eval_loss").is_some()).count(), 3);
    let selections = log(&run, "selections.jsonl");
    assert!(selections.iter().all(|line| line["layers"].as_array().unwrap().len() == 2));
    let updates = log(&run, "importance.jsonl");
    assert_eq!(
        updates.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        [3, 6, 9]
    );
    for update in updates {
        assert_eq!(update["scores"].as_array().unwrap().len(), 8);
        assert_eq!(update["records"].as_array().unwrap().len(), 4);
        let reward = (-update["losses"][0].as_f64().unwrap()).exp();
        assert!((update["rewards"][0].as_f64().unwrap() - reward).abs() < 1e-12);
    }
    for file in
        ["config.toml", "adapter/adapter_config.json", "adapter-best/adapter_model.safetensors"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
    assert_eq!(bench.json(&["inspect", "run", "--json"]), file);
}

#[test]
fn the_resolved_configuration_runs_again_to_the_same_result() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "first", "--quiet"], 0);
    bench.run(&["train", "first/config.toml", "--output", "second", "--quiet"], 0);
    assert_eq!(
        log(&bench.path("first"), "metrics.jsonl"),
        log(&bench.path("second"), "metrics.jsonl")
    );
}

#[test]
fn a_replayed_run_draws_the_same_layers() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "first", "--quiet"], 0);
    let policy = "policy={kind=\"replay\", path=\"first/selections.jsonl\"}";
    bench.run(&["train", "run.toml", "--output", "second", "--quiet", "--set", policy], 0);
    assert_eq!(bench.read("first/selections.jsonl"), bench.read("second/selections.jsonl"));
    let longer = ["--set", policy, "--set", "train.steps=11"];
    let output = bench
        .run(&[&["train", "run.toml", "--output", "third", "--quiet"][..], &longer].concat(), 2);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("no entry for step 10") && !bench.path("third").exists(), "{message}");
}

#[test]
fn scores_do_not_depend_on_the_batch() {
    let bench = Workbench::new("");
    let records = [
        json!({"input_ids": [5, 300, 301, 302]}),
        json!({"input_ids": [7]}),
        json!({"input_ids": [0, 0, 300, 310, 320], "attention_mask": [0, 0, 1, 1, 1]}),
        json!({"input_ids": [300, 310, 320], "labels": [-100, -100, 320]}),
    ];
    let write = |name: &str, records: &[Value]| {
        bench.write(name, &records.iter().map(|record| format!("{record}\n")).collect::<String>());
    };
    write("all.jsonl", &records);
    let all = bench.json(&with_model("score", &["--tokens", "all.jsonl", "--json"]));
    let tokens: Vec<u64> =
        all["records"].as_array().unwrap().iter().map(|r| r["tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [3, 0, 2, 1]);
    assert_eq!(all["records"][1]["loss"], Value::Null);
    for (index, record) in records.iter().enumerate() {
        write("one.jsonl", std::slice::from_ref(record));
        let one = bench.json(&with_model("score", &["--tokens", "one.jsonl", "--json"]));
        for (a, b) in one["records"][0]["token_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .zip(all["records"][index]["token_logprobs"].as_array().unwrap())
        {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5);
        }
    }
}

#[test]
fn an_adapter_scores_and_generates_as_its_merged_model() {
    let bench = Workbench::new("");
    bench
        .run(&["train", "run.toml", "--output", "run", "--quiet", "--set", "optimizer.lr=0.02"], 0);
    let adapter = ["--adapter", "run/adapter"];
    bench.run(&[&with_model("merge", &adapter)[..], &["--output", "merged"]].concat(), 0);
    let score = |arguments: &[&str]| {
        bench.json(&[arguments, &["--tokens", "train.jsonl", "--json"]].concat())["loss"]
            .as_f64()
            .unwrap()
    };
    let (base, adapted) = (score(&with_model("score", &[])), score(&with_model("score", &adapter)));
    let merged = score(&["score", "--model", "merged"]);
    assert!((base - adapted).abs() > 0.01, "{base} {adapted}");
    // The merged weights are rounded to the model's own storage type.
    assert!((adapted - merged).abs() < 0.05 * (base - adapted).abs(), "{adapted} {merged}");
    let ids = ["--input-ids", "0,300,301", "--max-new-tokens", "5", "--json"];
    let generated = bench.json(&[&["generate", "--model", "merged"][..], &ids].concat());
    assert!(generated["output_ids"].as_array().unwrap().len() <= 5);
    assert_eq!(generated["prompt_ids"], json!([0, 300, 301]));
}

#[test]
fn generation_is_the_same_for_the_same_seed() {
    let bench = Workbench::new("");
    let sample = |seed: &str| {
        let rest = [
            "--prompt",
            "Mira",
            "--temperature",
            "1.0",
            "--top-k",
            "20",
            "--top-p",
            "0.9",
            "--seed",
            seed,
            "--json",
        ];
        bench.json(&with_model("generate", &rest))["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn a_plan_counts_without_loading() {
    let bench = Workbench::new("");
    let plan = bench.json(&["plan", "run.toml", "--json"]);
    let result = bench.json(&["train", "run.toml", "--output", "run", "--json", "--quiet"]);
    assert_eq!(plan["parameters"]["trainable"], result["train"]["parameters"]["trainable"]);
    let total = result["train"]["parameters"]["total"].as_u64().unwrap()
        - plan["parameters"]["trainable"].as_u64().unwrap();
    assert_eq!(plan["parameters"]["frozen"], total);
    assert_eq!(plan["layers_updated"], 2);
    assert_eq!(plan["micro_batch"], json!({"records": 2, "sequence": 10}));
    for kind in
        ["weights", "adapters", "gradients", "optimizer", "activations", "logits", "scoring"]
    {
        assert!(plan["bytes"][kind].as_u64().unwrap() > 0, "{kind}: {plan}");
    }
    let peak = |plan: &Value| plan["peak_bytes"].as_u64().unwrap();
    let (keep, recompute) = (&plan["treatments"]["keep"], &plan["treatments"]["recompute"]);
    assert!(
        peak(&recompute["worst"]) < peak(&keep["worst"])
            && peak(&keep["worst"]) < peak(&plan["plain_peft"])
    );
    assert!(peak(&keep["expected"]) <= peak(&keep["worst"]));
    let text = String::from_utf8(bench.run(&["plan", "run.toml"], 0).stdout).unwrap();
    assert!(text.contains("plain PEFT") && text.contains("worst draw"), "{text}");
}

#[test]
fn a_run_stays_within_its_budget_and_compares_prediction_with_measurement() {
    let bench = Workbench::new("");
    // Long rows, so that activations weigh more than what is not counted.
    let rows: String =
        (0..12).map(|n| format!("{}\n", json!({"input_ids": vec![300 + n; 200]}))).collect();
    bench.write("train.jsonl", &rows);
    let plan = bench.json(&["plan", "run.toml", "--json"]);
    let of = |name: &str| plan["treatments"][name]["worst"]["peak_bytes"].as_u64().unwrap();
    let budget = format!("memory.budget={}", of("recompute").midpoint(of("keep")));
    let planned = bench.json(&["plan", "run.toml", "--json", "--set", &budget]);
    let worst = &planned["treatments"]["budget"]["worst"];
    assert!(
        !worst["kept"].as_array().unwrap().is_empty()
            && !worst["recomputed"].as_array().unwrap().is_empty()
    );
    let train = ["train", "run.toml", "--output", "run", "--json", "--quiet", "--set", &budget];
    let result = bench.json(&train);
    let memory = &result["memory"];
    let bytes = |key: &str| memory[key].as_u64().unwrap();
    assert!(bytes("predicted_peak_bytes") <= bytes("budget_bytes"), "{memory}");
    assert_eq!(bytes("measured_peak_bytes"), result["train"]["peak_bytes"].as_u64().unwrap());
    let ratio = memory["predicted_to_measured"].as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.1, "{memory}");
    let scoring = &result["scoring"];
    assert_eq!(scoring["updates"], 3);
    assert!(
        scoring["peak_bytes"].as_u64().unwrap() < bytes("measured_peak_bytes"),
        "{scoring} {memory}"
    );
    assert!(scoring["share"].as_f64().unwrap() > 0.0 && scoring["share"].as_f64().unwrap() < 1.0);
}

#[test]
fn a_budget_that_cannot_be_met_is_refused_with_what_would_fit() {
    let bench = Workbench::new("");
    let rows: String =
        (0..12).map(|n| format!("{}\n", json!({"input_ids": vec![300 + n; 200]}))).collect();
    bench.write("train.jsonl", &rows);
    let plan = bench.json(&["plan", "run.toml", "--json"]);
    let fixed: u64 = ["weights", "adapters", "optimizer", "data", "workspace"]
        .iter()
        .map(|k| plan["bytes"][k].as_u64().unwrap())
        .sum();
    let least = plan["treatments"]["recompute"]["worst"]["peak_bytes"].as_u64().unwrap();
    let budget = format!("memory.budget={}", fixed + (least - fixed) * 3 / 4);
    for command in [vec!["plan", "run.toml"], vec!["train", "run.toml", "--output", "run"]] {
        let message = bench.refused(&[&command[..], &["--set", &budget]].concat());
        for part in [
            "`memory.budget` is",
            "at least",
            "raise it to",
            "`train.micro_batch` to 1",
            "`data.cutoff` to 100",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    assert!(!bench.path("run").exists());
    let message = bench.refused(&["plan", "run.toml", "--set", "memory.budget=1.5Gigs"]);
    assert!(message.contains("must be one of") && message.contains("\"1.5Gigs\""), "{message}");
}

#[test]
fn devices_and_schema_are_documents() {
    let bench = Workbench::new("");
    let devices = bench.json(&["devices", "--json"]);
    assert!(
        devices["devices"]
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["name"] == "flex" && d["present"] == true)
    );
    assert!(bench.json(&["schema"])["properties"]["optimizer"].is_object());
}

#[test]
fn bad_usage_is_exit_code_2_with_the_reason() {
    let bench = Workbench::new("");
    bench.write("empty.jsonl", "");
    bench.write("bad.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, -2]}\n");
    bench.write("long.jsonl", &format!("{}\n", json!({"input_ids": vec![5; 600]})));
    let cases: [(Vec<&str>, &str); 14] = [
        (vec!["report", "none"], "none"),
        (vec!["trian"], "did you mean `train`"),
        (vec!["train", "none.toml"], "none.toml"),
        (
            vec!["train", "run.toml", "--device", "cuda"],
            "not compiled in: build with the feature `cuda`",
        ),
        (
            vec!["train", "run.toml", "--set", "optimizer.lrr=1", "--set", "train.steps=-1"],
            "optimizer.lr",
        ),
        (vec!["train", "run.toml", "--set", "adapter.r=0"], "adapter.r"),
        (vec!["train", "run.toml", "--set", "adapter.targets=[\"nothing\"]"], "q_proj"),
        (vec!["train", "run.toml", "--set", "policy.layers_updated=9"], "layers_updated"),
        (vec!["train", "run.toml", "--set", "data.cutoff=4096"], "512"),
        (vec!["score", "--model", "builtin:none", "--tokens", "bad.jsonl"], "builtin:village"),
        (with_model("score", &["--tokens", "bad.jsonl"]), "line 2"),
        (with_model("score", &["--tokens", "long.jsonl"]), "512"),
        (with_model("generate", &["--input-ids", "99999"]), "99999"),
        (with_model("eval", &["--task", "none", "--data", "bad.jsonl"]), "exact-match"),
    ];
    for (arguments, reason) in cases {
        let message = bench.refused(&arguments);
        assert!(message.contains(reason), "{arguments:?} should say {reason}: {message}");
    }
    assert!(!bench.path("runs").exists(), "a refused run leaves no folder");
}

#[test]
fn a_hostile_model_folder_is_refused() {
    let bench = Workbench::new("");
    std::fs::create_dir(bench.path("model")).unwrap();
    let score = ["score", "--model", "model", "--tokens", "train.jsonl"];
    assert!(bench.refused(&score).contains("config.json"));
    bench.write("model/config.json", "{\"model_type\": \"mamba\"}");
    assert!(bench.refused(&score).contains("supported are llama"));
    bench.write("model/config.json", "{\"model_type\": \"llama\"}");
    assert!(bench.refused(&score).contains("vocab_size"));
    bench.write(
        "model/config.json",
        r#"{"model_type": "llama", "vocab_size": 900, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}"#,
    );
    assert!(bench.refused(&score).contains("model.safetensors"));
    std::fs::write(
        bench.path("model/model.safetensors"),
        [1000u64.to_le_bytes().as_slice(), b"{}"].concat(),
    )
    .unwrap();
    assert!(bench.refused(&score).contains("longer than the file"));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_last_checkpoint() {
    let bench = Workbench::new("");
    let output = bench.run(
        &[
            "train",
            "run.toml",
            "--output",
            "run",
            "--quiet",
            "--set",
            "optimizer.lr=1e30",
            "--set",
            "optimizer.clip_norm=0",
        ],
        1,
    );
    let message = String::from_utf8(output.stderr).unwrap();
    // The first step's update ruins the parameters, so the only good ones are those before it.
    assert!(message.contains("in step") && message.contains("checkpoints/0"), "{message}");
}

#[test]
fn only_layers_with_adapters_are_drawn() {
    let bench = Workbench::new("");
    let adapted =
        ["--set", "adapter.layers_to_transform=[2, 5, 6, 7]", "--set", "policy.layers_updated=2"];
    bench.run(&[&["train", "run.toml", "--output", "run", "--quiet"][..], &adapted].concat(), 0);
    for line in log(&bench.path("run"), "selections.jsonl") {
        let layers: Vec<u64> = line["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer.as_u64().unwrap())
            .collect();
        assert!(
            layers.len() == 2 && layers.iter().all(|layer| [2, 5, 6, 7].contains(layer)),
            "{line}"
        );
    }
    let fixed = ["--set", "policy={kind=\"fixed\", layers=[1, 2]}"];
    let message = bench.refused(&[&["train", "run.toml"][..], &adapted[..2], &fixed].concat());
    assert!(message.contains("[2, 5, 6, 7], but is [1, 2]"), "{message}");
}

#[test]
fn a_sample_prompt_that_cannot_be_continued_is_refused_before_the_run() {
    let bench = Workbench::new("");
    let long = [
        "--set",
        "train.sample_prompts=[\"Mira\"]",
        "--set",
        "train.sample_tokens=600",
        "--output",
        "run",
    ];
    let message = bench.refused(&[&["train", "run.toml"][..], &long].concat());
    assert!(message.contains("train.sample_prompts") && !bench.path("run").exists(), "{message}");
}

#[test]
fn targets_are_written_out_in_the_resolved_configuration() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let text = bench.read("run/config.toml");
    for name in ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"] {
        assert!(text.contains(&format!("\"{name}\"")), "{text}");
    }
}

#[test]
fn parameters_that_are_no_numbers_are_never_saved() {
    let bench = Workbench::new("");
    let ruin = [
        "--set",
        "optimizer.lr=1e39",
        "--set",
        "optimizer.warmup_steps=0",
        "--set",
        "train.steps=1",
    ];
    let output =
        bench.run(&[&["train", "run.toml", "--output", "run", "--quiet"][..], &ruin].concat(), 1);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("is not finite after step 0") && message.contains("checkpoints/0"),
        "{message}"
    );
    for name in ["adapter", "adapter-best", "checkpoints/1"] {
        assert!(!bench.path("run").join(name).exists(), "{name}");
    }
}

#[test]
fn faults_of_data_adapter_and_policy_are_told_at_once() {
    let bench = Workbench::new("");
    bench.write("bad.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 99999]}\n");
    let settings = [
        "data.train=\"bad.jsonl\"",
        "adapter.targets=[\"q_proj\", \"nope\"]",
        "policy.layers_updated=9",
    ];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>();
    let message = bench.refused(&[&["train", "run.toml"][..], &settings].concat());
    for part in
        ["bad.jsonl", "targets nope are no module", "q_proj, k_proj", "policy.layers_updated"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_merged_model_appears_in_a_new_folder_only() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let merge = ["merge", "--model", "builtin:village", "--adapter", "run/adapter", "--output"];
    bench.run(&[&merge[..], &["merged"]].concat(), 0);
    bench.run(&["generate", "--model", "merged", "--prompt", "Mira", "--max-new-tokens", "3"], 0);
    assert!(bench.refused(&[&merge[..], &["merged"]].concat()).contains("already holds a model"));
    assert!(bench.refused(&[&merge[..], &["run"]].concat()).contains("holds other files"));
}

#[test]
fn the_processor_passes_its_own_conformance_suite() {
    let bench = Workbench::new("");
    for device in ["flex", "ndarray"] {
        let report = bench.json(&["selftest", "--device", device, "--json"]);
        assert_eq!(report["failed"], 0, "{report:#}");
        assert!(report["checks"].as_array().unwrap().len() > 40);
    }
    let message = bench.refused(&["selftest", "--device", "cuda"]);
    assert!(message.contains("not compiled in"), "{message}");
    assert!(bench.refused(&["selftest", "--device", "flex,ndarray"]).contains("--markdown"));
}

#[test]
fn steps_on_random_weights_are_measured() {
    let bench = Workbench::new("");
    let shape = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    });
    bench.write("shape.json", &shape.to_string());
    let run = |more: &[&str]| {
        let fixed = [
            "bench",
            "--config",
            "shape.json",
            "--device",
            "flex",
            "--batch",
            "2",
            "--seq",
            "8",
            "--warmup",
            "1",
        ];
        bench.json(&[&fixed[..], &["--steps", "11", "--json"], more].concat())
    };
    let figures = run(&["--policy", "ist", "--dtype", "bfloat16", "--memory", "recompute"]);
    assert_eq!(
        (&figures["batch"], &figures["policy"], &figures["parameters"]),
        (&json!(2), &json!("ist"), &json!(35_104))
    );
    for name in [
        "tokens_per_second",
        "step_ms",
        "score_ms",
        "peak_bytes",
        "weights_bytes",
        "share_of_peak",
        "loss_last",
    ] {
        assert!(figures[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {figures:#}");
    }
    assert!(run(&["--policy", "fixed:3", "--dtype", "float32"])["score_ms"].is_null());
    let refused = |more: &[&str]| {
        bench.refused(&[&["bench", "--config", "shape.json", "--device", "flex"], more].concat())
    };
    assert!(refused(&["--policy", "fixed:9"]).contains('9'));
    assert!(refused(&["--memory", "auto"]).contains("expected keep, recompute or a size"));
    assert!(bench.refused(&["bench", "--config", "none.json"]).contains("none.json"));
}

#[test]
fn a_view_without_a_terminal_is_refused_before_anything_starts() {
    let bench = Workbench::new("");
    let told = bench.refused(&["train", "run.toml", "--output", "run", "--tui"]);
    assert!(told.contains("`--tui` needs a terminal") && !bench.path("run").exists(), "{told}");
    let told = bench.refused(&["train", "run.toml", "--output", "run", "--tui", "--quiet"]);
    assert!(told.contains("leave one out"), "{told}");
    assert!(bench.refused(&["watch", "."]).contains("not a run's folder"));
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    assert!(bench.refused(&["watch", "run"]).contains("`ist watch` needs a terminal"));
}

#[test]
fn a_plan_with_a_scaled_loss_holds_all_gradients_together() {
    let bench = Workbench::new("");
    let plan = |loss_scaling: &str| {
        let scaling = format!("train.loss_scaling={loss_scaling}");
        let mut arguments = vec!["plan", "run.toml", "--json", "--set", &scaling];
        // Nothing else needs them together.
        for set in ["optimizer.clip_norm=0", "train.micro_batch=4", "policy.layers_updated=2"] {
            arguments.extend(["--set", set]);
        }
        bench.json(&arguments)["bytes"]["gradients"].as_u64().unwrap()
    };
    let layers = plan("on") / plan("off");
    assert!(layers > 1, "the gradients of {layers} layers");
}
