//! Answers that the model finds likeliest: every option behind the prompt, and how probable its
//! tokens are there.

use ist_models::Example;
use ist_peft::Adapter;

use super::super::Task;
use super::super::predictions::{OptionScore, Prediction};
use super::super::questions::Question;
use super::Examiner;
use crate::evaluate::token_scores;
use crate::evaluate::token_scores::RecordScore;
use ist_records::{Failure, OrFail};

/// The outcome of each of some questions.
pub(super) fn comparisons<A: Adapter>(
    examiner: &Examiner<'_, A>,
    task: &Task,
    questions: &[&Question],
) -> Result<Vec<Prediction>, Failure> {
    let mut examples: Vec<Vec<Example>> = Vec::with_capacity(questions.len());
    let context = examiner.model.max_position_embeddings();
    for question in questions {
        let encode =
            |option: &String| examiner.encoder.continuation(question.record(), task.lead(), option);
        let own =
            question.options(task).iter().map(encode).collect::<Result<Vec<_>, _>>().or_input()?;
        let fits = own.iter().all(|example| example.input_ids.len() <= context);
        examples.push(if fits { own } else { Vec::new() });
    }
    let mut scores = token_scores::of_examples(examiner.model, &examples.concat()).into_iter();
    let outcome = |(question, examples): (&&Question, &Vec<Example>)| {
        let (index, prompt, answer) =
            (question.index(), examiner.prompt(question)?, question.answer().to_owned());
        if examples.is_empty() {
            return Ok(Prediction::of_too_long(task, index, prompt, answer));
        }
        let scores = scores.by_ref().take(examples.len());
        let options = question
            .options(task)
            .into_iter()
            .zip(scores)
            .map(|(option, score)| scored(option, &score));
        Ok(Prediction::of_options(task, index, prompt, answer, options.collect::<Result<_, _>>()?))
    };
    questions.iter().zip(&examples).map(outcome).collect()
}

fn scored(option: String, score: &RecordScore) -> Result<OptionScore, Failure> {
    let log_likelihood: f64 = score.token_logprobs.iter().sum();
    if !log_likelihood.is_finite() {
        return Err(Failure::run(format!(
            "the log-likelihood of \"{option}\" is {log_likelihood}, no finite number"
        )));
    }
    Ok(OptionScore { option, log_likelihood, tokens: score.tokens })
}
