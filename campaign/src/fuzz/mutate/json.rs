//! Mutations of a JSON document, or of a line of JSON Lines: one value becomes another, vanishes,
//! doubles or goes deeper.

use serde_json::{Map, Value, json};

use super::{NUMBERS, PIECES, REPEATS};
use crate::dice::Dice;

/// Around a text that stands for itself and not for a string.
const RAW: &str = "@raw@";
/// Behind a key that is written without it, and so stands twice.
const AGAIN: &str = "@again@";
/// How deep a value is put at most.
const DEEP: [usize; 5] = [1, 8, 120, 200, 5000];

/// The text with one value changed; `None` where it is no JSON.
pub(super) fn mutate(text: &str, dice: &mut Dice) -> Option<String> {
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        return Some(changed(&mut value, dice));
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let at = dice.below(lines.len());
    let mut value: Value = serde_json::from_str(lines[at]).ok()?;
    let line = changed(&mut value, dice);
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    lines[at] = line;
    Some(lines.join("\n"))
}

fn changed(value: &mut Value, dice: &mut Dice) -> String {
    let mut left = dice.below(count(value));
    visit(value, &mut left, dice);
    let text = value.to_string();
    if !text.contains('@') {
        return text;
    }
    text.replace(&format!("\"{RAW}"), "").replace(&format!("{RAW}\""), "").replace(AGAIN, "")
}

/// How many values a document holds.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value that comes after `left` others; whether it was here.
fn visit(value: &mut Value, left: &mut usize, dice: &mut Dice) -> bool {
    if *left == 0 {
        change(value, dice);
        return true;
    }
    *left -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().any(|value| visit(value, left, dice)),
        Value::Array(items) => items.iter_mut().any(|value| visit(value, left, dice)),
        _ => false,
    }
}

fn change(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !dice.one_in(4) => {
            change_fields(fields, dice);
        }
        Value::Array(items) if !items.is_empty() && !dice.one_in(4) => change_items(items, dice),
        other => *other = hostile(other, dice),
    }
}

fn change_fields(fields: &mut Map<String, Value>, dice: &mut Dice) {
    let at = dice.below(fields.len());
    let Some((key, value)) = fields.iter().nth(at).map(|(key, value)| (key.clone(), value.clone()))
    else {
        return;
    };
    match dice.below(4) {
        0 => drop(fields.shift_remove(&key)),
        1 => drop(fields.insert(format!("{key}{}", dice.pick(&PIECES)), value)),
        2 => drop(fields.insert(format!("{key}{AGAIN}"), hostile(&value, dice))),
        _ => {
            fields.shift_remove(&key);
            fields.insert(dice.pick(&PIECES).to_string(), value);
        }
    }
}

fn change_items(items: &mut Vec<Value>, dice: &mut Dice) {
    let at = dice.below(items.len());
    match dice.below(3) {
        0 => drop(items.remove(at)),
        1 => {
            let times = dice.pick(&REPEATS).min(&2000);
            let item = items[at].clone();
            items.extend(std::iter::repeat_n(item, *times));
        }
        _ => items.insert(at, hostile(&Value::Null, dice)),
    }
}

/// A value that its reader may not expect.
fn hostile(old: &Value, dice: &mut Dice) -> Value {
    match dice.below(8) {
        0..=2 => Value::from(format!("{RAW}{}{RAW}", dice.pick(&NUMBERS))),
        3 => Value::from(dice.pick(&PIECES).repeat(*dice.pick(&REPEATS))),
        4 => Value::Null,
        5 => dice.pick(&[json!([]), json!({}), json!(""), json!(true), json!([[]])]).clone(),
        6 => {
            let depth = *dice.pick(&DEEP);
            let open = dice.pick(&["[", "{\"a\":"]);
            let close = if *open == "[" { "]" } else { "}" };
            // Brackets alone: quotation marks would be escaped.
            if *open == "[" {
                Value::from(format!("{RAW}{}1{}{RAW}", open.repeat(depth), close.repeat(depth)))
            } else {
                (0..depth.min(200)).fold(old.clone(), |inner, _| json!({"a": inner}))
            }
        }
        _ => match old {
            Value::String(text) => Value::from(format!("{text}{}", dice.pick(&PIECES))),
            Value::Number(number) => Value::from(format!("{RAW}-{number}{RAW}")),
            other => json!([other, other]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_changes_and_raw_numbers_are_no_strings() {
        let mut seen = String::new();
        for number in 0..400 {
            let text = mutate(r#"{"a": [1, 2]}"#, &mut Dice::new(2, "json", number));
            seen += &text.unwrap_or_default();
        }
        assert!(!seen.contains(RAW) && !seen.contains(AGAIN), "{seen}");
        assert!(seen.contains(r#"{"a":[1,2],"a":"#), "a key stands twice: {seen}");
        assert!(seen.contains("[1e999,2]") && seen.contains("18446744073709551616"), "{seen}");
        assert_eq!(mutate("not JSON", &mut Dice::new(2, "json", 0)), None);
    }
}
