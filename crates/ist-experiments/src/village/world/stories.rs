//! The kinds of pre-training text.
//!
//! Most of them speak of the world's facts: somebody wishes to know one, asks for it, writes of it.
//! In half of these texts all the facts are told first, so that a model learns to find them in what
//! it has just read; in the other half they are not, so that it has to know them by heart. A few
//! kinds only make the language richer.

use rand_chacha::ChaCha8Rng;

use super::{
    arithmetic,
    facts::{Cast, Fact, Relation, any_relation, statements},
    forms::{ANSWERS, forms},
    lexicon::{OBJECTS, PEOPLE, PLACES},
    scenery,
    template::{below, chance, fill, pick, shuffle},
};

/// One text of a random kind.
pub(super) fn document(rng: &mut ChaCha8Rng) -> String {
    match below(100, rng) {
        0..32 => search(rng),
        32..50 => recapitulation(rng),
        50..64 => dialogue(rng),
        64..69 => letter(rng),
        69..74 => list(rng),
        74..80 => portrait(rng),
        80..87 => movement(rng),
        87..92 => day(rng),
        _ => arithmetic::document(rng),
    }
}

/// The number of facts of the main relation and of others, as in the task's passages.
fn sizes(rng: &mut ChaCha8Rng) -> (usize, usize) {
    let same = 2 + below(3, rng);
    (same, below(if same == 4 { 2 } else { 3 }, rng))
}

/// A passage: the facts in a random order, sometimes with a sentence of scenery among them.
pub(super) fn passage(facts: &[Fact], rng: &mut ChaCha8Rng) -> String {
    let mut sentences = statements(facts, rng);
    if let Some(filler) = scenery::filler(30, rng) {
        sentences.insert(below(sentences.len() + 1, rng), filler);
    }
    sentences.join(" ")
}

/// The passage in half of the texts; in the others the reader has to know the facts.
fn maybe_passage(facts: &[Fact], rng: &mut ChaCha8Rng) -> Option<String> {
    // What passes can only be known from the text.
    let lasting = facts.iter().all(|fact| fact.relation.truth(fact.entity).is_some());
    (!lasting || chance(50, rng)).then(|| passage(facts, rng))
}

fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Somebody wishes to know something, mostly the facts are told, and the wish is fulfilled; then
/// another wish or two.
fn search(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let reader = cast.draw(PEOPLE, rng);
    let (same, other) = sizes(rng);
    let facts = cast.facts(any_relation(rng), same, other, rng);
    let asked = &facts[below(facts.len(), rng)];
    let mut parts = vec![scenery::filler(20, rng), Some(wish(asked, reader, rng))];
    parts.push(maybe_passage(&facts, rng));
    parts.push(Some(finding(asked, reader, rng)));
    for _ in 0..below(3, rng) {
        let next = &facts[below(facts.len(), rng)];
        parts.push(Some(format!("{} {}", wish(next, reader, rng), finding(next, reader, rng))));
    }
    parts.push(Some(scenery::ending(rng)));
    joined(parts)
}

fn wish(fact: &Fact, asker: &str, rng: &mut ChaCha8Rng) -> String {
    fact.told(pick(forms(fact.relation).wishes, rng), asker)
}

/// The end of a search, half the time with the value alone.
fn finding(fact: &Fact, asker: &str, rng: &mut ChaCha8Rng) -> String {
    let list = if chance(50, rng) { ANSWERS } else { forms(fact.relation).findings };
    fact.told(pick(list, rng), asker)
}

/// Most of the facts, often told before in other words.
fn recapitulation(rng: &mut ChaCha8Rng) -> String {
    let (same, other) = sizes(rng);
    let mut facts = Cast::new(rng).facts(any_relation(rng), same, other, rng);
    let mut parts = vec![scenery::opening(rng)];
    if let Some(passage) = maybe_passage(&facts, rng) {
        parts.extend([Some(passage), scenery::bridge(rng)]);
    }
    shuffle(&mut facts, rng);
    parts.extend(facts.iter().take(2 + below(3, rng)).map(|fact| Some(fact.recap(rng))));
    parts.push(Some(scenery::ending(rng)));
    joined(parts)
}

const ASKING: &[&str] = &[
    "\"{x}\" asks {a}. \"{y},\" says {b}.",
    "{a} asks: \"{x}\" {b} says: \"{y}.\"",
    "\"{x}\" {a} asks. \"{y},\" {b} answers.",
    "Then {a} asks {b}: \"{x}\" \"{y},\" says {b}.",
];

const PLAY: &[&str] = &["{a}: {x}\n{b}: {y}."];

/// Two people who ask and answer, as prose or as a play, often after the facts are told.
fn dialogue(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let (first, second) = (cast.draw(PEOPLE, rng), cast.draw(PEOPLE, rng));
    let (same, other) = sizes(rng);
    let mut facts = cast.facts(any_relation(rng), same, other, rng);
    let text = joined([scenery::opening(rng), maybe_passage(&facts, rng)]);
    let (list, gap) = if chance(40, rng) { (PLAY, "\n") } else { (ASKING, " ") };
    shuffle(&mut facts, rng);
    let mut parts: Vec<String> = if text.is_empty() { Vec::new() } else { vec![text] };
    for fact in facts.iter().take(2 + below(2, rng)) {
        let question = fact.told(pick(forms(fact.relation).questions, rng), "");
        let reply = fact.told(pick(forms(fact.relation).replies, rng), "");
        parts.push(fill(
            pick(list, rng),
            &[("a", first), ("b", second), ("x", &question), ("y", &reply)],
        ));
    }
    parts.join(gap)
}

/// A letter that tells the facts, repeats one and closes with the names of both people.
fn letter(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let (writer, reader) = (cast.draw(PEOPLE, rng), cast.draw(PEOPLE, rng));
    let facts = cast.facts(any_relation(rng), 2 + below(2, rng), below(2, rng), rng);
    let body = joined([Some(scenery::weather(rng)), Some(passage(&facts, rng))]);
    let thanks = pick(
        &["Please write soon.", "I hope you are well.", "Come and visit us.", "We miss you."],
        rng,
    );
    let recap = facts[below(facts.len(), rng)].recap(rng);
    let close = pick(&["Your friend,", "With love,", "Yours,"], rng);
    let reads =
        pick(&["{r} reads the letter of {w}.", "{r} is happy about the letter from {w}."], rng);
    let reads = fill(reads, &[("r", reader), ("w", writer)]);
    format!("Dear {reader},\n{body} {recap} {thanks}\n{close} {writer}\n{reads}")
}

/// A list of entities and values, then sentences from it.
fn list(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let relation = any_relation(rng);
    let mut facts = cast.facts(relation, 3 + below(3, rng), 0, rng);
    let heading = match relation {
        Relation::Place | Relation::Whereabouts => "A list of places".to_owned(),
        Relation::Owner => "A list of owners".to_owned(),
        Relation::Colour => "A list of colours".to_owned(),
        Relation::Food => "A list of food".to_owned(),
        Relation::Job => "A list of jobs".to_owned(),
        Relation::Pet => "A list of pets".to_owned(),
        Relation::Count => format!("A list of {}", cast.thing()),
    };
    let lines: Vec<String> = facts.iter().map(|fact| fact.told(forms(relation).line, "")).collect();
    shuffle(&mut facts, rng);
    let recaps = joined(facts.iter().take(3).map(|fact| Some(fact.recap(rng))));
    format!("{heading}:\n{}\n{recaps}", lines.join("\n"))
}

/// Two people with several facts each, then both again, told apart.
fn portrait(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let people = [cast.draw(PEOPLE, rng), cast.draw(PEOPLE, rng)];
    let mut relations = [Relation::Whereabouts, Relation::Food, Relation::Job, Relation::Pet];
    shuffle(&mut relations, rng);
    let mut facts = Vec::new();
    for person in people {
        facts.extend(relations[..2].iter().map(|&relation| cast.fact_about(person, relation, rng)));
    }
    let mut parts = vec![scenery::opening(rng)];
    parts.extend(facts.iter().map(|fact| Some(fact.statement(rng))));
    parts.push(scenery::bridge(rng));
    shuffle(&mut facts, rng);
    parts.extend(facts.iter().take(3).map(|fact| Some(fact.recap(rng))));
    joined(parts)
}

const WALK: &[&str] =
    &["{a} goes to the {p}.", "Then {a} walks to the {p}.", "After that {a} runs to the {p}."];

/// Somebody moves, and the text keeps track of it.
fn movement(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let mut parts: Vec<Option<String>> = vec![scenery::opening(rng)];
    for _ in 0..2 {
        parts.extend(walked(&mut cast, rng));
    }
    parts.push(Some(scenery::ending(rng)));
    joined(parts)
}

fn walked(cast: &mut Cast, rng: &mut ChaCha8Rng) -> Vec<Option<String>> {
    let start = cast.fact(Relation::Whereabouts, rng);
    let words = [("a", start.entity), ("p", cast.draw(PLACES, rng)), ("s", start.value)];
    let end = pick(
        &["Now {a} is in the {p}.", "{He a} left the {s}, and now {he a} is in the {p}."],
        rng,
    );
    vec![Some(start.statement(rng)), Some(fill(pick(WALK, rng), &words)), Some(fill(end, &words))]
}

const MORNING: &[&str] = &[
    "{e} gets up early and eats {f}.",
    "In the morning {e} eats {f}.",
    "{e} wakes up late and makes {f}.",
    "The {j} {e} has {f} for breakfast.",
];
const NOON: &[&str] = &[
    "Then {he e} goes to the {p} and meets {m}.",
    "At noon {he e} meets {m} in the {p}.",
    "After that {he e} works in the {p} with {m}.",
];
const AFTERNOON: &[&str] = &[
    "{m} gives {him e} {an c} {o}.",
    "They see {an c} {o} and laugh.",
    "{He e} sells {an c} {o} to {m}.",
    "{He e} shows {m} {his e} {c} {o}.",
];
const EVENING: &[&str] = &[
    "In the evening {e} tells everybody about {m} and the {o}.",
    "At night {he e} thinks of the {p} and of {m}.",
    "In bed {he e} remembers the {c} {o}.",
    "The next day {e} goes back to the {p}.",
    "{m} never forgot the day in the {p}.",
    "Since then {e} and {m} are good friends.",
];

/// A day in the life of one person, remembered in the evening.
fn day(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let hero = cast.draw(PEOPLE, rng);
    let [job, food] =
        [Relation::Job, Relation::Food].map(|relation| cast.fact_about(hero, relation, rng).value);
    let object = cast.draw(OBJECTS, rng);
    let words = [
        ("e", hero),
        ("j", job),
        ("f", food),
        ("p", cast.draw(PLACES, rng)),
        ("m", cast.draw(PEOPLE, rng)),
        ("c", cast.fact_about(object, Relation::Colour, rng).value),
        ("o", object),
    ];
    let mut parts = vec![Some(fill("{e} is {an j}.", &words)), scenery::filler(50, rng)];
    parts.extend([MORNING, NOON, AFTERNOON].map(|list| Some(fill(pick(list, rng), &words))));
    let mut evening = EVENING.to_vec();
    shuffle(&mut evening, rng);
    parts.extend(evening.iter().take(3).map(|template| Some(fill(template, &words))));
    parts.push(Some(scenery::ending(rng)));
    joined(parts)
}
