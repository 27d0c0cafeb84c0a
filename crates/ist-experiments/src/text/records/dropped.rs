//! Keys that nothing reads: what a file says and a run does not hear.
//!
//! Other programs drop such keys in silence, and a system's text or a turn's weight with them. Here
//! each is counted, so that a run can tell of it or refuse it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::message::Message;
use super::record::{Body, Record};
use super::template::Template;
use super::text::Format;

/// What evaluation takes for the right answer.
const ANSWER: &str = "answer";

/// Keys of a file's records, or of the turns in them, that nothing reads, and how often each has a
/// value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DroppedKeys(BTreeMap<String, usize>);

impl DroppedKeys {
    /// Counts the keys of a record that neither its format nor the template reads.
    pub(crate) fn note(&mut self, record: &Record, template: &Template) {
        // Beside what is learned, `answer` is there for evaluation.
        let has_output = record.format() != Format::Text;
        let is_read = |key: &str| key == ANSWER && has_output;
        let unread = record.extra.iter().filter(|(key, value)| !value.is_null() && !is_read(key));
        unread.for_each(|(key, _)| self.add(key.clone()));
        record.shadowed.iter().for_each(|key| self.add(key.clone()));
        match &record.body {
            Body::Chat(conversation) => {
                if !conversation.tools.is_empty() && !template.reads_key("tools") {
                    self.add("tools".to_owned());
                }
                let list = conversation.key;
                for (key, names) in conversation.messages.iter().flat_map(Message::details) {
                    if !names.iter().any(|name| template.reads_detail(name)) {
                        self.add(format!("{list}[].{key}"));
                    }
                }
                let lost = template.lost_calls(conversation);
                (0..lost).for_each(|_| self.add(format!("{list}[].tool_calls")));
            }
            Body::Instruction(record) => {
                if !record.system.is_empty() && !template.reads_key("system") {
                    self.add("system".to_owned());
                }
                if !record.history.is_empty() && !template.reads_key("history") {
                    self.add("history".to_owned());
                }
            }
            Body::PromptCompletion { .. } | Body::Text(_) => {}
        }
    }

    fn add(&mut self, key: String) {
        *self.0.entry(key).or_insert(0) += 1;
    }

    /// The counts of both.
    pub(super) fn extend(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_insert(0) += count;
        }
    }

    /// Takes out the key that evaluation reads.
    pub(crate) fn forget_answer(&mut self) {
        self.0.remove(ANSWER);
    }

    /// Whether every key is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for DroppedKeys {
    /// "`id` (12 times), `messages[].name` (once)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, count)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match count {
                1 => write!(f, "{comma}`{key}` (once)")?,
                count => write!(f, "{comma}`{key}` ({count} times)")?,
            }
        }
        Ok(())
    }
}
