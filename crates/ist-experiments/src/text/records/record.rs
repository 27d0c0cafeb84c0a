//! One record of text: what it says in one of the formats, and whatever else it carries.

use serde_json::Value;

use super::alpaca::{self, Instruction};
use super::chat::{self, Conversation};
use super::error::Place;
use super::json_file::{Fields, kind};
use super::text::Format;

/// One record of text: what it says, and whatever else it carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The fields that training reads.
    pub body: Body,
    /// All other fields, such as `answer` or `id`. Training ignores them, evaluation may read them.
    pub extra: serde_json::Map<String, Value>,
    /// Keys whose name `data.fields` gave to another column.
    pub(super) shadowed: Vec<String>,
    /// Where the record stands in its file.
    pub place: Place,
}

/// The text of a record in one of the formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An Alpaca record.
    Instruction(Instruction),
    /// A prompt that is used as it stands, and its continuation.
    PromptCompletion {
        /// The prompt, with every space that belongs to it.
        prompt: String,
        /// What follows.
        completion: String,
    },
    /// Text without a prompt.
    Text(String),
    /// A conversation.
    Chat(Conversation),
}

impl Record {
    /// A record of the given format from its fields. Everything it says may be blank.
    pub(super) fn read(mut fields: Fields, format: Format, place: Place) -> Result<Self, String> {
        let body = match format {
            Format::Alpaca => alpaca::instruction(&mut fields)?,
            Format::PromptCompletion => alpaca::prompt_completion(&mut fields)?,
            Format::Chat => Body::Chat(chat::conversation(&mut fields)?),
            Format::Text => alpaca::text(&mut fields)?,
            Format::Auto | Format::Tokens => {
                return Err("the record holds token ids, not text".to_owned());
            }
        };
        Ok(Self { body, extra: fields, shadowed: Vec::new(), place })
    }

    /// What the model is to answer: the output, the completion, the text, or the last assistant's
    /// turn.
    pub fn output(&self) -> &str {
        match &self.body {
            Body::Instruction(record) => &record.output,
            Body::PromptCompletion { completion, .. } => completion,
            Body::Text(text) => text,
            Body::Chat(conversation) => chat::last_answer(&conversation.messages),
        }
    }

    /// The record's format.
    pub fn format(&self) -> Format {
        match &self.body {
            Body::Instruction { .. } => Format::Alpaca,
            Body::PromptCompletion { .. } => Format::PromptCompletion,
            Body::Text(_) => Format::Text,
            Body::Chat(_) => Format::Chat,
        }
    }

    /// How many of the record's answers are nothing but white space.
    pub(super) fn blank_answers(&self) -> usize {
        self.blanks().0
    }

    /// Whether there is nothing to learn: all its answers are nothing but white space, or all that
    /// it says.
    pub(super) fn is_blank(&self) -> bool {
        self.blanks().1
    }

    /// Whether everything that the record says is nothing but white space.
    pub(crate) fn says_nothing(&self) -> bool {
        let blank = |texts: &[&str]| texts.iter().all(|text| text.trim().is_empty());
        match &self.body {
            Body::Instruction(record) => {
                blank(&[&record.instruction, &record.input, &record.output])
            }
            Body::PromptCompletion { prompt, completion } => blank(&[prompt, completion]),
            Body::Text(text) => blank(&[text]),
            Body::Chat(conversation) => conversation.messages.iter().all(chat::Message::is_blank),
        }
    }

    fn blanks(&self) -> (usize, bool) {
        let blank = |text: &&str| text.trim().is_empty();
        match &self.body {
            Body::Instruction(record) => {
                let answers = record.answers();
                let count = answers.clone().filter(blank).count();
                (count, count == answers.count())
            }
            Body::PromptCompletion { .. } | Body::Text(_) => {
                let is_blank = blank(&self.output());
                (usize::from(is_blank), is_blank)
            }
            Body::Chat(conversation) => chat::blank_answers(&conversation.messages),
        }
    }
}

/// Takes a field that must be a string. Null counts as missing.
pub(super) fn take(fields: &mut Fields, name: &str) -> Result<String, String> {
    match take_optional(fields, name)? {
        Some(text) => Ok(text),
        None => Err(format!("field `{name}` is missing; found {}", names(fields))),
    }
}

/// Takes a field that must be a string where it is given. Null counts as not given.
pub(super) fn take_optional(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("field `{name}` must be a string, found {}", kind(&other))),
    }
}

pub(super) fn names(fields: &Fields) -> String {
    if fields.is_empty() {
        return "no other field".to_owned();
    }
    fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_rule_says_what_is_blank_in_every_format() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        for (format, record, blank) in [
            (Format::Text, json!({"text": " \n"}), (1, true)),
            (Format::Text, json!({"text": "a"}), (0, false)),
            (Format::PromptCompletion, json!({"prompt": "a", "completion": " "}), (1, true)),
            (Format::PromptCompletion, json!({"prompt": "", "completion": "a"}), (0, false)),
            (Format::Alpaca, json!({"instruction": "a", "output": ""}), (1, true)),
            (Format::Alpaca, json!({"instruction": "", "output": "a"}), (0, false)),
            (
                Format::Alpaca,
                json!({"instruction": "a", "output": "", "history": [["b", "c"], ["d", ""]]}),
                (2, false),
            ),
            (Format::Chat, json!({"messages": []}), (0, true)),
            (Format::Chat, json!({"messages": [turn("user", "a")]}), (0, false)),
            (
                Format::Chat,
                json!({"messages": [turn("user", "a"), turn("assistant", "")]}),
                (1, true),
            ),
            (
                Format::Chat,
                json!({"messages": [turn("assistant", ""), turn("user", "a"), turn("assistant",
                    "b")]}),
                (1, false),
            ),
        ] {
            let fields = record.as_object().unwrap().clone();
            let read = Record::read(fields, format, Place::Line(1)).unwrap();
            assert_eq!((read.blank_answers(), read.is_blank()), blank, "{record}");
        }
    }
}
