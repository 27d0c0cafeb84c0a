//! Markdown without what is not prose.
//!
//! Code blocks, tables, headings, HTML, images and link targets are left out. A piece of code
//! within a sentence counts as one word.

/// Stands for a piece of code within a sentence.
pub(crate) const CODE: char = '\u{1}';

/// A paragraph or an entry of a list. Line breaks are kept, so that lines can be counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Paragraph {
    /// Line on which it begins, from 1.
    pub(crate) line: usize,
    /// Its prose.
    pub(crate) text: String,
}

/// The prose of a text, whose first line has the number `first`.
pub(crate) fn paragraphs(text: &str, first: usize) -> Vec<Paragraph> {
    let mut blocks = Blocks::default();
    for (index, line) in text.lines().enumerate() {
        blocks.line(first + index, line);
    }
    blocks.end_paragraph();
    blocks.done
}

#[derive(Default)]
struct Blocks {
    /// The marker that ends the block of code in which we are.
    fence: Option<String>,
    in_comment: bool,
    open: Option<Paragraph>,
    done: Vec<Paragraph>,
}

impl Blocks {
    fn line(&mut self, number: usize, line: &str) {
        let line = line.trim().trim_start_matches("> ").trim_start();
        if let Some(fence) = &self.fence {
            if line.starts_with(fence.as_str()) {
                self.fence = None;
            }
            return;
        }
        if self.in_comment || line.starts_with("<!--") {
            self.end_paragraph();
            self.in_comment = !line.contains("-->");
            return;
        }
        if line.starts_with("```") || line.starts_with("~~~") {
            self.end_paragraph();
            let marker = if line.starts_with('`') { '`' } else { '~' };
            self.fence = Some(line.chars().take_while(|c| *c == marker).collect());
            return;
        }
        if is_rule(line) {
            // Below a line of text it makes that line a heading.
            self.open = None;
            return;
        }
        if is_not_prose(line) {
            self.end_paragraph();
            return;
        }
        let entry = after_list_marker(line);
        if entry.is_some() {
            self.end_paragraph();
        }
        let text = entry.unwrap_or(line);
        match &mut self.open {
            Some(paragraph) => {
                paragraph.text.push('\n');
                paragraph.text.push_str(text);
            }
            None => self.open = Some(Paragraph { line: number, text: text.to_owned() }),
        }
    }

    fn end_paragraph(&mut self) {
        if let Some(paragraph) = self.open.take() {
            self.done.push(Paragraph { line: paragraph.line, text: inline(&paragraph.text) });
        }
    }
}

fn is_rule(line: &str) -> bool {
    line.len() >= 3 && (line.chars().all(|c| c == '-') || line.chars().all(|c| c == '='))
}

/// Headings, tables, definitions of links, what mdbook includes, and empty lines.
fn is_not_prose(line: &str) -> bool {
    let is_definition = line.starts_with('[') && line.contains("]: ");
    let is_special = line.starts_with('#') || line.starts_with('|') || line.starts_with("{{#");
    line.is_empty() || is_definition || is_special
}

/// The text of an entry of a list.
fn after_list_marker(line: &str) -> Option<&str> {
    for marker in ["- ", "* ", "+ "] {
        if let Some(rest) = line.strip_prefix(marker) {
            return Some(rest);
        }
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &line[digits..];
    let rest = rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") "));
    rest.filter(|_| (1..=3).contains(&digits))
}

/// The prose of a paragraph: marks go, code becomes one word, links keep their text alone.
fn inline(text: &str) -> String {
    let mut inline = Inline { text: text.chars().collect(), at: 0, prose: String::new() };
    inline.run();
    inline.prose
}

struct Inline {
    text: Vec<char>,
    at: usize,
    prose: String,
}

impl Inline {
    fn run(&mut self) {
        while let Some(character) = self.peek(0) {
            match (character, self.peek(1)) {
                ('\\', Some(next)) if next.is_ascii_punctuation() => {
                    self.prose.push(next);
                    self.at += 2;
                }
                ('`', _) => self.code(),
                ('!', Some('[')) => {
                    self.at += 1;
                    self.drop_through(']');
                    self.link_target();
                }
                ('<', Some(next)) if next.is_ascii_alphabetic() || matches!(next, '/' | '!') => {
                    self.drop_through('>');
                }
                ('&', _) => self.entity(),
                (']', _) => {
                    self.at += 1;
                    self.link_target();
                }
                ('[' | '*', _) => self.at += 1,
                _ => {
                    self.prose.push(character);
                    self.at += 1;
                }
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Leaves out everything up to the next `end`, but keeps line breaks. Without an `end`, nothing
    /// was opened and one character is kept.
    fn drop_through(&mut self, end: char) {
        let rest = &self.text[self.at..];
        let Some(length) = rest.iter().position(|character| *character == end) else {
            self.prose.push(self.text[self.at]);
            self.at += 1;
            return;
        };
        self.drop_next(length + 1);
    }

    fn drop_next(&mut self, length: usize) {
        let dropped = &self.text[self.at..self.at + length];
        self.prose.extend(dropped.iter().filter(|character| **character == '\n'));
        self.at += length;
    }

    fn link_target(&mut self) {
        match self.peek(0) {
            Some('(') => self.drop_through(')'),
            Some('[') => self.drop_through(']'),
            _ => {}
        }
    }

    /// Code ends at as many backticks as it begins with.
    fn code(&mut self) {
        let rest = &self.text[self.at..];
        let ticks = rest.iter().take_while(|character| **character == '`').count();
        let closes = |start: &usize| {
            let run = rest[*start..].iter().take_while(|character| **character == '`').count();
            run == ticks && rest[*start - 1] != '`'
        };
        self.prose.push(CODE);
        match (ticks + 1..rest.len()).find(closes) {
            Some(start) => self.drop_next(start + ticks),
            None => self.at += ticks,
        }
    }

    /// `&nbsp;` holds a semicolon that nobody reads.
    fn entity(&mut self) {
        let rest = &self.text[self.at + 1..];
        let name = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '#').count();
        if name > 0 && rest.get(name) == Some(&';') {
            self.prose.push(' ');
            self.at += name + 2;
        } else {
            self.prose.push('&');
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(text: &str) -> Vec<String> {
        paragraphs(text, 1).into_iter().map(|paragraph| paragraph.text).collect()
    }

    #[test]
    fn blocks_that_are_not_prose_are_left_out() {
        let text = "# Title\n\nOne.\n```sh\ncode; more\n```\n| a; b |\n|---|\n<!-- a;\nb -->\n\
                    Two.\n\n\
                    [a]: https://x.org\n{{#include a.md}}\nHeading\n=====\n~~~~\n~~~\n~~~~\n\
                    Three.\n";
        assert_eq!(prose(text), ["One.", "Two.", "Three."]);
    }

    #[test]
    fn entries_of_lists_are_paragraphs_that_know_their_line() {
        let found = paragraphs("- One\n  more.\n- Two.\n10. Three.\n> Four.", 5);
        let lines: Vec<usize> = found.iter().map(|paragraph| paragraph.line).collect();
        let text: Vec<&str> = found.iter().map(|paragraph| paragraph.text.as_str()).collect();
        // A quotation without an empty line before it goes on with the paragraph.
        assert_eq!(text, ["One\nmore.", "Two.", "Three.\nFour."]);
        assert_eq!(lines, [5, 7, 8]);
    }

    #[test]
    fn marks_within_a_paragraph_are_left_out() {
        assert_eq!(
            prose("A [link](to;me.md) and ![an; image](x.png) *here*."),
            ["A link and  here."]
        );
        assert_eq!(
            prose("A <b>word</b>&nbsp;and a < b, [one][two] & more."),
            ["A word and a < b, one & more."]
        );
        assert_eq!(
            prose("Say `a; b` or ``c ` d``, \\[now\\]."),
            [format!("Say {CODE} or {CODE}, [now].")]
        );
        assert_eq!(prose("Broken `a\nb` code."), [format!("Broken {CODE}\n code.")]);
    }
}
