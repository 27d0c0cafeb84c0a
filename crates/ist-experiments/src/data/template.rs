//! Prompt templates: from a record's fields to the text a model reads, and which part of it is learned.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use ist_core::untrusted::cut;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Output, State, UndefinedBehavior, Value, context};

use super::chat::{self, Message, Role};
use super::error::DataError;
use super::text::{Body, Format, Record};
use crate::chat_template::ChatTemplate;
use crate::jinja::{self, Program, TemplateFault};

/// A stretch of text that is tokenised in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// The bytes that are output, in order and apart; all else is prompt.
    pub learned: Vec<Range<usize>>,
    /// Whether an end token follows.
    pub ends: bool,
    /// Whether the tokenizer adds its begin and end tokens, where the segment is the first. A model's chat template writes
    /// them itself.
    pub special_tokens: bool,
}

impl Segment {
    /// Text whose bytes from `start` on are output, closed by an end token.
    pub(super) fn answered(text: String, start: usize) -> Self {
        let end = text.len();
        Self {
            text,
            learned: std::iter::once(start..end).collect(),
            ends: true,
            special_tokens: true,
        }
    }

    /// Text that is prompt alone and goes on.
    pub(super) fn open(text: String) -> Self {
        Self { text, learned: Vec::new(), ends: false, special_tokens: true }
    }

    /// What a model's chat template renders: it holds every special token there is to be.
    pub(crate) fn rendered(text: String, learned: Vec<Range<usize>>) -> Self {
        Self { text, learned, ends: false, special_tokens: false }
    }
}

/// How a record becomes a prompt (`data.template`).
///
/// | name | Alpaca records | conversations | `prompt`/`completion`, `text` |
/// |---|---|---|---|
/// | `alpaca` | the Alpaca wording | role markers `### User:` | as they stand |
/// | `llm-adapters` | the prompts of the published IST and LLM-Adapters runs, byte for byte | refused | refused |
/// | `none` | the fields, one a line | the contents, one a line | as they stand |
/// | a minijinja string | `instruction`, `input`, `output` (empty) | `messages`, `add_generation_prompt` | refused |
/// | `chat` | a user's and an assistant's turn | the model's own chat template | as they stand |
///
/// The row of the string names the variables it may use; any other is an error. The begin token is the tokenizer's affair:
/// a string that writes it as well would give it twice. A model's chat template writes every special token itself, and
/// nothing is added to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// The wording of Stanford Alpaca, without stray spaces.
    Alpaca,
    /// The published prompts with their trailing spaces and indentation.
    LlmAdapters,
    /// The fields, joined by newlines.
    None,
    /// A template of the user's.
    Custom(Box<CustomTemplate>),
    /// The model's chat template.
    Chat(Arc<ChatTemplate>),
}

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

const INTRODUCTION: &str = "Below is an instruction that describes a task";
const WITH_INPUT: &str = ", paired with an input that provides further context";
const REQUEST: &str = ". Write a response that appropriately completes the request.";
/// What the published prompts put before every line but the first and the blank ones.
const INDENT: &str = "                ";
const VARIABLES: [&str; 5] =
    ["instruction", "input", "output", "messages", "add_generation_prompt"];

impl Template {
    /// A template by its name, or from a minijinja string, which is recognised by `{{` or `{%`. The names `auto` and `chat`
    /// mean something only beside a model: [`TextModel::template`](crate::text::TextModel::template).
    ///
    /// # Errors
    ///
    /// An unknown name; a string with a syntax error or an unknown variable.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        match text {
            "alpaca" => Ok(Self::Alpaca),
            "llm-adapters" => Ok(Self::LlmAdapters),
            "none" => Ok(Self::None),
            custom if custom.contains("{{") || custom.contains("{%") => {
                Ok(Self::Custom(Box::new(CustomTemplate::parse(custom)?)))
            }
            other => Err(DataError::Template(format!(
                "unknown name \"{}\"; expected auto, chat, alpaca, llm-adapters, none, or a template string such as \
                 \"{{{{ instruction }}}}\\n\"",
                cut(other)
            ))),
        }
    }

    /// What stands before the output in training, without the end tokens between the turns of a conversation.
    ///
    /// # Errors
    ///
    /// A template that does not apply to the record's format, or fails to render.
    pub fn prompt(&self, record: &Record) -> Result<String, DataError> {
        Ok(joined(self.prompt_segments(record, Self::LlmAdapters == *self)?))
    }

    /// What stands before the answer in evaluation: the published evaluation prompt of `llm-adapters`, which differs
    /// from its training prompt in white space; of every other template the training prompt.
    ///
    /// # Errors
    ///
    /// As [`Template::prompt`].
    pub fn evaluation_prompt(&self, record: &Record) -> Result<String, DataError> {
        Ok(joined(self.prompt_segments(record, false)?))
    }

    /// The prompt, in the pieces in which it is tokenised.
    pub(super) fn prompt_segments(
        &self,
        record: &Record,
        training: bool,
    ) -> Result<Vec<Segment>, DataError> {
        let text = match (self, &record.body) {
            (Self::Alpaca, Body::Instruction { instruction, input, .. }) => {
                alpaca(instruction, input)
            }
            (Self::LlmAdapters, Body::Instruction { instruction, input, .. }) => {
                llm_adapters(instruction, input, training)
            }
            (Self::None, Body::Instruction { instruction, input, .. }) => {
                lines(&[instruction, input])
            }
            (Self::Alpaca | Self::None | Self::Chat(_), Body::PromptCompletion { prompt, .. }) => {
                prompt.clone()
            }
            (Self::Alpaca | Self::None | Self::Chat(_), Body::Text(_)) => String::new(),
            (Self::Chat(_), Body::Instruction { instruction, input, .. }) => {
                return self.answer_prompt(&[asked(instruction, input)]);
            }
            (_, Body::Chat(messages)) => {
                return self.answer_prompt(chat::before_last_answer(messages));
            }
            (Self::Custom(custom), Body::Instruction { instruction, input, .. }) => {
                custom.instruction(instruction, input)?
            }
            _ => return Err(self.does_not_apply(record.format())),
        };
        Ok(vec![Segment::open(text)])
    }

    /// What stands before an answer to a conversation, in the pieces in which it is tokenised.
    pub(super) fn answer_prompt(&self, messages: &[Message]) -> Result<Vec<Segment>, DataError> {
        Ok(match self {
            Self::Alpaca => chat::layout_prompt(messages),
            Self::None => {
                vec![Segment::open(
                    messages.iter().map(|message| message.content.clone() + "\n").collect(),
                )]
            }
            Self::Custom(custom) => vec![Segment::open(custom.conversation(messages, true)?)],
            Self::Chat(template) => {
                vec![Segment::rendered(template.render(messages, true)?, Vec::new())]
            }
            Self::LlmAdapters => return Err(self.does_not_apply(Format::Chat)),
        })
    }

    /// The whole record, in the pieces in which it is tokenised. With `apart` the output is told from the rest.
    pub(super) fn segments(&self, record: &Record, apart: bool) -> Result<Vec<Segment>, DataError> {
        match (self, &record.body) {
            (Self::Alpaca, Body::Chat(messages)) => Ok(chat::layout(messages)),
            (Self::None, Body::Chat(messages)) => Ok(vec![plain_conversation(messages)]),
            (Self::Custom(custom), Body::Chat(messages)) => {
                custom.answered(messages).map(|segment| vec![segment])
            }
            (Self::Chat(template), Body::Chat(messages)) => {
                Ok(vec![template.conversation(messages, apart)?])
            }
            (Self::Chat(template), Body::Instruction { instruction, input, output }) => {
                let answer = Message { role: Role::Assistant, content: output.clone() };
                Ok(vec![template.conversation(&[asked(instruction, input), answer], apart)?])
            }
            _ => {
                let mut text = self.prompt(record)?;
                let start = text.len();
                text += record.output();
                Ok(vec![Segment::answered(text, start)])
            }
        }
    }

    fn does_not_apply(&self, format: Format) -> DataError {
        let (name, takes) = match self {
            Self::Alpaca => ("alpaca", "every text format"),
            Self::None => ("none", "every text format"),
            Self::LlmAdapters => ("llm-adapters", "alpaca records only"),
            Self::Custom(_) => ("a template string", "alpaca records and conversations only"),
            Self::Chat(_) => ("chat", "every text format"),
        };
        let format = serde_json::to_value(format).unwrap_or_default();
        DataError::Template(format!(
            "{name} takes {takes}, but the data's format is {format}; use template = \"none\", or data that fits"
        ))
    }
}

/// An Alpaca record's question as a turn.
fn asked(instruction: &str, input: &str) -> Message {
    let between = if input.is_empty() { "" } else { "\n" };
    Message { role: Role::User, content: format!("{instruction}{between}{input}") }
}

fn joined(segments: Vec<Segment>) -> String {
    segments.into_iter().map(|segment| segment.text).collect()
}

/// The texts that are not empty, each with a newline behind it.
fn lines(texts: &[&str]) -> String {
    texts.iter().filter(|text| !text.is_empty()).fold(String::new(), |all, text| all + text + "\n")
}

/// The contents, one a line, without any marker.
fn plain_conversation(messages: &[Message]) -> Segment {
    let mut segment = Segment::open(String::new());
    for (at, message) in messages.iter().enumerate() {
        let start = segment.text.len();
        segment.text += &message.content;
        if message.role == Role::Assistant {
            segment.learned.push(start..segment.text.len());
        }
        if at + 1 < messages.len() {
            segment.text += "\n";
        }
    }
    segment.ends = messages.last().is_some_and(|last| last.role == Role::Assistant);
    segment
}

fn alpaca(instruction: &str, input: &str) -> String {
    let with_input = if input.is_empty() { "" } else { WITH_INPUT };
    let mut prompt =
        format!("{INTRODUCTION}{with_input}{REQUEST}\n\n### Instruction:\n{instruction}\n\n");
    if !input.is_empty() {
        prompt = prompt + "### Input:\n" + input + "\n\n";
    }
    prompt + "### Response:\n"
}

/// The prompts of the published training and evaluation programs. They differ in the spaces after the first line: one
/// with an input and two without in training, none and one in evaluation.
fn llm_adapters(instruction: &str, input: &str, training: bool) -> String {
    let (with_input, mut spaces) = if input.is_empty() { ("", 1) } else { (WITH_INPUT, 0) };
    spaces += usize::from(training);
    let mut prompt = format!("{INTRODUCTION}{with_input}{REQUEST}{:spaces$}\n\n", "");
    let sections = [("Instruction", instruction), ("Input", input)];
    for (name, text) in
        sections.into_iter().filter(|(name, text)| *name == "Instruction" || !text.is_empty())
    {
        // Only the template's own lines are indented, not the lines inside a field.
        let _ = write!(prompt, "{INDENT}### {name}:\n{INDENT}{text}\n\n");
    }
    prompt + INDENT + "### Response:\n" + INDENT
}

impl CustomTemplate {
    const NAME: &'static str = "template";

    fn parse(source: &str) -> Result<Self, DataError> {
        let program = strict_environment()
            .map_err(TemplateFault::from)
            .and_then(|environment| Program::new(environment, Self::NAME, source))
            .map_err(fault)?;
        let template = Self { source: source.to_owned(), program };
        template.refuse_unknown_variables()?;
        Ok(template)
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

    fn instruction(&self, instruction: &str, input: &str) -> Result<String, DataError> {
        let bytes = instruction.len() + input.len();
        self.render(context! { instruction, input, output => "" }, bytes)
    }

    fn conversation(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        let messages = minijinja::value::Serde(messages);
        self.render(context! { messages, add_generation_prompt }, bytes)
    }

    fn render(&self, values: Value, bytes: usize) -> Result<String, DataError> {
        self.program.render(values, bytes).map_err(fault)
    }

    /// A conversation with the assistant's turns marked, each found as what rendering it adds to its prompt.
    fn answered(&self, messages: &[Message]) -> Result<Segment, DataError> {
        let text = self.conversation(messages, false)?;
        let mut learned = Vec::new();
        for at in (0..messages.len()).filter(|at| messages[*at].role == Role::Assistant) {
            let prompt = self.conversation(&messages[..at], true)?;
            let turn = self.conversation(&messages[..=at], false)?;
            if !(turn.starts_with(&prompt) && text.starts_with(&turn)) {
                return Err(DataError::Template(format!(
                    "turn {at} cannot be told from its prompt: the text of the turns before it, with \
                     add_generation_prompt, must begin the text that includes it"
                )));
            }
            learned.push(prompt.len()..turn.len());
        }
        let ends = messages.last().is_some_and(|last| last.role == Role::Assistant);
        Ok(Segment { text, learned, ends, special_tokens: true })
    }
}

/// What a template string of a configuration finds: no method of Python's, and no variable that is not there.
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

#[cfg(test)]
mod tests {
    use super::super::chat::tests::conversation;
    use super::super::error::Place;
    use super::*;

    fn record(body: Body) -> Record {
        Record { body, extra: serde_json::Map::new(), place: Place::Line(1) }
    }

    fn instruction(instruction: &str, input: &str, output: &str) -> Record {
        let [instruction, input, output] = [instruction, input, output].map(str::to_owned);
        record(Body::Instruction { instruction, input, output })
    }

    fn prompt(template: &str, record: &Record) -> Result<String, String> {
        Template::parse(template)
            .and_then(|template| template.prompt(record))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_published_training_prompts_are_reproduced_byte_for_byte() {
        let with_input = "Below is an instruction that describes a task, paired with an input that provides further \
                          context. Write a response that appropriately completes the request.\x20\n\
                          \n\
                          \x20               ### Instruction:\n\
                          \x20               Add.\nNow.\n\
                          \n\
                          \x20               ### Input:\n\
                          \x20               1 2\n\
                          \n\
                          \x20               ### Response:\n\
                          \x20               ";
        let without = "Below is an instruction that describes a task. Write a response that appropriately completes \
                       the request.\x20\x20\n\
                       \n\
                       \x20               ### Instruction:\n\
                       \x20               Add.\n\
                       \n\
                       \x20               ### Response:\n\
                       \x20               ";
        assert_eq!(
            prompt("llm-adapters", &instruction("Add.\nNow.", "1 2", "3")).unwrap(),
            with_input
        );
        assert_eq!(prompt("llm-adapters", &instruction("Add.", "", "3")).unwrap(), without);
        let segments =
            Template::LlmAdapters.segments(&instruction("Add.", "", "the answer"), true).unwrap();
        assert_eq!(segments[0].text, format!("{without}the answer"));
    }

    #[test]
    fn the_published_evaluation_prompts_are_reproduced_byte_for_byte() {
        let with_input = "Below is an instruction that describes a task, paired with an input that provides further \
                          context. Write a response that appropriately completes the request.\n\
                          \n\
                          \x20               ### Instruction:\n\
                          \x20               Add.\n\
                          \n\
                          \x20               ### Input:\n\
                          \x20               1 2\n\
                          \n\
                          \x20               ### Response:\n\
                          \x20               ";
        let without = "Below is an instruction that describes a task. Write a response that appropriately completes \
                       the request.\x20\n\
                       \n\
                       \x20               ### Instruction:\n\
                       \x20               Add.\n\
                       \n\
                       \x20               ### Response:\n\
                       \x20               ";
        let evaluation = |input| {
            Template::LlmAdapters.evaluation_prompt(&instruction("Add.", input, "")).unwrap()
        };
        assert_eq!(evaluation("1 2"), with_input);
        assert_eq!(evaluation(""), without);
    }

    #[test]
    fn the_clean_template_has_no_stray_space() {
        let with_input = "Below is an instruction that describes a task, paired with an input that provides further \
                          context. Write a response that appropriately completes the request.\n\n### Instruction:\n\
                          Add.\n\n### Input:\n1 2\n\n### Response:\n";
        let without = "Below is an instruction that describes a task. Write a response that appropriately completes \
                       the request.\n\n### Instruction:\nAdd.\n\n### Response:\n";
        assert_eq!(prompt("alpaca", &instruction("Add.", "1 2", "3")).unwrap(), with_input);
        assert_eq!(prompt("alpaca", &instruction("Add.", "", "3")).unwrap(), without);
    }

    #[test]
    fn without_a_template_the_fields_stand_one_a_line() {
        assert_eq!(prompt("none", &instruction("Add.", "1 2", "3")).unwrap(), "Add.\n1 2\n");
        assert_eq!(prompt("none", &instruction("Add.", "", "3")).unwrap(), "Add.\n");
        let segments = Template::None.segments(&record(Body::Chat(conversation())), true).unwrap();
        assert_eq!(segments[0].text, "Be brief.\nHi\nHello\n2+2?\n4");
        let answers: Vec<_> =
            segments[0].learned.iter().map(|range| &segments[0].text[range.clone()]).collect();
        assert_eq!(answers, ["Hello", "4"]);
        assert_eq!(
            prompt("none", &record(Body::Chat(conversation()))).unwrap(),
            "Be brief.\nHi\nHello\n2+2?\n"
        );
    }

    #[test]
    fn prompts_and_texts_stand_as_they_are() {
        let completion =
            record(Body::PromptCompletion { prompt: "Q: ".into(), completion: "A".into() });
        for template in [Template::Alpaca, Template::None] {
            assert_eq!(
                template.segments(&completion, true).unwrap()[0],
                Segment::answered("Q: A".into(), 3)
            );
            let text = template.segments(&record(Body::Text("Hi".into())), true).unwrap();
            assert_eq!(text[0], Segment::answered("Hi".into(), 0));
        }
    }

    #[test]
    fn a_template_string_renders_the_fields_and_keeps_its_last_newline() {
        let template =
            "{{ instruction | upper }}{% if input %} ({{ input }}){% endif %}\n{{ output }}=\n";
        assert_eq!(prompt(template, &instruction("add", "", "3")).unwrap(), "ADD\n=\n");
        assert_eq!(prompt(template, &instruction("add", "<1>", "3")).unwrap(), "ADD (<1>)\n=\n");
    }

    #[test]
    fn faults_of_a_template_are_found_when_it_is_parsed() {
        let cases = [
            ("alpacca", "unknown name \"alpacca\""),
            ("{{ instruction", "syntax error"),
            ("{{ instrction }}", "unknown variable instrction; available are instruction"),
            ("{{ instruction | nonsense }}", "nonsense"),
        ];
        for (text, problem) in cases {
            let error = prompt(text, &instruction("a", "", "b")).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_template_without_end_is_refused() {
        let nested =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let cases = [
            (nested.to_owned(), "steps of work"),
            ("{{ 'x\ny' | indent(2000000000) }}".to_owned(), "steps of work"),
            ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_owned(), "a namespace"),
            (format!("{{{{ {}input }}}}", "not ".repeat(29_000)), "nests deeper than"),
        ];
        for (text, problem) in cases {
            let error = prompt(&text, &instruction("a", "", "b")).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_template_is_refused_for_a_format_it_would_ignore() {
        let completion =
            record(Body::PromptCompletion { prompt: "Q".into(), completion: "A".into() });
        let chat = record(Body::Chat(conversation()));
        let cases = [
            (
                "llm-adapters",
                &completion,
                "alpaca records only, but the data's format is \"prompt-completion\"",
            ),
            ("llm-adapters", &chat, "\"chat\""),
            ("{{ instruction }}", &completion, "\"prompt-completion\""),
            ("{{ instruction }}", &chat, "undefined"),
            ("{{ messages[0].content }}", &instruction("a", "", "b"), "undefined"),
        ];
        for (template, record, problem) in cases {
            let error = prompt(template, record).unwrap_err();
            assert!(error.contains(problem), "{template}: {error}");
        }
    }

    #[test]
    fn a_chat_template_marks_what_each_answer_adds() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}\
                      {% if add_generation_prompt %}<assistant>{% endif %}";
        let template = Template::parse(source).unwrap();
        let chat = record(Body::Chat(conversation()));
        let segment = template.segments(&chat, true).unwrap().remove(0);
        assert_eq!(
            segment.text,
            "<system>Be brief.</><user>Hi</><assistant>Hello</><user>2+2?</><assistant>4</>"
        );
        let answers: Vec<_> =
            segment.learned.iter().map(|range| &segment.text[range.clone()]).collect();
        assert_eq!(answers, ["Hello</>", "4</>"]);
        assert!(segment.ends);
        let expected = "<system>Be brief.</><user>Hi</><assistant>Hello</><user>2+2?</><assistant>";
        assert_eq!(template.prompt(&chat).unwrap(), expected);
    }

    #[test]
    fn a_chat_template_whose_answers_cannot_be_told_apart_is_refused() {
        let template = Template::parse("{{ messages | length }}{{ messages }}").unwrap();
        let error =
            template.segments(&record(Body::Chat(conversation())), true).unwrap_err().to_string();
        assert!(error.contains("cannot be told from its prompt"), "{error}");
    }
}
