//! What a person sees of a run: a progress bar, or a plain line now and then when stderr is no
//! terminal; on request the whole terminal. At the end a summary.

pub mod summary;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ist_core::tuner::StepReport;
use ist_records::Failure;
use ist_records::live::Screen;
use ist_records::terminal::{interrupt, screen};
use serde_json::Value;

use crate::train::observer::{RunBegin, RunObserver};

/// Seconds between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How much of a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Nothing.
    Nothing,
    /// A progress bar, or lines.
    Lines,
    /// A view that takes the whole terminal.
    Screen,
}

impl Show {
    /// Nothing with `--quiet`, else a bar or lines.
    pub fn unless(quiet: bool) -> Self {
        if quiet { Self::Nothing } else { Self::Lines }
    }
}

/// The display of one run.
#[derive(Debug)]
pub struct Display {
    show: Show,
    details: bool,
    shown: Shown,
    total: usize,
    last_line: Option<Instant>,
    smoothed: Option<f64>,
}

impl Display {
    /// A display that shows that much. Until the run begins it says lines at most.
    pub fn new(show: Show) -> Self {
        let shown = if show == Show::Nothing { Shown::Nothing } else { Shown::Lines };
        Self { show, details: false, shown, total: 0, last_line: None, smoothed: None }
    }

    /// The same display, which says details too.
    #[must_use]
    pub fn with_details(self) -> Self {
        Self { details: true, ..self }
    }

    /// From here on a bar shows how many of `total` steps are done, where stderr is a terminal.
    pub fn count(&mut self, total: usize, done: usize) {
        self.total = total;
        if self.show == Show::Lines && std::io::stderr().is_terminal() {
            self.shown = Shown::Bar(bar(total, done));
        }
    }

    /// The closing summary of a run's `result.json`.
    pub fn summary(&self, result: &Value) {
        if self.show != Show::Nothing {
            let folder = result["run"]["folder"].as_str().unwrap_or_default();
            screen::line(summary::render(result, folder));
        }
    }

    fn plain(&mut self, done: usize, message: &str) {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL)
            || done == self.total;
        if due {
            screen::line(format!("step {done}/{}  {message}", self.total));
            self.last_line = Some(Instant::now());
        }
    }
}

impl RunObserver for Display {
    /// A line above the bar.
    fn say(&mut self, line: &str) {
        match &self.shown {
            Shown::Screen(screen) => screen.say(line),
            Shown::Bar(bar) => bar.println(line),
            Shown::Lines => screen::line(line),
            Shown::Nothing => {}
        }
    }

    fn detail(&mut self, text: &str) {
        if self.details {
            self.say(text);
        }
    }

    fn prepared(&mut self) {
        interrupt::install();
    }

    fn begin(&mut self, run: RunBegin) -> Result<(), Failure> {
        self.count(run.total_steps, run.done);
        if self.show == Show::Screen {
            self.shown = Shown::Screen(Screen::open(run.folder)?);
        }
        Ok(())
    }

    fn step(&mut self, report: &StepReport, seconds: f64) {
        let smoothed =
            self.smoothed.map_or(report.loss, |smoothed| 0.9 * smoothed + 0.1 * report.loss);
        self.smoothed = Some(smoothed);
        let rate = report.tokens as f64 / seconds.max(1e-9);
        let message = format!(
            "loss, smoothed {smoothed:.4}  {rate:.0} learned tokens/s  layers {:?}",
            report.layers.as_slice()
        );
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_message(message);
                bar.inc(1);
            }
            Shown::Lines => self.plain(report.step + 1, &message),
            // A screen reads the run's files.
            Shown::Screen(_) | Shown::Nothing => {}
        }
    }

    /// Removes the bar, or gives the terminal back.
    fn finish(&mut self) {
        if let Shown::Bar(bar) = std::mem::replace(&mut self.shown, Shown::Nothing) {
            bar.finish_and_clear();
        }
    }

    fn asks_to_stop(&self) -> bool {
        interrupt::asked()
    }
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Lines,
    Bar(ProgressBar),
    Screen(Screen),
}

fn bar(total: usize, done: usize) -> ProgressBar {
    let template = "{bar:28} {pos}/{len}  {msg}  eta {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is a literal");
    ProgressBar::new(total as u64).with_style(style).with_position(done as u64)
}
