//! Tokens inside macros, which `syn` leaves as they are.

use proc_macro2::{TokenStream, TokenTree};

/// One token without its groups: a word, a sign, a literal or a bracket.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Its text.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// All tokens of a macro in order, with brackets as tokens of their own.
pub(crate) fn flat(stream: TokenStream) -> Vec<Token> {
    let mut tokens = Vec::new();
    push_all(stream, &mut tokens);
    tokens
}

fn push_all(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        if let TokenTree::Group(group) = tree {
            let brackets = match group.delimiter() {
                proc_macro2::Delimiter::Parenthesis => Some(["(", ")"]),
                proc_macro2::Delimiter::Brace => Some(["{", "}"]),
                proc_macro2::Delimiter::Bracket => Some(["[", "]"]),
                proc_macro2::Delimiter::None => None,
            };
            if let Some([open, _]) = brackets {
                tokens.push(Token { text: open.into(), line });
            }
            push_all(group.stream(), tokens);
            if let Some([_, close]) = brackets {
                let line = group.span_close().start().line;
                tokens.push(Token { text: close.into(), line });
            }
        } else {
            tokens.push(Token { text: tree.to_string(), line });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_opened() {
        let tokens = flat("a(b, [c::d])\n.e".parse().unwrap());
        let text: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(text.join(" "), "a ( b , [ c : : d ] ) . e");
        assert_eq!(tokens.last().unwrap().line, 2);
    }
}
