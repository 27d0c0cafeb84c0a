//! Answers that the model writes: greedily, or by beam search.

use ist_models::generate::{self, BeamSettings, Settings};
use ist_peft::Adapter;

use super::super::Task;
use super::super::predictions::Prediction;
use super::super::questions::Question;
use super::Examiner;
use ist_records::{Failure, OrFail};

/// What the model replies to each of some questions, all asked at once. One whose prompt leaves no
/// room is not asked.
pub(super) fn replies<A: Adapter>(
    examiner: &Examiner<'_, A>,
    task: &Task,
    questions: &[&Question],
) -> Result<Vec<Prediction>, Failure> {
    let prompts: Vec<Vec<u32>> = questions
        .iter()
        .map(|question| examiner.encoder.prompt_ids(question.record()))
        .collect::<Result<_, _>>()
        .or_input()?;
    let room =
        examiner.model.max_position_embeddings().saturating_sub(examiner.asking.max_new_tokens);
    let fitting: Vec<Vec<u32>> =
        prompts.iter().filter(|prompt| prompt.len() <= room).cloned().collect();
    let mut outputs =
        if fitting.is_empty() { Vec::new() } else { continued(examiner, &fitting)? }.into_iter();
    let outcome = |(question, ids): (&&Question, &Vec<u32>)| {
        let (index, prompt, answer) =
            (question.index(), examiner.prompt(question)?, question.answer().to_owned());
        match outputs.next().filter(|_| ids.len() <= room) {
            Some(output) => {
                let reply = examiner.text.decode(&output)?;
                Ok(Prediction::of_reply(task, index, prompt, answer, &reply))
            }
            None => Ok(Prediction::of_too_long(task, index, prompt, answer)),
        }
    };
    questions.iter().zip(&prompts).map(outcome).collect()
}

fn continued<A: Adapter>(
    examiner: &Examiner<'_, A>,
    prompts: &[Vec<u32>],
) -> Result<Vec<Vec<u32>>, Failure> {
    let (beams, max_new_tokens) = (examiner.asking.beams, examiner.asking.max_new_tokens);
    let end_tokens = examiner.text.end_tokens.clone();
    if beams.get() == 1 {
        let settings = Settings { max_new_tokens, end_tokens, ..Settings::default() };
        return generate::generate(examiner.model, prompts, &settings).or_input();
    }
    let settings = BeamSettings { beams, max_new_tokens, length_penalty: 1.0, end_tokens };
    generate::beam_search(examiner.model, prompts, &settings).or_input()
}
