//! How far a run or a member is, read from what its folder holds.

use std::path::Path;

use ist_files::regular;
use serde::Serialize;
use serde_json::Value;

use super::claim::{self, Look, Outcome};
use crate::record::folder::is_locked;
use crate::record::result::Curve;
use crate::record::{failed, plan};

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Finished, at its last step or by early stopping.
    Done,
    /// A process works on it.
    Running,
    /// It was stopped or killed, and goes on from its newest checkpoint.
    Interrupted,
    /// It failed; the next try goes on from its newest checkpoint.
    Failed,
    /// It has not begun.
    Waiting,
}

/// A run's state and its figures so far.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Where it is.
    pub state: State,
    /// Why it failed, or who works on it.
    pub reason: Option<String>,
    /// Steps done.
    pub step: usize,
    /// Steps of the whole run, where that is known.
    pub total: Option<u64>,
    /// The last step's loss.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub eval_loss: Option<f64>,
    /// Seconds of its steps.
    pub seconds: f64,
}

/// Of the run in `folder`; `steps` is what is known of its length from elsewhere.
pub fn of_run(folder: &Path, steps: Option<u64>) -> Progress {
    let (state, reason) = state(folder);
    let curve = Curve::read(&folder.join("metrics.jsonl")).unwrap_or_default();
    let planned = document(&folder.join(plan::FILE)).and_then(|plan| plan["total_steps"].as_u64());
    Progress {
        state,
        reason,
        step: curve.losses.len(),
        total: planned.or(steps),
        loss: curve.losses.last().map(|(_, loss)| *loss),
        eval_loss: curve.evaluations.last().map(|(_, loss)| *loss),
        seconds: curve.seconds,
    }
}

/// Of a member of the study in `study`.
pub fn of_member(study: &Path, member: &str, steps: Option<u64>) -> Progress {
    let progress = of_run(&study.join(member), steps);
    let (state, reason) =
        with_claim(progress.state, progress.reason, &claim::look(&study.join(CLAIMS), member));
    Progress { state, reason, ..progress }
}

/// The folder of a study's claims.
pub const CLAIMS: &str = "claims";

/// Where a member is, without its figures.
pub fn state_of_member(study: &Path, member: &str, look: &Look) -> (State, Option<String>) {
    let (state, reason) = state(&study.join(member));
    with_claim(state, reason, look)
}

/// What a claim adds to what the run's own folder says.
fn with_claim(state: State, reason: Option<String>, look: &Look) -> (State, Option<String>) {
    match (state, look) {
        (State::Done, _) => (state, reason),
        (_, Look::Held(_, record)) => {
            let owner = record
                .as_ref()
                .map(|record| format!("by process {} on {}", record.process, record.host));
            (State::Running, owner)
        }
        (State::Interrupted | State::Waiting, Look::Over(_, record)) => match record.outcome {
            Some(Outcome::Failed) => (State::Failed, record.reason.clone()),
            Some(Outcome::Interrupted | Outcome::Done) => (state, reason),
            None => (State::Interrupted, Some("its process was killed".to_owned())),
        },
        _ => (state, reason),
    }
}

fn state(folder: &Path) -> (State, Option<String>) {
    if is_locked(folder) {
        return (State::Running, None);
    }
    let path = folder.join("result.json");
    if path.is_file() {
        return match document(&path).and_then(|result| result["status"].as_str().map(str::to_owned))
        {
            Some(status) if status == "interrupted" => failed_or(folder, State::Interrupted),
            Some(_) => (State::Done, None),
            None => (
                State::Failed,
                Some("result.json is not whole; going on with the run writes it again".to_owned()),
            ),
        };
    }
    let begun = folder.join("config.toml").is_file();
    failed_or(folder, if begun { State::Interrupted } else { State::Waiting })
}

fn failed_or(folder: &Path, state: State) -> (State, Option<String>) {
    failed::reason(folder).map_or((state, None), |reason| (State::Failed, Some(reason)))
}

fn document(path: &Path) -> Option<Value> {
    serde_json::from_slice(&regular::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_state_is_what_the_folder_holds() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let write = |name: &str, text: &str| std::fs::write(run.join(name), text).unwrap();
        let state = || of_run(run, Some(7)).state;
        assert_eq!(state(), State::Waiting);
        write("config.toml", "");
        write(
            "metrics.jsonl",
            "{\"step\":0,\"loss\":2.0,\"seconds\":0.5}\n{\"step\":0,\"eval_loss\":1.5}\n{\"st",
        );
        let progress = of_run(run, Some(7));
        assert_eq!(
            (progress.state, progress.step, progress.total),
            (State::Interrupted, 1, Some(7))
        );
        assert_eq!(
            (progress.loss, progress.eval_loss, progress.seconds),
            (Some(2.0), Some(1.5), 0.5)
        );
        write("failure.json", "{\"reason\": \"no space\"}");
        assert_eq!(
            (state(), of_run(run, None).reason.as_deref()),
            (State::Failed, Some("no space"))
        );
        write("result.json", "{\"status\": \"finis");
        assert_eq!(state(), State::Failed);
        write("result.json", "{\"status\": \"stopped early\"}");
        assert_eq!(state(), State::Done);
        let lock = File::create(run.join(".lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(state(), State::Running);
    }

    #[test]
    fn a_claim_tells_what_the_folder_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let claims = folder.path().join(CLAIMS);
        let state = || of_member(folder.path(), "a", None).state;
        assert_eq!(state(), State::Waiting);
        let claim = claim::take(&claims, "a", None, || {}).unwrap().unwrap();
        assert_eq!(state(), State::Running);
        claim.finish(Outcome::Failed, Some("no such file".to_owned())).unwrap();
        assert_eq!(of_member(folder.path(), "a", None).reason.as_deref(), Some("no such file"));
        assert_eq!(state(), State::Failed);
    }
}
