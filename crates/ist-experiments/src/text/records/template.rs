//! Prompt templates: from a record's fields to the text a model reads, and which part of it is
//! learned.

use std::collections::HashSet;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use ist_files::untrusted::cut;

use super::alpaca::{Exchange, Instruction};
use super::chat::{self, Conversation};
use super::custom_template::CustomTemplate;
use super::error::DataError;
use super::message::Standing;
use super::record::{Body, Record};
use super::text::Format;
use crate::text::chat_template::{ChatTemplate, Turns};

/// A stretch of text that is tokenised in one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// The bytes that are output, in order and apart; all else is prompt.
    pub learned: Vec<Range<usize>>,
    /// The bytes that are never learned, not even where prompts are.
    pub never: Vec<Range<usize>>,
    /// Whether an end token follows.
    pub ends: bool,
    /// Whether the tokenizer adds its begin and end tokens, where the segment is the first. A
    /// model's chat template writes them itself.
    pub special_tokens: bool,
    /// Whether the output is what a chat template marks.
    pub marked: bool,
}

impl Segment {
    /// Text whose bytes from `start` on are output, closed by an end token.
    #[cfg(test)]
    pub(super) fn answered(text: String, start: usize) -> Self {
        let end = text.len();
        let learned = std::iter::once(start..end).collect();
        Self { learned, ends: true, ..Self::open(text) }
    }

    /// Text that is prompt alone and goes on.
    pub(super) fn open(text: String) -> Self {
        Self { text, special_tokens: true, ..Self::default() }
    }

    /// What a model's chat template renders: it holds every special token there is to be.
    pub(crate) fn rendered(text: String, learned: Vec<Range<usize>>) -> Self {
        Self { text, learned, ..Self::default() }
    }

    /// Puts text behind what is there.
    pub(super) fn add(&mut self, text: &str, standing: Standing) {
        let start = self.text.len();
        self.text += text;
        self.mark(start..self.text.len(), standing);
    }

    /// Says what some bytes are for.
    pub(crate) fn mark(&mut self, bytes: Range<usize>, standing: Standing) {
        match standing {
            Standing::Answer => self.learned.push(bytes),
            Standing::Never => self.never.push(bytes),
            Standing::Prompt => {}
        }
    }
}

/// How a record becomes a prompt (`data.template`).
///
/// | name | Alpaca records | conversations | `prompt`/`completion`, `text` |
/// |---|---|---|---|
/// | `alpaca` | the Alpaca wording | role markers `### User:` | as they stand |
/// | `llm-adapters` | the prompts of the published IST and LLM-Adapters runs, byte for byte | refused | refused |
/// | `none` | the fields, one a line | the contents, one a line | as they stand |
/// | a minijinja string | `instruction`, `input`, `output` (empty), `system`, `history` | `messages`, `tools`, `add_generation_prompt` | refused |
/// | `chat` | a user's and an assistant's turn | the model's own chat template | as they stand |
///
/// The row of the string names the variables it may use; any other is an error. The begin token is
/// the tokenizer's affair: a string that writes it as well would give it twice. A model's chat
/// template writes every special token itself, and nothing is added to it.
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

const INTRODUCTION: &str = "Below is an instruction that describes a task";
const WITH_INPUT: &str = ", paired with an input that provides further context";
const REQUEST: &str = ". Write a response that appropriately completes the request.";
/// What the published prompts put before every line but the first and the blank ones.
const INDENT: &str = "                ";
impl Template {
    /// A template by its name, or from a minijinja string, which is recognised by `{{` or `{%`. The
    /// names `auto` and `chat` mean something only beside a model:
    /// [`TextModel::template`](crate::text::TextModel::template).
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
                "unknown name \"{}\"; expected auto, chat, alpaca, llm-adapters, none, or a \
                 template string such as \
                 \"{{{{ instruction }}}}\\n\"",
                cut(other)
            ))),
        }
    }

    /// What stands before the output in training, without the end tokens between the turns of a
    /// conversation.
    ///
    /// # Errors
    ///
    /// A template that does not apply to the record's format, or fails to render.
    pub fn prompt(&self, record: &Record) -> Result<String, DataError> {
        Ok(joined(self.prompt_segments(record, Self::LlmAdapters == *self)?))
    }

    /// What stands before the answer in evaluation: the published evaluation prompt of
    /// `llm-adapters`, which differs from its training prompt in white space; of every other
    /// template the training prompt.
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
        match (self, &record.body) {
            (Self::Alpaca | Self::None | Self::Chat(_), Body::PromptCompletion { prompt, .. }) => {
                Ok(vec![Segment::open(prompt.clone())])
            }
            (Self::Alpaca | Self::None | Self::Chat(_), Body::Text(_)) => {
                Ok(vec![Segment::open(String::new())])
            }
            (_, Body::Instruction(record)) => self.instruction_prompt(record, training),
            (_, Body::Chat(conversation)) => {
                let messages = chat::before_last_answer(&conversation.messages);
                self.answer_prompt(Turns { messages, tools: &conversation.tools })
            }
            _ => Err(self.does_not_apply(record.format())),
        }
    }

    /// What stands before the answer of an Alpaca record.
    fn instruction_prompt(
        &self,
        record: &Instruction,
        training: bool,
    ) -> Result<Vec<Segment>, DataError> {
        let Instruction { instruction, input, .. } = record;
        Ok(match self {
            Self::Alpaca => alpaca(record),
            Self::None => vec![lines(record)],
            Self::LlmAdapters => vec![Segment::open(llm_adapters(instruction, input, training))],
            Self::Custom(custom) => vec![Segment::open(custom.instruction(record)?)],
            Self::Chat(_) => return self.answer_prompt(Turns::from(&record.asked())),
        })
    }

    /// What stands before an answer to a conversation, in the pieces in which it is tokenised.
    pub(super) fn answer_prompt(&self, turns: Turns<'_>) -> Result<Vec<Segment>, DataError> {
        let Turns { messages, tools } = turns;
        Ok(match self {
            Self::Alpaca => chat::layout_prompt(messages),
            Self::None => {
                vec![Segment::open(
                    messages.iter().map(|message| message.content.clone() + "\n").collect(),
                )]
            }
            Self::Custom(custom) => {
                vec![Segment::open(custom.conversation(messages, tools, true)?)]
            }
            Self::Chat(template) => {
                vec![Segment::rendered(template.render(turns, true)?, Vec::new())]
            }
            Self::LlmAdapters => return Err(self.does_not_apply(Format::Chat)),
        })
    }

    /// The whole record, in the pieces in which it is tokenised. With `apart` the output is told
    /// from the rest.
    pub(super) fn segments(&self, record: &Record, apart: bool) -> Result<Vec<Segment>, DataError> {
        match (self, &record.body) {
            (Self::Alpaca, Body::Chat(conversation)) => Ok(chat::layout(&conversation.messages)),
            (Self::None, Body::Chat(conversation)) => Ok(vec![chat::plain(&conversation.messages)]),
            (Self::Custom(custom), Body::Chat(conversation)) => {
                custom.answered(conversation).map(|segment| vec![segment])
            }
            (Self::Chat(template), Body::Chat(conversation)) => {
                Ok(vec![template.conversation(conversation, apart)?])
            }
            (Self::Chat(template), Body::Instruction(record)) => {
                Ok(vec![template.conversation(&record.turns(), apart)?])
            }
            _ => {
                let training = Self::LlmAdapters == *self;
                let mut segments = self.prompt_segments(record, training)?;
                let Some(last) = segments.last_mut() else { return Ok(segments) };
                let start = last.text.len();
                last.text += record.output();
                last.mark(start..last.text.len(), answer(record.output()));
                last.ends = true;
                Ok(segments)
            }
        }
    }

    /// Whether a key beside a record's own fields or turns is read: `system`, `history` or `tools`.
    pub(super) fn reads_key(&self, key: &str) -> bool {
        match self {
            Self::Alpaca | Self::None => key != "tools",
            Self::LlmAdapters => false,
            Self::Custom(custom) => custom.uses(key),
            Self::Chat(template) => key != "tools" || template.names(key),
        }
    }

    /// Whether a key of a turn is read, beside its role, its content and its calls.
    pub(super) fn reads_detail(&self, key: &str) -> bool {
        match self {
            Self::Alpaca | Self::None | Self::LlmAdapters => false,
            Self::Custom(custom) => custom.names(key),
            Self::Chat(template) => template.names(key),
        }
    }

    /// In how many turns of a conversation the calls are not printed. Where the template fails, it
    /// says so elsewhere.
    pub(super) fn lost_calls(&self, conversation: &Conversation) -> usize {
        let messages = &conversation.messages;
        let calling = (0..messages.len()).filter(|at| !messages[*at].calls().is_empty());
        calling
            .filter(|at| match self {
                Self::Alpaca | Self::None | Self::LlmAdapters => true,
                Self::Custom(custom) => matches!(custom.prints_calls(conversation, *at), Ok(false)),
                Self::Chat(template) => {
                    matches!(template.prints_calls(conversation.into(), *at), Ok(false))
                }
            })
            .count()
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
            "{name} takes {takes}, but the data's format is {format}; use template = \"none\", or \
             data that fits"
        ))
    }
}

/// The words in a template's source, without its comments: what it does not name it does not read.
pub(crate) fn words(source: &str) -> HashSet<String> {
    let mut words = HashSet::new();
    let mut rest = source;
    while !rest.is_empty() {
        let (text, comment) = rest.split_once("{#").unwrap_or((rest, ""));
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        words.extend(text.split(|character| !is_part(character)).map(str::to_owned));
        rest = comment.split_once("#}").map_or("", |(_, behind)| behind);
    }
    words
}

fn joined(segments: Vec<Segment>) -> String {
    segments.into_iter().map(|segment| segment.text).collect()
}

/// The fields that are not empty, each with a newline behind it. The answers that were given before
/// are output.
fn lines(record: &Instruction) -> Segment {
    let mut segment = Segment::open(String::new());
    let line = |segment: &mut Segment, text: &str, standing| {
        if !text.is_empty() {
            segment.add(text, standing);
            segment.text += "\n";
        }
    };
    line(&mut segment, &record.system, Standing::Prompt);
    for Exchange { user, assistant } in &record.history {
        line(&mut segment, user, Standing::Prompt);
        line(&mut segment, assistant, answer(assistant));
    }
    line(&mut segment, &record.instruction, Standing::Prompt);
    line(&mut segment, &record.input, Standing::Prompt);
    segment
}

/// What the tokens of an earlier answer are for.
fn answer(text: &str) -> Standing {
    if text.trim().is_empty() { Standing::Never } else { Standing::Answer }
}

/// The wording of Stanford Alpaca. A system's text stands for the introduction, and every earlier
/// exchange is a question in the same wording, answered and ended.
fn alpaca(record: &Instruction) -> Vec<Segment> {
    let Instruction { instruction, input, system, history, .. } = record;
    let mut segments = Vec::new();
    let mut text = if system.is_empty() {
        let with_input = if input.is_empty() { "" } else { WITH_INPUT };
        format!("{INTRODUCTION}{with_input}{REQUEST}")
    } else {
        system.clone()
    };
    for Exchange { user, assistant } in history {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\n### Instruction:\n{user}\n\n### Response:\n");
        let mut exchange = Segment::open(std::mem::take(&mut text));
        exchange.add(assistant, answer(assistant));
        exchange.ends = true;
        segments.push(exchange);
    }
    let _ = write!(text, "\n\n### Instruction:\n{instruction}\n\n");
    if !input.is_empty() {
        let _ = write!(text, "### Input:\n{input}\n\n");
    }
    text += "### Response:\n";
    segments.push(Segment::open(text));
    segments
}

/// The prompts of the published training and evaluation programs. They differ in the spaces after
/// the first line: one with an input and two without in training, none and one in evaluation.
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

#[cfg(test)]
mod tests {
    use super::super::chat::tests::conversation;
    use super::super::testing::record;
    use super::*;

    fn instruction(instruction: &str, input: &str, output: &str) -> Record {
        let [instruction, input, output] = [instruction, input, output].map(str::to_owned);
        record(Body::Instruction(Instruction {
            instruction,
            input,
            output,
            ..Instruction::default()
        }))
    }

    fn prompt(template: &str, record: &Record) -> Result<String, String> {
        Template::parse(template)
            .and_then(|template| template.prompt(record))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_words_of_a_template_are_those_outside_of_comments() {
        let found = words("{# reasoning #}{{ m.tool_calls['name'] }}{#- id -#} x{# open");
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, ["", "m", "name", "tool_calls", "x"]);
    }

    #[test]
    fn the_published_training_prompts_are_reproduced_byte_for_byte() {
        let with_input = "Below is an instruction that describes a task, paired with an input that \
                          provides further \
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
        let without = "Below is an instruction that describes a task. Write a response that \
                       appropriately completes \
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
        let with_input = "Below is an instruction that describes a task, paired with an input that \
                          provides further \
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
        let without = "Below is an instruction that describes a task. Write a response that \
                       appropriately completes \
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
        let with_input = "Below is an instruction that describes a task, paired with an input that \
                          provides further \
                          context. Write a response that appropriately completes the request.\n\n\
                          ### Instruction:\n\
                          Add.\n\n### Input:\n1 2\n\n### Response:\n";
        let without = "Below is an instruction that describes a task. Write a response that \
                       appropriately completes \
                       the request.\n\n### Instruction:\nAdd.\n\n### Response:\n";
        assert_eq!(prompt("alpaca", &instruction("Add.", "1 2", "3")).unwrap(), with_input);
        assert_eq!(prompt("alpaca", &instruction("Add.", "", "3")).unwrap(), without);
    }

    #[test]
    fn without_a_template_the_fields_stand_one_a_line() {
        assert_eq!(prompt("none", &instruction("Add.", "1 2", "3")).unwrap(), "Add.\n1 2\n");
        assert_eq!(prompt("none", &instruction("Add.", "", "3")).unwrap(), "Add.\n");
        let segments =
            Template::None.segments(&record(Body::Chat(conversation().into())), true).unwrap();
        assert_eq!(segments[0].text, "Be brief.\nHi\nHello\n2+2?\n4");
        let answers: Vec<_> =
            segments[0].learned.iter().map(|range| &segments[0].text[range.clone()]).collect();
        assert_eq!(answers, ["Hello", "4"]);
        assert_eq!(
            prompt("none", &record(Body::Chat(conversation().into()))).unwrap(),
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
        let chat = record(Body::Chat(conversation().into()));
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
        let chat = record(Body::Chat(conversation().into()));
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
        let error = template
            .segments(&record(Body::Chat(conversation().into())), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be told from its prompt"), "{error}");
    }
}
