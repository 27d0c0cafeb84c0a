//! The first of some words that stands in a reply.

use std::cmp::Reverse;

/// The word of `words` that stands first in the reply, as it is written in `words`.
///
/// A word stands where neither side goes on with the same kind of character: no letter beside a
/// letter, no digit beside a digit. So `answer1` stands in "(answer1)" and in "answer1answer2", but
/// not in "answer12", nor `true` in "untrue". Case counts; only where no word stands as it is
/// written, "True" is taken for `true`.
pub(super) fn first_word(reply: &str, words: &[&'static str]) -> Option<&'static str> {
    first(reply, words).or_else(|| first(&reply.to_ascii_lowercase(), words))
}

fn first(reply: &str, words: &[&'static str]) -> Option<&'static str> {
    let place = |word: &&'static str| {
        let mut places = reply.match_indices(word).filter(|(at, word)| stands(reply, *at, word));
        places.next().map(|(at, found)| (at, Reverse(found.len()), *word))
    };
    words.iter().filter_map(place).min().map(|(_, _, word)| word)
}

fn stands(reply: &str, at: usize, word: &str) -> bool {
    let before = (reply[..at].chars().next_back(), word.chars().next());
    let after = (word.chars().next_back(), reply[at + word.len()..].chars().next());
    [before, after]
        .into_iter()
        .all(|pair| !matches!(pair, (Some(left), Some(right)) if goes_on(left, right)))
}

fn goes_on(left: char, right: char) -> bool {
    (left.is_alphabetic() && right.is_alphabetic()) || (left.is_numeric() && right.is_numeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [&str; 2] = ["option1", "option2"];

    #[test]
    fn the_first_word_that_stands_is_the_answer() {
        for (reply, expected) in [
            ("the correct answer is option2", Some("option2")),
            ("option2, not option1", Some("option2")),
            ("option10 or option2.", Some("option2")),
            ("(option1)", Some("option1")),
            ("option1option2", Some("option1")),
            ("Option2", Some("option2")),
            ("Option2 is wrong, so option1", Some("option1")),
            ("nooption1", None),
            ("option", None),
            ("", None),
        ] {
            assert_eq!(first_word(reply, &OPTIONS), expected, "{reply}");
        }
        assert_eq!(first_word("untrue, so false", &["true", "false"]), Some("false"));
    }
}
