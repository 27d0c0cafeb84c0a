//! One member: claimed, executed, and what came of it said.

use std::path::Path;

use ist_peft::Adapter;
use serde_json::Value;

use crate::config::RunConfig;
use crate::display::{Display, Show};
use crate::train::start::{self, Request, RunPlace};
use ist_records::study::claim::{self, Outcome, STALE};
use ist_records::study::progress::{CLAIMS, State, state_of_member};
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// What became of a call to execute a member.
#[derive(Debug)]
pub enum Executed {
    /// It was executed; its result.
    Now(Value),
    /// It was finished before.
    Before,
    /// Another process has it.
    Elsewhere(Option<String>),
}

/// How members are executed.
#[derive(Debug)]
pub struct Manner<'a> {
    /// The device's name.
    pub device: &'a str,
    /// Say nothing.
    pub quiet: bool,
    /// Say more.
    pub verbose: bool,
    /// A try that was seen to stand still, and may be taken over.
    pub dead: Option<u64>,
    /// Watch a member that another process has, and take it over when its owner is dead.
    pub watch: bool,
}

/// Executes the member of that name in the study's folder, or goes on with it.
pub fn execute<A: Adapter>(
    study: &Path,
    name: &str,
    config: RunConfig,
    manner: &Manner,
) -> Result<Executed, Failure> {
    let claims = study.join(CLAIMS);
    let state = || state_of_member(study, name, &claim::look(&claims, name));
    if state().0 == State::Done {
        return Ok(Executed::Before);
    }
    let mut claim = claim::take(&claims, name, manner.dead, lost).or_run()?;
    if claim.is_none() && manner.watch {
        let dead = claim::stands_still(&claims, name, STALE);
        claim =
            if dead.is_some() { claim::take(&claims, name, dead, lost).or_run()? } else { None };
    }
    let Some(claim) = claim else {
        return Ok(Executed::Elsewhere(state().1));
    };
    // It may have been finished between the look and the claim.
    if state().0 == State::Done {
        claim.finish(Outcome::Done, None).or_run()?;
        return Ok(Executed::Before);
    }
    let folder = study.join(name);
    let resume = folder.join("config.toml").exists();
    let place = RunPlace::Named(folder);
    let request = Request { config, place, resume, device: manner.device, strict: false };
    let mut display = Display::new(Show::unless(manner.quiet));
    if manner.verbose {
        display = display.with_details();
    }
    let result = start::execute::<A>(request, &mut display);
    if let Ok(result) = &result {
        display.summary(result);
    }
    let (outcome, reason) = match &result {
        Ok(_) => (Outcome::Done, None),
        Err(Failure::Interrupted(_)) => (Outcome::Interrupted, None),
        Err(failure) => (Outcome::Failed, Some(failure.to_string())),
    };
    let said = claim.finish(outcome, reason).or_run();
    let result = result?;
    said?;
    Ok(Executed::Now(result))
}

/// Ends the process before it writes another byte to what is no longer its own.
fn lost() {
    screen::line(
        "error: another process took this member over, as this one was not heard of for too long",
    );
    std::process::exit(1);
}
