//! One turn of a conversation, in the spellings that data sets have for it.
//!
//! A chat template of a model gets a turn as transformers hands it over: every key of the record,
//! without those whose value is null. A layout of our own reads the role and the content alone.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::json_file::{Fields, kind};
use super::record::names;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The human.
    User,
    /// The model: the turns that are learned.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text. Text parts are joined by a space, and a turn without a content has an empty one.
    pub content: String,
    given: Given,
    /// Every key that a chat template may read, in the record's order. None is null, but role and
    /// content, which only hold their places here.
    fields: Fields,
    learned: Learned,
}

/// How a record spells a content.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Text,
    /// A list of `{"type": "text", "text": ".."}`.
    Parts(Vec<Value>),
    /// No content, or null.
    Nothing,
}

/// What a record says of learning a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learned {
    /// Nothing: the role decides.
    ByRole,
    /// It is part of a prompt.
    AsPrompt,
    /// Its weight is 0.
    Never,
}

/// What a turn's tokens are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Always learned.
    Answer,
    /// Learned where inputs are.
    Prompt,
    /// Not learned.
    Never,
}

/// The keys by which transformers takes what an assistant thought, the first one that is there.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
const ROLE: &str = "role";
const CONTENT: &str = "content";
const CALLS: &str = "tool_calls";
/// The keys that say whether a turn is learned.
const WEIGHTS: [&str; 3] = ["weight", "loss", "train"];

impl Role {
    /// A role by the names that the common data sets give it, in any case.
    fn parse(name: &str) -> Result<Self, String> {
        match name.trim().to_lowercase().as_str() {
            "system" | "developer" => Ok(Self::System),
            "user" | "human" => Ok(Self::User),
            "assistant" | "gpt" | "chatgpt" | "bing" | "bard" | "model" => Ok(Self::Assistant),
            "tool" | "function" | "observation" | "tool_response" => Ok(Self::Tool),
            _ => Err(format!(
                "unknown role \"{name}\"; expected system, user (human), assistant (gpt), \
                 tool (function, observation) or function_call"
            )),
        }
    }
}

/// The roles whose content is the call of a tool, as JSON.
fn is_call(role: &str) -> bool {
    ["function_call", "tool_call"].contains(&role.trim().to_lowercase().as_str())
}

impl Message {
    /// A turn of text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let places = [ROLE, CONTENT].map(|key| (key.to_owned(), Value::Null));
        Self {
            role,
            content: content.into(),
            given: Given::Text,
            fields: places.into_iter().collect(),
            learned: Learned::ByRole,
        }
    }

    /// Reads a turn. Of two spellings of a key the one in `first` is taken.
    pub(super) fn read(turn: Value, first: Spelling) -> Result<Self, String> {
        let Value::Object(mut turn) = turn else {
            let [role, content] = first.keys();
            let found = kind(&turn);
            return Err(format!("expected an object with `{role}` and `{content}`, found {found}"));
        };
        let learned = weight(&mut turn)?;
        read_json_text(&mut turn, CALLS)?;
        let [role_key, content_key] = first.chosen(&turn);
        let has_content = turn.contains_key(content_key);
        let role = turn.get_mut(role_key).map(Value::take).unwrap_or_default();
        let content = turn.get_mut(content_key).map(Value::take).unwrap_or_default();
        let (content, given) = content_of(content, content_key)?;
        let mut fields = Fields::new();
        for (key, value) in turn {
            match key {
                key if key == role_key => drop(fields.insert(ROLE.to_owned(), Value::Null)),
                key if key == content_key => drop(fields.insert(CONTENT.to_owned(), Value::Null)),
                key if !value.is_null() => drop(fields.insert(key, value)),
                _ => {}
            }
        }
        let mut message = Self { role: Role::Assistant, content, given, fields, learned };
        let role = match role {
            Value::String(role) => role,
            Value::Null => {
                let found = message.found();
                return Err(format!("field `{role_key}` is missing; found {found}"));
            }
            other => {
                return Err(format!("field `{role_key}` must be a string, found {}", kind(&other)));
            }
        };
        if is_call(&role) {
            message.take_call()?;
            return Ok(message);
        }
        message.role = Role::parse(&role)?;
        if !has_content && message.calls().is_empty() && message.reasoning().is_none() {
            let found = message.found();
            return Err(format!("field `{content_key}` is missing; found {found}"));
        }
        Ok(message)
    }

    /// Bytes of the text that it holds: the content, and what else a template may read as JSON
    /// spells it.
    pub(crate) fn bytes(&self) -> usize {
        let given = self.fields.values().filter(|value| !value.is_null());
        self.content.len() + given.map(|value| value.to_string().len()).sum::<usize>()
    }

    /// The keys that have a value beside role and content.
    fn found(&self) -> String {
        let mut fields = self.fields.clone();
        fields.retain(|_, value| !value.is_null());
        names(&fields)
    }

    /// Makes a call of the content, which is one as JSON.
    fn take_call(&mut self) -> Result<(), String> {
        let text = std::mem::take(&mut self.content);
        let expected =
            "expected a call as JSON, {\"name\": \"..\", \"arguments\": {..}}, or a list of them";
        let calls = match serde_json::from_str(&text) {
            Ok(Value::Array(calls)) => calls,
            Ok(call @ Value::Object(_)) => vec![call],
            Ok(other) => return Err(format!("{expected}, found {}", kind(&other))),
            Err(error) => return Err(format!("{expected}, found malformed JSON: {error}")),
        };
        let calls: Result<Vec<Value>, String> = calls
            .into_iter()
            .map(|call| match call {
                call if call["function"].is_object() => Ok(call),
                call if call["name"].is_string() => {
                    Ok(json!({"type": "function", "function": call}))
                }
                other => Err(format!("{expected}, found {other}")),
            })
            .collect();
        self.given = Given::Nothing;
        self.fields.insert(CALLS.to_owned(), Value::Array(calls?));
        Ok(())
    }

    /// The same turn as part of a prompt: no answer.
    #[must_use]
    pub(super) fn into_prompt(mut self) -> Self {
        if self.learned == Learned::ByRole {
            self.learned = Learned::AsPrompt;
        }
        self
    }

    /// The tools that the turn calls.
    pub(crate) fn calls(&self) -> &[Value] {
        self.fields.get(CALLS).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The same turn with other calls.
    #[must_use]
    pub(crate) fn with_calls(mut self, calls: Vec<Value>) -> Self {
        self.fields.insert(CALLS.to_owned(), Value::Array(calls));
        self
    }

    /// The same turn with a text as its content.
    #[must_use]
    pub(crate) fn with_content(mut self, content: String) -> Self {
        self.content = content;
        self.given = Given::Text;
        self.fields.entry(CONTENT).or_insert(Value::Null);
        self
    }

    /// Whether the content is given as a list of parts.
    pub(crate) fn has_parts(&self) -> bool {
        matches!(self.given, Given::Parts(_))
    }

    /// What the assistant thought before it spoke.
    fn reasoning(&self) -> Option<&Value> {
        REASONING.iter().find_map(|key| self.fields.get(*key))
    }

    /// Whether nothing is said, thought or called.
    pub(crate) fn is_blank(&self) -> bool {
        let thought = self.reasoning().and_then(Value::as_str).unwrap_or_default();
        self.content.trim().is_empty() && thought.trim().is_empty() && self.calls().is_empty()
    }

    /// What the turn's tokens are for, in a layout that prints the turn's calls or does not.
    pub(crate) fn standing(&self, prints_calls: bool) -> Standing {
        let loses_calls = !prints_calls && !self.calls().is_empty();
        match (self.role, self.learned) {
            (_, Learned::Never) => Standing::Never,
            (Role::Assistant, _) if self.is_blank() || loses_calls => Standing::Never,
            (Role::Assistant, Learned::ByRole) => Standing::Answer,
            _ => Standing::Prompt,
        }
    }

    /// The keys beside role, content and calls that a template would have to read, by every name
    /// that it can read them under, and the keys of text parts beside their text.
    pub(super) fn details(&self) -> impl Iterator<Item = (String, Vec<&str>)> {
        let others = |key: &&String| ![ROLE, CONTENT, CALLS].contains(&key.as_str());
        let details = self.fields.keys().filter(others).map(|key| {
            let names = if REASONING.contains(&key.as_str()) {
                REASONING.to_vec()
            } else {
                vec![key.as_str()]
            };
            (key.clone(), names)
        });
        let parts = match &self.given {
            Given::Parts(parts) => parts.as_slice(),
            _ => &[],
        };
        let keys = parts.iter().filter_map(Value::as_object).flatten();
        let keys = keys
            .filter(|(key, value)| !["type", "text"].contains(&key.as_str()) && !value.is_null());
        details.chain(keys.map(|(key, _)| (format!("content[].{key}"), vec![key.as_str()])))
    }

    /// The turn for a template that takes a content as a list of parts.
    pub(crate) fn with_parts(&self) -> impl Serialize {
        ForTemplate { message: self, takes_parts: true }
    }
}

impl TryFrom<Value> for Message {
    type Error = String;

    fn try_from(turn: Value) -> Result<Self, String> {
        Self::read(turn, Spelling::OpenAi)
    }
}

impl Serialize for Message {
    /// The turn as a template gets it that takes a content as one text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ForTemplate { message: self, takes_parts: false }.serialize(serializer)
    }
}

struct ForTemplate<'a> {
    message: &'a Message,
    takes_parts: bool,
}

impl Serialize for ForTemplate<'_> {
    /// What an assistant thought stands under each name that templates know, as in transformers.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Message { role, content, given, fields, .. } = self.message;
        let mut thought = self.message.reasoning();
        let mut map = serializer.serialize_map(None)?;
        if let Some(thought) = thought {
            map.serialize_entry("thinking", fields.get("thinking").unwrap_or(thought))?;
        }
        for (key, value) in fields {
            match (key.as_str(), given) {
                (ROLE, _) => map.serialize_entry(ROLE, role)?,
                (CONTENT, Given::Nothing) => {}
                (CONTENT, Given::Parts(parts)) if self.takes_parts => {
                    map.serialize_entry(CONTENT, parts)?;
                }
                (CONTENT, _) => map.serialize_entry(CONTENT, content)?,
                ("thinking", _) => {}
                ("reasoning_content", _) => map.serialize_entry(key, &thought.take())?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        if let Some(thought) = thought {
            map.serialize_entry("reasoning_content", thought)?;
        }
        map.end()
    }
}

/// The two families of names for a turn's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `role` and `content`.
    OpenAi,
    /// `from` and `value`.
    ShareGpt,
}

impl Spelling {
    fn keys(self) -> [&'static str; 2] {
        match self {
            Self::OpenAi => ["role", "content"],
            Self::ShareGpt => ["from", "value"],
        }
    }

    /// The keys by which a turn has role and content: of two spellings the first one that has a
    /// value.
    fn chosen(self, turn: &Fields) -> [&'static str; 2] {
        let other = match self {
            Self::OpenAi => Self::ShareGpt,
            Self::ShareGpt => Self::OpenAi,
        };
        let has_value = |key: &str| turn.get(key).is_some_and(|value| !value.is_null());
        [0, 1].map(|at| {
            let [first, second] = [self.keys()[at], other.keys()[at]];
            if !has_value(first) && has_value(second) { second } else { first }
        })
    }
}

/// A turn's text, and how it was given.
fn content_of(content: Value, key: &str) -> Result<(String, Given), String> {
    match content {
        Value::Null => Ok((String::new(), Given::Nothing)),
        Value::String(text) => Ok((text, Given::Text)),
        Value::Array(parts) => {
            let texts: Result<Vec<&str>, String> = parts
                .iter()
                .enumerate()
                .map(|(at, part)| {
                    part_text(part).map_err(|fault| format!("`{key}`[{at}]: {fault}"))
                })
                .collect();
            Ok((texts?.join(" "), Given::Parts(parts)))
        }
        other => Err(format!(
            "field `{key}` must be a string or a list of text parts, found {}",
            kind(&other)
        )),
    }
}

/// The text of one part of a content.
fn part_text(part: &Value) -> Result<&str, String> {
    let expected = "expected a text part, {\"type\": \"text\", \"text\": \"..\"}";
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text") | None, Some(text)) => Ok(text),
        (Some(other), _) if other != "text" => {
            Err(format!("{expected}, found a part of type \"{other}\", which is not available"))
        }
        _ => Err(format!("{expected}, found {}", kind(part))),
    }
}

/// Takes the keys that weigh a turn: 0 or false is not learned, 1 or true is what the role says.
fn weight(turn: &mut Fields) -> Result<Learned, String> {
    let mut learned = Learned::ByRole;
    for key in WEIGHTS {
        let weight = match turn.shift_remove(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(learned)) => Some(f64::from(u8::from(learned))),
            Some(Value::Number(number)) => number.as_f64(),
            Some(other) => {
                let found = kind(&other);
                return Err(format!("field `{key}` must be 0, 1, true or false, found {found}"));
            }
        };
        match weight {
            Some(0.0) => learned = Learned::Never,
            Some(1.0) => {}
            other => {
                let found = other.unwrap_or(f64::NAN);
                return Err(format!(
                    "field `{key}` must be 0 or 1, found {found}; \
                     weights in between are not available"
                ));
            }
        }
    }
    Ok(learned)
}

/// A key that must be a list where it is given, or the text of one: Parquet files often hold it as
/// text. An empty one goes.
pub(super) fn read_json_text(fields: &mut Fields, key: &str) -> Result<(), String> {
    let list = match fields.get_mut(key).map(Value::take) {
        None => return Ok(()),
        Some(Value::Null) => Value::Array(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Array(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map_err(|error| format!("`{key}` is a text, but not of a JSON list: {error}"))?,
        Some(list) => list,
    };
    match list {
        Value::Array(list) if list.is_empty() => drop(fields.shift_remove(key)),
        Value::Array(list) => drop(fields.insert(key.to_owned(), Value::Array(list))),
        Value::Null => drop(fields.shift_remove(key)),
        other => return Err(format!("`{key}` must be a list, found {}", kind(&other))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(turn: &Value) -> Result<Message, String> {
        Message::read(turn.clone(), Spelling::OpenAi)
    }

    fn handed_over(message: &Message) -> Value {
        serde_json::to_value(message).unwrap()
    }

    #[test]
    fn both_families_of_keys_and_roles_of_any_case_are_read() {
        for turn in [
            json!({"role": "User", "content": "Hi"}),
            json!({"from": "HUMAN", "value": "Hi"}),
            json!({"from": "user", "content": "Hi"}),
            json!({"role": null, "from": "human", "value": "Hi", "content": null}),
        ] {
            for spelling in [Spelling::OpenAi, Spelling::ShareGpt] {
                let found = Message::read(turn.clone(), spelling).unwrap();
                assert_eq!((found.role, found.content.as_str()), (Role::User, "Hi"), "{turn}");
            }
        }
    }

    #[test]
    fn a_weight_of_zero_takes_a_turn_out_and_one_changes_nothing() {
        let turn = |key: &str, value: Value| {
            let mut turn = json!({"role": "assistant", "content": "a"});
            turn[key] = value;
            read(&turn).map(|message| message.standing(true))
        };
        for key in WEIGHTS {
            for never in [json!(0), json!(0.0), json!(false)] {
                assert_eq!(turn(key, never), Ok(Standing::Never));
            }
            for always in [json!(1), json!(1.0), json!(true), json!(null)] {
                assert_eq!(turn(key, always), Ok(Standing::Answer));
            }
            assert!(turn(key, json!(0.5)).unwrap_err().contains("0 or 1, found 0.5"));
            assert!(turn(key, json!("x")).unwrap_err().contains("found a string"));
        }
    }

    #[test]
    fn text_parts_are_joined_by_a_space_and_kept_for_templates_that_take_a_list() {
        let parts =
            json!([{"type": "text", "text": "One."}, {"type": "text", "text": "Two.", "x": 1}]);
        let message = read(&json!({"role": "user", "content": parts})).unwrap();
        assert_eq!(message.content, "One. Two.");
        assert_eq!(handed_over(&message)["content"], "One. Two.");
        assert_eq!(serde_json::to_value(message.with_parts()).unwrap()["content"], parts);
        assert_eq!(message.details().collect::<Vec<_>>(), [("content[].x".to_owned(), vec!["x"])]);
        let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]});
        assert!(read(&image).unwrap_err().contains("`content`[0]: expected a text part"));
        let number = json!({"role": "user", "content": [1]});
        assert!(read(&number).unwrap_err().contains("found a number"));
    }

    #[test]
    fn calls_need_no_content_and_null_is_absent() {
        let calls = json!([{"type": "function", "function": {"name": "w", "arguments": {}}}]);
        let message =
            read(&json!({"role": "assistant", "content": null, "tool_calls": calls, "name": null}))
                .unwrap();
        assert_eq!(handed_over(&message), json!({"role": "assistant", "tool_calls": calls}));
        assert!(!message.is_blank());
        assert_eq!(message.standing(true), Standing::Answer);
        assert_eq!(message.standing(false), Standing::Never);
        let text =
            read(&json!({"role": "assistant", "content": "", "tool_calls": calls.to_string()}))
                .unwrap();
        assert_eq!(text.calls(), message.calls());
        for none in [json!(null), json!([]), json!("[]"), json!("")] {
            let message =
                read(&json!({"role": "assistant", "content": "", "tool_calls": none})).unwrap();
            assert!(message.is_blank() && message.calls().is_empty(), "{none}");
        }
        let wrong = json!({"role": "assistant", "content": "", "tool_calls": 3});
        assert!(read(&wrong).unwrap_err().contains("`tool_calls` must be a list"));
    }

    #[test]
    fn a_function_call_is_a_turn_of_the_assistant_that_calls() {
        let text = "{\"name\": \"w\", \"arguments\": {\"at\": \"Rome\"}}";
        for value in [text.to_owned(), format!("[{text}]")] {
            let turn = json!({"from": "function_call", "value": value});
            let message = Message::read(turn, Spelling::ShareGpt).unwrap();
            assert_eq!(message.role, Role::Assistant);
            assert_eq!(message.calls()[0]["function"]["arguments"]["at"], "Rome");
            assert_eq!(message.content, "");
        }
        let broken = json!({"from": "function_call", "value": "w(Rome)"});
        assert!(Message::read(broken, Spelling::ShareGpt).unwrap_err().contains("a call as JSON"));
    }

    #[test]
    fn thoughts_stand_under_every_name_that_templates_know() {
        let keys = |turn: &Value| {
            let handed = handed_over(&read(turn).unwrap());
            handed.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        let turn = json!({"role": "assistant", "content": "4", "reasoning": "2 and 2"});
        assert_eq!(keys(&turn), ["thinking", "role", "content", "reasoning", "reasoning_content"]);
        let turn = json!({"role": "assistant", "content": "4", "reasoning_content": "2 and 2"});
        assert_eq!(keys(&turn), ["thinking", "role", "content", "reasoning_content"]);
        assert!(!read(&json!({"role": "assistant", "reasoning_content": "2"})).unwrap().is_blank());
    }
}
