//! Habits that pack much into a line, and calls that may panic.

use serde::Serialize;
use syn::visit::{self, Visit};
use syn::{Expr, FnArg, Pat, Type};

use super::sources::{SourceFile, Sources};
use super::summary::share;
use super::tokens;
use crate::table::Table;

/// The widest that a line may be.
const WIDTH: usize = 100;

/// Macros that end the process, or the thread.
const PANICS: [&str; 4] = ["panic", "unreachable", "todo", "unimplemented"];

/// What is said of the style.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Style {
    /// Functions' parameters that are tuple or array patterns, tests included.
    pub(crate) pattern_parameters: Vec<String>,
    /// The same of closures.
    pub(crate) pattern_parameters_of_closures: usize,
    /// Functions outside tests with a bare `bool` beside other parameters.
    pub(crate) positional_bools: Vec<String>,
    /// `let` statements, tests included.
    pub(crate) lets: usize,
    /// Those that take a tuple apart where it is written: `let (a, b) = (x, y)`.
    pub(crate) tuple_lets: Vec<String>,
    /// Lines of Rust, tests included.
    pub(crate) lines: usize,
    /// Those wider than a hundred columns.
    pub(crate) wide_lines: Vec<String>,
    /// Calls of `unwrap` outside tests.
    pub(crate) unwraps: Vec<String>,
    /// Calls of `expect` outside tests.
    pub(crate) expects: Vec<String>,
    /// `panic!` and its kin outside tests.
    pub(crate) panics: Vec<String>,
}

/// Measures the style.
pub(crate) fn measure(sources: &Sources) -> Style {
    let mut style = Style::default();
    for file in &sources.files {
        style.lines += file.text.lines().count();
        for (index, line) in file.text.lines().enumerate() {
            if line.chars().count() > WIDTH {
                style.wide_lines.push(file.place(index + 1));
            }
        }
        Whole { file, style: &mut style }.visit_file(&file.whole);
        Code { file, style: &mut style }.visit_file(&file.code);
    }
    style
}

impl Style {
    /// Wide lines in percent of all lines.
    pub(crate) fn wide_percent(&self) -> f64 {
        share(self.wide_lines.len(), self.lines, 100.0)
    }

    /// Tuples taken apart where they are written, in percent of all `let` statements.
    pub(crate) fn tuple_let_percent(&self) -> f64 {
        share(self.tuple_lets.len(), self.lets, 100.0)
    }

    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Style");
        let patterns = self.pattern_parameters.len();
        table.row("tuple or array patterns as parameters", patterns);
        table.row("the same in closures", self.pattern_parameters_of_closures);
        table.row("functions with a positional bool", self.positional_bools.len());
        let percent = self.tuple_let_percent();
        let tuple_lets = format!("{} ({percent:.1} % of {})", self.tuple_lets.len(), self.lets);
        table.row("`let (a, b) = (x, y)`", tuple_lets);
        let percent = self.wide_percent();
        let wide = format!("{} ({percent:.1} % of {})", self.wide_lines.len(), self.lines);
        table.row(&format!("lines over {WIDTH} columns"), wide);
        let calls =
            [&self.unwraps, &self.expects, &self.panics].map(|places| places.len().to_string());
        table.row("unwrap / expect / panic outside tests", calls.join(" / "));
    }
}

/// What is counted in tests as well.
struct Whole<'a> {
    file: &'a SourceFile,
    style: &'a mut Style,
}

impl<'ast> Visit<'ast> for Whole<'_> {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        for input in &signature.inputs {
            if let FnArg::Typed(parameter) = input
                && takes_apart(&parameter.pat)
            {
                let line = signature.fn_token.span.start().line;
                let place = self.file.place(line);
                self.style.pattern_parameters.push(format!("{place} {}", signature.ident));
            }
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        let patterns = closure.inputs.iter().filter(|input| takes_apart(input));
        self.style.pattern_parameters_of_closures += patterns.count();
        visit::visit_expr_closure(self, closure);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.style.lets += 1;
        let pattern = match &local.pat {
            Pat::Type(typed) => &typed.pat,
            other => other,
        };
        let value = local.init.as_ref().map(|init| init.expr.as_ref());
        if matches!(pattern, Pat::Tuple(_)) && matches!(value, Some(Expr::Tuple(_))) {
            self.style.tuple_lets.push(self.file.place(local.let_token.span.start().line));
        }
        visit::visit_local(self, local);
    }
}

/// Whether a parameter's pattern is a tuple or an array, perhaps behind a reference or with a type.
fn takes_apart(pattern: &Pat) -> bool {
    match pattern {
        Pat::Tuple(_) | Pat::Slice(_) => true,
        Pat::Reference(inner) => takes_apart(&inner.pat),
        Pat::Paren(inner) => takes_apart(&inner.pat),
        Pat::Type(inner) => takes_apart(&inner.pat),
        _ => false,
    }
}

/// What is counted outside tests alone.
struct Code<'a> {
    file: &'a SourceFile,
    style: &'a mut Style,
}

impl<'ast> Visit<'ast> for Code<'_> {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let typed = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(parameter) => Some(parameter.ty.as_ref()),
            FnArg::Receiver(_) => None,
        });
        let types: Vec<&Type> = typed.collect();
        // A setter's only parameter has its meaning from the setter's name.
        if types.len() > 1 && types.iter().any(|kind| is_bool(kind)) {
            let place = self.file.place(signature.fn_token.span.start().line);
            self.style.positional_bools.push(format!("{place} {}", signature.ident));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let place = || self.file.place(call.method.span().start().line);
        if call.method == "unwrap" && call.args.is_empty() {
            self.style.unwraps.push(place());
        } else if call.method == "expect" && call.args.len() == 1 {
            self.style.expects.push(place());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(name) = call.path.segments.last()
            && PANICS.iter().any(|panic| name.ident == panic)
        {
            self.style.panics.push(self.file.place(name.ident.span().start().line));
        }
        self.look_into(call);
    }
}

impl Code<'_> {
    /// Arguments of macros are tokens, in which calls have to be recognised.
    fn look_into(&mut self, call: &syn::Macro) {
        let tokens = tokens::flat(call.tokens.clone());
        for window in tokens.windows(4) {
            let text = [0, 1, 2, 3].map(|at| window[at].text.as_str());
            let place = self.file.place(window[1].line);
            match text {
                [".", "unwrap", "(", ")"] => self.style.unwraps.push(place),
                [".", "expect", "(", _] => self.style.expects.push(place),
                _ => {}
            }
        }
        for window in tokens.windows(3) {
            let is_panic = PANICS.contains(&window[0].text.as_str());
            if is_panic
                && window[1].text == "!"
                && matches!(window[2].text.as_str(), "(" | "{" | "[")
            {
                self.style.panics.push(self.file.place(window[0].line));
            }
        }
    }
}

fn is_bool(kind: &Type) -> bool {
    matches!(kind, Type::Path(path) if path.path.is_ident("bool"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(text: &str) -> Style {
        measure(&Sources::sample(&[("lib", text)]))
    }

    #[test]
    fn patterns_of_functions_and_closures_are_counted_apart() {
        let found = style(
            "fn a((x, y): (u8, u8), [z]: [u8; 1]) {}\nfn b(&(x, y): &(u8, u8), W(w): W) {}\n\
             fn c() { f(|(a, b)| a); f(|[a]: [u8; 1]| a); f(|a, b| a); }\n",
        );
        let expected = ["src/lib.rs:1 a", "src/lib.rs:1 a", "src/lib.rs:2 b"];
        assert_eq!(found.pattern_parameters, expected);
        assert_eq!(found.pattern_parameters_of_closures, 2);
    }

    #[test]
    fn a_bool_is_positional_beside_other_parameters() {
        let found = style(
            "fn a(x: u8, y: bool) {}\nfn b(x: bool) {}\nfn c(x: &[bool], y: u8) {}\n\
             impl X {\n    fn d(&self, x: bool) {}\n    fn e(&self, x: bool, y: u8) {}\n}\n\
             #[test]\nfn f(x: u8, y: bool) {}\n",
        );
        assert_eq!(found.positional_bools, ["src/lib.rs:1 a", "src/lib.rs:6 e"]);
    }

    #[test]
    fn only_tuples_that_are_written_out_are_tuple_lets() {
        let found = style(
            "fn a() {\n    let (a, b) = (1, 2);\n    let (a, b): (u8, u8) = (1, 2);\n    \
             let (a, b) = f();\n    let a = (1, 2);\n}\n",
        );
        assert_eq!(found.tuple_lets, ["src/lib.rs:2", "src/lib.rs:3"]);
        assert!(found.lets == 4 && found.tuple_let_percent() == 50.0);
    }

    #[test]
    fn width_is_counted_in_characters() {
        let found = style(&format!("// {}\n// {}\n", "ü".repeat(97), "ü".repeat(98)));
        assert_eq!(found.wide_lines, ["src/lib.rs:2"]);
    }

    #[test]
    fn calls_that_may_panic_are_found_in_macros_too() {
        let found = style(
            "fn a() {\n    x.unwrap();\n    x.expect(\"why\");\n    panic!();\n    \
             f!(x.unwrap(), y.expect(\"why\"), unreachable!(\"z\"));\n    x.unwrap_or(1);\n    \
             \"x.unwrap()\";\n}\n#[test]\nfn t() {\n    x.unwrap();\n    panic!();\n}\n",
        );
        assert_eq!(found.unwraps, ["src/lib.rs:2", "src/lib.rs:5"]);
        assert_eq!(found.expects, ["src/lib.rs:3", "src/lib.rs:5"]);
        assert_eq!(found.panics, ["src/lib.rs:4", "src/lib.rs:5"]);
    }
}
