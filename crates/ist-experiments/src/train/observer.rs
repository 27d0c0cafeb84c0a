//! Who hears of a run while it goes on. Training itself knows no terminal.

use std::path::Path;

use ist_core::tuner::StepReport;
use ist_records::Failure;

/// Where a run stands when its first step is near.
#[derive(Clone, Copy, Debug)]
pub struct RunBegin<'a> {
    /// The run's folder.
    pub folder: &'a Path,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Steps that are done, after a resume.
    pub done: usize,
}

/// Hears of a run, in this order: `say` and `detail` while it is prepared, `prepared`, `begin`, then
/// `step` after each step with what there is to `say`, and `finish`.
pub trait RunObserver {
    /// A line for the person who watches.
    fn say(&mut self, line: &str);

    /// What only some want to read.
    fn detail(&mut self, _text: &str) {}

    /// Nothing is wrong with the input, and the run's folder is there. From here on a run that is
    /// asked to stop saves first.
    fn prepared(&mut self) {}

    /// Model and checkpoint are read.
    ///
    /// # Errors
    ///
    /// A view that cannot be opened, which ends the run.
    fn begin(&mut self, _run: RunBegin) -> Result<(), Failure> {
        Ok(())
    }

    /// A step is done, which took that many seconds with its scoring.
    fn step(&mut self, report: &StepReport, seconds: f64);

    /// No step follows.
    fn finish(&mut self) {}

    /// Whether to stop after the step in progress.
    fn asks_to_stop(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::train::start::{self, Request, RunPlace};
    use ist_peft::BuiltinAdapter;

    /// Hears everything, and asks to stop after two steps.
    #[derive(Default)]
    struct Recorder {
        heard: Vec<String>,
        steps: usize,
    }

    impl RunObserver for Recorder {
        fn say(&mut self, line: &str) {
            let word = line.split(' ').next().unwrap_or_default();
            self.heard.push(format!("say {word}"));
        }

        fn prepared(&mut self) {
            self.heard.push("prepared".to_owned());
        }

        fn begin(&mut self, run: RunBegin) -> Result<(), Failure> {
            self.heard.push(format!("begin {} of {}", run.done, run.total_steps));
            Ok(())
        }

        fn step(&mut self, report: &StepReport, _: f64) {
            self.steps += 1;
            self.heard.push(format!("step {}", report.step));
        }

        fn finish(&mut self) {
            self.heard.push("finish".to_owned());
        }

        fn asks_to_stop(&self) -> bool {
            self.steps == 2
        }
    }

    #[test]
    fn a_run_tells_its_observer_in_order_and_stops_when_it_is_asked_to() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let changes = ["train.steps=5".to_owned(), "eval.limit=1".to_owned()];
        let load = || {
            config::load_with::<BuiltinAdapter>(&root.join("quickstart.toml"), &changes).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let run = |resume| {
            let place = RunPlace::Named(folder.path().join("run"));
            let request = Request { config: load(), place, resume, device: "flex", strict: false };
            let mut recorder = Recorder::default();
            (start::execute::<BuiltinAdapter>(request, &mut recorder), recorder.heard)
        };
        let (result, heard) = run(false);
        assert!(matches!(result, Err(Failure::Interrupted(_))), "{result:?}");
        let order = ["prepared", "begin 0 of 5", "step 0", "step 1", "finish"];
        assert!(heard.ends_with(&order.map(str::to_owned)), "{heard:?}");
        let (_, heard) = run(true);
        let order = ["prepared", "begin 2 of 5", "step 2", "step 3", "finish"];
        assert!(heard.ends_with(&order.map(str::to_owned)), "{heard:?}");
    }
}
