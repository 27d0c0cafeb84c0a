//! A run that is cut off and resumed ends as the uninterrupted one, bit for bit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Workbench, log};
use serde_json::Value;

/// Every file of two runs must agree, but for times and memory.
fn assert_same(one: &Path, other: &Path) {
    for name in ["metrics.jsonl", "selections.jsonl", "importance.jsonl"] {
        assert_eq!(log(one, name), log(other, name), "{name}");
    }
    let bytes = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    for name in [
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter-best/adapter_model.safetensors",
    ] {
        assert!(bytes(one, name) == bytes(other, name), "{name}");
    }
    let newest = log(one, "selections.jsonl").len();
    for name in ["adapter_model.safetensors", "optimizer.safetensors", "state.json"] {
        let name = format!("checkpoints/{newest}/{name}");
        assert!(bytes(one, &name) == bytes(other, &name), "{name}");
    }
}

/// Waits until the run in `folder` has logged that many steps.
fn wait_for_steps(child: &mut Child, folder: &Path, steps: usize) {
    let started = Instant::now();
    while std::fs::read_to_string(folder.join("selections.jsonl"))
        .map_or(0, |text| text.lines().count())
        < steps
    {
        assert!(started.elapsed() < Duration::from_mins(2), "the run does not get to step {steps}");
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(bench: &Workbench, output: &str, resume: bool) -> Child {
    let mut arguments = vec!["train", "run.toml", "--output", output];
    arguments.extend(resume.then_some("--resume"));
    bench.ist(&arguments).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_run_killed_at_any_point_resumes_to_the_same_end() {
    for resting_state in ["keep", "offload"] {
        let bench = Workbench::new("");
        bench.write(
            "run.toml",
            &bench.read("run.toml").replace(
                "[optimizer]",
                &format!("[optimizer]\nresting_state = \"{resting_state}\""),
            ),
        );
        bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
        for killed_after in [1, 4, 8] {
            let name = format!("killed-{killed_after}");
            let mut child = start(&bench, &name, false);
            wait_for_steps(&mut child, &bench.path(&name), killed_after);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.run(&["train", "run.toml", "--output", &name, "--resume", "--quiet"], 0);
            assert_same(&bench.path("whole"), &bench.path(&name));
        }
    }
}

#[test]
fn ctrl_c_finishes_the_step_saves_and_says_how_to_resume() {
    let bench = Workbench::new("");
    // Long enough that the signal comes in the middle.
    bench.write("run.toml", &bench.read("run.toml").replace("steps = 10\n", "steps = 100\n"));
    bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
    let arguments = ["train", "run.toml", "--output", "stopped"];
    let mut child = bench.ist(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_steps(&mut child, &bench.path("stopped"), 2);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--resume"));
    assert!(log(&bench.path("stopped"), "selections.jsonl").len() < 100);
    bench.run(&["train", "run.toml", "--output", "stopped", "--resume", "--quiet"], 0);
    assert_same(&bench.path("whole"), &bench.path("stopped"));
}

#[test]
fn a_resumed_run_may_only_grow() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let message = bench.refused(&[
        "train",
        "run.toml",
        "--output",
        "run",
        "--resume",
        "--set",
        "optimizer.lr=0.5",
    ]);
    assert!(message.contains("optimizer.lr") && message.contains("0.5"), "{message}");
    bench.run(
        &["train", "run.toml", "--output", "run", "--resume", "--quiet", "--set", "train.steps=12"],
        0,
    );
    assert_eq!(log(&bench.path("run"), "selections.jsonl").len(), 12);
}

#[test]
fn a_run_that_stopped_early_stays_stopped_when_it_is_resumed() {
    let bench = Workbench::new("early_stopping = 1\n");
    let toml =
        bench.read("run.toml").replace("steps = 10", "steps = 40").replace("lr = 1e-3", "lr = 0.3");
    bench.write("run.toml", &toml.replace("eval_every = 4", "eval_every = 3"));
    let result = bench.json(&["train", "run.toml", "--output", "run", "--quiet", "--json"]);
    assert_eq!(result["status"], "stopped early");
    let (steps, adapter) =
        (log(&bench.path("run"), "metrics.jsonl"), "adapter/adapter_model.safetensors");
    let before = std::fs::read(bench.path("run").join(adapter)).unwrap();
    let result =
        bench.json(&["train", "run.toml", "--output", "run", "--resume", "--quiet", "--json"]);
    assert_eq!(
        (result["status"].as_str(), log(&bench.path("run"), "metrics.jsonl")),
        (Some("stopped early"), steps)
    );
    assert!(before == std::fs::read(bench.path("run").join(adapter)).unwrap());
}

#[test]
fn a_run_resumed_without_its_folders_name_keeps_the_budget_it_began_with() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--quiet"], 0);
    let mut plan: Value = serde_json::from_str(&bench.read("runs/run-1/plan.json")).unwrap();
    assert_eq!(plan["budget"]["setting"], "auto");
    // More than any machine has free, so that it cannot have been measured.
    let settled = 1u64 << 50;
    let began_with = plan["budget"]["bytes"].clone();
    let resume = ["train", "run.toml", "--resume", "--set", "train.steps=12", "--quiet", "--json"];
    assert_eq!(bench.json(&resume)["memory"]["budget_bytes"], began_with);
    // The plan's budget is what the resumed run goes by, and the checkpoint remembers it as well.
    plan["budget"]["bytes"] = settled.into();
    bench.write("runs/run-1/plan.json", &plan.to_string());
    let message = bench.refused(&["train", "run.toml", "--resume", "--set", "train.steps=14"]);
    let both = format!("(plan.json) changed since the run began: {settled}, expected {began_with}");
    assert!(message.contains(&both), "{message}");
}

#[test]
fn a_run_whose_plan_is_broken_is_refused_with_the_file() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    bench.write("run/plan.json", "{");
    let message = bench.refused(&["train", "run.toml", "--output", "run", "--resume"]);
    assert!(message.contains("run/plan.json: is not a plan"), "{message}");
}

#[test]
fn a_run_whose_data_changed_is_not_resumed() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    bench.write("train.jsonl", &bench.read("train.jsonl").replacen("[300,", "[399,", 1));
    let message = bench.refused(&["train", "run.toml", "--output", "run", "--resume"]);
    assert!(message.contains("training data changed since the run began"), "{message}");
}

#[test]
fn a_broken_checkpoint_is_set_aside_for_the_one_before() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
    bench.run(&["train", "run.toml", "--output", "broken", "--quiet"], 0);
    // The same checkpoint breaks again and again: the one that was set aside before is no
    // hindrance.
    for broken in ["state.json", "optimizer.safetensors", "adapter_model.safetensors"] {
        std::fs::write(bench.path("broken").join("checkpoints/10").join(broken), "{").unwrap();
        let output = bench.run(&["train", "run.toml", "--output", "broken", "--resume"], 0);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("checkpoint 10 is broken and set aside"), "{message}");
        assert_same(&bench.path("whole"), &bench.path("broken"));
        assert_eq!(bench.read(&format!("broken/checkpoints/broken-10/{broken}")), "{");
    }
}

/// Flips one bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_checkpoint_with_one_flipped_bit_is_never_resumed() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
    for file in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "digests.json",
    ] {
        let name = format!("flipped-{file}");
        bench.run(&["train", "run.toml", "--output", &name, "--quiet"], 0);
        flip(&bench.path(&name).join("checkpoints/10").join(file));
        let output = bench.run(&["train", "run.toml", "--output", &name, "--resume"], 0);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("checkpoint 10 is broken") && message.contains(file), "{message}");
        assert_same(&bench.path("whole"), &bench.path(&name));
    }
}

#[test]
fn a_run_whose_checkpoints_are_all_broken_is_refused_with_the_file() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    for steps in [9, 10] {
        flip(&bench.path("run").join(format!("checkpoints/{steps}/state.json")));
    }
    let message = bench.refused(&["train", "run.toml", "--output", "run", "--resume"]);
    assert!(message.contains("checkpoints/10/state.json was changed"), "{message}");
    assert!(bench.path("run/checkpoints/10").exists(), "nothing was renamed");
}

#[test]
fn a_log_with_a_gap_is_never_continued() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "whole", "--quiet"], 0);
    for name in ["metrics.jsonl", "selections.jsonl", "importance.jsonl", "costs.jsonl"] {
        let folder = format!("gap-{name}");
        bench.run(&["train", "run.toml", "--output", &folder, "--quiet"], 0);
        let log = format!("{folder}/{name}");
        let text = bench.read(&log);
        // Without its last line the log is whole for the checkpoint before.
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        bench.write(&log, &lines[..lines.len() - 1].concat());
        let resume = ["train", "run.toml", "--output", &folder, "--resume"];
        let output = bench.run(&resume, 0);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(&format!("{name} has ")), "{message}");
        assert_same(&bench.path("whole"), &bench.path(&folder));
        // Without its first line it is whole for none.
        let text = bench.read(&log);
        bench.write(&log, text.split_once('\n').unwrap().1);
        let message = bench.refused(&resume);
        assert!(message.contains(name) && message.contains("no checkpoint"), "{message}");
    }
}

#[test]
fn a_checkpoint_of_an_earlier_version_is_continued_and_told_of() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let newest = bench.path("run/checkpoints/10");
    std::fs::remove_file(newest.join("digests.json")).unwrap();
    let resume = ["train", "run.toml", "--output", "run", "--resume", "--set", "train.steps=12"];
    // One that says it has digests, and has none, was changed.
    let state = std::fs::read_to_string(newest.join("state.json")).unwrap();
    let earlier = state.replacen("\"format\":1,", "", 1);
    assert_ne!(state, earlier);
    std::fs::write(newest.join("state.json"), earlier).unwrap();
    let output = bench.run(&resume, 0);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("checkpoint 10 is of an earlier version"), "{message}");
    assert_eq!(log(&bench.path("run"), "selections.jsonl").len(), 12);
}

#[test]
fn what_a_killed_process_left_half_written_is_removed() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let leftovers = [
        "run/.ist-partial-AbCdEf",
        "run/.tmpAbCdEf",
        "run/adapter/.ist-partial-AbCdEf",
        "run/checkpoints/.ist-partial-AbCdEf/10",
        "run/checkpoints/.partial-AbCdEf/state.json",
    ];
    for leftover in leftovers {
        std::fs::create_dir_all(bench.path(leftover).parent().unwrap()).unwrap();
        bench.write(leftover, "half");
    }
    bench.run(&["train", "run.toml", "--output", "run", "--resume", "--quiet"], 0);
    for leftover in leftovers {
        assert!(!bench.path(leftover).exists(), "{leftover}");
    }
    assert!(!bench.path("run/checkpoints/.ist-partial-AbCdEf").exists());
}

#[test]
fn a_checkpoint_that_a_killed_save_did_not_come_to_remove_goes_on_resume() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let checkpoints = bench.path("run/checkpoints");
    std::fs::create_dir(checkpoints.join("6")).unwrap();
    bench.run(&["train", "run.toml", "--output", "run", "--resume", "--quiet"], 0);
    assert!(!checkpoints.join("6").exists());
    assert!(checkpoints.join("9").exists() && checkpoints.join("10").exists());
}

#[cfg(unix)]
#[test]
fn links_planted_in_a_runs_folder_are_not_written_through() {
    use std::os::unix::fs::symlink;
    let bench = Workbench::new("");
    bench.write("the user's", "text");
    for name in [".lock", "metrics.jsonl", "checkpoints"] {
        let run = bench.path(&format!("planted-{name}"));
        bench.run(&["train", "run.toml", "--output", run.to_str().unwrap(), "--quiet"], 0);
        let place = run.join(name);
        if place.is_dir() { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) }
            .unwrap();
        symlink(bench.path("the user's"), &place).unwrap();
        let resume = ["train", "run.toml", "--output", run.to_str().unwrap(), "--resume"];
        let message = bench.refused(&resume);
        assert!(message.contains(name), "{message}");
        assert_eq!(bench.read("the user's"), "text");
    }
}

#[test]
fn the_same_files_by_another_way_are_the_same_configuration() {
    let bench = Workbench::new("");
    std::fs::create_dir(bench.path("deep")).unwrap();
    bench.run(&["train", "deep/../run.toml", "--output", "run", "--quiet"], 0);
    bench.run(&["train", "run.toml", "--output", "run", "--resume", "--quiet"], 0);
}

#[test]
fn a_folder_that_holds_a_run_is_not_overwritten() {
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    assert!(
        bench.refused(&["train", "run.toml", "--output", "run"]).contains("already holds a run")
    );
    assert!(
        bench
            .refused(&["train", "run.toml", "--output", "none", "--resume"])
            .contains("no run to resume")
    );
    std::fs::create_dir(bench.path("other")).unwrap();
    bench.write("other/file", "");
    assert!(
        bench.refused(&["train", "run.toml", "--output", "other"]).contains("holds other files")
    );
    assert!(bench.refused(&["train", "run.toml", "--output", "run.toml"]).contains("not a folder"));
}
