//! The life of a process: readers that go away, signals, limits, and where results may be written.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Workbench, log};
use serde_json::Value;

/// A run that is long enough for something to happen in its middle.
fn long_bench() -> Workbench {
    let bench = Workbench::new("");
    bench.write("run.toml", &bench.read("run.toml").replace("steps = 10\n", "steps = 100\n"));
    bench
}

const TRAIN: [&str; 4] = ["train", "run.toml", "--output", "run"];

/// Waits until the run has logged that many steps.
fn wait_for_steps(child: &mut Child, bench: &Workbench, steps: usize) {
    let path = bench.path("run/selections.jsonl");
    let count = || std::fs::read_to_string(&path).map_or(0, |text| text.lines().count());
    let started = Instant::now();
    while count() < steps {
        assert!(started.elapsed() < Duration::from_mins(2), "the run does not get to step {steps}");
        assert!(child.try_wait().unwrap().is_none(), "the process ended before step {steps}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(name: &str, child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// The command as a shell runs it after `before`.
fn shell(bench: &Workbench, before: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{before}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_ist")]).args(arguments);
    command.current_dir(bench.path("")).env("NO_COLOR", "1");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_finished(bench: &Workbench, steps: usize) {
    assert_eq!(log(&bench.path("run"), "selections.jsonl").len(), steps);
    let result: Value = serde_json::from_str(&bench.read("run/result.json")).unwrap();
    assert_eq!(result["status"], "finished");
    assert!(bench.path("run/adapter/adapter_model.safetensors").exists());
}

#[test]
fn a_run_whose_stderr_is_closed_goes_on_to_its_end() {
    let bench = long_bench();
    let mut child = bench.ist(&TRAIN).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    // As `2>&1 | head -1` does.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_finished(&bench, 100);
}

#[test]
fn an_abort_is_a_failure_that_a_resume_survives() {
    let bench = long_bench();
    let mut child = bench.ist(&TRAIN).stderr(Stdio::null()).spawn().unwrap();
    wait_for_steps(&mut child, &bench, 6);
    // What an allocation that fails ends in.
    signal("-ABRT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let resumed = bench.ist(&["train", "run.toml", "--output", "run", "--resume"]).status();
    assert!(resumed.unwrap().success());
    assert_finished(&bench, 100);
}

/// Starts the command with a terminal as its stdin and stderr; returns the terminal's other end.
#[cfg(target_os = "linux")]
fn on_terminal(command: &mut Command) -> (Child, File) {
    use nix::fcntl::OFlag;
    // No process that another test starts may keep it open.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).unwrap();
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let name = nix::pty::ptsname_r(&master).unwrap();
    let open = || File::options().read(true).write(true).open(&name).unwrap();
    command.env("TERM", "xterm").stdin(open()).stderr(open());
    let child = command.spawn().unwrap();
    // Otherwise the command's own copies keep the terminal open.
    command.stdin(Stdio::null()).stderr(Stdio::null());
    (child, File::from(std::os::fd::OwnedFd::from(master)))
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_whose_terminal_is_closed_goes_on_to_its_end() {
    for view in [&[][..], &["--tui"]] {
        let bench = long_bench();
        let (mut child, mut terminal) = on_terminal(&mut bench.ist(&[&TRAIN[..], view].concat()));
        assert!(std::io::Read::read(&mut terminal, &mut [0; 4096]).unwrap() > 0);
        wait_for_steps(&mut child, &bench, 2);
        drop(terminal);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{view:?} {status}");
        assert_finished(&bench, 100);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_view_whose_terminal_is_closed_ends_without_a_panic() {
    let bench = Workbench::new("");
    bench.run(&[&TRAIN[..], &["--quiet"]].concat(), 0);
    let (mut child, mut terminal) = on_terminal(&mut bench.ist(&["watch", "run"]));
    assert!(std::io::Read::read(&mut terminal, &mut [0; 4096]).unwrap() > 0);
    drop(terminal);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_result_whose_reader_went_away_is_no_failure_and_a_full_disk_is_one() {
    let bench = Workbench::new("");
    for arguments in [&["schema"][..], &["--help"], &["list", "--json"]] {
        std::fs::create_dir_all(bench.path("runs")).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.ist(arguments).stdout(writer).output().unwrap();
        assert_eq!(
            (output.status.code(), stderr(&output).as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        // Only Linux has it.
        let Ok(full) = File::options().write(true).open("/dev/full") else { continue };
        let output = bench.ist(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).starts_with("error: stdout: "), "{}", stderr(&output));
    }
}

#[test]
fn exit_codes_do_not_depend_on_who_reads_the_message() {
    let bench = Workbench::new("");
    for (arguments, code) in [(&["train"][..], 2), (&["train", "none.toml"], 2), (&["trian"], 2)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = bench.ist(arguments).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn signals_that_end_processes_let_a_run_save_first() {
    for name in ["-HUP", "-TERM", "-QUIT", "-XCPU"] {
        let bench = long_bench();
        let mut child = bench.ist(&TRAIN).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_steps(&mut child, &bench, 2);
        signal(name, &child);
        // `timeout` sends its signal twice, and a closed terminal does.
        signal(name, &child);
        let output = child.wait_with_output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{name} {message}");
        assert!(message.contains("stopping after this step"), "{name} {message}");
        assert!(message.contains("--resume --output run"), "{name} {message}");
        let done = log(&bench.path("run"), "selections.jsonl").len();
        assert!(bench.path(&format!("run/checkpoints/{done}")).is_dir(), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_parent_ignores_stay_ignored() {
    let bench = long_bench();
    let mut child = shell(&bench, "trap '' HUP INT QUIT", &TRAIN);
    let mut child = child.stderr(Stdio::null()).spawn().unwrap();
    wait_for_steps(&mut child, &bench, 2);
    for name in ["-HUP", "-INT", "-QUIT"] {
        signal(name, &child);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_finished(&bench, 100);
}

#[test]
fn a_limit_on_the_size_of_files_is_a_failure_that_is_told_and_kept() {
    let bench = long_bench();
    // Blocks of 512 or 1024 bytes: enough for the first files and not for the adapter.
    let output = shell(&bench, "ulimit -f 16", &TRAIN).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{:?} {message}", output.status.signal());
    assert!(message.contains("too large"), "{message}");
    let failure: Value = serde_json::from_str(&bench.read("run/failure.json")).unwrap();
    assert!(failure["reason"].as_str().unwrap().contains("too large"), "{failure}");
}

/// A folder `run` with a finished run.
fn finished() -> Workbench {
    let bench = Workbench::new("");
    bench.run(&[&TRAIN[..], &["--quiet"]].concat(), 0);
    bench
}

#[test]
fn a_report_goes_through_a_pipe_and_leaves_it_a_pipe() {
    let bench = finished();
    let pipe = bench.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap())
    };
    bench.run(&["report", "run", "--csv", "pipe"], 0);
    assert!(reader.join().unwrap().starts_with("run"));
    assert!(std::fs::symlink_metadata(pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_report_goes_through_a_link_to_the_file_behind_it() {
    let bench = finished();
    std::fs::create_dir(bench.path("deep")).unwrap();
    std::os::unix::fs::symlink("deep/page.html", bench.path("link.html")).unwrap();
    for _ in 0..2 {
        bench.run(&["report", "run", "--output", "link.html"], 0);
        assert!(std::fs::symlink_metadata(bench.path("link.html")).unwrap().is_symlink());
        assert!(bench.read("deep/page.html").contains("<html"));
        let leftovers = std::fs::read_dir(bench.path("deep")).unwrap().count();
        assert_eq!(leftovers, 1);
    }
}

#[test]
fn a_report_goes_into_a_device_and_leaves_it_a_device() {
    let bench = finished();
    let node = bench.path("null");
    // A node like /dev/null: only root makes one, and not everywhere can it be opened.
    let made = Command::new("mknod").arg(&node).args(["c", "1", "3"]).output();
    let made = made.is_ok_and(|output| output.status.success());
    if !made || File::options().write(true).open(&node).is_err() {
        return;
    }
    bench.run(&["report", "run", "--output", "null", "--markdown", "null"], 0);
    assert!(std::fs::symlink_metadata(node).unwrap().file_type().is_char_device());
}

#[test]
fn a_report_to_stdout_goes_behind_what_is_there() {
    // Only Linux lists the descriptors of a process in that way.
    if !Path::new("/proc/self/fd/1").exists() {
        return;
    }
    let bench = finished();
    bench.write("all.csv", "kept\n");
    let file = File::options().append(true).open(bench.path("all.csv")).unwrap();
    let arguments = ["report", "run", "--csv", "/dev/stdout", "--quiet"];
    assert!(bench.ist(&arguments).stdout(file).status().unwrap().success());
    let text = bench.read("all.csv");
    assert!(text.starts_with("kept\nrun"), "{text}");
}

#[test]
fn a_folder_is_refused_as_a_file() {
    let bench = finished();
    for flag in ["--output", "--csv", "--curves", "--markdown"] {
        let message = bench.refused(&["report", "run", flag, "run"]);
        assert!(message.contains("run: cannot write, it is a folder"), "{message}");
    }
}
