//! How far a command has come: a bar on a terminal, else a plain line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::screen;

/// Seconds between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
#[derive(Debug)]
pub struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    quiet: bool,
    total: usize,
    last_line: Instant,
}

impl Progress {
    /// Work of `total` parts, none of which is done.
    pub fn new(label: &str, total: usize, quiet: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !quiet).then(|| {
            let style = ProgressStyle::with_template("{msg:18} {bar:28} {pos}/{len}  eta {eta}");
            let style = style.expect("the template is a literal");
            ProgressBar::new(total as u64).with_style(style).with_message(label.to_owned())
        });
        Self { label: label.to_owned(), bar, quiet, total, last_line: Instant::now() }
    }

    /// So many parts are done.
    pub fn reach(&mut self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if !self.quiet && self.last_line.elapsed() >= PLAIN_INTERVAL => {
                screen::line(format!("{} {done}/{}", self.label, self.total));
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The progress of one file that is fetched.
#[derive(Debug)]
pub struct FileProgress {
    name: String,
    bar: ProgressBar,
    total: Option<u64>,
    last_line: Instant,
}

impl FileProgress {
    /// A file of that size, of which nothing is here.
    pub fn new(name: &str, total: Option<u64>) -> Self {
        let template = "{msg:32} {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}";
        let style = ProgressStyle::with_template(template).expect("the template is a literal");
        // It hides itself where stderr is not a terminal.
        let bar = ProgressBar::new(total.unwrap_or_default()).with_style(style);
        bar.set_message(name.to_owned());
        Self { name: name.to_owned(), bar, total, last_line: Instant::now() }
    }

    /// So many bytes are here.
    pub fn reach(&mut self, done: u64) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.last_line.elapsed() >= PLAIN_INTERVAL {
            let of = self.total.map_or(String::new(), |total| format!(" of {total}"));
            screen::line(format!("{}: {done}{of} bytes", self.name));
            self.last_line = Instant::now();
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
