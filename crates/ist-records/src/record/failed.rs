//! `failure.json`: why a run stopped, kept in its folder until it goes on.

use std::path::Path;

use ist_files::regular;
use serde_json::{Value, json};

use super::lines;
use crate::failure::{Failure, OrFail};

/// The file in a run's folder.
pub const FILE: &str = "failure.json";

/// Does the work of a run in `folder`. The reason of an earlier failure goes, that of a new one
/// stays.
pub fn keep<T>(folder: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let path = folder.join(FILE);
    if path.exists() {
        std::fs::remove_file(&path).or_run()?;
    }
    let result = work();
    if let Err(failure @ (Failure::Run(_) | Failure::Input(_))) = &result {
        let text = json!({"reason": failure.to_string()}).to_string();
        // The failure itself matters more than that it cannot be written down.
        let _ = lines::replace(&path, text.as_bytes());
    }
    result
}

/// Why the run in `folder` failed, if it did.
pub fn reason(folder: &Path) -> Option<String> {
    let value: Value = serde_json::from_slice(&regular::read(&folder.join(FILE)).ok()?).ok()?;
    value["reason"].as_str().map(str::to_owned)
}
