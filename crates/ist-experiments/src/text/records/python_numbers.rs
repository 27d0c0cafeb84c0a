//! `NaN`, `Infinity` and `-Infinity`, which Python's json writes and JSON has not.
//!
//! They become null, as in the readers of pandas: a missing value. Lines keep their numbers.

const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
const NULL: &[u8] = b"null";

/// The same JSON without these words, where it has any outside of strings.
pub(super) fn as_null(json: Vec<u8>) -> Vec<u8> {
    if !WORDS.iter().any(|word| contains(&json, word)) {
        return json;
    }
    let mut replaced = Vec::with_capacity(json.len());
    let mut rest = json.as_slice();
    let mut in_string = false;
    let mut before = b',';
    while let Some(&byte) = rest.first() {
        let word = WORDS.iter().find(|word| !in_string && stands(rest, before, word));
        let length = match word {
            Some(word) => {
                replaced.extend_from_slice(NULL);
                word.len()
            }
            None if in_string && byte == b'\\' => {
                let length = rest.len().min(2);
                replaced.extend_from_slice(&rest[..length]);
                length
            }
            None => {
                in_string ^= byte == b'"';
                replaced.push(byte);
                1
            }
        };
        before = rest[length - 1];
        rest = &rest[length..];
        if byte == b'\n' {
            // No string of JSON holds a line break: a broken line must not swallow the next one.
            in_string = false;
        }
    }
    replaced
}

/// Whether a word stands at the beginning of `rest` as a value of its own.
fn stands(rest: &[u8], before: u8, word: &[u8]) -> bool {
    let after = rest.get(word.len()).copied().unwrap_or(b',');
    let apart = |byte: u8| byte.is_ascii_whitespace() || b",:[]{}".contains(&byte);
    rest.starts_with(word) && apart(before) && apart(after)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    let first = word[0];
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[at..];
        if rest.starts_with(word) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        String::from_utf8(as_null(text.into())).unwrap()
    }

    #[test]
    fn words_outside_of_strings_become_null() {
        let text =
            "{\"a\": NaN, \"b\": [Infinity,-Infinity],\n\"c\": \"NaN \\\" NaN, \", \"d\":NaN}";
        let expected = "{\"a\": null, \"b\": [null,null],\n\"c\": \"NaN \\\" NaN, \", \"d\":null}";
        assert_eq!(replaced(text), expected);
        assert_eq!(replaced("NaN"), "null");
    }

    #[test]
    fn other_words_stay_for_the_parser_to_refuse() {
        for text in ["{\"a\": NaNs}", "{\"a\": xNaN}", "{\"a\": --Infinity}", "{\"NaN\": 1}"] {
            assert_eq!(replaced(text), text);
        }
    }

    #[test]
    fn a_string_left_open_ends_with_its_line() {
        assert_eq!(replaced("{\"a\n{\"b\": NaN}"), "{\"a\n{\"b\": null}");
    }
}
