//! The arithmetic sets in LLM-Adapters' files: the answer is a number, of AQuA a letter.

use super::{Answers, Group, Task};

const fn arithmetic(
    name: &'static str,
    aliases: &'static [&'static str],
    answers: Answers,
) -> Task {
    Task {
        name,
        aliases,
        group: Some(Group::Arithmetic),
        answers,
        lead: "The answer is ",
        template: "llm-adapters",
        max_new_tokens: 256,
    }
}

pub(super) const GSM8K: Task = arithmetic("gsm8k", &[], Answers::Number);
pub(super) const AQUA: Task = arithmetic("AQuA", &["aqua-rat"], Answers::Letters('E'));
pub(super) const SVAMP: Task = arithmetic("SVAMP", &[], Answers::Number);
pub(super) const MULTI_ARITH: Task = arithmetic("MultiArith", &[], Answers::Number);
pub(super) const ADD_SUB: Task = arithmetic("AddSub", &[], Answers::Number);
pub(super) const SINGLE_EQ: Task = arithmetic("SingleEq", &[], Answers::Number);
pub(super) const MAWPS: Task = arithmetic("mawps", &[], Answers::Number);
