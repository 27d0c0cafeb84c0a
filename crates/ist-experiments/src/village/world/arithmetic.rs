//! Small sums as stories: adding, taking away, comparing, sharing; all numbers are at most 20.

use rand_chacha::ChaCha8Rng;

use super::{
    facts::Cast,
    lexicon::{COUNTED, NUMBERS, PEOPLE},
    scenery,
    template::{below, chance, fill, pick},
};

const MORE: &[&str] = &[
    "{He e} finds {n} more.",
    "A friend gives {him e} {n} more.",
    "{He e} buys {n} more.",
    "Then {he e} gets {n} more.",
    "{n} more are in {his e} bag.",
];

const FEWER: &[&str] = &[
    "{He e} loses {n}.",
    "{He e} gives {n} to a friend.",
    "{He e} sells {n} of them.",
    "Then {he e} gives away {n}.",
    "{n} of them are lost.",
];

const START: &[&str] =
    &["{e} has {n} {t}.", "{e} found {n} {t}.", "{e} bought {n} {t}.", "{e} holds {n} {t}."];

const NOW: &[&str] = &[
    "Now {he e} has {n} {t}.",
    "So {e} now has {n}.",
    "Now there are {n} {t}.",
    "{He e} counts them: {n}.",
    "That makes {n} {t}.",
];

/// A number of things that changes: the person's name, the count before, the change, the count
/// after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    person: &'static str,
    thing: &'static str,
    before: usize,
    after: usize,
}

impl Change {
    /// A change of at most 9 within 1 to 20.
    pub(super) fn draw(person: &'static str, thing: &'static str, rng: &mut ChaCha8Rng) -> Self {
        let (low, step) = (1 + below(10, rng), 1 + below(9, rng));
        let (before, after) = if chance(60, rng) { (low, low + step) } else { (low + step, low) };
        Self { person, thing, before, after }
    }

    /// The count after the change.
    pub(super) fn result(&self) -> &'static str {
        NUMBERS[self.after]
    }

    /// The two sentences that tell the change without its result.
    pub(super) fn told(&self, rng: &mut ChaCha8Rng) -> String {
        let step = if self.after > self.before { MORE } else { FEWER };
        format!(
            "{} {}",
            self.fill(pick(START, rng), self.before),
            self.fill(pick(step, rng), self.step())
        )
    }

    fn step(&self) -> usize {
        self.after.abs_diff(self.before)
    }

    fn fill(&self, template: &str, number: usize) -> String {
        fill(template, &[("e", self.person), ("t", self.thing), ("n", NUMBERS[number])])
    }

    /// The sum behind the change in words.
    fn sum(&self) -> String {
        let sign = if self.after > self.before { "plus" } else { "minus" };
        format!("{} {sign} {} is {}.", NUMBERS[self.before], NUMBERS[self.step()], self.result())
    }
}

/// A text of sums.
pub(super) fn document(rng: &mut ChaCha8Rng) -> String {
    match below(4, rng) {
        0 => table(rng),
        1 => comparison(rng),
        _ => changes(rng),
    }
}

fn changes(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let mut sentences: Vec<String> = scenery::opening(rng).into_iter().collect();
    for _ in 0..2 + below(2, rng) {
        let change = Change::draw(cast.draw(PEOPLE, rng), cast.draw(COUNTED, rng), rng);
        sentences.push(change.told(rng));
        if chance(50, rng) {
            sentences.push(change.sum());
        }
        sentences.push(change.fill(pick(NOW, rng), change.after));
    }
    sentences.push(scenery::ending(rng));
    sentences.join(" ")
}

fn table(rng: &mut ChaCha8Rng) -> String {
    let teacher = pick(PEOPLE, rng);
    let mut sentences = vec![fill(
        pick(&["{e} counts.", "{e} learns to count.", "In school {e} writes sums."], rng),
        &[("e", teacher)],
    )];
    for _ in 0..5 + below(5, rng) {
        sentences.push(Change::draw(teacher, "", rng).sum());
    }
    sentences.join(" ")
}

fn comparison(rng: &mut ChaCha8Rng) -> String {
    let mut cast = Cast::new(rng);
    let mut sentences = Vec::new();
    for _ in 0..2 {
        let (one, two, thing) =
            (cast.draw(PEOPLE, rng), cast.draw(PEOPLE, rng), cast.draw(COUNTED, rng));
        let first = 1 + below(10, rng);
        let second = 1 + (first + below(9, rng)) % 10;
        let (more, fewer) = if first > second { (one, two) } else { (two, one) };
        let words = [
            ("a", one),
            ("b", two),
            ("t", thing),
            ("x", NUMBERS[first]),
            ("y", NUMBERS[second]),
            ("z", NUMBERS[first + second]),
            ("m", more),
            ("l", fewer),
        ];
        sentences.push(fill("{a} has {x} {t} and {b} has {y} {t}.", &words));
        sentences.push(fill(
            pick(&["So {m} has more {t} than {l}.", "{l} has fewer {t} than {m}."], rng),
            &words,
        ));
        sentences.push(fill("Together they have {z} {t}.", &words));
        if chance(50, rng) {
            sentences.push(fill(
                pick(&["{a} counted {x} and {b} counted {y}.", "{x} plus {y} is {z}."], rng),
                &words,
            ));
        }
    }
    sentences.push(scenery::ending(rng));
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_sum_of_the_text_is_right() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut sums = 0;
        for text in (0..500).map(|_| document(&mut rng)).collect::<Vec<_>>() {
            let words: Vec<&str> =
                text.split([' ', '.', ',']).filter(|word| !word.is_empty()).collect();
            for sum in
                words.windows(5).filter(|sum| ["plus", "minus"].contains(&sum[1]) && sum[3] == "is")
            {
                let number = |at: usize| sum[at].parse::<i32>().expect("sums hold numbers");
                let result =
                    if sum[1] == "plus" { number(0) + number(2) } else { number(0) - number(2) };
                assert_eq!(result, number(4), "{sum:?}");
                sums += 1;
            }
        }
        assert!(sums > 1000);
    }
}
