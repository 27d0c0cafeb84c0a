//! How deep a template's source nests, found before it is parsed.
//!
//! The parser bounds parentheses and blocks, but a chain of operators, of `not`s or of `elif`s
//! becomes a tree of its length, and every later pass recurses through it. What is counted here is
//! never less than that tree's depth.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::TemplateFault;

/// Levels of an expression, and conditions of an `elif` chain. Published templates stay below 100.
pub(super) const DEEPEST: usize = 2000;

/// Fails where the source nests deeper than [`DEEPEST`].
pub(super) fn check(source: &str, syntax: &SyntaxConfig) -> Result<(), TemplateFault> {
    let mut brackets = Brackets::default();
    let mut conditions = 0;
    let mut after_block_start = false;
    for token in tokenize(source, false, syntax.clone()) {
        // What is no token is the parser's to refuse, with its own message.
        let Ok((token, span)) = token else { return Ok(()) };
        if after_block_start && matches!(token, Token::Ident("elif")) {
            conditions += 1;
        }
        after_block_start = matches!(token, Token::BlockStart);
        brackets.take(&token);
        if brackets.depth > DEEPEST || conditions > DEEPEST {
            let line = usize::from(span.start_line);
            return Err(TemplateFault::TooDeep { line, limit: DEEPEST });
        }
    }
    Ok(())
}

/// The tokens of each open bracket since its last comma. Their sum bounds the depth of the tree
/// they become.
#[derive(Default)]
struct Brackets {
    open: Vec<usize>,
    depth: usize,
}

impl Brackets {
    fn take(&mut self, token: &Token<'_>) {
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                self.open = vec![0];
                self.depth = 0;
            }
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                self.count();
                self.open.push(0);
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                self.depth -= self.open.pop().unwrap_or_default();
                self.count();
            }
            Token::Comma | Token::Colon => {
                let siblings = self.open.last_mut().map(std::mem::take);
                self.depth -= siblings.unwrap_or_default();
            }
            _ => self.count(),
        }
    }

    fn count(&mut self) {
        if let Some(last) = self.open.last_mut() {
            *last += 1;
            self.depth += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(source: &str) -> Result<(), TemplateFault> {
        check(source, &SyntaxConfig::default())
    }

    #[test]
    fn chains_and_brackets_are_counted() {
        let long = |part: &str| format!("{{{{ {}1 }}}}", part.repeat(DEEPEST + 1));
        for part in ["not ", "- ", "1 + ", "a.", "x or ", "(", "[", "x|f if x else ", "a[0]."] {
            let error = limit(&long(part)).unwrap_err().to_string();
            assert!(error.contains("nests deeper than 2000 levels in line 1"), "{part}: {error}");
        }
        let conditions = "{% elif a %}b".repeat(DEEPEST + 1);
        assert!(limit(&format!("{{% if a %}}{conditions}{{% endif %}}")).is_err());
    }

    #[test]
    fn long_lists_and_long_templates_are_not_deep() {
        let items = "'item', ".repeat(3 * DEEPEST);
        let pairs = "'key': [1, 2], ".repeat(3 * DEEPEST);
        let tags = "{% if a %}{{ b + 1 }}{% endif %}\n".repeat(DEEPEST);
        for source in [
            format!("{{{{ [{items}] }}}}"),
            format!("{{{{ {{{pairs}}} }}}}"),
            tags,
            "{# ((((( #}{% raw %}{{ ((((( {% endraw %}".repeat(DEEPEST),
            format!("{{{{ '{}' }}}}", "(".repeat(3 * DEEPEST)),
        ] {
            assert!(limit(&source).is_ok());
        }
    }
}
