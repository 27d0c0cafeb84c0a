//! What a run promises is there after a power cut: watched as system calls, and on a disk that is
//! cut off.
//!
//! The order of calls is read from `strace`, and the cut needs root and an ext4 disk in a file.
//! Where either is missing its test says so and passes, unless `IST_REQUIRE_DURABILITY` is set, as
//! continuous integration does.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::Workbench;

/// Whether a test can go on with what it needs.
fn there_is(what: &str, there: bool) -> bool {
    let required = std::env::var_os("IST_REQUIRE_DURABILITY").is_some();
    assert!(there || !required, "{what} is required");
    if !there {
        eprintln!("skipped: {what} is not to be had");
    }
    there
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What a disk would hold if the power went: each path that was changed and not synced since.
#[derive(Default)]
struct Unsynced {
    /// Files whose bytes are not all on disk.
    bytes: BTreeSet<PathBuf>,
    /// Folders whose names are not all on disk.
    names: BTreeSet<PathBuf>,
}

impl Unsynced {
    fn written(&mut self, file: &str) {
        self.bytes.insert(file.into());
    }

    fn synced(&mut self, path: &str) {
        self.bytes.remove(Path::new(path));
        self.names.remove(Path::new(path));
    }

    fn named(&mut self, path: &Path) {
        self.names.insert(path.parent().unwrap().to_owned());
    }

    fn renamed(&mut self, from: &str, to: &str) {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(inner) if inner.as_os_str().is_empty() => PathBuf::from(to),
            Ok(inner) => Path::new(to).join(inner),
            Err(_) => path.to_owned(),
        };
        for paths in [&mut self.bytes, &mut self.names] {
            *paths = std::mem::take(paths).iter().map(|path| moved(path)).collect();
        }
        self.named(Path::new(from));
        self.named(Path::new(to));
    }

    /// What is not on disk at or below `path`.
    fn below(&self, path: &Path) -> Vec<&PathBuf> {
        let all = self.bytes.iter().chain(&self.names);
        all.filter(|changed| changed.starts_with(path)).collect()
    }
}

/// Runs `ist` in the workbench under strace; returns the calls that change files, in order.
fn calls(bench: &Workbench, arguments: &[&str]) -> Vec<String> {
    let log = bench.path("calls.txt");
    let mut command = Command::new("strace");
    let traced = "write,writev,pwrite64,ftruncate,fsync,fdatasync,mkdir,mkdirat,rename,renameat,\
                  renameat2,openat";
    command.args(["-f", "-y", "-s", "1", "-e", &format!("trace={traced}"), "-o"]).arg(&log);
    command.arg(env!("CARGO_BIN_EXE_ist")).args(arguments);
    let folder = bench.path("train.jsonl").parent().unwrap().to_owned();
    let status = command.current_dir(folder).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "strace ist {arguments:?}");
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().filter(|line| !line.contains(" = -1 ")).map(str::to_owned).collect()
}

/// The call's name and what stands in its parentheses, for a line `PID name(arguments) = 0`.
fn parsed(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once('(')?;
    Some((name.rsplit(' ').next()?, rest))
}

/// The path of the first descriptor, `3</path>`.
fn descriptor(arguments: &str) -> Option<&str> {
    let (_, rest) = arguments.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path)
}

/// The paths in quotes.
fn quoted(arguments: &str) -> Vec<&str> {
    arguments.split('"').skip(1).step_by(2).collect()
}

/// Follows the calls; `renamed` sees what is unsynced before each rename takes effect.
fn follow(
    calls: &[String],
    root: &Path,
    mut renamed: impl FnMut(&Unsynced, &Path, &Path),
) -> Unsynced {
    let mut unsynced = Unsynced::default();
    for line in calls {
        let Some((name, arguments)) = parsed(line) else { continue };
        match name {
            "write" | "writev" | "pwrite64" | "ftruncate" => {
                let path = descriptor(arguments).unwrap_or_default();
                if Path::new(path).starts_with(root) {
                    unsynced.written(path);
                }
            }
            "fsync" | "fdatasync" => unsynced.synced(descriptor(arguments).unwrap()),
            "rename" | "renameat" | "renameat2" => {
                let paths = quoted(arguments);
                let from = root.join(paths[0]);
                let to = root.join(paths[1]);
                renamed(&unsynced, &from, &to);
                unsynced.renamed(from.to_str().unwrap(), to.to_str().unwrap());
            }
            "mkdir" | "mkdirat" => unsynced.named(&root.join(quoted(arguments)[0])),
            "openat" if arguments.contains("O_CREAT") => {
                let path = root.join(quoted(arguments)[0]);
                // Whether it was there is not told: an own log that is opened anew is synced again.
                unsynced.named(&path);
            }
            _ => {}
        }
    }
    unsynced
}

#[test]
fn every_rename_comes_after_the_sync_and_every_folder_is_synced_after_it() {
    if !there_is("strace", works("strace", &["-o", "/dev/null", "true"])) {
        return;
    }
    let bench = Workbench::new("");
    let root = bench.path("").canonicalize().unwrap();
    let calls = calls(&bench, &["train", "run.toml", "--output", "run", "--quiet"]);
    let run = root.join("run");
    let logs = ["metrics.jsonl", "selections.jsonl", "importance.jsonl", "costs.jsonl"];
    let mut checkpoints = 0;
    let mut result = false;
    let end = follow(&calls, &root, |unsynced, from, to| {
        assert_eq!(unsynced.below(from), Vec::<&PathBuf>::new(), "renamed to {}", to.display());
        let saves = to.parent().is_some_and(|parent| parent.ends_with("checkpoints"));
        let closes = to.ends_with("result.json");
        if saves || closes {
            for log in logs {
                assert!(unsynced.below(&run.join(log)).is_empty(), "{log} at {}", to.display());
            }
        }
        checkpoints += usize::from(saves && to.file_name().is_some_and(|name| name != "0"));
        result |= closes;
    });
    assert!(checkpoints >= 4 && result, "{checkpoints} checkpoints were saved");
    // What is removed and what is locked is not promised.
    assert_eq!(end.below(&run), Vec::<&PathBuf>::new());
    assert!(!end.names.contains(root.as_path()), "the run's own name");
}

#[test]
fn a_merged_model_is_on_disk_when_it_has_its_name() {
    if !there_is("strace", works("strace", &["-o", "/dev/null", "true"])) {
        return;
    }
    let bench = Workbench::new("");
    bench.run(&["train", "run.toml", "--output", "run", "--quiet"], 0);
    let root = bench.path("").canonicalize().unwrap();
    let merge =
        ["merge", "--model", "builtin:village", "--adapter", "run/adapter", "--output", "m"];
    let end = follow(&calls(&bench, &merge), &root, |unsynced, from, to| {
        assert_eq!(unsynced.below(from), Vec::<&PathBuf>::new(), "renamed to {}", to.display());
    });
    assert_eq!(end.below(&root.join("m")), Vec::<&PathBuf>::new());
    assert!(!end.names.contains(root.as_path()), "the model's own name");
}

/// A disk in a file, mounted; unmounted when dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Mounts the image so that the system writes nothing of its own accord within a test.
    fn mount(image: &Path, place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        // Without `auto_da_alloc` a rename does not imply that the data is written.
        let options = "loop,noauto_da_alloc,commit=600";
        let arguments = ["-t", "ext4", "-o", options, image.to_str()?, place.to_str()?];
        works("mount", &arguments).then(|| Self { place: place.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        works("umount", &[self.place.to_str().unwrap()]);
    }
}

fn formatted(image: &Path) -> bool {
    std::fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
    works("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()])
}

#[test]
fn a_run_that_says_done_is_there_after_a_power_cut() {
    let bench = Workbench::new("[logging]\ntensorboard = true\n");
    let image = bench.path("disk.img");
    let formatted = formatted(&image);
    let disk = formatted.then(|| Disk::mount(&image, &bench.path("disk"))).flatten();
    if !there_is("an ext4 disk in a file (root)", disk.is_some()) {
        return;
    }
    let first = ["train", "run.toml", "--output", "disk/run", "--quiet"];
    bench.run(&first, 0);
    // What the disk holds at this moment. What the system has not written to it is lost.
    std::fs::copy(&image, bench.path("cut.img")).unwrap();
    let whole = bench.path("disk/run");
    let after = Disk::mount(&bench.path("cut.img"), &bench.path("cut"));
    assert!(after.is_some(), "the disk cannot be mounted after the cut");
    let cut = bench.path("cut/run");
    let mut compared = 0;
    for name in files(&whole, Path::new("")) {
        let there = std::fs::read(cut.join(&name)).unwrap_or_default();
        assert!(std::fs::read(whole.join(&name)).unwrap() == there, "{}", name.display());
        compared += 1;
    }
    assert!(compared > 12, "{compared} files");
    bench.run(&["train", "run.toml", "--output", "cut/run", "--resume", "--quiet"], 0);
    drop((disk, after));
}

/// The files below a folder that a run promises: all but its lock.
fn files(root: &Path, inner: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root.join(inner)).unwrap().flatten() {
        let name = inner.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(root, &name));
        } else if entry.file_name() != ".lock" {
            all.push(name);
        }
    }
    all
}
