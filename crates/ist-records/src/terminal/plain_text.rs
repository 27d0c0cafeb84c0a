//! Text of strangers as a terminal may see it.
//!
//! Names in files, records and what a model writes can hold the codes that move a cursor, change a
//! window's title or turn the direction of text around. On a terminal they stand as what they are,
//! `\x1b` or `\u{202e}`.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest line of a message, in characters. Whoever writes a message cuts what it quotes; this
/// is the last resort.
const LONGEST_LINE: usize = 4000;

/// Lines of a message. A file with a hundred thousand faults has shown what it is by then.
const MOST_LINES: usize = 400;

/// The text with its control codes escaped, except line breaks and tabs.
pub fn shown(text: &str) -> Cow<'_, str> {
    let Some((first, _)) = text.char_indices().find(|(_, character)| is_control(*character)) else {
        return Cow::Borrowed(text);
    };
    let mut shown = text[..first].to_owned();
    for character in text[first..].chars() {
        if is_control(character) {
            escape(&mut shown, character);
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// A message: what [`shown`] makes of it, with the middle of lines left out that nobody would read.
pub fn message(text: &str) -> String {
    let mut lines: Vec<Cow<'_, str>> = text.split('\n').take(MOST_LINES).map(short_line).collect();
    let more = text.split('\n').count() - lines.len();
    if more > 0 {
        lines.push(Cow::Owned(format!("… ({more} more lines)")));
    }
    shown(&lines.join("\n")).into_owned()
}

fn short_line(line: &str) -> Cow<'_, str> {
    let half = LONGEST_LINE / 2;
    let characters = line.chars().count();
    if characters <= LONGEST_LINE {
        return Cow::Borrowed(line);
    }
    let at = |index: usize| line.char_indices().nth(index).map_or(line.len(), |(at, _)| at);
    let left_out = characters - LONGEST_LINE;
    let begin = &line[..at(half)];
    let end = &line[at(characters - half)..];
    Cow::Owned(format!("{begin} … ({left_out} characters) … {end}"))
}

/// Whether a terminal would obey a character instead of showing it; line breaks and tabs are none.
pub fn is_control(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // C0, DEL and C1.
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        // Marks, embeddings, overrides and isolates of direction.
        | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    }
}

fn escape(shown: &mut String, character: char) {
    let code = u32::from(character);
    let written = if code < 0x100 {
        write!(shown, "\\x{code:02x}")
    } else {
        write!(shown, "\\u{{{code:x}}}")
    };
    // Writing to a string does not fail.
    let _ = written;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_codes_are_seen_instead_of_obeyed() {
        let cases = [
            ("plain é漢🙂\n\tx", "plain é漢🙂\n\tx"),
            ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
            ("a\rb\x08\0\x7f", "a\\x0db\\x08\\x00\\x7f"),
            ("\u{9b}31m", "\\x9b31m"),
            ("user\u{202e}nimda\u{2066}x\u{2069}", "user\\u{202e}nimda\\u{2066}x\\u{2069}"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
        }
        assert!(matches!(shown("as it is"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_middle_of_an_endless_line_is_left_out() {
        let text = format!("one\n{}é{}\ntwo\x1b", "a".repeat(3000), "b".repeat(3000));
        let expected = format!(
            "one\n{} … (2001 characters) … {}\ntwo\\x1b",
            "a".repeat(2000),
            "b".repeat(2000)
        );
        assert_eq!(message(&text), expected);
        assert_eq!(message("short\n"), "short\n");
        assert!(message(&"x\n".repeat(1000)).ends_with("x\n… (601 more lines)"));
    }

    proptest! {
        #[test]
        fn what_is_shown_holds_no_control_code(text in any::<String>()) {
            let shown = shown(&text);
            let control = |c: char| c.is_control() && c != '\n' && c != '\t';
            let turns = |c: char| ('\u{202a}'..='\u{202e}').contains(&c);
            let obeyed = shown.chars().any(|c| control(c) || turns(c));
            prop_assert!(!obeyed);
            prop_assert_eq!(super::shown(&shown), shown.clone());
        }
    }
}
