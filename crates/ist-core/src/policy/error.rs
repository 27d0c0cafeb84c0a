//! Why a policy cannot be built, cannot select or cannot be restored.

use crate::LayerSetError;
use ist_files::untrusted::cut;

/// Why a policy cannot be built, cannot select or cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No policy of that name is registered.
    #[error("`policy.kind` is \"{}\"; known are {}", cut(found), known.join(", "))]
    UnknownKind {
        /// The name asked for.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A field is unknown, missing or of the wrong type.
    #[error("`policy` of kind \"{kind}\": {source}")]
    Fields {
        /// The policy.
        kind: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
    /// A field's value is out of its range.
    #[error("`policy.{key}` must be {expected}, but is {found}")]
    OutOfRange {
        /// The field.
        key: &'static str,
        /// The allowed range in words.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A layer index names no layer.
    #[error("`policy.layers`: {0}")]
    Layers(#[from] LayerSetError),
    /// The selection log cannot be read.
    #[error(
        "selection log {path}{}: {message}",
        line.map_or(String::new(), |line| format!(", line {line}"))
    )]
    Log {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// The selection log holds no entry for a step.
    #[error(
        "selection log {path} has no entry for step {step}; replay at most as many steps as the \
         log holds"
    )]
    LogEnds {
        /// The file.
        path: String,
        /// The step asked for.
        step: usize,
    },
    /// The number of losses differs from the number of candidates, or a loss is not finite.
    #[error(
        "scoring gave losses {losses:?} for {candidates} candidates; expected one finite loss each"
    )]
    Losses {
        /// Candidates that were to be scored.
        candidates: usize,
        /// The losses received.
        losses: Vec<f64>,
    },
    /// A saved state does not fit this policy.
    #[error("the saved state of policy \"{kind}\" does not fit: {message}")]
    State {
        /// The policy.
        kind: &'static str,
        /// What does not fit.
        message: String,
    },
}
