//! The facts of the world, and passages that state a few of them.
//!
//! What lasts is fixed once for the whole world: where a thing lies, whose it is, its colour, what
//! a person eats and does and keeps. Every text tells the truth about it, in many wordings, so a
//! model learns it by heart. What passes, where somebody is just now and how many of something
//! there are, is drawn anew for every text. A passage holds several facts of one relation, so that
//! the relation alone does not give the value away.

use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{
    SEED,
    forms::forms,
    lexicon::{ANIMALS, COLOURS, COUNTED, FOODS, JOBS, NUMBERS, OBJECTS, PEOPLE, PLACES},
    template::{below, chance, fill, pick, shuffle},
};

/// What a fact says about its entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// Where an object lies.
    Place,
    /// Who has an object.
    Owner,
    /// The colour of an object.
    Colour,
    /// Where a person is.
    Whereabouts,
    /// What a person eats.
    Food,
    /// A person's job.
    Job,
    /// A person's animal.
    Pet,
    /// How many things a person has.
    Count,
}

impl Relation {
    /// Every relation, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Place,
        Self::Owner,
        Self::Colour,
        Self::Whereabouts,
        Self::Food,
        Self::Job,
        Self::Pet,
        Self::Count,
    ];

    /// The words this relation speaks about.
    pub const fn entities(self) -> &'static [&'static str] {
        match self {
            Self::Place | Self::Owner | Self::Colour => OBJECTS,
            Self::Whereabouts | Self::Food | Self::Job | Self::Pet | Self::Count => PEOPLE,
        }
    }

    /// The words that can answer a question about it.
    pub const fn values(self) -> &'static [&'static str] {
        match self {
            Self::Place | Self::Whereabouts => PLACES,
            Self::Owner => PEOPLE,
            Self::Colour => COLOURS,
            Self::Food => FOODS,
            Self::Job => JOBS,
            Self::Pet => ANIMALS,
            Self::Count => NUMBERS.split_at(2).1,
        }
    }

    /// The relations whose facts last, which are the ones the task asks for.
    pub const LASTING: [Self; 6] =
        [Self::Place, Self::Owner, Self::Colour, Self::Food, Self::Job, Self::Pet];

    /// What is true of `entity` in this world; `None` where it passes.
    pub fn truth(self, entity: &str) -> Option<&'static str> {
        let digest = Sha256::digest(format!("{SEED}/truth/{entity}/{}", self.name()));
        let values = self.values();
        let at = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % values.len();
        Self::LASTING.contains(&self).then(|| values[at])
    }

    /// The relation's name in the split of entity-relation pairs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Owner => "owner",
            Self::Colour => "colour",
            Self::Whereabouts => "whereabouts",
            Self::Food => "food",
            Self::Job => "job",
            Self::Pet => "pet",
            Self::Count => "count",
        }
    }
}

/// One fact of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) relation: Relation,
    pub(super) entity: &'static str,
    pub(super) value: &'static str,
    /// What is counted; the same for every count of a text.
    pub(super) thing: &'static str,
}

impl Fact {
    /// Fills a template with this fact, asked by `asker`.
    pub(super) fn told(&self, template: &str, asker: &str) -> String {
        fill(template, &[("e", self.entity), ("v", self.value), ("t", self.thing), ("q", asker)])
    }

    /// This fact as a statement of a passage.
    pub(super) fn statement(&self, rng: &mut ChaCha8Rng) -> String {
        self.told(pick(forms(self.relation).facts, rng), "")
    }

    /// This fact said again, mostly with the value at the end, now and then with the entity there.
    pub(super) fn recap(&self, rng: &mut ChaCha8Rng) -> String {
        let wordings = forms(self.relation);
        let list = if chance(15, rng) { wordings.reversed } else { wordings.recaps };
        self.told(pick(list, rng), "")
    }
}

/// Draws words without ever repeating one within a text.
#[derive(Debug)]
pub(super) struct Cast {
    used: Vec<&'static str>,
    thing: &'static str,
}

impl Cast {
    /// A cast of nobody.
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self { used: Vec::new(), thing: pick(COUNTED, rng) }
    }

    /// A word of `list` that this text has not used yet.
    pub(super) fn draw(&mut self, list: &[&'static str], rng: &mut ChaCha8Rng) -> &'static str {
        let free: Vec<&'static str> =
            list.iter().filter(|word| !self.used.contains(word)).copied().collect();
        let word = free[below(free.len(), rng)];
        self.used.push(word);
        word
    }

    /// What this text counts.
    pub(super) fn thing(&self) -> &'static str {
        self.thing
    }

    /// A fact about `entity`: the truth where the relation lasts, else a fresh value.
    pub(super) fn fact_about(
        &mut self,
        entity: &'static str,
        relation: Relation,
        rng: &mut ChaCha8Rng,
    ) -> Fact {
        let value = match relation.truth(entity) {
            Some(value) => {
                self.used.push(value);
                value
            }
            None => self.draw(relation.values(), rng),
        };
        Fact { relation, entity, value, thing: self.thing }
    }

    /// A fact about a fresh entity, with a value that this text has not used yet.
    pub(super) fn fact(&mut self, relation: Relation, rng: &mut ChaCha8Rng) -> Fact {
        let fresh = |word: &&&'static str| !self.used.contains(word);
        let new_value = |word: &&&'static str| {
            relation.truth(word).is_none_or(|value| !self.used.contains(&value))
        };
        let entities: Vec<&'static str> =
            relation.entities().iter().filter(fresh).filter(new_value).copied().collect();
        let entity = pick(&entities, rng);
        self.used.push(entity);
        self.fact_about(entity, relation, rng)
    }

    /// `same` facts of `relation`, then `other` facts of further relations, most of them about the
    /// same entities.
    pub(super) fn facts(
        &mut self,
        relation: Relation,
        same: usize,
        other: usize,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Fact> {
        let first = self.fact(relation, rng);
        self.facts_beside(first, same, other, rng)
    }

    /// As [`Self::facts`], with `first` as the first of the `same` facts.
    pub(super) fn facts_beside(
        &mut self,
        first: Fact,
        same: usize,
        other: usize,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Fact> {
        let mut facts = vec![first];
        facts.extend((1..same).map(|_| self.fact(first.relation, rng)));
        for _ in 0..other {
            let extra = self.extra(first.relation, facts[below(same, rng)].entity, &facts, rng);
            facts.push(extra);
        }
        facts
    }

    /// A fact of another relation, mostly about `entity` where that relation can speak of it.
    fn extra(
        &mut self,
        relation: Relation,
        entity: &'static str,
        known: &[Fact],
        rng: &mut ChaCha8Rng,
    ) -> Fact {
        let other = any_relation_but(relation, rng);
        let speaks_of_it = other.entities().contains(&entity);
        let known = known.iter().any(|fact| fact.entity == entity && fact.relation == other);
        let value_is_free = other.truth(entity).is_none_or(|value| !self.used.contains(&value));
        if speaks_of_it && !known && value_is_free && chance(70, rng) {
            self.fact_about(entity, other, rng)
        } else {
            self.fact(other, rng)
        }
    }
}

/// A relation, mostly one that lasts.
pub(super) fn any_relation(rng: &mut ChaCha8Rng) -> Relation {
    match below(100, rng) {
        0..5 => Relation::Count,
        5..12 => Relation::Whereabouts,
        _ => Relation::LASTING[below(Relation::LASTING.len(), rng)],
    }
}

fn any_relation_but(relation: Relation, rng: &mut ChaCha8Rng) -> Relation {
    loop {
        let other = any_relation(rng);
        if other != relation {
            return other;
        }
    }
}

/// The statements of `facts` in a random order.
pub(super) fn statements(facts: &[Fact], rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut sentences: Vec<String> = facts.iter().map(|fact| fact.statement(rng)).collect();
    shuffle(&mut sentences, rng);
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn a_passage_uses_each_value_once_and_states_no_pair_twice() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..2000 {
            let relation = any_relation(&mut rng);
            let facts = Cast::new(&mut rng).facts(relation, 3, 2, &mut rng);
            assert_eq!(facts.iter().map(|fact| fact.value).collect::<BTreeSet<_>>().len(), 5);
            assert_eq!(
                facts
                    .iter()
                    .map(|fact| (fact.entity, fact.relation))
                    .collect::<BTreeSet<_>>()
                    .len(),
                5
            );
            assert!(facts[..3].iter().all(|fact| fact.relation == relation));
        }
    }

    #[test]
    fn every_statement_and_recap_names_its_entity_and_value() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for relation in Relation::ALL {
            let fact = Cast::new(&mut rng).fact(relation, &mut rng);
            let wordings = forms(relation);
            for template in [wordings.facts, wordings.recaps, wordings.reversed].concat() {
                let text = fact.told(template, "");
                assert!(text.contains(fact.entity) && text.contains(fact.value), "{text}");
                assert!(text.ends_with('.'), "{text}");
            }
            for template in [wordings.wishes, wordings.questions, wordings.task].concat() {
                let text = fact.told(template, "somebody");
                assert!(
                    text.contains(fact.entity) && !text.contains(&format!(" {}", fact.value)),
                    "{text}"
                );
            }
            for template in [wordings.findings, wordings.replies].concat() {
                assert!(fact.told(template, "somebody").contains(fact.value));
            }
        }
    }
}
