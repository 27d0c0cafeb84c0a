//! Comments and lines of code, told apart by a small lexer.
//!
//! `syn` drops plain comments, so they have to be found in the text. The difficulty is everything
//! that looks like a comment and is none: `//` inside a string, a raw string or a character.

use std::collections::BTreeSet;

/// What a comment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommentKind {
    /// `//` and `/* */`: for readers of the code.
    Plain,
    /// `///`, `//!` and their block forms: for readers of the documentation.
    Doc,
}

/// One comment. A block comment of several lines is one comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Line on which it begins, from 1.
    pub(crate) line: usize,
    /// What it is for.
    pub(crate) kind: CommentKind,
    /// Its text without the markers.
    pub(crate) text: String,
}

/// What the lexer found in one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lexed {
    /// Every comment, in order.
    pub(crate) comments: Vec<Comment>,
    /// Lines that hold anything besides space and comments, from 1.
    pub(crate) code_lines: BTreeSet<usize>,
}

/// Splits a source into comments and code.
pub(crate) fn lex(source: &str) -> Lexed {
    let mut lexer =
        Lexer { text: source.chars().collect(), at: 0, line: 1, lexed: Lexed::default() };
    lexer.run();
    lexer.lexed
}

struct Lexer {
    text: Vec<char>,
    at: usize,
    line: usize,
    lexed: Lexed,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(character) = self.peek(0) {
            match (character, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('\'', _) => self.quote(),
                _ if is_word(character) => self.word(),
                _ => self.code(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Goes over one character that may end a line.
    fn skip(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    /// Goes over one character of code.
    fn code(&mut self) {
        if self.peek(0).is_some_and(|character| !character.is_whitespace()) {
            self.lexed.code_lines.insert(self.line);
        }
        self.skip();
    }

    fn line_comment(&mut self) {
        let rest = self.text[self.at..].iter();
        let whole: String = rest.take_while(|character| **character != '\n').collect();
        // Four slashes are a rule across the page and not documentation.
        let is_doc =
            whole.starts_with("//!") || (whole.starts_with("///") && !whole.starts_with("////"));
        let kind = if is_doc { CommentKind::Doc } else { CommentKind::Plain };
        let marker = if is_doc { 3 } else { 2 };
        let text = whole.chars().skip(marker).collect();
        self.lexed.comments.push(Comment { line: self.line, kind, text });
        self.at += whole.chars().count();
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let line = self.line;
        let start = self.at;
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some(_), _) => self.skip(),
                (None, _) => break,
            }
            if depth == 0 {
                break;
            }
        }
        let whole: String = self.text[start..self.at].iter().collect();
        // `/**/` is empty, and three stars are a rule across the page.
        let is_outer =
            whole.starts_with("/**") && !whole.starts_with("/***") && !whole.starts_with("/**/");
        let is_doc = is_outer || whole.starts_with("/*!");
        let kind = if is_doc { CommentKind::Doc } else { CommentKind::Plain };
        let inner =
            whole.strip_suffix("*/").unwrap_or(&whole).chars().skip(if is_doc { 3 } else { 2 });
        self.lexed.comments.push(Comment { line, kind, text: inner.collect() });
    }

    /// A string with escapes, from its opening quote.
    fn string(&mut self) {
        self.code();
        while let Some(character) = self.peek(0) {
            if character == '\\' {
                self.code();
            } else if character == '"' {
                self.code();
                return;
            }
            self.code();
        }
    }

    /// A raw string, from its first `#` or quote. Nothing is escaped inside.
    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            hashes += 1;
            self.code();
        }
        // `r#type` is an identifier.
        if self.peek(0) != Some('"') {
            return;
        }
        self.code();
        while let Some(character) = self.peek(0) {
            let closes = character == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            self.code();
            if closes {
                (0..hashes).for_each(|_| self.code());
                return;
            }
        }
    }

    /// A character, or the lifetime that begins in the same way.
    fn quote(&mut self) {
        self.code();
        let closes_at_once = self.peek(1) == Some('\'');
        match self.peek(0) {
            Some('\\') => {
                self.code();
                self.code();
                // What is left of escapes such as `\u{1F600}`.
                while self.peek(0).is_some_and(|character| character != '\'' && character != '\n') {
                    self.code();
                }
                self.code();
            }
            Some(_) if closes_at_once => {
                self.code();
                self.code();
            }
            _ => {}
        }
    }

    /// An identifier, or the prefix of a string such as `br#"..."#`.
    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.code();
        }
        let word: String = self.text[start..self.at].iter().collect();
        let opens = matches!(self.peek(0), Some('"' | '#'));
        if opens && matches!(word.as_str(), "r" | "br" | "cr") {
            self.raw_string();
        }
    }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(source: &str) -> Vec<String> {
        let comments = lex(source).comments.into_iter();
        comments.filter(|c| c.kind == CommentKind::Plain).map(|c| c.text).collect()
    }

    #[test]
    fn strings_hold_no_comments() {
        assert!(plain(r#"let a = "// no"; let b = "\" // no";"#).is_empty());
        assert!(plain("let a = r#\"\" // no\"#;").is_empty());
        assert!(plain("let a = br##\"\"# // no\"##; let b = c\"// no\";").is_empty());
        assert_eq!(plain("let a = \"x\"; // yes"), [" yes"]);
        assert_eq!(plain("let a = r#\"x\"#; // yes"), [" yes"]);
    }

    #[test]
    fn characters_and_lifetimes_open_no_string() {
        assert_eq!(plain("let a = '\"'; // yes"), [" yes"]);
        assert_eq!(plain("let a = '\\''; // yes"), [" yes"]);
        assert_eq!(plain("let a = b'\\\\'; // yes"), [" yes"]);
        assert_eq!(plain("let a = '\\u{22}'; // yes"), [" yes"]);
        assert_eq!(plain("fn f<'a>(x: &'a str) {} // yes"), [" yes"]);
        assert_eq!(plain("let r#type = 1; // yes"), [" yes"]);
    }

    #[test]
    fn documentation_is_no_plain_comment() {
        let source = "//! a\n/// b\n/** c */\n/*! d */\n//// e\n/* f /* g */ */\n/**/";
        assert_eq!(plain(source), ["// e", " f /* g */ ", ""]);
        assert_eq!(lex(source).comments.len(), 7);
    }

    #[test]
    fn lines_of_code_are_those_that_hold_code() {
        let source = "// a\n\nlet b = 1; // c\n/* d\n e */ f();\n\"g\n\n h\"";
        assert_eq!(Vec::from_iter(lex(source).code_lines), [3, 5, 6, 8]);
    }

    #[test]
    fn a_comment_knows_its_line() {
        let lines: Vec<usize> =
            lex("/* a\n b */\n// c\n\"\n\n\" // d").comments.iter().map(|c| c.line).collect();
        assert_eq!(lines, [1, 3, 6]);
    }
}
