//! The built-in world's task, and any other whose answer is the whole reply.

use super::{Answers, Task};

pub(super) const EXACT_MATCH: Task = Task {
    name: "exact-match",
    aliases: &["world"],
    group: None,
    answers: Answers::Whole,
    lead: "",
    template: "auto",
    max_new_tokens: 16,
};
