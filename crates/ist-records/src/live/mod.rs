//! A run on a whole terminal while it is going on: `ist train --tui` and `ist watch`.
//!
//! | what | look at |
//! |---|---|
//! | the run's files, read as they grow | `follow` |
//! | what is on the screen, and what keys do | `view` |
//! | its pages | `pages` |
//! | colours, or shades where there are none | `ink` |
//! | taking the terminal and giving it back | [`terminal`] |
//!
//! A view reads the files that the run writes and nothing else, into the same record that a report
//! is made of. So the loop of a run knows nothing of it, the two show the same figures, and a run
//! of another process can be watched as well.

mod follow;
mod ink;
mod pages;
pub mod terminal;
#[cfg(test)]
mod testing;
mod view;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::failure::{Failure, OrFail};
use crate::report::RunRecord;
use crate::terminal::{interrupt, screen};
use follow::Follower;
use ink::Ink;
use terminal::Terminal;
use view::{Asked, View};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(200);
/// How long the end of a run waits for its view: on a terminal that was closed, reading keys may
/// never return.
const PATIENCE: Duration = Duration::from_secs(2);

/// The view of a run of this process, in a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Screen {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the run and its view tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// What the run said and the terminal has not been given yet.
    said: Mutex<Vec<String>>,
    end: AtomicBool,
}

impl Shared {
    fn with_said<T>(&self, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
        work(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Prints what was said; the terminal must not be a view's. A terminal that is gone is told
    /// nothing.
    fn print(&self) {
        for line in self.with_said(std::mem::take) {
            screen::line(line);
        }
    }
}

impl Screen {
    /// Takes the terminal and shows the run in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let view = View::new(RunRecord::without_lines(folder)?, true, Ink::of_terminal());
        let (terminal, follower, of_thread) =
            (Terminal::take().or_run()?, Follower::new(folder), shared.clone());
        let thread = std::thread::spawn(move || own(terminal, follower, view, &of_thread));
        Ok(Self { shared, thread })
    }

    /// A line among the messages; it is printed when the terminal is given back, or now if the view
    /// has ended.
    pub fn say(&self, line: &str) {
        self.shared.with_said(|said| said.push(line.to_owned()));
        if self.thread.is_finished() {
            self.shared.print();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        let asked = Instant::now();
        while !self.thread.is_finished() && asked.elapsed() < PATIENCE {
            std::thread::sleep(TICK / 20);
        }
        terminal::give_back();
        self.shared.print();
    }
}

/// Shows a run of this process until it is told to end, or until the terminal fails; the run goes
/// on then.
fn own(mut terminal: Terminal, mut follower: Follower, mut view: View, shared: &Shared) {
    while !shared.end.load(Ordering::SeqCst) {
        follower.follow(&mut view.run);
        shared.with_said(|said| view.messages.clone_from(said));
        let asked = terminal
            .draw(|frame| view.draw(frame, follower.fault()))
            .and_then(|()| asked(&mut view));
        match asked {
            Ok(Some(Asked::Stop)) => interrupt::ask(),
            Ok(Some(Asked::StopAtOnce)) => {
                drop(terminal);
                shared.print();
                std::process::exit(130);
            }
            Ok(Some(Asked::Leave) | None) => {}
            Err(_) => return,
        }
    }
}

/// Shows the run in `folder`, of whatever process, until a key or a signal asks to leave.
///
/// # Errors
///
/// A folder that is no run's, and a stderr that is no terminal.
pub fn watch(folder: &Path) -> Result<(), Failure> {
    terminal::must_be_there("`ist watch`", "`ist list` tells how far runs are")?;
    let (mut follower, run) = (Follower::new(folder), RunRecord::without_lines(folder)?);
    let mut view = View::new(run, false, Ink::of_terminal());
    interrupt::install();
    let mut terminal = Terminal::take().or_run()?;
    while !interrupt::asked() {
        follower.follow(&mut view.run);
        terminal.draw(|frame| view.draw(frame, follower.fault())).or_run()?;
        if asked(&mut view).or_run()?.is_some() {
            break;
        }
    }
    Ok(())
}

/// Waits for a key until the next picture is due; what it asks for that is not the view's own.
fn asked(view: &mut View) -> io::Result<Option<Asked>> {
    let mut wait = TICK;
    while event::poll(wait)? {
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                if let Some(asked) = view.press(key) {
                    return Ok(Some(asked));
                }
            }
            _ => {}
        }
        wait = Duration::ZERO;
    }
    Ok(None)
}
