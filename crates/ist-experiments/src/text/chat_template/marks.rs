//! `{% generation %}` blocks: what a template says an assistant wrote.
//!
//! minijinja knows no such block. It becomes a scope with a variable printed at either end, which
//! is empty unless somebody wants to know where the blocks stand.

/// Printed where a block begins.
pub(super) const BEGINS: &str = "__generation_begins";
/// Printed where a block ends.
pub(super) const ENDS: &str = "__generation_ends";

/// A template without `{% generation %}` blocks, and whether there were any.
pub(super) struct Marked {
    pub(super) text: String,
    pub(super) marks: bool,
}

/// Replaces the blocks, with the white space that they take with them: a block's line, or more on
/// the side of a `-`.
pub(super) fn replace(source: &str) -> Marked {
    let (mut text, mut rest, mut marks) = (String::with_capacity(source.len()), source, false);
    while let Some(at) = rest.find("{%") {
        text += &rest[..at];
        rest = &rest[at..];
        if let Some(tag) = Tag::read(rest) {
            marks = true;
            rest = &rest[tag.length..];
            rest =
                if tag.begins { begin(&mut text, &tag, rest) } else { end(&mut text, &tag, rest) };
        } else {
            text += "{%";
            rest = &rest[2..];
        }
    }
    Marked { text: text + rest, marks }
}

/// One `{% generation %}` or `{% endgeneration %}`.
struct Tag<'a> {
    begins: bool,
    /// `-`, `+` or nothing behind `{%` and before `%}`.
    left: &'a str,
    right: &'a str,
    length: usize,
}

/// Bytes of a tag, with all its blanks.
const LONGEST_TAG: usize = 200;

impl<'a> Tag<'a> {
    fn read(source: &'a str) -> Option<Self> {
        // Every `{%` is looked at, so the look must be short.
        let near = &source.as_bytes()[..source.len().min(LONGEST_TAG)];
        // Behind the opening `{%`, whose second character may also begin a `%}`.
        let close = 2 + near.get(2..)?.windows(2).position(|two| two == b"%}")?;
        let inside = &source[2..close];
        let sign = |text: &'a str| if text.starts_with(['-', '+']) { &text[..1] } else { "" };
        let left = sign(inside);
        let inside = &inside[left.len()..];
        let right = if inside.ends_with(['-', '+']) { &inside[inside.len() - 1..] } else { "" };
        let begins = match inside[..inside.len() - right.len()].trim() {
            "generation" => true,
            "endgeneration" => false,
            _ => return None,
        };
        Some(Self { begins, left, right, length: close + 2 })
    }
}

fn begin<'a>(text: &mut String, tag: &Tag<'_>, rest: &'a str) -> &'a str {
    let right = if tag.right == "-" { "-" } else { "" };
    text.extend(["{%", tag.left, " with %}{{ ", BEGINS, " ", right, "}}"]);
    // A block takes the newline behind it along, which a variable does not.
    if tag.right.is_empty() {
        rest.strip_prefix("\r\n").or(rest.strip_prefix('\n')).unwrap_or(rest)
    } else {
        rest
    }
}

fn end<'a>(text: &mut String, tag: &Tag<'_>, rest: &'a str) -> &'a str {
    let left = if tag.left == "-" { "-" } else { "" };
    if tag.left.is_empty() {
        // Nor does it take the blanks before it, where the line begins with them.
        let kept = text.trim_end_matches([' ', '\t']).len();
        if kept == 0 || text[..kept].ends_with('\n') {
            text.truncate(kept);
        }
    }
    text.extend(["{{", left, " ", ENDS, " }}{% endwith ", tag.right, "%}"]);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_without_blocks_stays_as_it_is() {
        let source = "{% if a %}{{ generation }}{%- endif -%}{% raw";
        let Marked { text, marks } = replace(source);
        assert_eq!((text.as_str(), marks), (source, false));
    }

    #[test]
    fn a_tag_of_nothing_is_no_tag() {
        for source in ["{%}", "{%%}", "a {%} b", "{%", "{%}{%}"] {
            assert_eq!(replace(source).text, source);
        }
    }

    #[test]
    fn tags_that_never_end_are_passed_over_at_once() {
        let source = "{%".repeat(1 << 19) + "%}";
        let begin = std::time::Instant::now();
        assert_eq!(replace(&source).text, source);
        assert!(begin.elapsed().as_secs() < 5);
    }

    #[test]
    fn blocks_keep_their_white_space_control() {
        let text = |source| replace(source).text;
        assert_eq!(
            text("a {%- generation -%} b {%- endgeneration -%} c"),
            "a {%- with %}{{ __generation_begins -}} b {{- __generation_ends }}{% endwith -%} c"
        );
        assert_eq!(
            text("{% generation %}\n b\n  {% endgeneration %}\n"),
            "{% with %}{{ __generation_begins }} b\n{{ __generation_ends }}{% endwith %}\n"
        );
        assert_eq!(
            text("{%+ generation +%}\n b\n  {%+ endgeneration %}"),
            "{%+ with %}{{ __generation_begins }}\n b\n  {{ __generation_ends }}{% endwith %}"
        );
    }
}
