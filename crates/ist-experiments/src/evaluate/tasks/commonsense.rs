//! The eight commonsense sets in LLM-Adapters' files: every prompt names the words of its options.

use super::{Answers, Group, Task};

/// A set whose options are these words.
const fn choice(
    name: &'static str,
    aliases: &'static [&'static str],
    words: &'static [&'static str],
) -> Task {
    Task {
        name,
        aliases,
        group: Some(Group::Commonsense),
        answers: Answers::Words(words),
        lead: "the correct answer is ",
        template: "llm-adapters",
        max_new_tokens: 32,
    }
}

/// Whatever number of options a question has, the words are these.
const ANSWERS: [&str; 5] = ["answer1", "answer2", "answer3", "answer4", "answer5"];

pub(super) const BOOLQ: Task = choice("boolq", &[], &["true", "false"]);
pub(super) const PIQA: Task = choice("piqa", &[], &["solution1", "solution2"]);
pub(super) const SOCIAL_I_QA: Task = choice("social_i_qa", &["siqa", "socialiqa"], &ANSWERS);
pub(super) const HELLASWAG: Task =
    choice("hellaswag", &[], &["ending1", "ending2", "ending3", "ending4"]);
pub(super) const WINOGRANDE: Task = choice("winogrande", &["wino"], &["option1", "option2"]);
pub(super) const ARC_EASY: Task = choice("ARC-Easy", &["arc-e", "arc_easy"], &ANSWERS);
pub(super) const ARC_CHALLENGE: Task =
    choice("ARC-Challenge", &["arc-c", "arc_challenge"], &ANSWERS);
pub(super) const OPENBOOKQA: Task = choice("openbookqa", &["obqa"], &ANSWERS);
