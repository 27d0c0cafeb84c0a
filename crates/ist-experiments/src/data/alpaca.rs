//! Records of plain fields: Alpaca (`instruction`, `input`, `output`), `prompt`/`completion`, and `text`.
//!
//! A record of empty strings is refused: it is a fault of the file, and a model would learn to say nothing. An empty
//! output alone is allowed, since evaluation data often has none; training leaves such a record out where only outputs
//! are learned.

use super::json_file::Fields;
use super::text::{Body, take, take_optional};

/// Takes an Alpaca record's fields. `input` may be missing, null or empty.
pub(super) fn instruction(fields: &mut Fields) -> Result<Body, String> {
    let instruction = take(fields, "instruction")?;
    let output = take(fields, "output")?;
    let input = take_optional(fields, "input")?.unwrap_or_default();
    refuse_empty(&[&instruction, &output], "`instruction` and `output`")?;
    Ok(Body::Instruction { instruction, input, output })
}

/// Takes a prompt and its completion, both as they stand.
pub(super) fn prompt_completion(fields: &mut Fields) -> Result<Body, String> {
    let prompt = take(fields, "prompt")?;
    let completion = take(fields, "completion")?;
    refuse_empty(&[&prompt, &completion], "`prompt` and `completion`")?;
    Ok(Body::PromptCompletion { prompt, completion })
}

/// Takes a text.
pub(super) fn text(fields: &mut Fields) -> Result<Body, String> {
    let text = take(fields, "text")?;
    refuse_empty(&[&text], "`text`")?;
    Ok(Body::Text(text))
}

pub(super) fn refuse_empty(texts: &[&str], names: &str) -> Result<(), String> {
    if texts.iter().all(|text| text.trim().is_empty()) {
        return Err(format!("the record is empty: nothing but white space in {names}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fields(value: &Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_missing_or_null_input_is_empty() {
        let without = json!({"instruction": "a", "output": "b"});
        let null = json!({"instruction": "a", "output": "b", "input": null});
        for record in [without, null] {
            let body = instruction(&mut fields(&record)).unwrap();
            let expected = Body::Instruction {
                instruction: "a".into(),
                input: String::new(),
                output: "b".into(),
            };
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn white_space_alone_is_empty_but_one_filled_field_is_enough() {
        assert!(text(&mut fields(&json!({"text": " \n"}))).unwrap_err().contains("empty"));
        assert!(prompt_completion(&mut fields(&json!({"prompt": "", "completion": " "}))).is_err());
        assert!(prompt_completion(&mut fields(&json!({"prompt": "", "completion": "a"}))).is_ok());
        assert!(instruction(&mut fields(&json!({"instruction": "a", "output": ""}))).is_ok());
    }

    #[test]
    fn white_space_around_a_field_belongs_to_it() {
        let body =
            prompt_completion(&mut fields(&json!({"prompt": "a ", "completion": " b\n"}))).unwrap();
        assert_eq!(body, Body::PromptCompletion { prompt: "a ".into(), completion: " b\n".into() });
    }
}
