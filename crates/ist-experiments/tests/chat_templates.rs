//! Chat templates against transformers (`fixtures/chat`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use ist_experiments::text::chat_template::ChatTemplate;
use ist_experiments::text::records::chat::Message;
use ist_models::text::ChatTemplateSource;
use serde_json::Value;

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Every template by name, with what is expected of each conversation.
fn each(document: &Value, mut check: impl FnMut(&str, &ChatTemplate, &[Message], &Value)) {
    for (name, template) in document["templates"].as_object().unwrap() {
        let tokens = template["special_tokens"].as_object().unwrap();
        let special_tokens =
            tokens.iter().map(|(name, token)| (name.clone(), text(token))).collect();
        let source = ChatTemplateSource {
            file: "chat_template.jinja",
            source: text(&template["source"]),
            special_tokens,
        };
        let rendered = ChatTemplate::new(&source).unwrap();
        for (conversation, case) in template["cases"].as_object().unwrap() {
            let messages: Vec<Message> =
                serde_json::from_value(document["conversations"][conversation].clone()).unwrap();
            check(&format!("{name}, {conversation}"), &rendered, &messages, case);
        }
    }
}

#[test]
fn published_templates_render_as_in_transformers() {
    let document = expected();
    let mut refused = 0;
    each(&document, |name, template, messages, case| {
        for (add_generation_prompt, expected) in [(false, &case["whole"]), (true, &case["prompt"])]
        {
            let found = template.render(messages, add_generation_prompt);
            if let Some(expected) = expected.get("text") {
                assert_eq!(found.unwrap(), text(expected), "{name}");
            } else {
                let (error, expected) =
                    (found.unwrap_err().to_string(), text(&expected["refused"]));
                assert!(error.contains(&expected), "{name}: {error} should say {expected}");
                refused += 1;
            }
        }
    });
    assert!(refused > 0);
}

#[test]
fn what_generation_blocks_mark_is_learned() {
    let document = expected();
    let mut marked = 0;
    each(&document, |name, template, messages, case| {
        let Some(expected) = case["generation"].as_array() else { return };
        let segment = template.conversation(messages, true).unwrap();
        assert_eq!(segment.text, text(&case["whole"]["text"]), "{name}");
        let found: Vec<_> =
            segment.learned.iter().map(|range| segment.text[range.clone()].to_owned()).collect();
        assert_eq!(found, expected.iter().map(text).collect::<Vec<_>>(), "{name}");
        marked += 1;
    });
    assert!(marked > 10);
}

#[test]
fn every_answer_of_a_published_template_is_found_with_the_end_of_its_turn() {
    let document = expected();
    let mut answers = 0;
    each(&document, |name, template, messages, case| {
        // The lively template writes answers as JSON; the last of a turn differs from the others.
        if case["whole"].get("text").is_none()
            || name.starts_with("lively")
            || name.starts_with("marked")
        {
            return;
        }
        let segment =
            template.conversation(messages, true).unwrap_or_else(|error| panic!("{name}: {error}"));
        let turns = messages
            .iter()
            .filter(|message| serde_json::to_value(message.role).unwrap() == "assistant");
        let turns: Vec<_> = turns.collect();
        assert_eq!(segment.learned.len(), turns.len(), "{name}");
        for (range, turn) in segment.learned.iter().zip(turns) {
            let learned = &segment.text[range.clone()];
            let last_words = turn.content.trim().rsplit("</think>").next().unwrap().trim();
            assert!(learned.contains(last_words), "{name}: {learned:?} should hold {last_words:?}");
            let behind = &learned[learned.find(last_words).unwrap() + last_words.len()..];
            let ends = ["<|eot_id|>", "</s>", "<end_of_turn>", "<|im_end|>"];
            assert!(
                ends.iter().any(|end| behind.trim_start().starts_with(end)),
                "{name}: {learned:?} should end its turn"
            );
            assert!(!learned.contains("bakes"), "{name}: {learned:?}");
            answers += 1;
        }
    });
    assert!(answers > 50, "{answers}");
}
