//! What modules of this crate never know of.

use std::path::Path;

/// Policies see numbers and layer sets alone, so that a run can be replayed from its log.
#[test]
fn policies_hold_no_tensor() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for never in ["burn", "Tensor", "step::", "layered", "LayeredModel", "Gradients"] {
                assert!(!line.contains(never), "{}: {line}", path.display());
            }
        }
        files += 1;
    }
    assert!(files > 6, "{files} files");
}
