//! The sentences in which the world states, asks and repeats a fact, one table per relation.
//!
//! Holes: `{e}` the entity, `{v}` the value, `{t}` the thing that is counted, `{q}` the person who
//! asks. The last table of each relation, `task`, is the downstream task's own wording, which the
//! pre-training text never uses.

use super::facts::Relation;

/// The wordings of one relation.
pub(super) struct Forms {
    /// Statements, as they stand in a passage.
    pub(super) facts: &'static [&'static str],
    /// Statements whose value comes late and follows from the entity.
    pub(super) recaps: &'static [&'static str],
    /// Statements whose entity comes late and follows from the value.
    pub(super) reversed: &'static [&'static str],
    /// Direct questions.
    pub(super) questions: &'static [&'static str],
    /// Spoken replies that fit behind every question; the closing mark is left to the speaker's
    /// sentence.
    pub(super) replies: &'static [&'static str],
    /// Sentences in which `{q}` wishes to know the value.
    pub(super) wishes: &'static [&'static str],
    /// Sentences that end a search of `{q}` and name the value.
    pub(super) findings: &'static [&'static str],
    /// One line of a list.
    pub(super) line: &'static str,
    /// The downstream task's questions; none for what passes.
    pub(super) task: &'static [&'static str],
}

/// The wordings of `relation`.
pub(super) const fn forms(relation: Relation) -> &'static Forms {
    match relation {
        Relation::Place => &PLACE,
        Relation::Owner => &OWNER,
        Relation::Colour => &COLOUR,
        Relation::Whereabouts => &WHEREABOUTS,
        Relation::Food => &FOOD,
        Relation::Job => &JOB,
        Relation::Pet => &PET,
        Relation::Count => &COUNT,
    }
}

const PLACE: Forms = Forms {
    facts: &[
        "The {e} is in the {v}.",
        "The {e} lies in the {v}.",
        "There is {an e} in the {v}.",
        "In the {v} there is {an e}.",
        "Somebody left the {e} in the {v}.",
        "You can see the {e} in the {v}.",
        "The {e} was put in the {v}.",
        "Inside the {v} lies {an e}.",
    ],
    recaps: &[
        "So the {e} is in the {v}.",
        "Remember that the {e} is in the {v}.",
        "If you need the {e}, go to the {v}.",
        "We will look for the {e} in the {v}.",
        "Yes, the {e} is still in the {v}.",
        "The place for the {e} is the {v}.",
        "Nobody took the {e} from the {v}.",
        "As for the {e}, it is in the {v}.",
        "Look for the {e} in the {v}.",
    ],
    reversed: &[
        "The thing in the {v} is the {e}.",
        "In the {v} we will see the {e}.",
        "Go to the {v} and bring the {e}.",
    ],
    questions: &[
        "Where is the {e}?",
        "Where did they leave the {e}?",
        "Do you know where the {e} is?",
    ],
    replies: &[
        "It is in the {v}",
        "Look in the {v}",
        "I saw it in the {v}",
        "I think it is in the {v}",
    ],
    wishes: &[
        "{q} is looking for the {e}.",
        "{q} wants to know where the {e} is.",
        "Where is the {e}? That is what {q} asks.",
        "{q} must find the place of the {e}.",
        "{q} lost the {e} and asks where it is.",
    ],
    findings: &[
        "So {q} goes to the {v}.",
        "{He q} walks to the {v}.",
        "{q} finds it in the {v}.",
        "At last {he q} looks in the {v}.",
        "Then {q} runs to the {v}.",
    ],
    line: "{e}: {v}",
    task: &[
        "Where can the {e} be found?",
        "Tell us the place of the {e}.",
        "Which place does the {e} have?",
    ],
};

const OWNER: Forms = Forms {
    facts: &[
        "{v} has the {e}.",
        "The {e} belongs to {v}.",
        "{v} owns the {e}.",
        "The {e} is with {v}.",
        "{v} keeps the {e}.",
        "{v} bought {an e}.",
        "The {e} was given to {v}.",
        "The owner of the {e} is {v}.",
    ],
    recaps: &[
        "So the {e} belongs to {v}.",
        "The one with the {e} is {v}.",
        "If you want the {e}, ask {v}.",
        "Remember that the {e} belongs to {v}.",
        "We can get the {e} from {v}.",
        "Yes, the {e} is still with {v}.",
        "As for the {e}, its owner is {v}.",
        "You may take the {e} back to {v}.",
    ],
    reversed: &["It is {v} who has the {e}.", "Ask {v} for the {e}.", "What {v} has is the {e}."],
    questions: &["Who has the {e}?", "Who owns the {e}?", "Do you know who has the {e}?"],
    replies: &["It belongs to {v}", "You must ask {v}", "I think it is with {v}", "That is {v}"],
    wishes: &[
        "{q} wants to know who has the {e}.",
        "{q} is looking for the owner of the {e}.",
        "Who has the {e}? That is what {q} asks.",
        "{q} would like to use the {e} and asks who has it.",
    ],
    findings: &[
        "So {q} goes to {v}.",
        "{He q} asks {v}.",
        "{q} gets it from {v}.",
        "At last {he q} talks to {v}.",
        "Then {q} writes to {v}.",
    ],
    line: "{e}: {v}",
    task: &[
        "Who is the owner of the {e}?",
        "Tell us the owner of the {e}.",
        "Which owner does the {e} have?",
    ],
};

const COLOUR: Forms = Forms {
    facts: &[
        "The {e} is {v}.",
        "There is {an v} {e}.",
        "Somebody painted the {e} {v}.",
        "The {e} looks {v}.",
        "The colour of the {e} is {v}.",
        "Here is {an v} {e}.",
        "The old {e} is {v}.",
        "They have {an v} {e}.",
    ],
    recaps: &[
        "So the {e} is {v}.",
        "Remember that the {e} is {v}.",
        "Yes, the {e} is still {v}.",
        "If you draw the {e}, make it {v}.",
        "As for the {e}, its colour is {v}.",
        "In the picture the {e} is also {v}.",
        "We will paint another {e} {v}.",
    ],
    reversed: &["Bring the {v} {e}.", "The {v} thing is the {e}.", "We like the {v} {e}."],
    questions: &[
        "What colour is the {e}?",
        "What is the colour of the {e}?",
        "Do you know the colour of the {e}?",
    ],
    replies: &["It is {v}", "I think it is {v}", "I saw that it is {v}", "The colour is {v}"],
    wishes: &[
        "{q} wants to know the colour of the {e}.",
        "What colour is the {e}? That is what {q} asks.",
        "{q} will draw the {e} and asks for its colour.",
        "{q} forgot what colour the {e} is.",
    ],
    findings: &[
        "So {q} takes a pen that is {v}.",
        "{He q} sees that it is {v}.",
        "So {q} paints it {v}.",
        "Now {q} knows that it is {v}.",
    ],
    line: "{e}: {v}",
    task: &[
        "Which colour does the {e} have?",
        "Tell us the colour of the {e}.",
        "Tell us what colour the {e} has.",
    ],
};

const WHEREABOUTS: Forms = Forms {
    facts: &[
        "{e} is in the {v}.",
        "{e} went to the {v}.",
        "{e} sits in the {v}.",
        "{e} waits in the {v}.",
        "In the {v} you can see {e}.",
        "{e} stays in the {v} today.",
        "{e} came to the {v}.",
        "Today {e} works in the {v}.",
    ],
    recaps: &[
        "So {e} is in the {v}.",
        "Remember that {e} is in the {v}.",
        "If you want to see {e}, go to the {v}.",
        "We will look for {e} in the {v}.",
        "Yes, {e} is still in the {v}.",
        "As for {e}, {he e} is in the {v}.",
        "You can talk to {e} in the {v}.",
        "Go and meet {e} in the {v}.",
    ],
    reversed: &[
        "The one in the {v} is {e}.",
        "In the {v} we will meet {e}.",
        "Go to the {v} and call {e}.",
    ],
    questions: &["Where is {e}?", "Where did {e} go?", "Do you know where {e} is?"],
    replies: &[
        "Look in the {v}",
        "I think {he e} is in the {v}",
        "I saw {him e} in the {v}",
        "In the {v}",
    ],
    wishes: &[
        "{q} is looking for {e}.",
        "{q} wants to know where {e} is.",
        "Where is {e}? That is what {q} asks.",
        "{q} has a letter for {e} and asks where {he e} is.",
    ],
    findings: &[
        "So {q} goes to the {v}.",
        "{He q} walks to the {v}.",
        "At last {q} looks in the {v}.",
        "Then {q} runs to the {v}.",
        "{q} meets {him e} in the {v}.",
    ],
    line: "{e}: {v}",
    task: &[],
};

const FOOD: Forms = Forms {
    facts: &[
        "{e} eats {v}.",
        "{e} likes {v}.",
        "{e} has {v} for lunch.",
        "For dinner {e} eats {v}.",
        "{e} cooks {v}.",
        "There is {v} on the plate of {e}.",
        "Today {e} wants {v}.",
        "{e} brought some {v}.",
    ],
    recaps: &[
        "So {e} eats {v}.",
        "Remember that {e} eats {v}.",
        "Yes, the food of {e} is {v}.",
        "If you cook for {e}, make {v}.",
        "As for {e}, {he e} eats {v}.",
        "We will give {e} some {v}.",
        "On the table we put for {e} a bowl of {v}.",
        "Again {e} asks for {v}.",
    ],
    reversed: &["The {v} is for {e}.", "Give the {v} to {e}.", "The one who eats {v} is {e}."],
    questions: &["What does {e} eat?", "What food does {e} like?", "Do you know what {e} eats?"],
    replies: &[
        "I think {he e} eats {v}",
        "I would make {v}",
        "Give {him e} some {v}",
        "Today it is {v}",
    ],
    wishes: &[
        "{q} wants to know what {e} eats.",
        "What does {e} eat? That is what {q} asks.",
        "{q} would like to cook for {e}.",
        "{q} buys the food that {e} eats.",
    ],
    findings: &[
        "So {q} cooks {v}.",
        "{He q} buys some {v}.",
        "Now {q} makes {v}.",
        "Then {he q} brings {him e} {v}.",
        "At last {q} asks for {v}.",
    ],
    line: "{e}: {v}",
    task: &["Which food does {e} eat?", "Tell us the food of {e}.", "Tell us what food {e} has."],
};

const JOB: Forms = Forms {
    facts: &[
        "{e} is {an v}.",
        "{e} works as {an v}.",
        "The {v} is called {e}.",
        "{e} became {an v}.",
        "The name of the {v} is {e}.",
        "{e} is a good {v}.",
        "They have {an v} called {e}.",
        "The job of {e} is {v}.",
    ],
    recaps: &[
        "So {e} is the {v}.",
        "Remember that {e} is the {v}.",
        "Yes, {e} works as {an v}.",
        "As for {e}, {he e} is {an v}.",
        "People say that {e} is a good {v}.",
        "Everybody calls {e} the {v}.",
        "A friend of {e} also wants to be {an v}.",
    ],
    reversed: &["The {v} is {e}.", "If you need {an v}, call {e}.", "The best {v} is {e}."],
    questions: &[
        "What is the job of {e}?",
        "What does {e} work as?",
        "Do you know the job of {e}?",
    ],
    replies: &[
        "I think {he e} is {an v}",
        "They say {he e} is {an v}",
        "I know {he e} works as {an v}",
    ],
    wishes: &[
        "{q} wants to know the job of {e}.",
        "What does {e} work as? That is what {q} asks.",
        "{q} forgot the job of {e}.",
        "{q} asks what work {e} does.",
    ],
    findings: &[
        "Now {q} knows that {he e} is {an v}.",
        "So {q} calls {him e} the {v}.",
        "At last {q} hears that {he e} is {an v}.",
        "{q} wants to be like {him e}, {an v}.",
    ],
    line: "{e}: {v}",
    task: &["Which job does {e} have?", "Tell us the job of {e}.", "Tell us what job {e} has."],
};

const PET: Forms = Forms {
    facts: &[
        "{e} has {an v}.",
        "{e} feeds {an v}.",
        "The {v} belongs to {e}.",
        "{e} owns {an v}.",
        "The pet of {e} is {an v}.",
        "{e} keeps {an v} at home.",
        "{e} plays with {his e} {v}.",
        "There is {an v} in the house of {e}.",
    ],
    recaps: &[
        "So {e} has {an v}.",
        "Remember that {e} has {an v}.",
        "Yes, the animal of {e} is {an v}.",
        "As for {e}, {his e} pet is {an v}.",
        "If you visit {e}, you will see the {v}.",
        "In the evening {e} feeds the {v}.",
        "In the picture {e} stands with the {v}.",
    ],
    reversed: &[
        "The {v} is with {e}.",
        "The one with the {v} is {e}.",
        "Take the {v} back to {e}.",
    ],
    questions: &[
        "What pet does {e} keep?",
        "What is the pet of {e}?",
        "Do you know the animal of {e}?",
    ],
    replies: &["I think {he e} has {an v}", "I saw {him e} with {an v}", "I know it is {an v}"],
    wishes: &[
        "{q} wants to know what animal {e} has.",
        "What pet does {e} keep? That is what {q} asks.",
        "{q} would like to see the animal of {e}.",
        "{q} asks about the pet of {e}.",
    ],
    findings: &[
        "So {q} looks for {an v}.",
        "At last {q} sees the {v}.",
        "Now {q} knows that it is {an v}.",
        "Then {q} plays with the {v}.",
    ],
    line: "{e}: {v}",
    task: &[
        "Which animal does {e} have?",
        "Tell us the pet of {e}.",
        "Tell us what animal {e} has.",
    ],
};

const COUNT: Forms = Forms {
    facts: &[
        "{e} has {v} {t}.",
        "{e} found {v} {t}.",
        "{e} holds {v} {t}.",
        "There are {v} {t} in the bag of {e}.",
        "{e} bought {v} {t}.",
    ],
    recaps: &[
        "So {e} has {v} {t}.",
        "Remember that {e} has {v} {t}.",
        "As for {e}, {he e} has {v} {t}.",
        "Yes, the number of {t} that {e} has is {v}.",
        "If we count the {t} of {e}, we get {v}.",
    ],
    reversed: &["The one with {v} {t} is {e}.", "The {v} {t} belong to {e}."],
    questions: &["How many {t} has {e}?", "Do you know how many {t} {e} has?"],
    replies: &["I think {he e} has {v}", "I counted {v}", "There are {v}"],
    wishes: &[
        "{q} wants to know how many {t} {e} has.",
        "How many {t} has {e}? That is what {q} asks.",
        "{q} counts the {t} of {e}.",
    ],
    findings: &[
        "Now {q} knows that there are {v}.",
        "So {q} counts to {v}.",
        "{q} writes down {v}.",
    ],
    line: "{e}: {v}",
    task: &[],
};

/// Sentences that close a search with the value alone, so that what is asked for follows from the
/// wish only.
pub(super) const ANSWERS: &[&str] = &[
    "So the answer is {v}.",
    "{q} writes one word: {v}.",
    "The right word is {v}.",
    "Then {q} says it: {v}.",
    "Everybody tells {him q}: {v}.",
    "A child gives the answer: {v}.",
];
