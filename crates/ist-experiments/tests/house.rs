//! Rules of the house that a reader of one file cannot see: who may do what.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// The sources of every crate, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut files = Vec::new();
    for member in std::fs::read_dir(&crates).unwrap().flatten() {
        collect(&member.path().join("src"), &mut files);
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        (path.strip_prefix(&crates).unwrap().to_owned(), code)
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "tests" {
                collect(&path, files);
            }
        } else if name != "tests.rs" && name != "testing.rs" {
            files.push(path);
        }
    }
}

/// Fails when a source outside `allowed` holds one of `calls`.
fn only(allowed: &[&str], calls: &[&str], instead: &str) {
    let sources = sources();
    assert!(sources.len() > 200, "{} sources were found", sources.len());
    for (path, code) in &sources {
        if allowed.iter().any(|file| path == Path::new(file)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let found = calls.iter().find(|call| line.contains(*call));
            assert!(found.is_none(), "{}:{}: {line}\n{instead}", path.display(), number + 1);
        }
    }
}

#[test]
fn only_one_module_writes_files_that_are_promised() {
    only(
        &[
            "ist-files/src/durable.rs",
            "ist-files/src/regular.rs",
            // Moments of resting layers, which are gone with the process.
            "ist-core/src/optimizer/moments.rs",
            // The folder of a run is made exclusively, and synced; claims likewise.
            "ist-records/src/record/folder.rs",
            "ist-records/src/study/claim.rs",
            // The hub's cache can be fetched again, and is laid out as the hub's own programs have
            // it.
            "ist-models/src/hub/download.rs",
            // Opens what is there to write through it.
            "ist-files/src/destination.rs",
        ],
        &[
            "fs::write(",
            " File::create(",
            "fs::File::create(",
            "File::create_new(",
            "OpenOptions",
            "fs::rename(",
            "create_dir(",
            "create_dir_all(",
            "NamedTempFile",
            "fs::copy(",
        ],
        "write with `ist_files::durable`, open logs and locks with `ist_files::regular`",
    );
}

#[test]
fn unsafe_blocks_are_those_that_the_map_names() {
    let map = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md"),
    );
    let map = map.unwrap();
    let holds = |(path, code): (PathBuf, String)| code.contains("unsafe {").then_some(path);
    let found: Vec<PathBuf> = sources().into_iter().filter_map(holds).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(map.contains("**Two `unsafe` blocks**"));
    for path in found {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(map.contains(name), "{}", path.display());
    }
}

/// Fails when a source of that room of this crate names one of `never`.
fn room_never_knows(room: &str, never: &[&str]) {
    let place = Path::new("ist-experiments/src").join(room);
    let files = sources().into_iter().filter(|(path, _)| path.starts_with(&place));
    let mut count = 0;
    for (path, code) in files {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let found = never.iter().find(|name| line.contains(**name));
            assert!(found.is_none(), "{}: {line}", path.display());
        }
        count += 1;
    }
    assert!(count > 3, "{count} files in {room}");
}

/// A study runs in any program, whatever its command line looks like.
#[test]
fn studies_know_no_command() {
    room_never_knows("study", &["commands", "clap"]);
}

/// What a run tells goes through `train::observer`.
#[test]
fn training_knows_no_terminal_and_no_report() {
    let never =
        ["terminal::", "{terminal", "screen", "live::", "report::", "display::", "commands"];
    room_never_knows("train", &never);
}
