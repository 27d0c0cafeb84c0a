//! A template of the user's: a minijinja string over a record's fields.

use ist_files::untrusted::cut;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Output, State, UndefinedBehavior, Value, context};

use super::alpaca::Instruction;
use super::chat::{Conversation, Message, Role};
use super::error::DataError;
use super::template::{Segment, words};
use crate::text::chat_template::calls;
use crate::text::jinja;
use crate::text::jinja::{Program, TemplateFault, size_of_text};

/// A minijinja template whose variables have been checked.
#[derive(Clone, Debug)]
pub struct CustomTemplate {
    source: String,
    program: Program,
}

impl PartialEq for CustomTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What such a template may use.
const VARIABLES: [&str; 8] = [
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "messages",
    "tools",
    "add_generation_prompt",
];

impl CustomTemplate {
    const NAME: &'static str = "template";

    pub(super) fn parse(source: &str) -> Result<Self, DataError> {
        let program = strict_environment()
            .map_err(TemplateFault::from)
            .and_then(|environment| Program::new(environment, Self::NAME, source))
            .map_err(fault)?;
        let template = Self { source: source.to_owned(), program };
        template.refuse_unknown_variables()?;
        Ok(template)
    }

    /// Whether a word stands in it.
    pub(super) fn names(&self, word: &str) -> bool {
        words(&self.source).contains(word)
    }

    /// Whether it uses a variable.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.program.undeclared().any(|used| used == name)
    }

    fn refuse_unknown_variables(&self) -> Result<(), DataError> {
        let used = self.program.undeclared();
        let unknown: Vec<&str> = used.filter(|name| !VARIABLES.contains(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let available = VARIABLES.join(", ");
        Err(DataError::Template(format!(
            "unknown variable {}; available are {available}",
            cut(&unknown.join(", "))
        )))
    }

    /// The prompt of an Alpaca record.
    pub(super) fn instruction(&self, record: &Instruction) -> Result<String, DataError> {
        let Instruction { instruction, input, system, history, .. } = record;
        let bytes = size_of_text(&(instruction, input, system, history));
        let history = minijinja::value::Serde(history);
        self.render(context! { instruction, input, output => "", system, history }, bytes)
    }

    /// The turns of a conversation; with `add_generation_prompt` up to where an answer begins.
    pub(super) fn conversation(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        let bytes = messages.iter().map(Message::bytes).sum::<usize>() + size_of_text(&tools);
        let messages = minijinja::value::Serde(messages);
        let tools = minijinja::value::Serde(tools);
        self.render(context! { messages, tools, add_generation_prompt }, bytes)
    }

    fn render(&self, values: Value, bytes: usize) -> Result<String, DataError> {
        self.program.render(values, bytes).map_err(fault)
    }

    /// A conversation with the assistant's turns marked, each found as what rendering it adds to
    /// its prompt.
    pub(super) fn answered(&self, conversation: &Conversation) -> Result<Segment, DataError> {
        let Conversation { messages, tools, .. } = conversation;
        let text = self.conversation(messages, tools, false)?;
        let mut segment = Segment::open(text);
        for at in (0..messages.len()).filter(|at| messages[*at].role == Role::Assistant) {
            let prompt = self.conversation(&messages[..at], tools, true)?;
            let turn = self.conversation(&messages[..=at], tools, false)?;
            if !(turn.starts_with(&prompt) && segment.text.starts_with(&turn)) {
                return Err(DataError::Template(format!(
                    "turn {at} cannot be told from its prompt: the text of the turns before it, \
                     with add_generation_prompt, must begin the text that includes it"
                )));
            }
            let prints_calls = self.prints_calls(conversation, at)?;
            segment.mark(prompt.len()..turn.len(), messages[at].standing(prints_calls));
        }
        segment.ends = messages.last().is_some_and(|last| last.role == Role::Assistant);
        Ok(segment)
    }

    /// Whether the calls of a turn are in the text.
    pub(super) fn prints_calls(
        &self,
        conversation: &Conversation,
        at: usize,
    ) -> Result<bool, DataError> {
        let Conversation { messages, tools, .. } = conversation;
        calls::are_printed(messages, at, |messages| self.conversation(messages, tools, false))
    }
}

/// What a template string of a configuration finds: no method of Python's, and no variable that is
/// not there.
fn strict_environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.set_formatter(|output: &mut Output, state: &mut State, value: &Value| {
        let value = jinja::settled(state, value)?;
        minijinja::escape_formatter(output, state, &value)
    });
    Ok(environment)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn fault(error: TemplateFault) -> DataError {
    DataError::Template(error.to_string())
}
