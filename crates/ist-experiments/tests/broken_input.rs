//! Input that cannot be meant: broken files and absurd numbers end with exit code 2 and a message
//! that names what is wrong, and neither hang nor crash.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Workbench;

/// How long a refusal may take.
const SOON: Duration = Duration::from_mins(1);

/// Runs the command; its exit code and message. Fails the test when it does not end soon.
fn ended(bench: &Workbench, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = bench.ist(arguments);
    let stderr = std::fs::File::create(bench.path("stderr.txt")).unwrap();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > SOON {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("ist {arguments:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = std::fs::read(bench.path("stderr.txt")).unwrap();
    (status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A workbench with a run, a model in a folder, and a study.
fn bench() -> Workbench {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet", "--set", "train.steps=3"], 0);
    let merge = ["merge", "--model", "builtin:village", "--adapter", "run/adapter"];
    bench.run(&[&merge[..], &["--output", "model", "--quiet"]].concat(), 0);
    bench.write("study.toml", "extends = \"run.toml\"\nseeds = 2\n");
    bench.write("records.json", r#"[{"instruction": "a", "input": "", "output": "b"}]"#);
    bench.write("replay.jsonl", "{\"step\": 0, \"layers\": [0]}\n");
    let of_ist = "kind = \"ist\"\ninterval = 3\nscore_batch = 4\n";
    let replay = "kind = \"replay\"\npath = \"replay.jsonl\"\n";
    bench.write("replay.toml", &bench.read("run.toml").replace(of_ist, replay));
    bench
}

/// The damage of a folder in a file's place.
const A_FOLDER: &str = "a folder in its place";

/// What a file may have become.
fn damages(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("no text", vec![0xff, 0xfe, 0x00, 0x80]),
        ("another document", b"[[[1, 2], null]]".to_vec()),
        ("cut off", text[..text.len() / 2].to_vec()),
    ]
}

#[test]
fn a_broken_file_is_bad_input_and_is_named() {
    let bench = bench();
    let tokens = ["--tokens", "train.jsonl"];
    let score = |rest: &[&'static str]| [&["score"][..], &tokens, rest].concat();
    let of_model = score(&["--model", "model"]);
    let of_adapter = score(&["--model", "builtin:village", "--adapter", "run/adapter"]);
    let train = |key: &'static str| vec!["train", "run.toml", "--output", "new", "--set", key];
    let eval = ["eval", "--model", "builtin:village", "--task", "exact-match", "--data"];
    let eval =
        |rest: &[&'static str]| [&eval[..], &["records.json", "--limit", "1"], rest].concat();
    let prompt = vec!["generate", "--model", "model", "--prompt", "a", "--max-new-tokens", "1"];
    let resume = vec!["train", "run.toml", "--output", "run", "--resume", "--set", "train.steps=4"];
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("run.toml", vec!["train", "run.toml", "--output", "new"]),
        ("run.toml", vec!["plan", "run.toml"]),
        ("study.toml", vec!["run", "study.toml", "--dry-run"]),
        ("train.jsonl", vec!["train", "run.toml", "--output", "new"]),
        ("train.jsonl", score(&["--model", "builtin:village"])),
        ("records.json", train("data.train=records.json")),
        ("records.json", eval(&[])),
        ("replay.jsonl", vec!["train", "replay.toml", "--output", "new"]),
        ("model/config.json", of_model.clone()),
        ("model/model.safetensors", of_model.clone()),
        ("model/tokenizer.json", prompt.clone()),
        ("model/generation_config.json", prompt.clone()),
        ("model/tokenizer_config.json", prompt),
        ("model/config.json", vec!["inspect", "model"]),
        ("run/adapter/adapter_config.json", of_adapter.clone()),
        ("run/adapter/adapter_model.safetensors", of_adapter),
        ("run/adapter/adapter_config.json", vec!["inspect", "run/adapter"]),
        ("run/adapter/adapter_config.json", train("adapter.init_from=run/adapter")),
        ("run/result.json", vec!["inspect", "run"]),
        ("run/config.toml", resume),
    ];
    let mut faults = Vec::new();
    for (file, command) in cases {
        let path = bench.path(file);
        // A model need not have every file.
        let whole = std::fs::read(&path).ok();
        let mut damaged = damages(whole.as_deref().unwrap_or(b"{}"));
        damaged.push((A_FOLDER, Vec::new()));
        for (damage, bytes) in damaged {
            let _ = std::fs::remove_file(&path);
            if damage == A_FOLDER {
                std::fs::create_dir(&path).unwrap();
            } else {
                std::fs::write(&path, bytes).unwrap();
            }
            let (code, message) = ended(&bench, &command);
            let remove =
                if damage == A_FOLDER { std::fs::remove_dir } else { std::fs::remove_file };
            remove(&path).unwrap();
            if let Some(whole) = &whole {
                std::fs::write(&path, whole).unwrap();
            }
            let _ = std::fs::remove_dir_all(bench.path("new"));
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            // Some damages leave a file that can be read, if not as it was meant.
            let fine = code == Some(0) && !message.contains("panicked");
            if !fine && (code != Some(2) || !message.contains(name) || message.contains("panicked"))
            {
                faults.push(format!(
                    "{file}, {damage}: ist {command:?} ended with {code:?}\n{message}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn a_number_that_cannot_be_meant_is_refused_or_works() {
    let bench = bench();
    let of_model = |command: &'static str, rest: &[&'static str]| {
        [&[command, "--model", "builtin:village"][..], rest].concat()
    };
    let generate =
        |rest: &[&'static str]| of_model("generate", &[&["--prompt", "a"][..], rest].concat());
    let eval = |rest: &[&'static str]| {
        of_model("eval", &[&["--task", "exact-match", "--data", "records.json"][..], rest].concat())
    };
    let little = ["bench", "--config", "model/config.json", "--steps", "1", "--warmup", "0"];
    let measure = |rest: &[&'static str]| [&little[..], rest].concat();
    for number in ["0", "-1", "1000000000", "18446744073709551615"] {
        let commands = [
            generate(&["--max-new-tokens", number]),
            generate(&["--max-new-tokens", "1", "--beams", number]),
            generate(&["--max-new-tokens", "1", "--temperature", "1", "--top-k", number]),
            generate(&["--max-new-tokens", "1", "--temperature", "1", "--seed", number]),
            of_model("generate", &["--max-new-tokens", "1", "--input-ids", number]),
            eval(&["--max-new-tokens", "1", "--limit", number]),
            eval(&["--max-new-tokens", "1", "--batch", number]),
            eval(&["--max-new-tokens", "1", "--beams", number]),
            eval(&["--max-new-tokens", number]),
            of_model("chat", &["--max-new-tokens", number]),
            measure(&["--seq", number]),
            measure(&["--batch", number, "--seq", "8"]),
            measure(&["--micro-batch", number, "--batch", "1", "--seq", "8"]),
            measure(&["--r", number, "--batch", "1", "--seq", "8"]),
            vec!["world", "--output", "world", "--seed", number, "--quiet"],
            vec!["run", "study.toml", "--dry-run", "--jobs", number],
            vec!["run", "study.toml", "--slurm=job.sbatch", "--chunk", number],
        ];
        for command in commands {
            let (code, message) = ended(&bench, &command);
            let _ = std::fs::remove_file(bench.path("job.sbatch"));
            let known = code == Some(0) || code == Some(2);
            assert!(known && !message.contains("panicked"), "{command:?} {code:?}\n{message}");
        }
    }
}

/// Keys of a run that take a whole number.
const COUNTS: [&str; 24] = [
    "seed",
    "data.cutoff",
    "data.validation_records",
    "adapter.r",
    "adapter.rank_pattern.q_proj",
    "adapter.layers_to_transform",
    "policy.layers_updated",
    "policy.layers_suppressed",
    "policy.candidates",
    "policy.interval",
    "policy.score_batch",
    "optimizer.warmup_steps",
    "train.batch",
    "train.micro_batch",
    "train.eval_every",
    "train.save_every",
    "train.keep_last",
    "train.early_stopping",
    "train.sample_tokens",
    "eval.limit",
    "eval.max_new_tokens",
    "seeds",
    "train.epochs",
    "memory.budget",
];

#[test]
fn a_number_in_a_configuration_that_cannot_be_meant_is_refused_or_works() {
    let bench = bench();
    let eval = "[eval]\ntask = \"exact-match\"\ndata = \"records.json\"\nmax_new_tokens = 1\n";
    bench.write("run.toml", &(bench.read("run.toml") + eval));
    let plain = bench.read("run.toml");
    for key in COUNTS {
        // An integer of TOML has 63 bits.
        for number in ["0", "1000000000", "9223372036854775807"] {
            let set = format!("{key}={number}");
            let run = if key == "train.epochs" {
                bench.write("run.toml", &plain.replace("steps = 10\n", ""));
                "plan"
            } else {
                bench.write("run.toml", &plain);
                "train"
            };
            let mut command = vec![run, "run.toml", "--set", &set];
            if run == "train" {
                command.extend(["--set", "train.steps=1", "--output", "new", "--quiet"]);
            }
            let (code, message) = ended(&bench, &command);
            let _ = std::fs::remove_dir_all(bench.path("new"));
            let known = code == Some(0) || code == Some(2);
            assert!(known && !message.contains("panicked"), "{set} {code:?}\n{message}");
        }
    }
}

#[test]
fn as_many_seeds_as_nobody_runs_are_refused() {
    let bench = Workbench::new("");
    let toml = bench.read("run.toml");
    bench.write("study.toml", &format!("seeds = 1000000000000000000\n{toml}"));
    for yes in [&[][..], &["--yes"]] {
        let message = bench.refused(&[&["run", "study.toml", "--dry-run"][..], yes].concat());
        assert!(message.contains("`seeds` must be at most 100000 seeds"), "{message}");
    }
}

#[test]
fn a_budget_that_is_not_looked_at_does_not_let_more_be_asked_for_than_there_is() {
    let bench = Workbench::new("");
    for budget in ["keep", "recompute"] {
        let budget = format!("memory.budget={budget}");
        let arguments = ["train", "run.toml", "--output", "new", "--set", &budget];
        let message = bench.refused(&[&arguments[..], &["--set", "adapter.r=1000000000"]].concat());
        assert!(message.contains("in all") && message.contains("memory.budget"), "{message}");
    }
}

#[test]
fn a_number_of_threads_that_no_machine_has_is_refused_at_once() {
    let bench = Workbench::new("");
    for (value, code) in [("100000", 2), ("-1", 2), ("many", 2), ("0", 0), ("", 0), ("2", 0)] {
        let output = bench.ist(&["list", "run.toml"]).env("RAYON_NUM_THREADS", value).output();
        let output = output.unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{value} {message}");
        assert!(code == 0 || message.contains("RAYON_NUM_THREADS is `"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_cannot_be_written_down_is_refused_before_anything_is_made() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let bench = Workbench::new("");
    let odd = OsStr::from_bytes(b"run-\xff");
    let calls: [(&[&str], &str); 4] = [
        (&["train", "run.toml", "--output"], "--output"),
        (&["run", "run.toml", "--output"], "--output"),
        (&["train"], "<CONFIG>"),
        (&["report"], "<RUN>"),
    ];
    for (arguments, name) in calls {
        let output = bench.ist(arguments).arg(odd).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(name) && message.contains("is not UTF-8"), "{message}");
    }
    // Nothing but the two files of the workbench.
    assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 2);
}
