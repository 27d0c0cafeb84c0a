//! Text from files, cut to a length that fits into a message.

use std::borrow::Cow;

use serde_json::Value;

/// Characters of a quoted text that a message shows.
pub const LONGEST: usize = 80;

/// Characters of a message of one fault. Our own stay far below.
const LONGEST_MESSAGE: usize = 2000;

/// The beginning of a text, with its length where something is left out.
///
/// ```
/// use ist_files::untrusted::cut;
///
/// assert_eq!(cut("q_proj"), "q_proj");
/// assert!(cut(&"x".repeat(1000)).ends_with("x… (1000 characters)"));
/// ```
pub fn cut(text: &str) -> Cow<'_, str> {
    shortened(text, LONGEST, LONGEST)
}

/// A message of one fault, cut where what it quotes is longer than a message can be.
///
/// Whoever writes a message cuts what it quotes. This is for places where many messages meet.
pub fn cut_message(text: &str) -> Cow<'_, str> {
    shortened(text, LONGEST_MESSAGE, LONGEST_MESSAGE / 10)
}

/// The text, or its first `kept` characters where it has more than `most`.
fn shortened(text: &str, most: usize, kept: usize) -> Cow<'_, str> {
    if text.char_indices().nth(most).is_none() {
        return Cow::Borrowed(text);
    }
    let length = text.chars().count();
    let begin: String = text.chars().take(kept).collect();
    Cow::Owned(format!("{begin}… ({length} characters)"))
}

/// A value of a file as JSON, cut like a text.
pub fn cut_value(value: &Value) -> String {
    cut(&value.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_cut_at_a_character_and_tells_its_length() {
        let whole = "é".repeat(LONGEST);
        assert_eq!(cut(&whole), whole);
        let longer = format!("{whole}é");
        assert_eq!(cut(&longer), format!("{whole}… (81 characters)"));
    }

    #[test]
    fn a_message_is_cut_only_where_it_quotes_too_much() {
        let usual = "must be one of these, found that; ".repeat(20);
        assert_eq!(cut_message(&usual), usual);
        let long = format!("must be an integer, found \"{}\"", "x".repeat(1 << 20));
        let shown = cut_message(&long);
        assert!(shown.starts_with("must be an integer, found \"xxx"), "{shown}");
        assert!(shown.ends_with("x… (1048604 characters)") && shown.len() < 300, "{shown}");
    }

    #[test]
    fn a_value_of_a_megabyte_becomes_a_line() {
        let value = json!({"a": "x".repeat(1 << 20)});
        let shown = cut_value(&value);
        assert!(shown.starts_with("{\"a\":\"xxx") && shown.len() < 200, "{shown}");
        assert_eq!(cut_value(&json!(1.5)), "1.5");
    }
}
