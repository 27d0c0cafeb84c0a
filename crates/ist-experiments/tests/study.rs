//! Studies: many runs of one file, by several processes, through kills, failures and changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Workbench, log};
use serde_json::{Value, json};

/// Two policies with two seeds each.
const STUDY: &str =
    "extends = \"run.toml\"\nseeds = 2\n[sweep]\n\"policy.kind\" = [\"ist\", \"rst\"]\n";
const MEMBERS: [&str; 4] = [
    "policy.kind=ist,seed=0",
    "policy.kind=ist,seed=1",
    "policy.kind=rst,seed=0",
    "policy.kind=rst,seed=1",
];

fn bench() -> Workbench {
    let bench = Workbench::new("");
    bench.write("study.toml", STUDY);
    bench
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The states by name, as `ist list` tells them.
fn states(bench: &Workbench, place: &str) -> Vec<(String, String)> {
    let runs = bench.json(&["list", place, "--json"])["runs"].as_array().unwrap().clone();
    let text = |run: &Value, key: &str| run[key].as_str().unwrap().to_owned();
    runs.iter().map(|run| (text(run, "name"), text(run, "state"))).collect()
}

/// Every log and the adapter of two runs must agree, but for times and memory.
fn assert_same(one: &Path, other: &Path) {
    for name in ["metrics.jsonl", "selections.jsonl", "importance.jsonl"] {
        assert_eq!(log(one, name), log(other, name), "{} {name}", one.display());
    }
    let adapter =
        |folder: &Path| std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(adapter(one) == adapter(other), "{}", one.display());
}

/// Waits until the run in `folder` has logged that many steps.
fn wait_for_steps(child: &mut Child, folder: &Path, steps: usize) {
    let started = Instant::now();
    while std::fs::read_to_string(folder.join("selections.jsonl"))
        .map_or(0, |text| text.lines().count())
        < steps
    {
        assert!(started.elapsed() < Duration::from_mins(3), "the run does not get to step {steps}");
        assert!(child.try_wait().unwrap().is_none(), "the process ended before step {steps}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(name: &str, process: u64) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Long enough that a signal comes in the middle.
fn long_bench() -> Workbench {
    let bench = bench();
    bench.write("run.toml", &bench.read("run.toml").replace("steps = 10\n", "steps = 60\n"));
    bench
}

#[test]
fn every_member_runs_once_and_as_a_run_of_its_own() {
    let bench = bench();
    let first = bench.json(&["run", "study.toml", "--json"]);
    let names: Vec<&str> =
        first["runs"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, MEMBERS.map(|member| format!("study/{member}")));
    assert!(
        first["runs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|run| run["state"] == "done" && run["step"] == 10)
    );
    assert_eq!(first["failed"], json!([]));
    let single =
        ["--set", "seed=1", "--set", "policy.kind=rst", "--set", "policy.layers_updated=0.25"];
    bench.write(
        "plain.toml",
        &bench.read("run.toml").replace("kind = \"ist\"\ninterval = 3\nscore_batch = 4\n", ""),
    );
    bench
        .run(&[&["train", "plain.toml", "--output", "single", "--quiet"][..], &single].concat(), 0);
    assert_same(&bench.path("runs/study").join(MEMBERS[3]), &bench.path("single"));
    let again = stderr(&bench.run(&["run", "study.toml"], 0));
    assert!(!again.contains("start") && again.contains("4 runs: 4 done"), "{again}");
    let one = bench.read("runs/study/claims/policy.kind=ist,seed=0.1.json");
    assert!(
        one.contains("\"outcome\":\"done\"")
            && !bench.path("runs/study/claims/policy.kind=ist,seed=0.2.json").exists()
    );
    let manifest: Value = serde_json::from_str(&bench.read("runs/study/manifest.json")).unwrap();
    assert_eq!(manifest["members"][3]["name"], MEMBERS[3]);
    assert!(manifest["members"][3]["configuration"].as_str().unwrap().contains("kind = \"rst\""));
}

#[test]
fn a_failed_member_stops_no_other_and_is_tried_again() {
    let bench = bench();
    let cases = "extends = \"run.toml\"\n[[sweep.cases]]\nname = \"bad\"\n\
                 optimizer = {lr = 1e30, clip_norm = 0}\n\
                 [[sweep.cases]]\nname = \"good\"\n";
    bench.write("study.toml", cases);
    for tries in 1..3 {
        let output = bench.run(&["run", "study.toml", "--jobs", "2"], 1);
        let message = stderr(&output);
        assert!(
            message.contains("1 of 2 runs failed") && message.contains("study/bad,seed=3: "),
            "{message}"
        );
        assert!(message.contains("checkpoints/0"), "{message}");
        let expected = [
            ("study/bad,seed=3".to_owned(), "failed".to_owned()),
            ("study/good,seed=3".into(), "done".into()),
        ];
        assert_eq!(states(&bench, "runs"), expected);
        assert!(bench.path(&format!("runs/study/claims/bad,seed=3.{tries}.json")).exists());
        assert!(!bench.path(&format!("runs/study/claims/bad,seed=3.{}.json", tries + 1)).exists());
    }
    let text = String::from_utf8(bench.run(&["list"], 0).stdout).unwrap();
    assert!(text.contains("in step") && text.contains("2 runs: 1 done, 1 failed"), "{text}");
    assert!(bench.read("runs/study/logs/bad,seed=3.log").contains("in step"));
}

#[test]
fn two_that_start_at_once_share_a_study() {
    let bench = bench();
    let start =
        || bench.ist(&["run", "study.toml", "--jobs", "2"]).stderr(Stdio::piped()).spawn().unwrap();
    let children = [start(), start()];
    let messages = children.map(|child| {
        let output = child.wait_with_output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{message}");
        message
    });
    for member in MEMBERS {
        let folder = bench.path("runs/study").join(member);
        let steps: Vec<u64> = log(&folder, "selections.jsonl")
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (0..10).collect::<Vec<_>>(), "{member}");
        assert!(folder.join("result.json").is_file());
        let claims =
            |generation| bench.path(&format!("runs/study/claims/{member}.{generation}.json"));
        assert!(claims(1).exists() && !claims(2).exists(), "{member} was executed once");
        let done = messages
            .iter()
            .filter(|message| message.contains(&format!("done     study/{member}")))
            .count();
        assert!(done <= 1, "{messages:?}");
    }
}

#[test]
fn a_killed_call_and_its_killed_members_go_on_to_the_same_end() {
    let bench = long_bench();
    let run =
        |output: &str| ["run", "study.toml", "--jobs", "2", "--output", output].map(str::to_owned);
    let call = |output: &str| {
        let arguments = run(output);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        bench.ist(&arguments).stderr(Stdio::null()).spawn().unwrap()
    };
    bench.run(&["run", "study.toml", "--jobs", "2", "--output", "whole", "--quiet"], 0);
    let first = bench.path("killed/study").join(MEMBERS[0]);
    // The call itself: its members finish their step, and the next call goes on at once.
    let mut child = call("killed");
    wait_for_steps(&mut child, &first, 4);
    child.kill().unwrap();
    child.wait().unwrap();
    // A member's process: the call goes on with the others, and says which one failed.
    let mut child = call("killed");
    wait_for_steps(&mut child, &first, 20);
    let claims: Vec<Value> = (1..9)
        .map_while(|n| {
            std::fs::read(bench.path(&format!("killed/study/claims/{}.{n}.json", MEMBERS[0]))).ok()
        })
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .collect();
    signal("-KILL", claims.last().unwrap()["process"].as_u64().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let states_after: Vec<String> =
        states(&bench, "killed").into_iter().map(|(_, state)| state).collect();
    assert_eq!(states_after, ["failed", "done", "done", "done"]);
    let text = String::from_utf8(bench.run(&["list", "killed/study"], 0).stdout).unwrap();
    assert!(text.contains("its process ended by signal: 9"), "{text}");
    bench.run(&["run", "study.toml", "--output", "killed", "--quiet"], 0);
    for member in MEMBERS {
        assert_same(
            &bench.path("killed/study").join(member),
            &bench.path("whole/study").join(member),
        );
    }
}

#[test]
fn ctrl_c_finishes_the_steps_of_the_members_and_says_how_to_go_on() {
    let bench = long_bench();
    let call = ["run", "study.toml", "--jobs", "2"];
    let mut child = bench.ist(&call).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_steps(&mut child, &bench.path("runs/study").join(MEMBERS[0]), 2);
    signal("-INT", child.id().into());
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(
        message.contains("interrupted") && message.contains("go on with the same command"),
        "{message}"
    );
    let states_after: Vec<String> =
        states(&bench, "runs").into_iter().map(|(_, state)| state).collect();
    assert_eq!(states_after[0], "interrupted");
    assert_eq!(states_after[3], "waiting");
    bench.run(&[&call[..], &["--quiet"]].concat(), 0);
    bench.run(&["run", "study.toml", "--jobs", "2", "--output", "whole", "--quiet"], 0);
    let of = |output: &str| bench.path(output).join("study").join(MEMBERS[0]);
    assert_same(&of("runs"), &of("whole"));
}

#[test]
fn a_changed_file_is_refused_with_the_members_that_differ() {
    let bench = bench();
    bench.run(&["run", "study.toml", "--quiet", "--set", "seeds=1"], 0);
    let changed = STUDY.replace("[sweep]", "[optimizer]\nlr = 0.5\n[sweep]");
    bench.write("study.toml", &changed);
    for arguments in [vec!["run", "study.toml"], vec!["run", "study.toml", "--dry-run"]] {
        let message = bench.refused(&arguments);
        for part in [
            "changed since runs/study/manifest.json",
            MEMBERS[0],
            MEMBERS[2],
            "`optimizer.lr` was 0.001, is 0.5",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains(MEMBERS[1]), "the manifest does not know it: {message}");
    }
    // More seeds are more members, and a comment is no change.
    bench.write("study.toml", &format!("# more\n{STUDY}"));
    let output = stderr(&bench.run(&["run", "study.toml"], 0));
    assert!(
        output.contains(&format!("start    study/{}", MEMBERS[1])) && !output.contains(MEMBERS[0]),
        "{output}"
    );
    // The folder alone is enough to go on.
    std::fs::remove_dir_all(bench.path("runs/study").join(MEMBERS[3])).unwrap();
    let output = stderr(&bench.run(&["run", "runs/study"], 0));
    assert!(output.contains(&format!("done     study/{}", MEMBERS[3])), "{output}");
    assert!(
        bench.refused(&["run", "runs/study", "--set", "train.steps=3"]).contains("--set goes with")
    );
    assert!(bench.refused(&["run", "runs"]).contains("has no manifest.json"));
}

#[test]
fn a_study_that_cannot_run_as_a_whole_does_not_begin() {
    let bench = bench();
    std::fs::create_dir(bench.path("other")).unwrap();
    bench.write("other/study.toml", "extends = \"../run.toml\"\n");
    let values: Vec<String> = (1..=101).map(|n| n.to_string()).collect();
    let values = values.join(", ");
    bench.write(
        "many.toml",
        &format!("extends = \"run.toml\"\nseeds = 100\nsweep.\"adapter.r\" = [{values}]\n"),
    );
    bench.write(
        "million.toml",
        &format!("extends = \"many.toml\"\nsweep.\"train.batch\" = [{values}]\n"),
    );
    bench.write("none.toml", "extends = \"run.toml\"\nsweep.\"adapter.r\" = []\n");
    bench.write("deep.toml", "extends = \"run.toml\"\nsweep.\"policy.layers_updated\" = [1, 9]\n");
    bench.write("wrong.toml", "extends = \"run.toml\"\nsweep.\"adapter.r\" = [1, 0]\n");
    for (arguments, parts) in [
        (vec!["run"], vec!["<FILES>"]),
        (vec!["run", "none.toml"], vec!["lists no value, so there is no run"]),
        (vec!["run", "many.toml"], vec!["makes 10100 runs", "--yes"]),
        (vec!["run", "million.toml"], vec!["makes 1020100 runs", "--yes"]),
        (
            vec!["run", "study.toml", "other/study.toml"],
            vec!["would both be runs of study", "rename"],
        ),
        (
            vec!["run", "deep.toml"],
            vec!["`policy.layers_updated`", "9", "(in deep/policy.layers_updated=9,seed=3)"],
        ),
        (vec!["run", "wrong.toml"], vec!["wrong.toml:2: `adapter.r`", "(in adapter.r=0,seed=3)"]),
        (vec!["run", "study.toml", "--set", "policy.kind=rst"], vec!["is what the sweep varies"]),
        (vec!["run", "study.toml", "--jobs", "0"], vec!["--jobs"]),
        (vec!["run", "study.toml", "--member", "4"], vec!["there is no run 4: there are 4"]),
        (
            vec!["run", "study.toml", "deep.toml", "--member", "1"],
            vec!["--member goes with one file"],
        ),
        (
            vec!["train", "study.toml"],
            vec!["study.toml:3: `sweep` makes this file several runs", "`ist run FILE`"],
        ),
        (vec!["list", "nowhere"], vec!["nowhere does not exist"]),
    ] {
        let message = bench.refused(&arguments);
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments:?}: {message}");
    }
    let list = String::from_utf8(bench.run(&["run", "study.toml", "--dry-run"], 0).stdout).unwrap();
    assert!(list.contains("4 would be executed") && list.contains("0/10"), "{list}");
    let list = bench.json(&["run", "many.toml", "--dry-run", "--yes", "--json"]);
    assert_eq!(list["runs"].as_array().unwrap().len(), 10_100);
    assert_eq!(states(&bench, "study.toml").len(), 4);
    // Member 4 was refused after its study was made known.
    assert!(!bench.path("runs/deep").exists() && !bench.path("runs/many").exists());
}

#[test]
fn a_half_written_result_is_made_again() {
    let bench = bench();
    bench.run(&["run", "study.toml", "--quiet"], 0);
    let result = bench.path("runs/study").join(MEMBERS[0]).join("result.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(&result).unwrap()).unwrap();
    std::fs::write(&result, "{\"status\": \"finis").unwrap();
    assert_eq!(states(&bench, "runs")[0].1, "failed");
    bench.run(&["run", "study.toml", "--quiet"], 0);
    let again: Value = serde_json::from_slice(&std::fs::read(&result).unwrap()).unwrap();
    assert_eq!(again["train"]["curve"], whole["train"]["curve"]);
}

#[test]
fn array_tasks_execute_every_member() {
    let bench = bench();
    let call = [
        "run",
        "study.toml",
        "--slurm",
        "--chunk",
        "3",
        "--set",
        "train.steps=4",
        "--output",
        "out",
    ];
    bench.run(&call, 0);
    assert!(bench.refused(&call).contains("study.sbatch is there already"));
    assert!(!bench.path("out").exists(), "nothing was executed");
    let script = bench.read("study.sbatch");
    assert!(script.contains("#SBATCH --array=0-1\n"), "{script}");
    // From another folder, as a cluster would.
    let elsewhere = tempfile::tempdir().unwrap();
    let tasks: Vec<Child> = (0..2)
        .map(|task| {
            let mut bash = Command::new("bash");
            bash.arg(bench.path("study.sbatch")).env("SLURM_ARRAY_TASK_ID", task.to_string());
            bash.current_dir(elsewhere.path()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut task in tasks {
        assert!(task.wait().unwrap().success());
    }
    let states_after = states(&bench, "out");
    assert_eq!(states_after.len(), 4);
    assert!(states_after.iter().all(|(_, state)| state == "done"), "{states_after:?}");
}

#[test]
fn plain_runs_are_listed_beside_studies() {
    let bench = bench();
    bench.run(&["train", "run.toml", "--quiet"], 0);
    bench.run(&["run", "run.toml", "--quiet", "--set", "train.steps=2"], 0);
    let expected = [("run/seed=3".to_owned(), "done".to_owned()), ("run-1".into(), "done".into())];
    assert_eq!(states(&bench, "runs"), expected);
    assert_eq!(states(&bench, "runs/run-1").len(), 1);
    let runs = bench.json(&["list", "--json"]);
    let run = &runs["runs"][1];
    assert_eq!((&run["step"], &run["total"]), (&json!(10), &json!(10)));
    assert!(run["loss"].as_f64().unwrap() > 0.0 && run["eval_loss"].as_f64().unwrap() > 0.0);
}
