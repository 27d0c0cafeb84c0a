//! Testing one crate compiles no dependency again, because the whole workspace asks for the same
//! features of it.

use std::collections::BTreeSet;
use std::process::Command;

/// A dependency and its features, one a line, as the tests of these packages need them.
fn dependencies(packages: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["tree", "--offline", "--locked", "--edges", "normal,build,dev"]);
    cargo.args(["--prefix", "none", "--format", "{p}: {f}"]).args(packages);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("names are text");
    // A star marks what stands further up already.
    let lines = lines.lines().map(|line| line.trim_end_matches(" (*)"));
    // Our own crates, shown with their folders, are compiled again in any case.
    lines.filter(|line| !line.contains('/')).map(str::to_owned).collect()
}

#[test]
fn a_crate_alone_asks_for_the_features_of_the_workspace() {
    let workspace = dependencies(&["--workspace"]);
    assert!(workspace.len() > 200, "{} dependencies were found", workspace.len());
    for package in ["ist-core", "ist-peft", "ist-models", "ist-experiments", "gain-adapter"] {
        let alone = dependencies(&["--package", package]);
        assert!(alone.len() > 50, "{package}: {} dependencies were found", alone.len());
        let other: Vec<&String> = alone.difference(&workspace).collect();
        assert!(
            other.is_empty(),
            "{package} asks for other features of these; add what is missing to \
             features/Cargo.toml: \
             {other:#?}"
        );
    }
}
