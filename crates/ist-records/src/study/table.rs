//! Runs and their states as a table for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::progress::{Progress, State};

/// One run of a table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `STUDY/MEMBER`, or the run's folder.
    pub name: String,
    /// The run's folder.
    pub folder: String,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
}

impl State {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

/// The table, with a closing line that counts the states.
pub fn render(rows: &[Row]) -> String {
    let widest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{:<widest$}  {:<11}  {:>13}  {:>9}  {:>9}  {:>9}\n",
        "run", "state", "step", "loss", "eval loss", "seconds"
    );
    for Row { name, progress, .. } in rows {
        let total = progress.total.map_or_else(|| "?".to_owned(), |total| total.to_string());
        let step = format!("{}/{total}", progress.step);
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        let (loss, eval_loss) = (number(progress.loss), number(progress.eval_loss));
        let state = progress.state.word();
        let line = format!(
            "{name:<widest$}  {state:<11}  {step:>13}  {loss:>9}  {eval_loss:>9}  {:>9.1}",
            progress.seconds
        );
        let reason =
            progress.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        let _ = writeln!(text, "{}", format!("{line}  {reason}").trim_end());
    }
    text + &counts(rows) + "\n"
}

/// "12 runs: 3 done, 9 waiting".
pub fn counts(rows: &[Row]) -> String {
    let states = [State::Done, State::Running, State::Interrupted, State::Failed, State::Waiting];
    let count = |state| rows.iter().filter(|row| row.progress.state == state).count();
    let parts: Vec<String> = states
        .into_iter()
        .filter(|state| count(*state) > 0)
        .map(|state| format!("{} {}", count(state), state.word()))
        .collect();
    let runs = if rows.len() == 1 { "run" } else { "runs" };
    if parts.is_empty() {
        "no runs".to_owned()
    } else {
        format!("{} {runs}: {}", rows.len(), parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_line_and_every_state_is_counted() {
        let progress = |state, reason: Option<&str>| Progress {
            state,
            reason: reason.map(str::to_owned),
            step: 3,
            total: Some(10),
            loss: Some(0.5),
            eval_loss: None,
            seconds: 1.25,
        };
        let row =
            |name: &str, progress| Row { name: name.to_owned(), folder: String::new(), progress };
        let rows = [
            row("s/seed=0", progress(State::Done, None)),
            row("s/policy.kind=ist,seed=0", progress(State::Failed, Some("no space\nmore"))),
        ];
        let text = render(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[1].starts_with("s/seed=0 ")
                && lines[1].contains("3/10")
                && lines[1].ends_with("1.2"),
            "{text}"
        );
        assert!(lines[2].contains("failed") && lines[2].ends_with("no space"), "{text}");
        assert_eq!(lines[3], "2 runs: 1 done, 1 failed");
        assert_eq!(counts(&[]), "no runs");
    }
}
