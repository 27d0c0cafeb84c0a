//! Records with tools, calls, thoughts and contents in parts against transformers
//! (`fixtures/chat/learned.json`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use ist_experiments::text::chat_template::ChatTemplate;
use ist_experiments::text::records::{
    Body, DataFile, Encoder, EncoderOptions, Format, Record, Template,
};
use ist_models::text::ChatTemplateSource;
use serde_json::Value;
use tokenizers::Tokenizer;

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/learned.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn template(document: &Value, name: &str) -> ChatTemplate {
    let template = &document["templates"][name];
    let tokens = template["special_tokens"].as_object().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let special_tokens = tokens.iter().map(|(name, token)| (name.clone(), text(token))).collect();
    let source = text(&template["source"]);
    ChatTemplate::new(&ChatTemplateSource { file: "file", source, special_tokens }).unwrap()
}

/// A record as a data file gives it.
fn record(document: &Value, name: &str) -> Record {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, document["records"][name].to_string()).unwrap();
    let file = DataFile::read(&path, Format::Auto).unwrap();
    let mut records = file.records().unwrap();
    records.next().unwrap().unwrap()
}

/// Every template with every record and what is expected of the two.
fn each(mut check: impl FnMut(&Value, &str, &str, &Value)) {
    let document = expected();
    for (name, template) in document["templates"].as_object().unwrap() {
        for (record, case) in template["cases"].as_object().unwrap() {
            check(&document, name, record, case);
        }
    }
}

#[test]
fn tools_calls_thoughts_and_parts_are_handed_over_as_in_transformers() {
    let mut refused = 0;
    each(|document, name, record_name, case| {
        let record = record(document, record_name);
        let Body::Chat(conversation) = &record.body else { panic!("{record_name}") };
        let found = template(document, name).render(conversation, false);
        if let Some(expected) = case["text"].as_str() {
            assert_eq!(found.unwrap(), expected, "{name}, {record_name}");
        } else {
            let reason = case["refused"].as_str().unwrap();
            let error = found.unwrap_err().to_string();
            assert!(error.contains(reason), "{name}, {record_name}: {error}");
            refused += 1;
        }
    });
    assert!(refused > 0);
}

#[test]
fn the_learned_tokens_of_a_template_with_marks_are_those_of_transformers() {
    let mut compared = 0;
    each(|document, name, record_name, case| {
        for (tokenizer_name, definition) in document["tokenizers"].as_object().unwrap() {
            let Some(expected) = case.get(tokenizer_name) else { continue };
            let record = record(document, record_name);
            let Body::Chat(conversation) = &record.body else { panic!("{record_name}") };
            let calls = record_name.starts_with("calls");
            if name == "tight" && calls {
                // A template that drops calls: those turns are not learned, which transformers does
                // not know.
                continue;
            }
            let encoder = Encoder::new(
                Tokenizer::from_bytes(definition.to_string()).unwrap(),
                EncoderOptions {
                    template: Template::Chat(Arc::new(template(document, name))),
                    train_on_inputs: false,
                    cutoff: usize::MAX,
                    end_tokens: vec![2],
                    vocab_size: usize::MAX,
                },
            );
            assert!(!conversation.messages.is_empty());
            let example = encoder.encode(&record).unwrap().example.unwrap();
            let place = format!("{name}, {record_name}, {tokenizer_name}");
            let ids: Vec<u64> = example.input_ids.iter().map(|id| u64::from(*id)).collect();
            assert_eq!(ids, numbers(&expected["input_ids"]), "{place}");
            let learned: Vec<u64> =
                example.labels.iter().map(|label| u64::from(*label != -100)).collect();
            assert_eq!(learned, numbers(&expected["assistant_masks"]), "{place}");
            compared += 1;
        }
    });
    assert!(compared > 25, "{compared}");
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

#[test]
fn a_template_that_prints_no_calls_does_not_learn_the_turns_that_make_them() {
    let document = expected();
    for (name, prints) in [("tight", false), ("marked", true), ("qwen", true)] {
        let template = template(&document, name);
        for record_name in ["calls", "calls with text"] {
            let record = record(&document, record_name);
            let Body::Chat(conversation) = &record.body else { panic!("{record_name}") };
            let segment = template.conversation(conversation, true).unwrap();
            let learned: Vec<&str> =
                segment.learned.iter().map(|range| &segment.text[range.clone()]).collect();
            let calls = learned.iter().filter(|text| text.contains("weather")).count();
            assert_eq!(calls > 0, prints, "{name}, {record_name}: {learned:?}");
            let said = learned.iter().filter(|text| text.contains("It is sunny.")).count();
            assert_eq!(said, 1, "{name}, {record_name}: {learned:?}");
            assert!(!learned.iter().any(|text| text.trim().is_empty()), "{learned:?}");
            let asides = learned.iter().filter(|text| text.contains("Let me look.")).count();
            assert_eq!(asides > 0, prints && record_name == "calls with text", "{learned:?}");
        }
    }
}
