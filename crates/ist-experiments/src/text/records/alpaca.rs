//! Records of plain fields: Alpaca (`instruction`, `input`, `output`, `system`, `history`),
//! `prompt`/`completion`, and `text`.
//!
//! A field that is there may be empty. Evaluation data often has no output; training leaves a
//! record out whose answer is blank, since a model would learn to say nothing.

use serde_json::Value;

use super::chat::{Message, Role};
use super::json_file::{Fields, kind};
use super::record::{Body, take, take_optional};

/// An Alpaca record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// What is asked.
    pub instruction: String,
    /// Further context, often empty.
    pub input: String,
    /// The answer.
    pub output: String,
    /// Instructions for the whole conversation, often empty.
    pub system: String,
    /// What was said before.
    pub history: Vec<Exchange>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Exchange {
    /// What was asked.
    pub user: String,
    /// What was answered.
    pub assistant: String,
}

impl Instruction {
    /// The turns before the answer.
    pub(super) fn asked(&self) -> Vec<Message> {
        let mut turns = Vec::new();
        if !self.system.is_empty() {
            turns.push(Message::new(Role::System, self.system.clone()));
        }
        for Exchange { user, assistant } in &self.history {
            turns.push(Message::new(Role::User, user.clone()));
            turns.push(Message::new(Role::Assistant, assistant.clone()));
        }
        let between = if self.input.is_empty() { "" } else { "\n" };
        let question = format!("{}{between}{}", self.instruction, self.input);
        turns.push(Message::new(Role::User, question));
        turns
    }

    /// The record as a conversation.
    pub(super) fn turns(&self) -> Vec<Message> {
        let mut turns = self.asked();
        turns.push(Message::new(Role::Assistant, self.output.clone()));
        turns
    }

    /// The answers of the record, the output last.
    pub(super) fn answers(&self) -> impl Iterator<Item = &str> + Clone {
        let before = self.history.iter().map(|exchange| exchange.assistant.as_str());
        before.chain(std::iter::once(self.output.as_str()))
    }
}

/// Takes an Alpaca record's fields. `input`, `system` and `history` may be missing, null or empty.
pub(super) fn instruction(fields: &mut Fields) -> Result<Body, String> {
    let record = Instruction {
        instruction: take(fields, "instruction")?,
        output: take(fields, "output")?,
        input: take_optional(fields, "input")?.unwrap_or_default(),
        system: take_optional(fields, "system")?.unwrap_or_default(),
        history: history(fields)?,
    };
    Ok(Body::Instruction(record))
}

/// Takes `history`: pairs of a question and its answer.
fn history(fields: &mut Fields) -> Result<Vec<Exchange>, String> {
    let exchanges = match fields.shift_remove("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(exchanges)) => exchanges,
        Some(other) => {
            return Err(format!("field `history` must be a list, found {}", kind(&other)));
        }
    };
    let exchange = |(at, pair): (usize, Value)| match exchange_of(&pair) {
        Some(exchange) => Ok(exchange),
        None => Err(format!(
            "`history`[{at}]: expected a question and its answer, two strings, found {pair}"
        )),
    };
    exchanges.into_iter().enumerate().map(exchange).collect()
}

fn exchange_of(pair: &Value) -> Option<Exchange> {
    let [user, assistant] = pair.as_array()?.as_slice() else { return None };
    Some(Exchange { user: user.as_str()?.to_owned(), assistant: assistant.as_str()?.to_owned() })
}

/// Takes a prompt and its completion, both as they stand.
pub(super) fn prompt_completion(fields: &mut Fields) -> Result<Body, String> {
    let prompt = take(fields, "prompt")?;
    let completion = take(fields, "completion")?;
    Ok(Body::PromptCompletion { prompt, completion })
}

/// Takes a text.
pub(super) fn text(fields: &mut Fields) -> Result<Body, String> {
    take(fields, "text").map(Body::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Instruction, String> {
        match instruction(&mut value.as_object().unwrap().clone())? {
            Body::Instruction(record) => Ok(record),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_or_null_input_is_empty() {
        let without = json!({"instruction": "a", "output": "b"});
        let null = json!({"instruction": "a", "output": "b", "input": null, "system": null,
            "history": null});
        for record in [without, null] {
            let expected = Instruction {
                instruction: "a".into(),
                output: "b".into(),
                ..Instruction::default()
            };
            assert_eq!(read(&record).unwrap(), expected);
        }
    }

    #[test]
    fn system_and_history_are_turns() {
        let record = read(&json!({
            "instruction": "And", "input": "who?", "output": "Otto", "system": "Be brief.",
            "history": [["Who has a kite?", "Mira"]],
        }))
        .unwrap();
        let expected = [
            (Role::System, "Be brief."),
            (Role::User, "Who has a kite?"),
            (Role::Assistant, "Mira"),
            (Role::User, "And\nwho?"),
            (Role::Assistant, "Otto"),
        ];
        assert_eq!(record.turns(), expected.map(|(role, content)| Message::new(role, content)));
        for wrong in [json!([["a"]]), json!([["a", 3]]), json!(["a"])] {
            let fault = read(&json!({"instruction": "a", "output": "b", "history": wrong}));
            assert!(fault.unwrap_err().contains("`history`[0]: expected a question"));
        }
    }

    #[test]
    fn white_space_around_a_field_belongs_to_it() {
        let mut fields = json!({"prompt": "a ", "completion": " b\n"}).as_object().unwrap().clone();
        let body = prompt_completion(&mut fields).unwrap();
        assert_eq!(body, Body::PromptCompletion { prompt: "a ".into(), completion: " b\n".into() });
    }
}
