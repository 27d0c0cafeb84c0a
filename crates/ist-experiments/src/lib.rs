//! crates/ist-experiments
