//! What a person sees of a run: a progress bar, or a plain line now and then when stderr is no
//! terminal; on request the whole terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ist_core::tuner::StepReport;

use ist_records::Failure;
use ist_records::live::Screen;
use ist_records::terminal::screen;

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

/// The display of one run.
#[derive(Debug)]
pub struct Display {
    shown: Shown,
    total: usize,
    last_line: Option<Instant>,
    smoothed: Option<f64>,
}

impl Display {
    /// A display for `total` steps, of which `done` are done.
    pub fn new(total: usize, done: usize, quiet: bool) -> Self {
        let shown = match quiet {
            true => Shown::Nothing,
            false if std::io::stderr().is_terminal() => Shown::Bar(bar(total, done)),
            false => Shown::Lines,
        };
        Self { shown, total, last_line: None, smoothed: None }
    }

    /// A view of the run in `folder` that takes the whole terminal.
    pub fn screen(folder: &Path, total: usize) -> Result<Self, Failure> {
        Ok(Self {
            shown: Shown::Screen(Screen::open(folder)?),
            total,
            last_line: None,
            smoothed: None,
        })
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Screen(screen) => screen.say(line),
            Shown::Bar(bar) => bar.println(line),
            Shown::Lines => screen::line(line),
            Shown::Nothing => {}
        }
    }

    /// A step is done.
    pub fn step(&mut self, report: &StepReport, seconds: f64) {
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

    fn plain(&mut self, done: usize, message: &str) {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL)
            || done == self.total;
        if due {
            screen::line(format!("step {done}/{}  {message}", self.total));
            self.last_line = Some(Instant::now());
        }
    }

    /// Removes the bar, or gives the terminal back.
    pub fn finish(&mut self) {
        if let Shown::Bar(bar) = std::mem::replace(&mut self.shown, Shown::Nothing) {
            bar.finish_and_clear();
        }
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
