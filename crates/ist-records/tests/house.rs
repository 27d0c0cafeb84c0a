//! What this crate never knows of.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Every source of this crate.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Records and reports are read from a run's files alone, so this crate is checked without burn.
#[test]
fn records_hold_no_model_and_no_burn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&root.join("src"));
    files.push(root.join("Cargo.toml"));
    assert!(files.len() > 50, "{} files", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with(['/', '#'])) {
            for never in ["burn", "ist_core", "ist-core", "ist_peft", "ist-peft", "ist_models"] {
                assert!(!line.contains(never), "{}: {line}", path.display());
            }
        }
    }
}
