//! Whether a template prints the calls of a turn.
//!
//! Many templates know no calls. A turn that does nothing but call would then be learned as one
//! that says nothing, so what a template makes of calls is tried out: others are put in their
//! place, and looked for.

use serde_json::{Value, json};

use super::answers::unused_characters;
use crate::text::records::DataError;
use crate::text::records::chat::Message;

/// Whether `render` prints names and arguments of the calls of the turn at `at`. True of a turn
/// without calls.
pub(crate) fn are_printed(
    messages: &[Message],
    at: usize,
    render: impl Fn(&[Message]) -> Result<String, DataError>,
) -> Result<bool, DataError> {
    let calls = messages[at].calls();
    if calls.is_empty() {
        return Ok(true);
    }
    let Some([name, argument]) = unused_characters(messages) else { return Ok(true) };
    let others = calls.iter().map(|call| exchanged(call, name, argument)).collect();
    let mut other = messages.to_vec();
    other[at] = other[at].clone().with_calls(others);
    let text = render(&other)?;
    // Not as the escapes that a template's JSON may have for them, either.
    let holds = |character: char| {
        text.contains(character) || text.contains(&format!("\\u{:04x}", character as u32))
    };
    Ok(holds(name) && holds(argument))
}

/// The same call of another function with another argument.
fn exchanged(call: &Value, name: char, argument: char) -> Value {
    let mut call = call.clone();
    let function = if call["function"].is_object() { &mut call["function"] } else { &mut call };
    let is_text = function["arguments"].is_string();
    let Some(fields) = function.as_object_mut() else { return call };
    fields.insert("name".to_owned(), json!(name.to_string()));
    let argument = argument.to_string();
    let arguments = if is_text { json!(argument) } else { json!({"x": argument}) };
    fields.insert("arguments".to_owned(), arguments);
    call
}
