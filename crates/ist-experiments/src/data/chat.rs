//! Conversations: `messages` of `role` and `content`, or `ShareGPT`'s `conversations` of `from` and `value`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alpaca::refuse_empty;
use super::json_file::{Fields, kind};
use super::template::Segment;
use super::text::take;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Role {
    /// A role by the names that the common data sets give it.
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "system" | "developer" => Ok(Self::System),
            "user" | "human" => Ok(Self::User),
            "assistant" | "gpt" | "chatgpt" | "bing" | "bard" | "model" => Ok(Self::Assistant),
            "tool" | "function" | "observation" => Ok(Self::Tool),
            other => Err(format!(
                "unknown role \"{other}\"; expected system, user (human), assistant (gpt) or tool"
            )),
        }
    }

    /// The line that opens a turn in the default layout.
    fn marker(self) -> &'static str {
        match self {
            Self::System => "### System:\n",
            Self::User => "### User:\n",
            Self::Assistant => "### Assistant:\n",
            Self::Tool => "### Tool:\n",
        }
    }
}

/// Takes a record's conversation. Keys of a message beside its role and content are ignored.
pub(super) fn messages(fields: &mut Fields) -> Result<Vec<Message>, String> {
    let (name, role, content) = if fields.contains_key("messages") {
        ("messages", "role", "content")
    } else {
        ("conversations", "from", "value")
    };
    let Some(list) = fields.shift_remove(name) else {
        return Err("field `messages` or `conversations` is missing".to_owned());
    };
    let Value::Array(list) = list else {
        return Err(format!("`{name}` must be a list, found {}", kind(&list)));
    };
    let turns = list.into_iter().enumerate();
    let messages: Vec<_> = turns
        .map(|(at, turn)| {
            message(turn, role, content).map_err(|problem| format!("`{name}`[{at}]: {problem}"))
        })
        .collect::<Result<_, _>>()?;
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    refuse_empty(&contents, &format!("`{name}`"))?;
    Ok(messages)
}

fn message(turn: Value, role: &str, content: &str) -> Result<Message, String> {
    let Value::Object(mut turn) = turn else {
        return Err(format!(
            "expected an object with `{role}` and `{content}`, found {}",
            kind(&turn)
        ));
    };
    Ok(Message { role: Role::parse(&take(&mut turn, role)?)?, content: take(&mut turn, content)? })
}

/// The last turn of the assistant, or nothing.
pub(super) fn last_answer(messages: &[Message]) -> &str {
    let answer = messages.iter().rfind(|message| message.role == Role::Assistant);
    answer.map_or("", |message| &message.content)
}

/// The turns before the last one of the assistant: what it answers.
pub(super) fn before_last_answer(messages: &[Message]) -> &[Message] {
    let last = messages.iter().rposition(|message| message.role == Role::Assistant);
    &messages[..last.unwrap_or(messages.len())]
}

/// The default layout of a conversation, one segment per assistant's turn:
///
/// ```text
/// ### System:
/// {content}
///
/// ### User:
/// {content}
///
/// ### Assistant:
/// {content}<end token>
///
/// ### User:
/// ...
/// ```
///
/// Every assistant's turn ends with the end token, so that a model learns to stop; only the assistant's contents and
/// these end tokens are learned where inputs are not.
pub(super) fn layout(messages: &[Message]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut text = String::new();
    for (at, message) in messages.iter().enumerate() {
        text += if at == 0 { "" } else { "\n\n" };
        text += message.role.marker();
        let start = text.len();
        text += &message.content;
        if message.role == Role::Assistant {
            segments.push(Segment::answered(std::mem::take(&mut text), start));
        }
    }
    if !text.is_empty() {
        segments.push(Segment::open(text));
    }
    segments
}

/// What stands before an answer to `messages` in the default layout, without the end tokens between turns.
pub(super) fn layout_prompt(messages: &[Message]) -> Vec<Segment> {
    let mut segments = layout(messages);
    let opening =
        format!("{}{}", if messages.is_empty() { "" } else { "\n\n" }, Role::Assistant.marker());
    match segments.last_mut().filter(|last| !last.ends) {
        Some(last) => last.text += &opening,
        None => segments.push(Segment::open(opening)),
    }
    segments
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn conversation() -> Vec<Message> {
        let turns = [
            (Role::System, "Be brief."),
            (Role::User, "Hi"),
            (Role::Assistant, "Hello"),
            (Role::User, "2+2?"),
        ];
        let turns = turns.into_iter().chain([(Role::Assistant, "4")]);
        turns.map(|(role, content)| Message { role, content: content.to_owned() }).collect()
    }

    #[test]
    fn both_spellings_give_the_same_conversation() {
        let mut openai =
            json!({"messages": [{"role": "user", "content": "Hi", "name": "x"}], "id": 1});
        let mut sharegpt = json!({"conversations": [{"from": "human", "value": "Hi"}]});
        let expected = vec![Message { role: Role::User, content: "Hi".into() }];
        assert_eq!(messages(openai.as_object_mut().unwrap()).unwrap(), expected);
        assert_eq!(messages(sharegpt.as_object_mut().unwrap()).unwrap(), expected);
        assert_eq!(openai, json!({"id": 1}));
    }

    #[test]
    fn faults_name_the_turn() {
        let cases = [
            (json!({"messages": 3}), "`messages` must be a list, found a number"),
            (json!({"messages": [3]}), "`messages`[0]: expected an object"),
            (json!({"messages": [{"role": "user"}]}), "`messages`[0]: field `content` is missing"),
            (json!({"messages": [{"role": "king", "content": "a"}]}), "unknown role \"king\""),
            (
                json!({"messages": [{"role": "user", "content": [1]}]}),
                "must be a string, found a list",
            ),
            (json!({"conversations": [{"from": "human", "value": " "}]}), "empty"),
            (json!({"messages": []}), "empty"),
            (json!({"text": "a"}), "`messages` or `conversations` is missing"),
        ];
        for (mut record, problem) in cases {
            let error = messages(record.as_object_mut().unwrap()).unwrap_err();
            assert!(error.contains(problem), "{record}: {error}");
        }
    }

    #[test]
    fn the_layout_learns_the_assistants_turns() {
        let segments = layout(&conversation());
        assert_eq!(segments.len(), 2);
        assert_eq!(
            segments[0].text,
            "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\nHello"
        );
        assert_eq!(segments[1].text, "\n\n### User:\n2+2?\n\n### Assistant:\n4");
        let learned: Vec<_> = segments.iter().map(|s| &s.text[s.learned[0].clone()]).collect();
        assert_eq!(learned, ["Hello", "4"]);
        assert!(segments.iter().all(|segment| segment.ends));
    }

    #[test]
    fn a_prompt_is_the_layout_up_to_the_last_answer() {
        let conversation = conversation();
        let text =
            |segments: Vec<Segment>| segments.into_iter().map(|s| s.text).collect::<String>();
        let whole = text(layout(&conversation));
        assert_eq!(
            text(layout_prompt(before_last_answer(&conversation))) + last_answer(&conversation),
            whole
        );
    }

    #[test]
    fn a_conversation_that_ends_with_the_user_stays_open() {
        let segments = layout(&conversation()[..2]);
        assert_eq!((segments.len(), segments[0].ends, segments[0].learned.len()), (1, false, 0));
    }
}
