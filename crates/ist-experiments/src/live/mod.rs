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
//! A view reads the files that the run writes and nothing else, into the same record that a report is made of. So the loop of a
//! run knows nothing of it, the two show the same figures, and a run of another process can be watched as well.

mod follow;
mod ink;
mod pages;
pub mod terminal;
#[cfg(test)]
mod testing;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::failure::{Failure, OrFail};
use crate::report::RunRecord;
use crate::train::interrupt;
use follow::Follower;
use ink::Ink;
use terminal::Terminal;
use view::{Asked, View};

/// Between two pictures.
const TICK: Duration = Duration::from_millis(200);

/// The view of a run of this process, in a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Screen {
    lines: Sender<String>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal and shows the run in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let (lines, said) = mpsc::channel();
        let end = Arc::new(AtomicBool::new(false));
        let (follower, view) =
            (Follower::new(folder), View::new(RunRecord::without_lines(folder)?, true, Ink::of_terminal()));
        let (terminal, ended) = (Terminal::take().or_run()?, end.clone());
        let thread = std::thread::spawn(move || own(terminal, follower, view, &said, &ended));
        Ok(Self { lines, end, thread: Some(thread) })
    }

    /// A line among the messages; it is printed when the terminal is given back.
    pub fn say(&self, line: &str) {
        // A view that is gone, because its terminal is, shows nothing; the run goes on.
        let _ = self.lines.send(line.to_owned());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Shows a run of this process until it is told to end, then prints what was said meanwhile.
fn own(mut terminal: Terminal, mut follower: Follower, mut view: View, said: &Receiver<String>, end: &AtomicBool) {
    let mut works = true;
    while works && !end.load(Ordering::SeqCst) {
        follower.follow(&mut view.run);
        for line in said.try_iter() {
            view.say(&line);
        }
        works = terminal.draw(|frame| view.draw(frame, follower.fault.as_deref())).is_ok();
        match asked(&mut view) {
            Ok(Some(Asked::Stop)) if interrupt::asked() => {
                drop(terminal);
                std::process::exit(130);
            }
            Ok(Some(Asked::Stop)) => interrupt::ask(),
            Ok(Some(Asked::Leave) | None) => {}
            Err(_) => works = false,
        }
    }
    drop(terminal);
    for line in view.messages().iter().cloned().chain(said.try_iter()) {
        eprintln!("{line}");
    }
}

/// Shows the run in `folder`, of whatever process, until a key asks to leave.
///
/// # Errors
///
/// A folder that is no run's, and a stderr that is no terminal.
pub fn watch(folder: &Path) -> Result<(), Failure> {
    let (mut follower, mut view) =
        (Follower::new(folder), View::new(RunRecord::without_lines(folder)?, false, Ink::of_terminal()));
    terminal::must_be_there("`ist watch`")?;
    let mut terminal = Terminal::take().or_run()?;
    loop {
        follower.follow(&mut view.run);
        terminal.draw(|frame| view.draw(frame, follower.fault.as_deref())).or_run()?;
        if asked(&mut view).or_run()?.is_some() {
            return Ok(());
        }
    }
}

/// Waits for a key until the next picture is due; what it asks for that is not the view's own.
fn asked(view: &mut View) -> std::io::Result<Option<Asked>> {
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
