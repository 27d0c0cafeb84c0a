//! A run for tests.

use serde_json::json;

use crate::record::costs::StepTimes;
use crate::report::{Evaluation, RunRecord, State, Step};

/// A run of 400 steps at two layers, of which so many are done: losses from 1.5 down by a hundredth
/// a step, an evaluation every 30 steps, an importance update in step 100, layer 0 chosen in three
/// of four steps.
pub(super) fn run(done: usize) -> RunRecord {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "seed = 3\n[policy]\nkind = \"ist\"\n")
        .unwrap();
    let mut run = RunRecord::without_lines(folder.path()).unwrap();
    (run.name, run.folder, run.state) = ("x-1".to_owned(), "runs/x-1".into(), State::Running);
    let step = |step: usize| Step {
        step,
        loss: 1.5 - 0.01 * step as f64,
        tokens: 8.0,
        elapsed: 0.5 * (step + 1) as f64,
        peak_bytes: f64::from(2 << 20),
    };
    run.steps = (0..done).map(step).collect();
    let evaluation =
        |step: &Step| Evaluation { step: step.step, loss: step.loss, elapsed: step.elapsed };
    run.evaluations =
        run.steps.iter().filter(|step| step.step % 30 == 29).map(evaluation).collect();
    run.updates = if done >= 100 { vec![(100, vec![-2.0, 2.0])] } else { Vec::new() };
    run.selected = vec![3 * done / 4, done / 4];
    run.plan = json!({"total_steps": 400, "layers": 2, "peak_bytes": 1 << 20, "bytes": {"weights": 1 << 19}});
    run.times = Some(StepTimes { forward: 0.3 * done as f64, ..StepTimes::default() });
    run
}
