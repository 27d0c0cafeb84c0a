//! From files and conversations to token ids, and from token ids to text.

pub mod chat_template;
pub mod dialogue;
mod jinja;
mod model;
pub mod records;
pub mod stream;

pub use model::{MODEL_TEMPLATES, NO_CHAT_TEMPLATE, TextModel};
