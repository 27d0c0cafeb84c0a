//! The letter that a reply gives as its answer.
//!
//! Replies reason before they answer and are full of letters that are none: the article "A", the
//! names of unknowns, the options that are ruled out. So what a reply states as its answer goes
//! before what stands in it.

/// Words that may stand between "answer is" and the letter.
const FILLERS: [&str; 3] = ["option", "choice", "letter"];

/// The answer among the upper-case letters up to `last`: the letter that the last "answer is" or
/// "answer:" names, else the last one in parentheses, else the first that stands alone and is no
/// article, else the letter that is the whole reply in lower case.
pub(super) fn letter(reply: &str, last: char) -> Option<char> {
    stated(reply, last)
        .or_else(|| in_parentheses(reply, last))
        .or_else(|| alone(reply, last))
        .or_else(|| whole(reply, last))
}

fn stated(reply: &str, last: char) -> Option<char> {
    let lower = reply.to_ascii_lowercase();
    let mut ends: Vec<usize> = ["answer is", "answer:"]
        .iter()
        .flat_map(|mark| lower.match_indices(mark))
        .map(|(at, mark)| at + mark.len())
        .collect();
    ends.sort_unstable();
    ends.into_iter().rev().find_map(|end| named(&reply[end..], last))
}

/// The letter with which a text begins, behind punctuation and fillers.
fn named(text: &str, last: char) -> Option<char> {
    let mut rest = text.trim_start_matches(is_wrapping);
    for filler in FILLERS {
        if let Some(head) =
            rest.get(..filler.len()).filter(|head| head.eq_ignore_ascii_case(filler))
        {
            rest = rest[head.len()..].trim_start_matches(is_wrapping);
        }
    }
    let mut characters = rest.chars();
    let letter = characters.next().filter(|letter| is_answer(*letter, last))?;
    let followed = characters.clone().next();
    (followed.is_none_or(|next| !next.is_alphanumeric())
        && !is_article(letter, characters.as_str()))
    .then_some(letter)
}

fn is_wrapping(character: char) -> bool {
    character.is_whitespace() || "([{*\"':$".contains(character)
}

fn in_parentheses(reply: &str, last: char) -> Option<char> {
    let inside = |(at, _): (usize, &str)| {
        let mut characters = reply[at + 1..].chars();
        let letter = characters.next().filter(|letter| is_answer(*letter, last))?;
        (characters.next() == Some(')')).then_some(letter)
    };
    reply.rmatch_indices('(').find_map(inside)
}

fn alone(reply: &str, last: char) -> Option<char> {
    let stands = |(at, letter): (usize, char)| {
        let (before, after) = (reply[..at].chars().next_back(), &reply[at + 1..]);
        let beside = [before, after.chars().next()];
        let single = beside.iter().all(|next| next.is_none_or(|next| !next.is_alphanumeric()));
        single && !is_article(letter, after)
    };
    let mut answers = reply.char_indices().filter(|(_, letter)| is_answer(*letter, last));
    answers.find(|found| stands(*found)).map(|(_, letter)| letter)
}

fn whole(reply: &str, last: char) -> Option<char> {
    let mut letters = reply.chars().filter(|character| character.is_alphanumeric());
    let letter = letters.next()?.to_ascii_uppercase();
    (letters.next().is_none() && is_answer(letter, last)).then_some(letter)
}

fn is_answer(letter: char, last: char) -> bool {
    ('A'..=last).contains(&letter)
}

/// "A rectangle" has no answer in it.
fn is_article(letter: char, after: &str) -> bool {
    let mut after = after.chars();
    letter == 'A' && after.next() == Some(' ') && after.next().is_some_and(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stated_goes_before_what_stands() {
        for (reply, expected) in [
            ("C", Some('C')),
            ("(C) 62 m", Some('C')),
            ("The answer is (C).", Some('C')),
            ("A train leaves. (A) is too slow, so the answer is (B).", Some('B')),
            ("The correct answer is option **D**", Some('D')),
            ("Answer: E", Some('E')),
            ("The answer is a rectangle; that is (B)", Some('B')),
            ("The answer is A, since A rectangle has four sides", Some('A')),
            ("The answer is A rectangle", None),
            ("Because of this, C or D", Some('C')),
            ("d.", Some('D')),
            ("F", None),
            ("Dear me", None),
            ("", None),
        ] {
            assert_eq!(letter(reply, 'E'), expected, "{reply}");
        }
    }
}
