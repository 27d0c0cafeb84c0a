//! What a model is scored on: tasks with answers, and the probabilities of given tokens.

pub mod tasks;
pub mod token_scores;
