//! Executes the members of studies, each in a process of its own, so many at once.
//!
//! A process for each: one that runs out of memory or is killed takes no other with it, and what is
//! measured of a run is its own. A member's process watches the pipe to this one: when it closes,
//! because this process ends however it ends, the member finishes its step and saves.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use ist_files::{durable, regular};

use super::claim::{self, Look, STALE};
use super::progress::{CLAIMS, State, state_of_member};
use crate::failure::{Failure, OrFail};
use crate::terminal::{interrupt, screen};

/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at a member that another process has.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How members are executed.
#[derive(Debug)]
pub struct Manner<'a> {
    /// Processes at once.
    pub jobs: usize,
    /// Cores that the processes share.
    pub cores: usize,
    /// The variable that tells a process how many threads it may have.
    pub threads_variable: &'a str,
    /// The device's name.
    pub device: &'a str,
    /// Say nothing.
    pub quiet: bool,
    /// Let runs that are executed one after the other say what they do.
    pub verbose: bool,
}

/// A member that is to be executed.
#[derive(Debug)]
pub struct Task {
    /// The study's folder.
    pub study: PathBuf,
    /// The member's name.
    pub name: String,
    /// Its place in the manifest.
    pub index: usize,
}

/// What came of a task in this call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is finished.
    Done,
    /// It failed, for that reason.
    Failed(String),
    /// It was left as it is, because the call was interrupted.
    Left,
}

struct Entry<'a> {
    task: &'a Task,
    /// The newest try before this call: a later one that failed, here or elsewhere, is not tried
    /// again in this call.
    before: u64,
    /// The beat that was seen last, and since when.
    beat: Option<(u64, Option<u64>, Instant)>,
    look_at: Instant,
    end: Option<End>,
}

struct Running {
    entry: usize,
    child: Child,
    started: Instant,
}

/// Executes the tasks; what came of each, in order.
pub fn execute(tasks: &[Task], manner: &Manner) -> Result<Vec<End>, Failure> {
    interrupt::install();
    let entry = |task| {
        let before = claim::look(&claims(task), &task.name).generation();
        Entry { task, before, beat: None, look_at: Instant::now(), end: None }
    };
    let mut schedule = Schedule {
        entries: tasks.iter().map(entry).collect(),
        running: Vec::new(),
        manner,
        cores: manner.cores,
        said_waiting: false,
    };
    while !interrupt::asked() && schedule.entries.iter().any(|entry| entry.end.is_none()) {
        schedule.reap()?;
        schedule.start()?;
        std::thread::sleep(TICK);
    }
    schedule.stop()?;
    Ok(schedule.entries.into_iter().map(|entry| entry.end.unwrap_or(End::Left)).collect())
}

fn claims(task: &Task) -> PathBuf {
    task.study.join(CLAIMS)
}

struct Schedule<'a> {
    entries: Vec<Entry<'a>>,
    running: Vec<Running>,
    manner: &'a Manner<'a>,
    cores: usize,
    said_waiting: bool,
}

impl Schedule<'_> {
    fn say(&self, line: &str) {
        if !self.manner.quiet {
            screen::line(line);
        }
    }

    /// Starts what is free, until so many run at once.
    fn start(&mut self) -> Result<(), Failure> {
        for at in 0..self.entries.len() {
            if self.running.len() >= self.manner.jobs || interrupt::asked() {
                return Ok(());
            }
            let runs = self.running.iter().any(|running| running.entry == at);
            if runs || self.entries[at].end.is_some() || Instant::now() < self.entries[at].look_at {
                continue;
            }
            let (task, before) = (self.entries[at].task, self.entries[at].before);
            let look = claim::look(&claims(task), &task.name);
            match state_of_member(&task.study, &task.name, &look) {
                (State::Done, _) => self.end(at, End::Done, None),
                (State::Failed, reason) if look.generation() > before => {
                    self.end(at, End::Failed(reason.unwrap_or_default()), None);
                }
                (State::Running, _) => match self.seen_dead(at, &look) {
                    Some(dead) => self.spawn(at, Some(dead))?,
                    None => self.entries[at].look_at = Instant::now() + LOOK_AGAIN,
                },
                _ => self.spawn(at, None)?,
            }
        }
        self.say_waiting();
        Ok(())
    }

    /// The try of an owner that has stood still for too long.
    fn seen_dead(&mut self, at: usize, look: &Look) -> Option<u64> {
        let Look::Held(generation, record) = look else { return None };
        let now = (*generation, record.as_ref().map(|record| record.beat));
        match self.entries[at].beat {
            Some((generation, beat, since)) if (generation, beat) == now => {
                (since.elapsed() > STALE).then_some(generation)
            }
            _ => {
                self.entries[at].beat = Some((now.0, now.1, Instant::now()));
                None
            }
        }
    }

    fn say_waiting(&mut self) {
        let open = self.entries.iter().filter(|entry| entry.end.is_none()).count();
        if open > 0 && self.running.is_empty() && !self.said_waiting {
            self.said_waiting = true;
            self.say(&format!(
                "waiting for {open} runs that other processes have; Ctrl-C leaves them to those"
            ));
        }
    }

    fn spawn(&mut self, at: usize, dead: Option<u64>) -> Result<(), Failure> {
        let task = self.entries[at].task;
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program").or_run()?);
        command.arg("run").arg(&task.study).arg("--member").arg(task.index.to_string());
        command.args(["--device", self.manner.device, "--while-stdin-is-open"]);
        command.args(dead.map(|dead| format!("--take-over={dead}")));
        command.args(self.manner.quiet.then_some("--quiet"));
        if std::env::var_os(self.manner.threads_variable).is_none() {
            command.env(
                self.manner.threads_variable,
                (self.cores / self.manner.jobs).max(1).to_string(),
            );
        }
        let alone = self.manner.jobs == 1 && (self.manner.verbose || self.entries.len() == 1);
        let heard = alone && !self.manner.quiet;
        let log = if heard { Stdio::inherit() } else { Stdio::from(log_file(task)?) };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("cannot start a process").or_run()?;
        self.say(&format!("start    {}", shown(task)));
        self.running.push(Running { entry: at, child, started: Instant::now() });
        Ok(())
    }

    /// Takes note of the processes that have ended.
    fn reap(&mut self) -> Result<(), Failure> {
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].child.try_wait().context("a run's process").or_run()? {
                None => at += 1,
                Some(status) => {
                    let running = self.running.swap_remove(at);
                    self.ended(&running, status);
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, running: &Running, status: ExitStatus) {
        let task = self.entries[running.entry].task;
        if !status.success() {
            claim::note_death(
                &claims(task),
                &task.name,
                running.child.id(),
                &format!("its process ended by {status}"),
            );
        }
        let look = claim::look(&claims(task), &task.name);
        let (state, reason) = state_of_member(&task.study, &task.name, &look);
        let took = Some(running.started.elapsed());
        match (state, status.code()) {
            (State::Done, _) => self.end(running.entry, End::Done, took),
            // Another process was faster; that it has the member is no failure.
            (_, Some(0)) => self.entries[running.entry].look_at = Instant::now() + LOOK_AGAIN,
            (_, Some(130)) if interrupt::asked() => self.end(running.entry, End::Left, None),
            (_, Some(130)) => {
                self.end(running.entry, End::Failed("it was interrupted".to_owned()), None);
            }
            _ => {
                let reason = reason.unwrap_or_else(|| format!("its process ended by {status}"));
                self.end(running.entry, End::Failed(reason), None);
            }
        }
    }

    fn end(&mut self, at: usize, end: End, took: Option<Duration>) {
        let name = shown(self.entries[at].task);
        match (&end, took) {
            (End::Done, Some(took)) => {
                self.say(&format!("done     {name} ({:.1} s)", took.as_secs_f64()));
            }
            (End::Failed(reason), _) => {
                self.say(&format!("failed   {name}: {}", first_line(reason)));
            }
            _ => {}
        }
        self.entries[at].end = Some(end);
    }

    /// Lets what still runs finish its step and save.
    fn stop(&mut self) -> Result<(), Failure> {
        for running in &mut self.running {
            drop(running.child.stdin.take());
        }
        while !self.running.is_empty() {
            self.reap()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

fn log_file(task: &Task) -> Result<File, Failure> {
    let path = task.study.join("logs").join(format!("{}.log", task.name));
    let context = || format!("{}: cannot create", path.display());
    let folder = durable::folder_of(&path);
    regular::own_folder(folder).with_context(|| folder.display().to_string()).or_input()?;
    durable::create_folder(folder).with_context(context).or_run()?;
    let log = regular::open_own(&path).with_context(context).or_run()?;
    log.set_len(0).with_context(context).or_run()?;
    Ok(log)
}

/// `STUDY/MEMBER`.
fn shown(task: &Task) -> String {
    let study = task.study.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{study}/{}", task.name)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
