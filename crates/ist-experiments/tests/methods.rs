//! Every PEFT method from its configuration to a merged model, by the command line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Workbench;
use serde_json::{Value, json};

/// A method's table, and whether it can be merged.
struct Case {
    adapter: &'static str,
    merges: bool,
}

const CASES: &[Case] = &[
    Case {
        adapter: "{method = 'lora', r = 2, freeze_a = true, loraplus_lr_ratio = 4}",
        merges: true,
    },
    Case { adapter: "{method = 'lora', r = 2, init_lora_weights = 'pissa'}", merges: true },
    Case {
        adapter: "{method = 'lora', r = 2, init_lora_weights = 'olora', use_rslora = true}",
        merges: true,
    },
    Case { adapter: "{method = 'dora', r = 2, dropout = 0.1}", merges: true },
    Case { adapter: "{method = 'vera', r = 16}", merges: true },
    Case { adapter: "{method = 'series', bottleneck_size = 4, dropout = 0.1}", merges: false },
    Case {
        adapter: "{method = 'adapterp', bottleneck_size = 4, non_linearity = 'gelu'}",
        merges: false,
    },
    Case {
        adapter: "{method = 'parallel', bottleneck_size = 4, layers_to_transform = [0, 2, 5, 7]}",
        merges: false,
    },
    Case { adapter: "{method = 'ia3'}", merges: true },
    Case { adapter: "{method = 'prefix-tuning', num_virtual_tokens = 3}", merges: false },
    Case { adapter: "{method = 'layernorm'}", merges: true },
    Case { adapter: "{method = 'full'}", merges: true },
    Case {
        adapter: "{method = 'lora', r = 2, dropout = 0.1, modules_to_save = ['embed_tokens']}",
        merges: true,
    },
    // The built-in model's head is its embedding, so these untie it.
    Case { adapter: "{method = 'lora', r = 2, targets = ['q_proj', 'lm_head']}", merges: true },
    Case {
        adapter: "{method = 'lora', r = 2, modules_to_save = ['embed_tokens', 'lm_head']}",
        merges: true,
    },
];

/// A run of `adapter` over the workbench's data, at a rate at which ten steps show.
fn configured(adapter: &str) -> Workbench {
    let bench = Workbench::new("");
    let text = bench.read("run.toml").replace("[adapter]\nr = 2\nalpha = 4\ndropout = 0.1\n", "");
    let text = text.replace("lr = 1e-3", "lr = 1e-2");
    bench.write("run.toml", &format!("adapter = {adapter}\n{text}"));
    bench
}

fn score(bench: &Workbench, more: &[&str]) -> f64 {
    let report = bench.json(&[&["score", "--tokens", "train.jsonl", "--json"][..], more].concat());
    report["loss"].as_f64().unwrap()
}

#[test]
fn every_method_trains_and_is_saved_scored_and_merged_or_refused() {
    for Case { adapter, merges } in CASES {
        let bench = configured(adapter);
        // A prefix begins away from the base model and VeRA's vectors act through small random
        // matrices: both are known to want a high rate.
        let high = adapter.contains("prefix") || adapter.contains("vera");
        let rate = if high { "optimizer.lr=0.3" } else { "optimizer.lr=1e-2" };
        let result = bench
            .json(&["train", "run.toml", "--output", "run", "--json", "--quiet", "--set", rate]);
        let base = score(&bench, &["--model", "builtin:village"]);
        let adapted = score(&bench, &["--model", "builtin:village", "--adapter", "run/adapter"]);
        assert!(adapted < base - 0.05, "{adapter}: {adapted} against {base}");
        let ratio = result["memory"]["predicted_to_measured"].as_f64().unwrap();
        assert!((0.85..1.15).contains(&ratio), "{adapter}: predicted {ratio} of the measured peak");
        let merge = [
            "merge",
            "--model",
            "builtin:village",
            "--adapter",
            "run/adapter",
            "--output",
            "merged",
        ];
        if !merges {
            assert!(bench.refused(&merge).contains("cannot be merged"), "{adapter}");
            assert!(!bench.path("merged").exists());
            continue;
        }
        bench.run(&merge, 0);
        // The built-in model is stored in bf16, and so is the merged one.
        let merged = score(&bench, &["--model", "merged"]);
        assert!(
            (merged - adapted).abs() < 0.05 * (base - adapted),
            "{adapter}: {merged} against {adapted}"
        );
    }
}

#[test]
fn every_method_resumes_bit_for_bit_whatever_is_kept() {
    for Case { adapter, .. } in CASES {
        let bench = configured(adapter);
        bench.run(
            &[
                "train",
                "run.toml",
                "--output",
                "run",
                "--quiet",
                "--set",
                "memory.budget=recompute",
            ],
            0,
        );
        let whole = std::fs::read(bench.path("run/adapter/adapter_model.safetensors")).unwrap();
        std::fs::remove_dir_all(bench.path("run/checkpoints/10")).unwrap();
        std::fs::remove_dir_all(bench.path("run/adapter")).unwrap();
        let resume = [
            "train",
            "run.toml",
            "--output",
            "run",
            "--quiet",
            "--resume",
            "--set",
            "memory.budget=recompute",
        ];
        bench.run(&resume, 0);
        assert!(
            std::fs::read(bench.path("run/adapter/adapter_model.safetensors")).unwrap() == whole,
            "{adapter}"
        );
    }
}

#[test]
fn several_adapters_train_together_and_each_has_its_folder() {
    let two = "[{method = 'lora', r = 2, targets = ['q_proj']}, \
               {method = 'parallel', bottleneck_size = 4, targets = ['down_proj']}]";
    let bench = configured(two);
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    for name in ["lora", "parallel"] {
        assert!(bench.path(&format!("run/adapter/{name}/adapter_config.json")).is_file(), "{name}");
    }
    let described = bench.json(&["inspect", "run/adapter", "--json"]);
    assert_eq!(described["adapters"]["parallel"]["method"], "parallel");
    let base = score(&bench, &["--model", "builtin:village"]);
    let both = score(&bench, &["--model", "builtin:village", "--adapter", "run/adapter"]);
    let one = score(&bench, &["--model", "builtin:village", "--adapter", "run/adapter/lora"]);
    assert!(both < one && one < base, "{both} {one} {base}");
    let clash =
        configured("[{targets = ['q_proj']}, {method = 'ia3', targets = ['q_proj', 'k_proj']}]");
    let message = clash.refused(&["train", "run.toml", "--output", "run"]);
    assert!(
        message
            .contains("model.layers.0.self_attn.q_proj would carry two adapters, `lora` and `ia3`"),
        "{message}"
    );
}

#[test]
fn a_run_goes_on_from_the_adapter_of_another() {
    let bench = configured("{method = 'ia3'}");
    bench.run(&["train", "run.toml", "--output", "first", "--quiet"], 0);
    bench.run(
        &[
            "train",
            "run.toml",
            "--output",
            "second",
            "--quiet",
            "--set",
            "adapter={init_from='first/adapter'}",
        ],
        0,
    );
    let losses = |run: &str| -> Vec<f64> {
        let lines = bench.read(&format!("{run}/metrics.jsonl"));
        lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["eval_loss"].as_f64())
            .collect()
    };
    let (first, second) = (losses("first"), losses("second"));
    assert!(second[0] < first[0], "{second:?} {first:?}");
}

#[test]
fn methods_and_fields_that_do_not_fit_are_refused_by_name() {
    for (adapter, expected) in [
        ("{method = 'bitfit'}", "bitfit sits on modules that have a bias, and the model has none"),
        ("{method = 'series', targets = ['q_proj']}", "are no module that series can sit on"),
        ("{method = 'series', non_linearity = 'tanhh'}", "`adapter.non_linearity` must be one of"),
        ("{method = 'prefix-tuning', targets = ['q_proj']}", "`adapter.targets`"),
        ("{method = 'ia3', layers_to_transform = [1]}", "`adapter.layers_to_transform`"),
        ("{method = 'ia3', r = 4}", "`adapter.r` belongs to adapter.method = "),
        ("{method = 'lora', modules_to_save = ['lm_hea']}", "lm_hea"),
        ("{method = 'loha'}", "not yet available"),
    ] {
        let message = configured(adapter).refused(&["train", "run.toml", "--output", "run"]);
        assert!(message.contains(expected), "{adapter}: {message}");
    }
}

#[test]
fn merging_several_adapters_needs_a_weight_for_each() {
    let bench = configured("{method = 'lora', r = 2, targets = ['q_proj', 'v_proj']}");
    for run in ["a", "b"] {
        let seed = format!("seed={}", run.len() + usize::from(run == "b"));
        bench.run(&["train", "run.toml", "--output", run, "--quiet", "--set", &seed], 0);
    }
    let two = [
        "merge",
        "--model",
        "builtin:village",
        "--adapter",
        "a/adapter",
        "--adapter",
        "b/adapter",
        "--output",
    ];
    let message = bench.refused(&[&two[..], &["none"]].concat());
    assert!(message.contains("`--weights` has 0 weights for 2 adapters"), "{message}");
    bench.run(&[&two[..], &["sum", "--weights", "1.0,0.0"]].concat(), 0);
    bench.run(&[&two[..], &["nothing", "--weights", "1.0,-1.0", "--quiet"]].concat(), 0);
    let alone = score(&bench, &["--model", "builtin:village", "--adapter", "a/adapter"]);
    let base = score(&bench, &["--model", "builtin:village"]);
    assert!((score(&bench, &["--model", "sum"]) - alone).abs() < 0.05 * (base - alone));
}

#[test]
fn an_adapter_is_converted_for_llama_cpp_and_from_older_programs() {
    let bench = configured("{method = 'lora', r = 2, targets = ['q_proj', 'v_proj']}");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let convert = ["convert", "--adapter", "run/adapter", "--to", "gguf", "--output", "a.gguf"];
    assert!(bench.refused(&convert).contains("needs `--model`"));
    bench.run(&[&convert[..], &["--model", "builtin:village"]].concat(), 0);
    assert!(std::fs::read(bench.path("a.gguf")).unwrap().starts_with(b"GGUF"));
    assert!(
        bench
            .refused(&[&convert[..], &["--model", "builtin:village"]].concat())
            .contains("exists already")
    );

    bench.run(&["convert", "--adapter", "run/adapter", "--to", "peft", "--output", "again"], 0);
    let loss = |adapter: &str| score(&bench, &["--model", "builtin:village", "--adapter", adapter]);
    assert_eq!(loss("again"), loss("run/adapter"));
    std::fs::create_dir(bench.path("pickled")).unwrap();
    bench.write("pickled/adapter_config.json", &json!({"peft_type": "LORA", "r": 2}).to_string());
    bench.write("pickled/adapter_model.bin", "");
    let message =
        bench.refused(&["convert", "--adapter", "pickled", "--to", "peft", "--output", "other"]);
    assert!(message.contains("pickled tensors are not read"), "{message}");
}
