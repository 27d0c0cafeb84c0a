//! The sentences around the facts: weather, times of day, openings, bridges and endings.
//!
//! They make a text read like a text, and they put a varying distance between a fact and its
//! repetition.

use rand_chacha::ChaCha8Rng;

use super::template::{chance, pick};

const WEATHER: &[&str] = &[
    "It is a cold morning.",
    "It is a warm day.",
    "The sun shines over the village.",
    "Rain falls on the roofs.",
    "Snow lies on the road.",
    "A strong wind blows from the hills.",
    "The sky is full of clouds.",
    "It is a quiet evening.",
    "The night is dark and cold.",
    "It is the first day of spring.",
    "Fog hangs over the river.",
    "The air smells of summer.",
    "A storm is coming.",
    "The snow is gone at last.",
    "It rains all day.",
    "The moon is bright tonight.",
];

const OPENINGS: &[&str] = &[
    "This is a story from the village.",
    "Listen to what people say today.",
    "Here is the news of the day.",
    "One day the people of the village met at the river.",
    "It was a long week for everybody.",
    "The children tell what they saw.",
    "Early in the day the street was full of people.",
    "An old man tells this story.",
    "Once a year there is a feast in the village.",
    "Nobody was asleep.",
    "After the storm they look around.",
    "The bus brought visitors to the village.",
];

const FILLERS: &[&str] = &[
    "Everybody is happy.",
    "The birds sing.",
    "A child laughs.",
    "Then it gets late.",
    "Nobody is in a hurry.",
    "The wind is still.",
    "There is music in the street.",
    "Two friends talk about it.",
    "Somebody opens a window.",
    "It is nearly noon.",
    "The day goes on.",
    "A door closes.",
    "Which day is it? Nobody knows.",
    "Which way is the river? A child shows it.",
    "They all sit down.",
    "The water of the river is clear.",
];

const BRIDGES: &[&str] = &[
    "Let us say it again.",
    "Now think back.",
    "What do we know now?",
    "In the evening they talk about all this.",
    "Later somebody asks about it.",
    "Do not forget it.",
    "Now you know it too.",
    "At night everybody remembers it well.",
    "That was the news.",
    "Then they repeat it slowly.",
    "Tell it once more.",
];

const ENDINGS: &[&str] = &[
    "Then everybody goes home.",
    "That is all for today.",
    "They were happy.",
    "And that is the end of the story.",
    "Tomorrow is another day.",
    "It was a good day.",
    "They will meet again soon.",
    "Everybody thanks them.",
    "Now they can sleep well.",
    "And so the day ends.",
    "All is well in the village.",
    "They laugh and drink tea.",
];

/// A sentence that opens a text, or none.
pub(super) fn opening(rng: &mut ChaCha8Rng) -> Option<String> {
    maybe(60, if chance(50, rng) { WEATHER } else { OPENINGS }, rng)
}

/// A sentence between two facts, or none.
pub(super) fn filler(percent: usize, rng: &mut ChaCha8Rng) -> Option<String> {
    maybe(percent, if chance(30, rng) { WEATHER } else { FILLERS }, rng)
}

/// A sentence from the facts to their repetition, or none.
pub(super) fn bridge(rng: &mut ChaCha8Rng) -> Option<String> {
    maybe(60, BRIDGES, rng)
}

/// A sentence that ends a text.
pub(super) fn ending(rng: &mut ChaCha8Rng) -> String {
    pick(ENDINGS, rng).to_owned()
}

/// A sentence about the weather.
pub(super) fn weather(rng: &mut ChaCha8Rng) -> String {
    pick(WEATHER, rng).to_owned()
}

fn maybe(percent: usize, list: &[&str], rng: &mut ChaCha8Rng) -> Option<String> {
    chance(percent, rng).then(|| pick(list, rng).to_owned())
}
