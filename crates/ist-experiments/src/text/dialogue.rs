//! How a model converses: what a conversation looks like to it, and what ends an answer.

use std::sync::Arc;

use ist_models::text::tokenizer;

use crate::text::TextModel;
use crate::text::chat_template::ChatTemplate;
use crate::text::records::chat::Message;
use crate::text::records::{Encoder, EncoderOptions, Template};
use ist_records::{Failure, OrFail};

/// The layout of a conversation with a model.
#[derive(Debug)]
pub struct Dialogue {
    encoder: Encoder,
    /// Tokens that end an answer: the model's, and with a chat template that which closes an
    /// assistant's turn.
    pub end_tokens: Vec<u32>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
}

impl Dialogue {
    /// The layout of the model's chat template, with today's date, or nothing where it has none.
    ///
    /// # Errors
    ///
    /// A chat template that cannot be used.
    pub fn of_model(text: &TextModel, vocab_size: usize) -> Result<Option<Self>, Failure> {
        let Some(template) = text.chat_template()? else { return Ok(None) };
        let template = template.today();
        let mut end_tokens = text.end_tokens.clone();
        end_tokens
            .extend(closing_token(text, &template)?.filter(|id| !text.end_tokens.contains(id)));
        let encoder = encoder(text, Template::Chat(Arc::new(template)), vocab_size);
        Ok(Some(Self { encoder, end_tokens, stops: Vec::new() }))
    }

    /// The default layout, `### User:` and so on. The next turn's marker ends an answer too.
    pub fn default_layout(text: &TextModel, vocab_size: usize) -> Self {
        let encoder = encoder(text, Template::Alpaca, vocab_size);
        Self { encoder, end_tokens: text.end_tokens.clone(), stops: vec!["\n### User:".to_owned()] }
    }

    /// The tokens that an answer to a conversation follows.
    ///
    /// # Errors
    ///
    /// A conversation that the template refuses.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, Failure> {
        self.encoder.answer_prompt_ids(messages).or_input()
    }
}

fn encoder(text: &TextModel, template: Template, vocab_size: usize) -> Encoder {
    let end_tokens = text.end_tokens.clone();
    let options = EncoderOptions {
        template,
        train_on_inputs: false,
        cutoff: usize::MAX,
        end_tokens,
        vocab_size,
    };
    Encoder::new(text.tokenizer.clone(), options)
}

/// The first special token behind an answer.
fn closing_token(text: &TextModel, template: &ChatTemplate) -> Result<Option<u32>, Failure> {
    // A template that refuses the two turns this is read from has no end that could be told.
    let closing = template.closing().unwrap_or_default();
    let encoding = tokenizer::encode(&text.tokenizer, &closing, false).or_input()?;
    let added = text.tokenizer.get_added_tokens_decoder();
    Ok(encoding
        .get_ids()
        .iter()
        .copied()
        .find(|id| added.get(id).is_some_and(|token| token.special)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::records::chat::Role;
    use crate::text::records::testing::{BEGIN, END, tokenizer};
    use ist_models::text::text_files::ChatTemplateSource;

    fn model(template: Option<&str>) -> TextModel {
        let source = |source: &str| ChatTemplateSource {
            file: "file",
            source: source.to_owned(),
            special_tokens: vec![("eos_token".to_owned(), "</s>".to_owned())],
        };
        TextModel {
            tokenizer: tokenizer(&[]),
            end_tokens: vec![7],
            chat_template: Ok(template.map(source)),
        }
    }

    fn end_tokens(template: &str) -> Vec<u32> {
        Dialogue::of_model(&model(Some(template)), 300).unwrap().unwrap().end_tokens
    }

    #[test]
    fn the_token_that_closes_an_answer_ends_it_too() {
        let turns = |end: &str| {
            format!("{{% for m in messages %}}{{{{ m.content }}}}{end}\n{{% endfor %}}")
        };
        assert_eq!(end_tokens(&turns(" {{ eos_token }}")), [7, END]);
        // Text that closes an answer is no token, and nothing is guessed where there is no answer.
        assert_eq!(end_tokens(&turns("END")), [7]);
        assert_eq!(end_tokens("{{ raise_exception('no') }}"), [7]);
    }

    #[test]
    fn the_default_layout_ends_answers_at_the_next_turn() {
        let text = model(None);
        assert!(Dialogue::of_model(&text, 300).unwrap().is_none());
        let dialogue = Dialogue::default_layout(&text, 300);
        let user = Message::new(Role::User, "Hi");
        let prompt = dialogue.prompt(&[user]).unwrap();
        assert_eq!(prompt[0], BEGIN);
        assert_eq!(text.decode(&prompt).unwrap(), "### User:\nHi\n\n### Assistant:\n");
        assert_eq!(
            (dialogue.end_tokens, dialogue.stops),
            (vec![7], vec!["\n### User:".to_owned()])
        );
    }
}
