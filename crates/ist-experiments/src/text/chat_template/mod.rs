//! A model's own chat template: from a conversation to the text that the model was trained on.
//!
//! Published templates are written for Jinja2 as transformers sets it up. `environment` gives
//! minijinja the same variables, functions, filters and white space, so that both render the same
//! text. Which part of the text is an answer (what training learns) is told by the template's own
//! `{% generation %}` blocks where it has them, and otherwise by rendering parts of the
//! conversation and comparing.

mod answers;
pub(crate) mod calls;
mod date;
mod environment;
mod marks;
mod ordered;
mod python_json;

use std::collections::HashSet;
use std::sync::OnceLock;

use ist_models::text::text_files::ChatTemplateSource;
use minijinja::value::Value;
use serde::Serialize;

use crate::text::jinja::{Program, TemplateFault, size_of_text};
use crate::text::records::chat::{Conversation, Message, Role};
use crate::text::records::{DataError, words};
use marks::Marked;

/// A chat template that can be rendered.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    file: &'static str,
    source: String,
    program: Program,
    special_tokens: Vec<(String, String)>,
    /// Whether the template marks answers itself.
    marks: bool,
    /// Whether it takes a content as a list of parts, once that was asked.
    takes_parts: OnceLock<bool>,
    /// The words in its source, once they were asked for.
    words: OnceLock<HashSet<String>>,
}

/// What a template lays out: the turns of a conversation and the tools that may be called in it.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a> {
    /// The turns.
    pub messages: &'a [Message],
    /// The tools, each as the record describes it.
    pub tools: &'a [serde_json::Value],
}

impl<'a> From<&'a [Message]> for Turns<'a> {
    fn from(messages: &'a [Message]) -> Self {
        Self { messages, tools: &[] }
    }
}

impl<'a> From<&'a Vec<Message>> for Turns<'a> {
    fn from(messages: &'a Vec<Message>) -> Self {
        messages.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [Message; N]> for Turns<'a> {
    fn from(messages: &'a [Message; N]) -> Self {
        messages.as_slice().into()
    }
}

impl<'a> From<&'a Conversation> for Turns<'a> {
    fn from(conversation: &'a Conversation) -> Self {
        Self { messages: &conversation.messages, tools: &conversation.tools }
    }
}

impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.special_tokens) == (&other.source, &other.special_tokens)
    }
}

const NAME: &str = "chat template";
/// A text that no template holds.
const PROBE: &str = "\u{fdd0}";

impl ChatTemplate {
    /// A template from a model's files. Its date (`strftime_now`) is a fixed one, so that what it
    /// renders does not depend on the day; see [`ChatTemplate::today`].
    ///
    /// # Errors
    ///
    /// A template that is not Jinja, is too long, or nests too deep.
    pub fn new(source: &ChatTemplateSource) -> Result<Self, DataError> {
        let Marked { text, marks } = marks::replace(&source.source);
        let environment = environment::like_transformers().map_err(TemplateFault::from);
        let program = environment.and_then(|environment| Program::new(environment, NAME, &text));
        Ok(Self {
            file: source.file,
            source: source.source.clone(),
            program: program.map_err(|error| fault(source.file, &error))?,
            special_tokens: source.special_tokens.clone(),
            marks,
            takes_parts: OnceLock::new(),
            words: OnceLock::new(),
        })
    }

    /// The same template with today's date (UTC).
    #[must_use]
    pub fn today(mut self) -> Self {
        environment::set_clock(self.program.environment_mut(), date::now());
        self
    }

    /// The file it comes from.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The text of a conversation; with `add_generation_prompt` up to where an answer begins.
    ///
    /// # Errors
    ///
    /// What the template itself refuses, and what it cannot do.
    pub fn render<'a>(
        &self,
        turns: impl Into<Turns<'a>>,
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        self.render_marked(turns.into(), add_generation_prompt, ["", ""])
    }

    fn render_marked(
        &self,
        turns: Turns<'_>,
        add_generation_prompt: bool,
        [begins, ends]: [&str; 2],
    ) -> Result<String, DataError> {
        let tools = if turns.tools.is_empty() { Value::from(()) } else { self.value(turns.tools)? };
        let values = vec![
            ("messages".to_owned(), self.messages(turns.messages)?),
            ("add_generation_prompt".to_owned(), add_generation_prompt.into()),
            ("tools".to_owned(), tools),
            ("documents".to_owned(), ().into()),
            (marks::BEGINS.to_owned(), begins.into()),
            (marks::ENDS.to_owned(), ends.into()),
        ];
        let bytes = turns.messages.iter().map(Message::bytes).sum::<usize>();
        let tools = if turns.tools.is_empty() { 0 } else { size_of_text(&turns.tools) };
        self.render_values(values, bytes + tools)
    }

    /// The text of `values`, whose own text has that many bytes.
    fn render_values(
        &self,
        mut values: Vec<(String, Value)>,
        bytes: usize,
    ) -> Result<String, DataError> {
        values.extend(
            self.special_tokens.iter().map(|(name, text)| (name.clone(), text.as_str().into())),
        );
        let text = self.program.render(Value::from_pairs(values), bytes);
        text.map_err(|error| fault(self.file, &error))
    }

    /// The turns as the template takes them: a content of several parts as a list or as one text.
    fn messages(&self, messages: &[Message]) -> Result<Value, DataError> {
        if !messages.iter().any(Message::has_parts) || !self.takes_parts() {
            return self.value(messages);
        }
        let messages: Vec<_> = messages.iter().map(Message::with_parts).collect();
        self.value(messages)
    }

    fn value(&self, from: impl Serialize) -> Result<Value, DataError> {
        ordered::value(from).map_err(|error| {
            DataError::Template(format!("the model's chat template ({}): {error}", self.file))
        })
    }

    /// Whether the template takes a content as a list of parts: it prints the text of a part, and
    /// nothing around it that it does not print around a text.
    fn takes_parts(&self) -> bool {
        *self.takes_parts.get_or_init(|| {
            let rendered = |content: serde_json::Value| {
                let turn = serde_json::json!([{"role": "user", "content": content}]);
                let values = vec![
                    ("messages".to_owned(), self.value(turn).ok()?),
                    ("add_generation_prompt".to_owned(), false.into()),
                    ("tools".to_owned(), ().into()),
                    ("documents".to_owned(), ().into()),
                ];
                self.render_values(values, PROBE.len()).ok().filter(|text| text.contains(PROBE))
            };
            let part = serde_json::json!([{"type": "text", "text": PROBE}]);
            match (rendered(part), rendered(PROBE.into())) {
                (Some(of_parts), Some(of_text)) => of_parts == of_text,
                (of_parts, _) => of_parts.is_some(),
            }
        })
    }

    /// Whether a word stands in the template: what it does not name it does not read.
    pub(crate) fn names(&self, word: &str) -> bool {
        self.words.get_or_init(|| words(&self.source)).contains(word)
    }

    /// Whether the calls of the turn at `at` are in the text of a conversation.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub(crate) fn prints_calls(&self, turns: Turns<'_>, at: usize) -> Result<bool, DataError> {
        calls::are_printed(turns.messages, at, |messages| {
            self.render(Turns { messages, ..turns }, false)
        })
    }

    /// What follows an answer: the end of the assistant's turn.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub fn closing(&self) -> Result<String, DataError> {
        let turns = [Message::new(Role::User, "a"), Message::new(Role::Assistant, PROBE)];
        let text = self.render(&turns, false)?;
        Ok(text.split_once(PROBE).map_or(String::new(), |(_, closing)| closing.to_owned()))
    }
}

fn fault(file: &str, error: &TemplateFault) -> DataError {
    // The cause says what a template's own exception said.
    DataError::Template(format!("the model's chat template ({file}): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::records::chat::tests::conversation;

    fn template(source: &str) -> ChatTemplate {
        let special_tokens = vec![("eos_token".to_owned(), "</s>".to_owned())];
        ChatTemplate::new(&ChatTemplateSource {
            file: "file",
            source: source.to_owned(),
            special_tokens,
        })
        .unwrap()
    }

    fn answers(source: &str) -> Result<Vec<String>, String> {
        let segment = template(source)
            .conversation(&conversation(), true)
            .map_err(|error| error.to_string())?;
        assert_eq!(segment.text, template(source).render(&conversation(), false).unwrap());
        Ok(segment.learned.iter().map(|range| segment.text[range.clone()].to_owned()).collect())
    }

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}\
                         {% if add_generation_prompt %}<assistant>{% endif %}";

    #[test]
    fn an_answer_is_what_it_adds_to_its_prompt() {
        assert_eq!(answers(PLAIN).unwrap(), ["Hello</>\n", "4</>\n"]);
    }

    #[test]
    fn an_answer_is_found_where_earlier_turns_are_written_otherwise() {
        let thinking = "{% for m in messages %}<{{ m.role \
                        }}>{% if loop.last and m.role == 'assistant' %}<think></think>\
                        {% endif %}{{ m.content | trim }}</>\n\
                        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        assert_eq!(answers(thinking).unwrap(), ["Hello</>\n", "<think></think>4</>\n"]);
        let system_last = "{% for m in messages[1:] %}{% if m.role == 'user' %}[{% if loop.last %}{{ messages[0].content }} \
                           {% endif %}{{ m.content }}]{% else %} {{ m.content }}{{ eos_token \
                           }}{% endif %}{% endfor %}";
        assert_eq!(answers(system_last).unwrap(), ["Hello</s>", "4</s>"]);
    }

    #[test]
    fn an_answer_that_cannot_be_found_is_refused_unless_inputs_are_learned() {
        let source = "{{ messages | length }}";
        let error = answers(source).unwrap_err();
        assert!(error.contains("turn 2") && error.contains("train_on_inputs"), "{error}");
        assert_eq!(template(source).conversation(&conversation(), false).unwrap().text, "5");
    }

    #[test]
    fn generation_blocks_say_what_is_learned() {
        let source = "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n\
                      A: {% generation %}\n  {{- m.content }}!\n\
                      {% endgeneration %}\n-\n{% else %}{{ m.content }}\n{% endif %}{% endfor %}";
        assert_eq!(answers(source).unwrap(), ["Hello!\n", "4!\n"]);
    }

    #[test]
    fn what_closes_an_answer_is_read_off_the_template() {
        assert_eq!(template(PLAIN).closing().unwrap(), "</>\n");
        assert_eq!(template("{{ messages | length }}").closing().unwrap(), "");
    }

    #[test]
    fn a_template_says_itself_what_it_refuses() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not \
                      supported') }}{% endif %}";
        let error = template(source).render(&conversation(), false).unwrap_err().to_string();
        assert!(error.contains("System role not supported") && error.contains("(file)"), "{error}");
        let source = ChatTemplateSource {
            file: "f",
            source: "{% for".to_owned(),
            special_tokens: Vec::new(),
        };
        assert!(ChatTemplate::new(&source).unwrap_err().to_string().contains("syntax error"));
    }

    #[test]
    fn training_knows_one_day_and_a_conversation_todays() {
        let source = "{{ strftime_now('%d %b %Y') }}";
        assert_eq!(template(source).render(&[], false).unwrap(), "26 Jul 2024");
        assert_ne!(template(source).today().render(&[], false).unwrap(), "26 Jul 2024");
    }
}
