//! `ist chat`: a conversation on stdin and stdout.
//!
//! Every line is a turn. What the cache has read is kept from turn to turn, and read again only
//! where the laid-out conversation does not go on behind it token for token.

use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use ist_core::burn::tensor::DType;
use ist_models::generate::{Conversation, Settings};
use ist_models::registry;
use ist_peft::Adapter;

use super::sampling::Sampling;
use crate::machine::device;
use crate::model_source::{self, Opening};
use crate::text::TextModel;
use crate::text::dialogue::Dialogue;
use crate::text::records::chat::{Message, Role};
use crate::text::stream::TextStream;
use ist_records::terminal::screen;
use ist_records::{Failure, OrFail};

/// `ist chat`.
#[derive(Debug, Args)]
pub struct Chat {
    /// A model folder, `builtin:NAME`, or a hub id `org/name[@revision]`
    #[arg(long)]
    pub model: String,
    /// A folder in Hugging Face PEFT layout
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// What the system says before
    #[arg(long)]
    pub system: Option<String>,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 512)]
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: Sampling,
    /// cpu, flex, ndarray, wgpu, vulkan, cuda, cuda:1, auto
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// Converses.
pub fn run<A: Adapter>(arguments: &Chat, quiet: bool, verbose: bool) -> Result<(), Failure> {
    let settings = arguments.sampling.settings(arguments.max_new_tokens, Vec::new())?;
    if arguments.max_new_tokens == 0 {
        return Err(Failure::input("--max-new-tokens must be at least 1, found 0"));
    }
    let device = device::open(&arguments.device)?;
    let files = model_source::find_named(&arguments.model)?;
    let text = model_source::text(&files)?;
    let vocab_size = registry::shape(&files).or_input()?.vocab_size;
    let (dialogue, layout) = match Dialogue::of_model(&text, vocab_size)? {
        Some(dialogue) => (dialogue, "the model's chat template"),
        None => (
            Dialogue::default_layout(&text, vocab_size),
            "the default layout (### User:), since the model has no chat template",
        ),
    };
    let notes = if quiet {
        Notes::None
    } else if verbose {
        Notes::All
    } else {
        Notes::Some
    };
    notes.tell(&format!("turns are laid out by {layout}; {COMMANDS}, Ctrl-D ends"));
    let settings = Settings { end_tokens: dialogue.end_tokens.clone(), ..settings };
    let model = model_source::open::<A>(Opening {
        files: &files,
        storage: DType::F32,
        device: &device,
        adapter: arguments.adapter.as_deref(),
    })?;
    let mut session = Session {
        text: &text,
        dialogue: &dialogue,
        settings,
        system: arguments.system.clone(),
        notes,
        conversation: Conversation::new(&model),
        context: model.max_position_embeddings(),
        turns: Vec::new(),
        answers: 0,
    };
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    session.converse(&mut stdin.lock(), terminal)
}

/// What a line can be beside a turn.
const COMMANDS: &str = "/system TEXT, /reset, /exit";

/// What is told on stderr.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notes {
    None,
    Some,
    All,
}

impl Notes {
    fn tell(self, note: &str) {
        if self != Self::None {
            screen::line(note);
        }
    }
}

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Exit,
    Reset,
    System(Option<&'a str>),
    Unknown(&'a str),
    Say(&'a str),
}

impl<'a> Line<'a> {
    /// A line that begins with `/` is a command; with a space before it, it is a turn.
    fn read(line: &'a str) -> Self {
        let line = line.trim_end_matches(['\r', '\n']);
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "/exit" => Self::Exit,
            "/reset" => Self::Reset,
            "/system" => Self::System(Some(rest.trim()).filter(|text| !text.is_empty())),
            command if command.starts_with('/') => Self::Unknown(command),
            _ if line.trim().is_empty() => Self::Nothing,
            _ => Self::Say(line.trim()),
        }
    }
}

/// A conversation under way.
struct Session<'a, A: Adapter> {
    text: &'a TextModel,
    dialogue: &'a Dialogue,
    settings: Settings,
    system: Option<String>,
    notes: Notes,
    conversation: Conversation<'a, A>,
    context: usize,
    /// The user's and the assistant's turns that are remembered.
    turns: Vec<Message>,
    answers: u64,
}

impl<A: Adapter> Session<'_, A> {
    /// Reads lines until there are none. At a terminal a turn that cannot be answered is told and
    /// taken back; elsewhere it is the end.
    fn converse(&mut self, input: &mut impl BufRead, terminal: bool) -> Result<(), Failure> {
        let mut line = String::new();
        loop {
            if terminal {
                screen::text("> ");
            }
            line.clear();
            match input.read_line(&mut line) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return Err(Failure::input("stdin: a line is not UTF-8"));
                }
                Err(error) => return Err(Failure::run(format!("stdin: {error}"))),
            }
            match Line::read(&line) {
                Line::Nothing => {}
                Line::Exit => return Ok(()),
                Line::Reset => self.turns.clear(),
                Line::System(text) => self.system = text.map(str::to_owned),
                Line::Unknown(command) => refuse(&unknown(command), terminal)?,
                Line::Say(text) => self.say(text, terminal)?,
            }
        }
    }

    fn say(&mut self, text: &str, terminal: bool) -> Result<(), Failure> {
        self.turns.push(Message::new(Role::User, text));
        let prompt = match self.prompt() {
            Ok(prompt) => prompt,
            Err(failure) => {
                self.turns.pop();
                return refuse(&failure.to_string(), terminal);
            }
        };
        let content = self.answer(&prompt)?;
        self.turns.push(Message::new(Role::Assistant, content));
        Ok(())
    }

    /// The tokens of the conversation, without its oldest turns where they leave no room for an
    /// answer.
    fn prompt(&mut self) -> Result<Vec<u32>, Failure> {
        let room = self.settings.max_new_tokens.min(self.context / 2).max(1);
        let mut dropped = 0;
        loop {
            let system = self.system.iter().map(|text| Message::new(Role::System, text.clone()));
            let messages: Vec<Message> = system.chain(self.turns.iter().cloned()).collect();
            let prompt = self.dialogue.prompt(&messages)?;
            if prompt.len() + room <= self.context {
                if dropped > 0 {
                    self.notes.tell(&format!(
                        "(the model's context of {} positions is full: the oldest {dropped} turns \
                         were forgotten)",
                        self.context
                    ));
                }
                return Ok(prompt);
            }
            if self.turns.len() < 3 {
                return Err(Failure::input(format!(
                    "this turn comes to {} tokens, but the model's context of {} positions is to \
                     leave {room} for the \
                     answer; say less, shorten the system's text, or lower --max-new-tokens",
                    prompt.len(),
                    self.context
                )));
            }
            // A question and its answer: templates want the user to speak first.
            dropped += self.turns.drain(..2).count();
        }
    }

    /// Streams the answer to stdout and returns it.
    fn answer(&mut self, prompt: &[u32]) -> Result<String, Failure> {
        let most = self.settings.max_new_tokens.min(self.context - prompt.len());
        // Every answer has draws of its own.
        let seed = self.settings.seed.wrapping_add(self.answers);
        self.answers += 1;
        let settings = Settings { max_new_tokens: most, seed, ..self.settings.clone() };
        if self.notes == Notes::All {
            let shared = self.conversation.shared(prompt);
            screen::line(format!("({shared} of {} tokens were read before)", prompt.len()));
        }
        let mut stream = TextStream::new(self.text, &self.dialogue.stops);
        let mut outcome = Ok(());
        let mut stopped = false;
        let output = self.conversation.answer(prompt, &settings, |output| {
            let read =
                stream.read(output).and_then(|read| screen::result(&read.new).map(|()| read));
            stopped = read.as_ref().is_ok_and(|read| read.stopped);
            let goes_on = read.as_ref().is_ok_and(|read| !read.stopped);
            outcome = read.map(drop);
            goes_on
        });
        let output = output.or_input()?;
        outcome?;
        let (whole, rest) = stream.finish(&output)?;
        screen::result(&(rest + "\n"))?;
        let ended = stopped || output.last().is_some_and(|last| settings.end_tokens.contains(last));
        if !ended {
            self.notes.tell(&format!("(cut after {most} tokens)"));
        }
        Ok(if stopped { whole.trim_end().to_owned() } else { whole })
    }
}

/// At a terminal the reason is told, elsewhere it is the end.
fn refuse(reason: &str, terminal: bool) -> Result<(), Failure> {
    if !terminal {
        return Err(Failure::input(reason));
    }
    screen::line(reason);
    Ok(())
}

fn unknown(command: &str) -> String {
    format!(
        "unknown command {command}; there are {COMMANDS} (a space before the / makes it a turn)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_a_turn() {
        assert_eq!(Line::read("  hello there \n"), Line::Say("hello there"));
        assert_eq!(Line::read(" /exit\n"), Line::Say("/exit"));
        assert_eq!(Line::read("\r\n"), Line::Nothing);
        assert_eq!(Line::read("/exit\n"), Line::Exit);
        assert_eq!(Line::read("/reset\r\n"), Line::Reset);
        assert_eq!(Line::read("/system Be brief. \n"), Line::System(Some("Be brief.")));
        assert_eq!(Line::read("/system\n"), Line::System(None));
        assert_eq!(Line::read("/quit now\n"), Line::Unknown("/quit"));
    }
}
