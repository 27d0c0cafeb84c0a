//! What a model is scored on: the sets of the published tables and the built-in world's own task.
//!
//! A task is data: its name, what its answers are, and how much room a reply has. All else is the
//! same for every one: records become [`Question`]s, a model is asked by
//! [generation](ask::Way::Generate) or by the [likelihood](ask::Way::Likelihood) of the options,
//! every [`Prediction`] is written down, and a [`Score`] counts them.
//!
//! | to read about | look at |
//! |---|---|
//! | the table of tasks | [`TASKS`], `commonsense.rs`, `arithmetic.rs`, `exact_match.rs` |
//! | how an answer is found in a reply | [`Answers`] |
//! | from a file to questions | [`questions`], [`files`] |
//! | asking | [`ask`] |
//! | predictions as a file that survives | [`predictions`] |
//! | accuracy and its interval, the row of several tasks | [`score`], [`row`] |

mod answers;
mod arithmetic;
pub mod ask;
mod commonsense;
mod exact_match;
pub mod files;
pub mod predictions;
pub mod questions;
pub mod row;
pub mod score;

use std::fmt;

use crate::config::nearest;
use ist_records::Failure;

pub use answers::Answers;
pub use predictions::Prediction;
pub use questions::Question;
pub use score::Score;

/// The tasks there are, in the order in which they are listed.
pub const TASKS: [&Task; 16] = [
    &commonsense::BOOLQ,
    &commonsense::PIQA,
    &commonsense::SOCIAL_I_QA,
    &commonsense::HELLASWAG,
    &commonsense::WINOGRANDE,
    &commonsense::ARC_EASY,
    &commonsense::ARC_CHALLENGE,
    &commonsense::OPENBOOKQA,
    &arithmetic::GSM8K,
    &arithmetic::AQUA,
    &arithmetic::SVAMP,
    &arithmetic::MULTI_ARITH,
    &arithmetic::ADD_SUB,
    &arithmetic::SINGLE_EQ,
    &arithmetic::MAWPS,
    &exact_match::EXACT_MATCH,
];

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    name: &'static str,
    aliases: &'static [&'static str],
    group: Option<Group>,
    answers: Answers,
    lead: &'static str,
    template: &'static str,
    max_new_tokens: usize,
}

/// Tasks whose mean is a column of the published tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The eight multiple-choice sets.
    Commonsense,
    /// The word problems.
    Arithmetic,
}

impl Group {
    /// Both, in the order of the tables.
    pub const ALL: [Self; 2] = [Self::Commonsense, Self::Arithmetic];

    /// The group's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commonsense => "commonsense",
            Self::Arithmetic => "arithmetic",
        }
    }

    /// Its tasks.
    pub fn tasks(self) -> impl Iterator<Item = &'static Task> {
        TASKS.into_iter().filter(move |task| task.group == Some(self))
    }
}

impl Task {
    /// The task's name, spelt as LLM-Adapters spells it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The group whose mean it counts in.
    pub fn group(&self) -> Option<Group> {
        self.group
    }

    /// What its answers are.
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// What stands between prompt and option where likelihoods are compared, as in the records'
    /// outputs.
    pub fn lead(&self) -> &'static str {
        self.lead
    }

    /// The template its prompts are made with unless another is asked for.
    pub fn template(&self) -> &'static str {
        self.template
    }

    /// Tokens that a reply may have unless it is told otherwise.
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    fn is_called(&self, name: &str) -> bool {
        std::iter::once(&self.name).chain(self.aliases).any(|own| own.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The names of all tasks.
pub fn names() -> Vec<&'static str> {
    TASKS.iter().map(|task| task.name).collect()
}

/// The task of that name, whatever its case, or of that alias.
///
/// # Errors
///
/// No such task, with the nearest name there is.
pub fn named(name: &str) -> Result<&'static Task, Failure> {
    TASKS.into_iter().find(|task| task.is_called(name)).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Failure {
    let groups = [EVERY, Group::Commonsense.name(), Group::Arithmetic.name()];
    let aliases = TASKS.iter().flat_map(|task| task.aliases);
    let valid: Vec<&str> = names().into_iter().chain(groups).chain(aliases.copied()).collect();
    let nearest = nearest::value(name, &valid)
        .map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
    Failure::input(format!(
        "unknown task \"{name}\"; {nearest}available: {}, {}",
        names().join(", "),
        groups.join(", ")
    ))
}

/// The name of both groups together.
const EVERY: &str = "all";

/// The tasks that a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The tasks, each once, in the order asked for.
    pub tasks: Vec<&'static Task>,
    /// The groups that were named; a set of theirs may be missing.
    pub groups: Vec<Group>,
}

impl Selection {
    /// Reads names of tasks and groups, `all` for both groups, separated by commas.
    ///
    /// # Errors
    ///
    /// A name that is none, with the nearest one there is.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut selection = Self { tasks: Vec::new(), groups: Vec::new() };
        for name in text.split(',').map(str::trim) {
            let groups =
                Group::ALL.into_iter().filter(|group| name == EVERY || name == group.name());
            let groups: Vec<Group> = groups.collect();
            let tasks = if groups.is_empty() {
                vec![named(name)?]
            } else {
                groups.iter().flat_map(|group| group.tasks()).collect()
            };
            let known = selection.tasks.clone();
            selection.tasks.extend(tasks.into_iter().filter(|task| !known.contains(task)));
            let known = selection.groups.clone();
            selection.groups.extend(groups.into_iter().filter(|group| !known.contains(group)));
        }
        Ok(selection)
    }

    /// Whether the task is one of a group that was named, so that it may be missing.
    pub fn may_lack(&self, task: &Task) -> bool {
        task.group.is_some_and(|group| self.groups.contains(&group))
    }

    /// Whether more than one task was asked for, be it only by a group's name.
    pub fn is_row(&self) -> bool {
        self.tasks.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_by_their_aliases() {
        for (name, expected) in [
            ("boolq", "boolq"),
            ("BoolQ", "boolq"),
            ("siqa", "social_i_qa"),
            ("arc-e", "ARC-Easy"),
            ("ARC-c", "ARC-Challenge"),
            ("obqa", "openbookqa"),
            ("aqua", "AQuA"),
            ("world", "exact-match"),
        ] {
            assert_eq!(named(name).unwrap().name(), expected);
        }
    }

    #[test]
    fn no_two_tasks_answer_to_one_name() {
        let called = |name: &str| TASKS.iter().filter(|task| task.is_called(name)).count();
        for task in TASKS {
            assert!(
                std::iter::once(&task.name).chain(task.aliases).all(|name| called(name) == 1),
                "{task}"
            );
        }
    }

    #[test]
    fn the_book_has_every_task() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/tasks.md");
        let book = std::fs::read_to_string(path).unwrap();
        for name in TASKS.iter().flat_map(|task| std::iter::once(&task.name).chain(task.aliases)) {
            assert!(book.contains(&format!("`{name}`")), "{name} is not in docs/src/tasks.md");
        }
    }

    #[test]
    fn an_unknown_task_is_refused_with_the_nearest_name() {
        for (name, near) in
            [("bolq", "boolq"), ("ARC-Esy", "ARC-Easy"), ("comonsense", "commonsense")]
        {
            let message = named(name).unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean \"{near}\"?")), "{message}");
        }
        let message = named("").unwrap_err().to_string();
        assert!(message.contains("exact-match, all, commonsense, arithmetic"), "{message}");
    }

    #[test]
    fn groups_and_lists_name_every_task_once() {
        let of = |text| Selection::parse(text).unwrap();
        assert_eq!(
            (of("commonsense").tasks.len(), of("arithmetic").tasks.len(), of("all").tasks.len()),
            (8, 7, 15)
        );
        let list = of("gsm8k, commonsense,boolq");
        assert_eq!((list.tasks.len(), list.tasks[0].name()), (9, "gsm8k"));
        assert!(list.may_lack(named("boolq").unwrap()) && !list.may_lack(named("gsm8k").unwrap()));
        assert!(Selection::parse("boolq,").is_err());
    }
}
