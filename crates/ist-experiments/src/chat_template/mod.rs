//! A model's own chat template: from a conversation to the text that the model was trained on.
//!
//! Published templates are written for Jinja2 as transformers sets it up. `environment` gives minijinja the same
//! variables, functions, filters and white space, so that both render the same text. Which part of the text is an answer
//! (what training learns) is told by the template's own `{% generation %}` blocks where it has them, and otherwise by
//! rendering parts of the conversation and comparing.

mod date;
mod environment;
mod marks;
mod python_json;

use std::ops::Range;

use ist_models::text_files::ChatTemplateSource;
use minijinja::value::{Serde, Value};

use crate::data::chat::{Message, Role};
use crate::data::{DataError, Segment};
use crate::jinja::{Program, TemplateFault};
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
}

impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.special_tokens) == (&other.source, &other.special_tokens)
    }
}

const NAME: &str = "chat template";

impl ChatTemplate {
    /// A template from a model's files. Its date (`strftime_now`) is a fixed one, so that what it renders does not depend
    /// on the day; see [`ChatTemplate::today`].
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
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        self.render_marked(messages, add_generation_prompt, ["", ""])
    }

    fn render_marked(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        [begins, ends]: [&str; 2],
    ) -> Result<String, DataError> {
        let mut values: Vec<(String, Value)> = vec![
            ("messages".to_owned(), Value::from(Serde(messages))),
            ("add_generation_prompt".to_owned(), add_generation_prompt.into()),
            ("tools".to_owned(), ().into()),
            ("documents".to_owned(), ().into()),
            (marks::BEGINS.to_owned(), begins.into()),
            (marks::ENDS.to_owned(), ends.into()),
        ];
        values.extend(
            self.special_tokens.iter().map(|(name, text)| (name.clone(), text.as_str().into())),
        );
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        let text = self.program.render(Value::from_pairs(values), bytes);
        text.map_err(|error| fault(self.file, &error))
    }

    /// A whole conversation. With `apart` the answers are told from the rest.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`]; a template in whose text an answer cannot be found.
    pub fn conversation(&self, messages: &[Message], apart: bool) -> Result<Segment, DataError> {
        if apart && self.marks {
            return self.by_marks(messages);
        }
        let text = self.render(messages, false)?;
        let answers =
            (0..messages.len()).filter(|at| apart && messages[*at].role == Role::Assistant);
        let learned =
            answers.map(|at| self.answer(&text, messages, at)).collect::<Result<_, _>>()?;
        Ok(Segment::rendered(text, learned))
    }

    fn by_marks(&self, messages: &[Message]) -> Result<Segment, DataError> {
        let [begin, end] = unused_characters(messages).ok_or_else(|| {
            DataError::Template(
                "the conversation holds every character that marks could be".to_owned(),
            )
        })?;
        let marks = [begin, end].map(String::from);
        let rendered = self.render_marked(messages, false, [&marks[0], &marks[1]])?;
        let (mut text, mut learned, mut start) =
            (String::with_capacity(rendered.len()), Vec::new(), 0);
        for character in rendered.chars() {
            match character {
                found if found == begin => start = text.len(),
                found if found == end => learned.push(start..text.len()),
                other => text.push(other),
            }
        }
        Ok(Segment::rendered(text, learned))
    }

    /// The bytes of `text`, the whole conversation, that are the answer at `at` with the end of its turn.
    fn answer(
        &self,
        text: &str,
        messages: &[Message],
        at: usize,
    ) -> Result<Range<usize>, DataError> {
        // What the turn adds to its prompt, in a template that only ever appends.
        if let (Ok(prompt), Ok(turn)) =
            (self.render(&messages[..at], true), self.render(&messages[..=at], false))
            && turn.starts_with(&prompt)
            && text.starts_with(&turn)
        {
            return Ok(prompt.len()..turn.len());
        }
        self.answer_by_exchange(text, messages, at)?.ok_or_else(|| {
            DataError::Template(format!(
                "the answer in turn {at} cannot be found in what the model's chat template ({}) renders; set \
                 `data.train_on_inputs = true`, end the conversation with that turn, or use `data.template = \"alpaca\"`",
                self.file
            ))
        })
    }

    /// The answer, found as what changes when its content is another, with as much of what ends it as stands in `text`.
    ///
    /// Some templates write an earlier turn in another way than the last one, or put the system's message elsewhere.
    fn answer_by_exchange(
        &self,
        text: &str,
        messages: &[Message],
        at: usize,
    ) -> Result<Option<Range<usize>>, DataError> {
        let Some([other, _]) = unused_characters(messages) else { return Ok(None) };
        let mut exchanged = messages.to_vec();
        exchanged[at].content = other.to_string();
        let whole = self.render(&exchanged, false)?;
        let last = self.render(&exchanged[..=at], false)?;
        let (Some((before, after)), Some((_, closing))) =
            (whole.split_once(other), last.split_once(other))
        else {
            return Ok(None);
        };
        if text.len() < before.len() + after.len()
            || !text.starts_with(before)
            || !text.ends_with(after)
        {
            return Ok(None);
        }
        let end = text.len() - after.len() + common_prefix(closing, after);
        Ok(Some(before.len()..end))
    }

    /// What follows an answer: the end of the assistant's turn.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`].
    pub fn closing(&self) -> Result<String, DataError> {
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let answer = '\u{fdd0}';
        let text = self
            .render(&[turn(Role::User, "a"), turn(Role::Assistant, &answer.to_string())], false)?;
        Ok(text.split_once(answer).map_or(String::new(), |(_, closing)| closing.to_owned()))
    }
}

/// Two characters that mean nothing to anybody and that no message holds.
fn unused_characters(messages: &[Message]) -> Option<[char; 2]> {
    let free =
        |character: &char| messages.iter().all(|message| !message.content.contains(*character));
    let mut free = ('\u{fdd0}'..='\u{fdef}').filter(free);
    Some([free.next()?, free.next()?])
}

/// Bytes of the longest text with which both begin.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

fn fault(file: &str, error: &TemplateFault) -> DataError {
    // The cause says what a template's own exception said.
    DataError::Template(format!("the model's chat template ({file}): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::chat::tests::conversation;

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
        let thinking = "{% for m in messages %}<{{ m.role }}>{% if loop.last and m.role == 'assistant' %}<think></think>\
                        {% endif %}{{ m.content | trim }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        assert_eq!(answers(thinking).unwrap(), ["Hello</>\n", "<think></think>4</>\n"]);
        let system_last = "{% for m in messages[1:] %}{% if m.role == 'user' %}[{% if loop.last %}{{ messages[0].content }} \
                           {% endif %}{{ m.content }}]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
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
        let source = "{% for m in messages %}\n  {% if m.role == 'assistant' %}\nA: {% generation %}\n  {{- m.content }}!\n\
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
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
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
