//! What a person sees of a run: a progress bar, or a plain line now and then when stderr is no terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ist_core::tuner::StepReport;

/// Seconds between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The display of one run.
#[derive(Debug)]
pub struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    total: usize,
    last_line: Option<Instant>,
    smoothed: Option<f64>,
}

impl Display {
    /// A display for `total` steps, of which `done` are done.
    pub fn new(total: usize, done: usize, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let bar = terminal.then(|| {
            let template = "{bar:28} {pos}/{len}  {msg}  eta {eta}";
            let style = ProgressStyle::with_template(template).expect("the template is a literal");
            ProgressBar::new(total as u64).with_style(style).with_position(done as u64)
        });
        Self { bar, quiet, total, last_line: None, smoothed: None }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None if !self.quiet => eprintln!("{line}"),
            None => {}
        }
    }

    /// A step is done.
    pub fn step(&mut self, report: &StepReport, seconds: f64) {
        let smoothed = self.smoothed.map_or(report.loss, |smoothed| 0.9 * smoothed + 0.1 * report.loss);
        self.smoothed = Some(smoothed);
        let rate = report.tokens as f64 / seconds.max(1e-9);
        let message = format!("loss {smoothed:.4}  {rate:.0} tokens/s  layers {:?}", report.layers.as_slice());
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.inc(1);
            }
            None => self.plain(report.step + 1, &message),
        }
    }

    fn plain(&mut self, done: usize, message: &str) {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) || done == self.total;
        if due && !self.quiet {
            eprintln!("step {done}/{}  {message}", self.total);
            self.last_line = Some(Instant::now());
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
