//! How long the bodies of functions are.

use serde::Serialize;
use syn::visit::{self, Visit};

use super::sources::Sources;
use super::summary::Summary;
use crate::table::Table;

/// How many of the longest functions are listed.
const LISTED: usize = 10;

/// What is said of the functions outside tests.
#[derive(Debug, Serialize)]
pub(crate) struct Functions {
    /// Lines of their bodies.
    pub(crate) lines: Summary,
    /// Lines from `fn` to the closing brace, signature and braces included.
    pub(crate) whole: Summary,
    /// The longest.
    pub(crate) longest: Vec<Function>,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Function {
    /// Where it begins.
    pub(crate) place: String,
    /// Its name.
    pub(crate) name: String,
    /// Lines between its braces; one for a body on the line of its signature.
    pub(crate) lines: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) whole: usize,
}

/// Measures the functions of the sources without their tests.
pub(crate) fn measure(sources: &Sources) -> Functions {
    let mut functions = Vec::new();
    for file in &sources.files {
        let mut bodies = Bodies::default();
        bodies.visit_file(&file.code);
        functions.extend(bodies.found.into_iter().map(|body| Function {
            place: file.place(body.line),
            name: body.name,
            lines: body.lines,
            whole: body.whole,
        }));
    }
    let lines = Summary::of(functions.iter().map(|function| function.lines));
    let whole = Summary::of(functions.iter().map(|function| function.whole));
    functions.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.place.cmp(&b.place)));
    functions.truncate(LISTED);
    Functions { lines, whole, longest: functions }
}

impl Functions {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Functions, outside tests");
        table.row("functions", self.lines.count);
        table.row("lines of a body", self.lines);
        table.row("lines with signature and braces", self.whole);
        for function in &self.longest {
            table.entry(format!("{:>5}  {} {}", function.lines, function.place, function.name));
        }
    }
}

struct Body {
    name: String,
    line: usize,
    lines: usize,
    whole: usize,
}

#[derive(Default)]
struct Bodies {
    found: Vec<Body>,
}

impl Bodies {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let open = block.brace_token.span.open().start().line;
        let close = block.brace_token.span.close().start().line;
        let line = signature.fn_token.span.start().line;
        self.found.push(Body {
            name: signature.ident.to_string(),
            line,
            lines: (close - open).saturating_sub(1).max(1),
            whole: close - line + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Bodies {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_lines_between_its_braces() {
        let text = "fn long(\n    a: u8,\n) {\n    a;\n    fn inner() {}\n    a;\n}\n\
                    trait T {\n    fn no_body();\n    fn body() {\n    }\n}\n\
                    impl X {\n    fn method() {\n        a();\n        b();\n    }\n}\n\
                    #[test]\nfn test() {\n    a;\n    b;\n    c;\n    d;\n}\n";
        let functions = measure(&Sources::sample(&[("lib", text)]));
        let found: Vec<(&str, usize)> = functions
            .longest
            .iter()
            .map(|function| (function.name.as_str(), function.lines))
            .collect();
        assert_eq!(found, [("long", 3), ("method", 2), ("body", 1), ("inner", 1)]);
        assert_eq!(functions.longest[0].place, "src/lib.rs:1");
        assert_eq!(functions.lines.count, 4);
        assert_eq!(functions.longest[0].whole, 7);
    }
}
