//! `data.fields`: which column of a file is which field of a record.

use std::cell::Cell;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::json_file::Fields;

macro_rules! columns {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// The columns of a file by the field that each is.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Columns {
            $(
                $(#[doc = $doc])+
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schemars(length(min = 1))]
                pub $field: Option<String>,
            )+
        }

        impl Columns {
            /// Each field that is named, with its column.
            fn pairs(&self) -> Vec<(&'static str, &str)> {
                let mut pairs = Vec::new();
                $(
                    if let Some(column) = &self.$field {
                        pairs.push((stringify!($field), column.as_str()));
                    }
                )+
                pairs
            }
        }
    };
}

columns! {
    /// The column that is an Alpaca record's `instruction`.
    instruction,
    /// The column that is its `input`.
    input,
    /// The column that is its `output`.
    output,
    /// The column that is its or a conversation's `system`.
    system,
    /// The column that is its `history`.
    history,
    /// The column that is a `prompt`.
    prompt,
    /// The column that is the `completion` of a prompt.
    completion,
    /// The column that is a `text`.
    text,
    /// The column that is a conversation's `messages`.
    messages,
    /// The column that is a conversation's `conversations`.
    conversations,
    /// The column that is a conversation's `tools`.
    tools,
    /// The column that is a token record's `input_ids`.
    input_ids,
    /// The column that is its `labels`.
    labels,
    /// The column that is its `attention_mask`.
    attention_mask,
}

/// The renaming of one file's columns, which remembers what it found.
#[derive(Debug, Default)]
pub(super) struct Renaming {
    columns: Columns,
    /// Whether some record had the column, in the order of the pairs.
    found: Vec<Cell<bool>>,
}

impl Renaming {
    pub(super) fn new(columns: &Columns) -> Self {
        let found = columns.pairs().iter().map(|_| Cell::new(false)).collect();
        Self { columns: columns.clone(), found }
    }

    /// The fields that a record gets its format from: those that are named, as long as there are
    /// any.
    pub(super) fn named(&self) -> Vec<&'static str> {
        self.columns.pairs().into_iter().map(|(field, _)| field).collect()
    }

    /// A record's fields under their new names, and the keys that had to give way.
    pub(super) fn apply(&self, fields: Fields) -> (Fields, Vec<String>) {
        let pairs = self.columns.pairs();
        if pairs.is_empty() {
            return (fields, Vec::new());
        }
        let mut renamed = Fields::new();
        let mut shadowed = Vec::new();
        for (key, value) in fields {
            let named: Vec<usize> = (0..pairs.len()).filter(|at| pairs[*at].1 == key).collect();
            for at in &named {
                self.found[*at].set(true);
                renamed.insert(pairs[*at].0.to_owned(), value.clone());
            }
            if !named.is_empty() {
                continue;
            }
            if pairs.iter().any(|(field, _)| *field == key) {
                if !value.is_null() {
                    shadowed.push(key);
                }
            } else {
                renamed.insert(key, value);
            }
        }
        (renamed, shadowed)
    }

    /// What is wrong where a column was in none of the records that were read.
    pub(super) fn missing(&self) -> Option<String> {
        let pairs = self.columns.pairs();
        let (field, column) = pairs.iter().zip(&self.found).find(|(_, found)| !found.get())?.0;
        Some(format!("`data.fields.{field}` names the column `{column}`, which no record has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn apply(columns: Value, record: &Value) -> (Value, Vec<String>, Option<String>) {
        let renaming = Renaming::new(&serde_json::from_value(columns).unwrap());
        let (fields, shadowed) = renaming.apply(record.as_object().unwrap().clone());
        (Value::Object(fields), shadowed, renaming.missing())
    }

    #[test]
    fn columns_take_their_fields_names_and_others_stay() {
        let columns = json!({"instruction": "question", "output": "answer"});
        let record = json!({"question": "a", "answer": "b", "id": 1});
        let expected = json!({"instruction": "a", "output": "b", "id": 1});
        assert_eq!(apply(columns, &record), (expected, Vec::new(), None));
    }

    #[test]
    fn two_fields_can_change_places_or_share_a_column() {
        let swap = json!({"instruction": "output", "output": "instruction"});
        let record = json!({"instruction": "a", "output": "b"});
        assert_eq!(apply(swap, &record).0, json!({"output": "a", "instruction": "b"}));
        let share = json!({"prompt": "x", "completion": "x"});
        let shared = apply(share, &json!({"x": "a"})).0;
        assert_eq!(shared, json!({"prompt": "a", "completion": "a"}));
    }

    #[test]
    fn a_key_that_gives_way_and_a_column_that_is_missing_are_told() {
        let columns = json!({"text": "body", "input": "context"});
        let record = json!({"text": "old", "body": "new", "input": null});
        let (fields, shadowed, missing) = apply(columns, &record);
        assert_eq!((fields, shadowed), (json!({"text": "new"}), vec!["text".to_owned()]));
        assert!(missing.unwrap().contains("`data.fields.input` names the column `context`"));
    }
}
