//! Conversations: `messages` or `conversations`, of `role` and `content` or of `from` and `value`;
//! a prompt and a completion that are lists of turns. And the layout they have where a model has
//! none of its own.

use serde_json::Value;

use super::json_file::{Fields, kind};
pub use super::message::{Message, Role};
use super::message::{Spelling, read_json_text};
use super::record::take_optional;
use super::template::Segment;

/// A record's conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// The tools that the model may call, each as the record describes it.
    pub tools: Vec<Value>,
    /// The record's key that holds the turns.
    pub(super) key: &'static str,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, tools: Vec::new(), key: MESSAGES }
    }
}

const MESSAGES: &str = "messages";
const CONVERSATIONS: &str = "conversations";
const PROMPT: &str = "prompt";
const COMPLETION: &str = "completion";

impl Role {
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

/// Takes a record's conversation: its turns, and what stands beside them in `system` and `tools`.
pub(super) fn conversation(fields: &mut Fields) -> Result<Conversation, String> {
    let mut conversation = turns(fields)?;
    if let Some(system) = take_optional(fields, "system")? {
        put_in_front(&mut conversation.messages, system)?;
    }
    read_json_text(fields, "tools")?;
    if let Some(Value::Array(tools)) = fields.shift_remove("tools") {
        if let Some(other) = tools.iter().find(|tool| !tool.is_object()) {
            return Err(format!("`tools` must be a list of objects, found {}", kind(other)));
        }
        conversation.tools = tools;
    }
    Ok(conversation)
}

fn turns(fields: &mut Fields) -> Result<Conversation, String> {
    if fields.contains_key(MESSAGES) {
        return list(fields, MESSAGES, Spelling::OpenAi)
            .map(|messages| Conversation { key: MESSAGES, ..messages.into() });
    }
    if fields.contains_key(CONVERSATIONS) {
        return list(fields, CONVERSATIONS, Spelling::ShareGpt)
            .map(|messages| Conversation { key: CONVERSATIONS, ..messages.into() });
    }
    if fields.contains_key(PROMPT) && fields.contains_key(COMPLETION) {
        let prompt = list(fields, PROMPT, Spelling::OpenAi)?;
        let completion = list(fields, COMPLETION, Spelling::OpenAi)?;
        let prompt = prompt.into_iter().map(Message::into_prompt);
        let messages: Vec<Message> = prompt.chain(completion).collect();
        return Ok(Conversation { key: "prompt + completion", ..messages.into() });
    }
    Err("field `messages` or `conversations` is missing".to_owned())
}

fn list(
    fields: &mut Fields,
    name: &'static str,
    spelling: Spelling,
) -> Result<Vec<Message>, String> {
    let list = match fields.shift_remove(name) {
        Some(Value::Array(list)) => list,
        other => {
            let found = other.as_ref().map_or("nothing", kind);
            return Err(format!("`{name}` must be a list, found {found}"));
        }
    };
    let turns = list.into_iter().enumerate();
    turns
        .map(|(at, turn)| {
            Message::read(turn, spelling).map_err(|problem| format!("`{name}`[{at}]: {problem}"))
        })
        .collect()
}

/// Makes a record's `system` the first turn. One that stands there already must say the same.
fn put_in_front(messages: &mut Vec<Message>, system: String) -> Result<(), String> {
    if system.trim().is_empty() {
        return Ok(());
    }
    match messages.first().filter(|first| first.role == Role::System) {
        None => messages.insert(0, Message::new(Role::System, system)),
        Some(first) if first.content.trim() == system.trim() => {}
        Some(_) => {
            return Err("`system` is not what the first turn says, which is the system's too; \
                        keep one of them"
                .to_owned());
        }
    }
    Ok(())
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
/// Every assistant's turn ends with the end token, so that a model learns to stop; only the
/// assistant's contents and these end tokens are learned where inputs are not. A turn that calls
/// tools is not learned: its calls are not printed.
pub(super) fn layout(messages: &[Message]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut open = Segment::open(String::new());
    for (at, message) in messages.iter().enumerate() {
        open.text += if at == 0 { "" } else { "\n\n" };
        open.text += message.role.marker();
        open.add(&message.content, message.standing(false));
        if message.role == Role::Assistant {
            open.ends = true;
            let turn = std::mem::replace(&mut open, Segment::open(String::new()));
            segments.push(turn);
        }
    }
    if !open.text.is_empty() {
        segments.push(open);
    }
    segments
}

/// The contents, one a line, without any marker.
pub(super) fn plain(messages: &[Message]) -> Segment {
    let mut segment = Segment::open(String::new());
    for (at, message) in messages.iter().enumerate() {
        segment.text += if at == 0 { "" } else { "\n" };
        segment.add(&message.content, message.standing(false));
    }
    segment.ends = messages.last().is_some_and(|last| last.role == Role::Assistant);
    segment
}

/// How many of the assistant's turns say nothing, and whether that is all of them.
pub(super) fn blank_answers(messages: &[Message]) -> (usize, bool) {
    let answers = messages.iter().filter(|message| message.role == Role::Assistant);
    let blank = answers.clone().filter(|message| message.is_blank()).count();
    let all =
        if blank > 0 { blank == answers.count() } else { messages.iter().all(Message::is_blank) };
    (blank, all)
}

/// What stands before an answer to `messages` in the default layout, without the end tokens between
/// turns.
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
    use super::super::message::Standing::{self, Answer, Prompt};
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
        turns.map(|(role, content)| Message::new(role, content)).collect()
    }

    fn read(record: &Value) -> Result<(Conversation, Fields), String> {
        let mut fields = record.as_object().unwrap().clone();
        super::conversation(&mut fields).map(|conversation| (conversation, fields))
    }

    fn messages(record: &Value) -> Vec<Message> {
        read(record).unwrap().0.messages
    }

    #[test]
    fn every_spelling_gives_the_same_conversation() {
        let expected = vec![Message::new(Role::User, "Hi")];
        let openai = json!({"messages": [{"role": "user", "content": "Hi"}], "id": 1});
        assert_eq!(read(&openai).unwrap().1, *json!({"id": 1}).as_object().unwrap());
        for record in [
            openai,
            json!({"conversations": [{"from": "human", "value": "Hi"}]}),
            json!({"conversations": [{"role": "user", "content": "Hi"}]}),
            json!({"messages": [{"from": "human", "value": "Hi"}]}),
            json!({"messages": [{"role": "USER", "content": "Hi"}], "tools": "[]", "system": ""}),
        ] {
            assert_eq!(messages(&record), expected, "{record}");
        }
    }

    #[test]
    fn a_system_text_beside_the_turns_is_their_first() {
        let turn = json!({"from": "human", "value": "Hi"});
        let system = json!({"from": "system", "value": "Be brief."});
        let beside = json!({"conversations": [turn], "system": "Be brief."});
        let within = json!({"conversations": [system, turn]});
        let both = json!({"conversations": [system, turn], "system": "Be brief."});
        assert_eq!(messages(&beside), messages(&within));
        assert_eq!(messages(&both), messages(&within));
        let other = json!({"conversations": [system, turn], "system": "Be long."});
        assert!(read(&other).unwrap_err().contains("keep one of them"));
    }

    #[test]
    fn tools_are_a_list_or_the_text_of_one() {
        let tools = json!([{"type": "function", "function": {"name": "w"}}]);
        for given in [tools.clone(), json!(tools.to_string())] {
            let record = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": given});
            assert_eq!(json!(read(&record).unwrap().0.tools), tools);
        }
        for (wrong, problem) in [
            (json!(3), "must be a list"),
            (json!("w()"), "not of a JSON list"),
            (json!([3]), "of objects"),
        ] {
            let record = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": wrong});
            assert!(read(&record).unwrap_err().contains(problem));
        }
    }

    #[test]
    fn a_prompt_and_a_completion_of_turns_are_a_conversation_of_which_the_completion_is_learned() {
        let record = json!({
            "prompt": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "2+2?"},
            ],
            "completion": [{"role": "assistant", "content": "4"}],
        });
        let standings: Vec<Standing> =
            messages(&record).iter().map(|message| message.standing(true)).collect();
        assert_eq!(standings, [Prompt, Prompt, Prompt, Answer]);
        let mixed = json!({"prompt": [{"role": "user", "content": "Hi"}], "completion": "4"});
        assert!(read(&mixed).unwrap_err().contains("`completion` must be a list, found a string"));
    }

    #[test]
    fn faults_name_the_turn() {
        let cases = [
            (json!({"messages": 3}), "`messages` must be a list, found a number"),
            (json!({"messages": [3]}), "`messages`[0]: expected an object"),
            (json!({"messages": [{"role": "user"}]}), "`messages`[0]: field `content` is missing"),
            (json!({"messages": [{"content": "a"}]}), "`messages`[0]: field `role` is missing"),
            (json!({"conversations": [{"from": "human"}]}), "field `value` is missing"),
            (json!({"messages": [{"role": "king", "content": "a"}]}), "unknown role \"king\""),
            (
                json!({"messages": [{"role": "user", "content": 1}]}),
                "must be a string or a list of text parts",
            ),
            (json!({"text": "a"}), "`messages` or `conversations` is missing"),
        ];
        for (record, problem) in cases {
            let error = read(&record).unwrap_err();
            assert!(error.contains(problem), "{record}: {error}");
        }
    }

    #[test]
    fn blank_answers_are_counted() {
        let turn = |role, content: &str| Message::new(role, content);
        let [user, blank, said] =
            [turn(Role::User, "a"), turn(Role::Assistant, " "), turn(Role::Assistant, "b")];
        assert_eq!(blank_answers(&[user.clone(), blank.clone(), said]), (1, false));
        assert_eq!(blank_answers(&[user.clone(), blank]), (1, true));
        assert_eq!(blank_answers(&[user]), (0, false));
        assert_eq!(blank_answers(&[]), (0, true));
        assert_eq!(blank_answers(&[turn(Role::User, " ")]), (0, true));
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
