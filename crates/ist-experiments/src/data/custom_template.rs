//! A template of the user's: a minijinja string over a record's fields.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};

use super::alpaca::Instruction;
use super::chat::{Conversation, Message, Role};
use super::error::DataError;
use super::template::{Segment, words};
use crate::chat_template::calls;

/// A minijinja template whose variables have been checked.
#[derive(Clone, Debug)]
pub struct CustomTemplate {
    source: String,
    environment: Environment<'static>,
    /// The variables that it uses.
    uses: Vec<String>,
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
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(fault)?);
        environment.add_template_owned(Self::NAME, source.to_owned()).map_err(fault)?;
        let template = environment.get_template(Self::NAME).map_err(fault)?;
        let mut uses: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        uses.sort();
        let template = Self { source: source.to_owned(), environment, uses };
        template.refuse_unknown_variables()?;
        Ok(template)
    }

    /// Whether a word stands in it.
    pub(super) fn names(&self, word: &str) -> bool {
        words(&self.source).contains(word)
    }

    /// Whether it uses a variable.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.uses.iter().any(|used| used == name)
    }

    fn refuse_unknown_variables(&self) -> Result<(), DataError> {
        let known = |name: &String| {
            VARIABLES.contains(&name.as_str())
                || self.environment.globals().any(|(global, _)| global == name)
        };
        let unknown: Vec<_> = self.uses.iter().filter(|name| !known(name)).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let available = VARIABLES.join(", ");
        Err(DataError::Template(format!(
            "unknown variable {}; available are {available}",
            unknown.join(", ")
        )))
    }

    /// The prompt of an Alpaca record.
    pub(super) fn instruction(&self, record: &Instruction) -> Result<String, DataError> {
        let Instruction { instruction, input, system, history, .. } = record;
        let history = minijinja::value::Serde(history);
        self.render(&context! { instruction, input, output => "", system, history })
    }

    /// The turns of a conversation; with `add_generation_prompt` up to where an answer begins.
    pub(super) fn conversation(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        let messages = minijinja::value::Serde(messages);
        let tools = minijinja::value::Serde(tools);
        self.render(&context! { messages, tools, add_generation_prompt })
    }

    fn render(&self, values: &minijinja::Value) -> Result<String, DataError> {
        let template = self.environment.get_template(Self::NAME).map_err(fault)?;
        template.render(values).map_err(fault)
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

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn fault(error: minijinja::Error) -> DataError {
    DataError::Template(error.to_string())
}
