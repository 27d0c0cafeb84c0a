//! Sentence templates: fixed English with a few holes.
//!
//! A hole is `{k}` (the word bound to `k`), `{an k}` (with its article), or a pronoun of the person
//! bound to `k`: `{he k}`, `{his k}`, `{him k}`. A form written with a capital letter capitalises
//! its result.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::lexicon::{article, pronoun};

/// The words that a template's holes stand for.
pub(super) type Words<'a> = &'a [(&'a str, &'a str)];

/// Fills every hole of `template`.
///
/// # Panics
///
/// When a hole names no bound word: templates are part of the program, and a test fills each of
/// them.
pub(super) fn fill(template: &str, words: Words) -> String {
    let mut pieces = template.split('{');
    let mut text = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (hole, rest) = piece.split_once('}').expect("every hole of a template is closed");
        text.push_str(&expand(hole, words));
        text.push_str(rest);
    }
    text
}

fn expand(hole: &str, words: Words) -> String {
    let (form, key) = hole.split_once(' ').unwrap_or(("", hole));
    let bound = words.iter().find(|(name, _)| *name == key);
    let (_, word) = bound.unwrap_or_else(|| panic!("the hole {{{hole}}} names no bound word"));
    let lower = form.to_lowercase();
    let filled = match lower.as_str() {
        "" => (*word).to_owned(),
        "an" => format!("{} {word}", article(word)),
        _ => pronoun(&lower, word).to_owned(),
    };
    if form == lower { filled } else { capitalised(&filled) }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// One element of `list`, each equally likely. The draw is 32 bits wide, so it is the same on every
/// platform.
pub(super) fn pick<'a, T: ?Sized>(list: &[&'a T], rng: &mut ChaCha8Rng) -> &'a T {
    list[below(list.len(), rng)]
}

/// A whole number from 0 to `bound` - 1, each equally likely.
pub(super) fn below(bound: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..bound as u32) as usize
}

/// True `percent` times in a hundred.
pub(super) fn chance(percent: usize, rng: &mut ChaCha8Rng) -> bool {
    below(100, rng) < percent
}

/// Reorders `list`, every order equally likely (Fisher and Yates).
pub(super) fn shuffle<T>(list: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..list.len()).rev() {
        list.swap(last, below(last + 1, rng));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_words_articles_and_pronouns() {
        let words = [("e", "Mira"), ("v", "owl")];
        assert_eq!(
            fill("{e} has {an v}. {He e} loves {his e} {v}.", &words),
            "Mira has an owl. She loves her owl."
        );
        assert_eq!(fill("{An v}!", &words), "An owl!");
    }

    #[test]
    #[should_panic(expected = "{x} names no bound word")]
    fn an_unknown_hole_is_a_fault() {
        fill("{x}", &[("e", "Mira")]);
    }
}
