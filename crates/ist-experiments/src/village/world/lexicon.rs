//! The closed word lists of the world, and the small grammar that depends on single words.
//!
//! Every word here is meant to be one token of the world's vocabulary: a fact then is one entity
//! token and one value token, and copying it is one attention step for a small model.

use super::facts::Relation;

/// Everybody; the women first, since pronouns follow the place in this list.
pub(super) const PEOPLE: &[&str] = &[
    "Ana", "Mira", "Eva", "Nina", "Ida", "Lily", "Rosa", "Emma", "Vera", "Lucy", "Olga", "Clara",
    "Julia", "Greta", "Laura", "Tom", "Leo", "Ben", "Max", "Sam", "Hugo", "Karl", "Paul", "Jack",
    "Finn", "Adam", "Peter", "Oscar", "Felix", "Simon",
];

/// How many of the people are women.
const WOMEN: usize = 15;

/// Things that lie somewhere, belong to somebody and have a colour.
pub(super) const OBJECTS: &[&str] = &[
    "kite", "lamp", "cup", "boat", "drum", "book", "ball", "hat", "key", "ring", "rope", "bell",
    "basket", "clock", "coat", "map", "spoon", "flute", "chair", "box", "ladder", "bag", "broom",
    "apron", "bottle", "candle", "mirror", "pillow", "bucket", "hammer",
];

/// Places; each reads well after "in the".
pub(super) const PLACES: &[&str] = &[
    "barn", "mill", "shop", "school", "garden", "kitchen", "forest", "church", "tower", "cellar",
    "market", "bakery", "library", "stable", "yard", "attic", "meadow", "cave", "hall", "inn",
    "field", "castle", "station", "tent",
];

/// Colours.
pub(super) const COLOURS: &[&str] = &[
    "red", "blue", "green", "yellow", "white", "black", "brown", "grey", "pink", "purple",
    "orange", "silver",
];

/// Foods; each reads well without an article after "eats".
pub(super) const FOODS: &[&str] = &[
    "bread", "soup", "cheese", "rice", "cake", "honey", "corn", "pie", "salad", "pasta", "jam",
    "porridge", "ham", "toast", "fish", "stew",
];

/// Jobs.
pub(super) const JOBS: &[&str] = &[
    "baker", "farmer", "teacher", "doctor", "painter", "miller", "tailor", "sailor", "singer",
    "hunter", "writer", "cook", "nurse", "artist", "actor", "pilot",
];

/// Animals that people keep.
pub(super) const ANIMALS: &[&str] = &[
    "cat", "dog", "goat", "horse", "cow", "duck", "hen", "pig", "sheep", "rabbit", "owl", "goose",
    "donkey", "fox", "mouse", "frog",
];

/// Things that are counted, in the plural.
pub(super) const COUNTED: &[&str] =
    &["apples", "eggs", "pears", "coins", "nuts", "shells", "stones", "cards", "plums", "stamps"];

/// The numbers of the world; `NUMBERS[n]` is n.
pub(super) const NUMBERS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20",
];

/// Every word that a fact or a sum can name; each is one token of the vocabulary.
pub fn words() -> impl Iterator<Item = &'static str> {
    // A colour that nothing has is never said.
    let said =
        |colour: &&str| OBJECTS.iter().any(|object| Relation::Colour.truth(object) == Some(colour));
    let others = [PEOPLE, OBJECTS, PLACES, FOODS, JOBS, ANIMALS, COUNTED, &NUMBERS[1..]]
        .into_iter()
        .flatten()
        .copied();
    others.chain(COLOURS.iter().copied().filter(said))
}

/// "a" or "an"; the lists hold no word whose first sound and first letter disagree.
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The pronoun of `name` in the form that the masculine `form` stands for ("he", "his" or "him").
pub(super) fn pronoun(form: &str, name: &str) -> &'static str {
    match (form, PEOPLE[..WOMEN].contains(&name)) {
        ("he", true) => "she",
        ("he", false) => "he",
        ("his", false) => "his",
        ("him", false) => "him",
        _ => "her",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_word_stands_twice() {
        assert_eq!(words().collect::<BTreeSet<_>>().len(), words().count());
    }

    #[test]
    fn numbers_are_their_own_index() {
        assert!(NUMBERS.iter().enumerate().all(|(i, n)| n.parse() == Ok(i)));
    }

    #[test]
    fn pronouns_follow_the_name() {
        assert_eq!(["he", "his", "him"].map(|form| pronoun(form, "Mira")), ["she", "her", "her"]);
        assert_eq!(["he", "his", "him"].map(|form| pronoun(form, "Tom")), ["he", "his", "him"]);
    }
}
