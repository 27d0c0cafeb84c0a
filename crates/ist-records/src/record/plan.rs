//! `plan.json`: the memory that a run is planned to take.

/// The file in a run's folder.
pub const FILE: &str = "plan.json";

/// The kinds of bytes, in the order they are told.
pub const KINDS: [&str; 9] = [
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "scoring",
    "data",
    "workspace",
];
