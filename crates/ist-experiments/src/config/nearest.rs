//! The valid key or value that a misspelt one most resembles.

use strsim::{jaro_winkler, normalized_damerau_levenshtein};

/// From here on a resemblance is worth asking "did you mean".
const CLOSE: f64 = 0.7;
/// What a key of another table has to resemble more, to be preferred.
const ELSEWHERE: f64 = 0.9;

/// Names whose lengths differ by more bytes are not alike.
const FAR: usize = 64;

/// How alike two names are, in [0, 1]: by edits, by beginning, or because one holds the other
/// (`lora_alpha`, `alpha`).
fn resemblance(a: &str, b: &str) -> f64 {
    // A key of a megabyte is no misspelling, and to compare it with all others takes seconds.
    if a.len().abs_diff(b.len()) > FAR {
        return 0.0;
    }
    let (a, b) = (a.to_lowercase().replace('-', "_"), b.to_lowercase().replace('-', "_"));
    let holds = a.split('_').any(|part| part == b) || b.split('_').any(|part| part == a);
    let by_parts = if holds { 0.85 } else { 0.0 };
    normalized_damerau_levenshtein(&a, &b).max(jaro_winkler(&a, &b) * 0.9).max(by_parts)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Of the valid dotted keys, the one nearest to `key`, and whether it is close. Keys of the same
/// table come first.
pub(super) fn key<'a>(key: &str, valid: &'a [String]) -> Option<(&'a str, bool)> {
    let (parent, leaf) = split(key);
    let score = |candidate: &str| {
        let (other_parent, other_leaf) = split(candidate);
        let place = if parent == other_parent { 1.0 } else { ELSEWHERE };
        place * resemblance(leaf, other_leaf)
    };
    best(valid.iter().map(String::as_str), score)
}

/// Of the valid values, the one close to `value`, if any.
pub(crate) fn value<'a>(value: &str, valid: &[&'a str]) -> Option<&'a str> {
    best(valid.iter().copied(), |candidate| resemblance(value, candidate))
        .and_then(|(best, close)| close.then_some(best))
}

fn best<'a>(
    candidates: impl Iterator<Item = &'a str>,
    score: impl Fn(&str) -> f64,
) -> Option<(&'a str, bool)> {
    // The first of equals, so that the answer follows the schema's order.
    let scored = candidates.map(|candidate| (candidate, score(candidate)));
    scored
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(name, score)| (name, score >= CLOSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: [&str; 7] = [
        "seed",
        "train",
        "train.steps",
        "adapter.alpha",
        "adapter.targets",
        "adapter.alpha_pattern",
        "optimizer.lr",
    ];

    fn nearest(text: &str) -> (String, bool) {
        let valid = VALID.map(str::to_owned);
        key(text, &valid).map(|(key, close)| (key.to_owned(), close)).unwrap()
    }

    #[test]
    fn misspelt_and_foreign_names_find_their_key() {
        for (text, expected) in [
            ("train.step", "train.steps"),
            ("tain", "train"),
            ("adapter.lora_alpha", "adapter.alpha"),
            ("adapter.target_modules", "adapter.targets"),
            ("lr", "optimizer.lr"),
            ("steps", "train.steps"),
        ] {
            assert_eq!(nearest(text).0, expected, "{text}");
        }
        assert!(nearest("train.step").1);
        assert!(!nearest("quux_zzz").1);
    }

    #[test]
    fn a_value_is_suggested_only_when_close() {
        assert_eq!(value("lineer", &["linear", "cosine"]), Some("linear"));
        assert_eq!(value("qqq", &["linear", "cosine"]), None);
    }
}
