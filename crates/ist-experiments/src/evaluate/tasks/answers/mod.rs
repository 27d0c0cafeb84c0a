//! What an answer is: how it is found in a reply, when it is right, and what there is to choose
//! from.

mod letters;
mod numbers;
mod words;

/// The kinds of answers, one file a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One of these words, which the prompt asks for.
    Words(&'static [&'static str]),
    /// A letter from A to this one.
    Letters(char),
    /// A number, right within 1e-3.
    Number,
    /// The whole reply without surrounding space, character for character.
    Whole,
}

/// The line with which a prompt tells the words of its options.
const FORMAT: &str = "Answer format:";

impl Answers {
    /// The answer in a reply, if there is one.
    pub fn extract(self, reply: &str) -> Option<String> {
        match self {
            Self::Words(words) => words::first_word(reply, words).map(str::to_owned),
            Self::Letters(last) => letters::letter(reply, last).map(String::from),
            Self::Number => numbers::last_number(reply).map(|number| number.to_string()),
            Self::Whole => Some(reply.trim()).filter(|reply| !reply.is_empty()).map(str::to_owned),
        }
    }

    /// Whether an answer that [`Answers::extract`] found is the right one.
    pub fn is_correct(self, extracted: &str, answer: &str) -> bool {
        match self {
            Self::Number => numbers::whole(extracted)
                .zip(numbers::whole(answer))
                .is_some_and(|(found, expected)| numbers::same(found, expected)),
            Self::Words(_) | Self::Letters(_) | Self::Whole => extracted == answer,
        }
    }

    /// Checks that a record's right answer is one that a reply could give.
    ///
    /// # Errors
    ///
    /// What was found and what was expected.
    pub fn check(self, answer: &str) -> Result<(), String> {
        let fits = match self {
            Self::Words(words) => words.contains(&answer),
            Self::Letters(last) => {
                answer.chars().count() == 1
                    && answer.chars().all(|letter| ('A'..=last).contains(&letter))
            }
            Self::Number => numbers::whole(answer).is_some(),
            Self::Whole => !answer.is_empty(),
        };
        if fits {
            Ok(())
        } else {
            Err(format!("field `answer` must be {}, found \"{answer}\"", self.expected()))
        }
    }

    fn expected(self) -> String {
        match self {
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Letters(last) => format!("a letter from A to {last}"),
            Self::Number => "a number".to_owned(),
            Self::Whole => "a text".to_owned(),
        }
    }

    /// Whether a prompt's options can be told, so that their likelihoods can be compared.
    pub fn has_options(self) -> bool {
        matches!(self, Self::Words(_) | Self::Letters(_))
    }

    /// The options of one prompt: those of its line "Answer format: answer1/answer2", or its
    /// choices (A), (B), …; where it tells none, all there are.
    pub fn options(self, prompt: &str) -> Vec<String> {
        match self {
            Self::Words(words) => told_words(prompt, words).unwrap_or_else(|| owned(words)),
            Self::Letters(last) => {
                let all: Vec<String> = ('A'..=last).map(String::from).collect();
                let told: Vec<String> = all
                    .iter()
                    .filter(|letter| prompt.contains(&format!("({letter})")))
                    .cloned()
                    .collect();
                if told.len() > 1 { told } else { all }
            }
            Self::Number | Self::Whole => Vec::new(),
        }
    }
}

/// The words of the last format line, if they are all known.
fn told_words(prompt: &str, words: &[&str]) -> Option<Vec<String>> {
    let (_, line) = prompt.rsplit_once(FORMAT)?;
    let told: Vec<&str> = line.lines().next()?.split('/').map(str::trim).collect();
    let known = told.len() > 1 && told.iter().all(|word| words.contains(word));
    known.then(|| owned(&told))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: Answers =
        Answers::Words(&["answer1", "answer2", "answer3", "answer4", "answer5"]);

    #[test]
    fn the_options_are_those_that_the_prompt_offers() {
        let prompt =
            "Which?\n\nAnswer1: a Answer2: b Answer3: c\n\nAnswer format: answer1/answer2/answer3";
        assert_eq!(ANSWERS.options(prompt), ["answer1", "answer2", "answer3"]);
        assert_eq!(ANSWERS.options("Which?").len(), 5);
        assert_eq!(ANSWERS.options("Which? Answer format: this/that").len(), 5);
        let choices = "If (A) is true and (B) is not: Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4";
        assert_eq!(Answers::Letters('E').options(choices), ["A", "B", "C", "D"]);
        assert_eq!(Answers::Letters('E').options("Which?").len(), 5);
        assert!(!Answers::Number.has_options() && Answers::Number.options("(A)").is_empty());
    }

    #[test]
    fn a_right_answer_that_no_reply_could_give_is_refused() {
        assert!(ANSWERS.check("answer5").is_ok() && Answers::Number.check("-1,5.0").is_ok());
        let error = ANSWERS.check("answer6").unwrap_err();
        assert!(
            error.contains("answer1, answer2") && error.contains("found \"answer6\""),
            "{error}"
        );
        assert!(
            Answers::Letters('E').check("F").is_err() && Answers::Letters('E').check("AB").is_err()
        );
        assert!(Answers::Number.check("twelve").is_err() && Answers::Whole.check("").is_err());
    }

    #[test]
    fn numbers_compare_as_numbers_and_all_else_as_text() {
        assert!(
            Answers::Number.is_correct("6", "6.0") && !Answers::Number.is_correct("6.01", "6.0")
        );
        assert!(
            Answers::Whole.is_correct("barn", "barn") && !Answers::Whole.is_correct("Barn", "barn")
        );
        assert_eq!(Answers::Whole.extract(" \n"), None);
    }
}
