//! The edits that are measured, in one place, because files move.

/// One edit: a name for the table, and the file that is edited.
#[derive(Debug)]
pub(crate) struct Edit {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// The file, from the root of the repository.
    pub(crate) file: &'static str,
    /// Whether the file is compiled with the features of a GPU alone.
    pub(crate) needs_gpu: bool,
}

/// What contributors edit most: one for each crate and kind of change.
pub(crate) const EDITS: [Edit; 5] = [
    Edit { name: "policy", file: "crates/ist-core/src/policy/ist.rs", needs_gpu: false },
    Edit { name: "method", file: "crates/ist-peft/src/methods/vera.rs", needs_gpu: false },
    Edit { name: "kernel", file: "crates/ist-models/src/ops/rms_norm/cube.rs", needs_gpu: true },
    Edit {
        name: "figure",
        file: "crates/ist-records/src/report/figures/layers.rs",
        needs_gpu: false,
    },
    Edit { name: "command", file: "crates/ist-experiments/src/commands/list.rs", needs_gpu: false },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_exists_and_every_name_is_unique() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for edit in &EDITS {
            assert!(root.join(edit.file).is_file(), "{}: {} is gone", edit.name, edit.file);
        }
        let names: BTreeSet<&str> = EDITS.iter().map(|edit| edit.name).collect();
        assert_eq!(names.len(), EDITS.len());
    }
}
