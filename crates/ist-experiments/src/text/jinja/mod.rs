//! Jinja templates of strangers, rendered within limits.
//!
//! A model's chat template is a program from the internet. minijinja counts the work of a rendering
//! (its fuel) and the bytes that templates write, but prints, compares and drops values without
//! looking at their size. So four limits stand around it:
//!
//! | limit | what it stops | where |
//! |---|---|---|
//! | nesting of the source | a parser that recurses without end | `depth.rs` |
//! | fuel | loops and texts that grow | minijinja |
//! | nesting and size of values | lists that hold one another, lists of one long text | `rewrite.rs`, `values.rs` |
//! | bytes of the text | what the tokenizer would have to read | here |

mod depth;
mod rewrite;
mod values;

use std::fmt;
use std::sync::Arc;

use ist_files::untrusted::{contained, cut};
use minijinja::machinery::{self, CodeGenerator, Instructions};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;

pub(crate) use values::{SLOT, payable, settled, weight};

/// Bytes of a template's source. The longest published ones have about 30 thousand.
const LONGEST_SOURCE: usize = 1 << 20;
/// Steps of a rendering, of about an instruction or 64 bytes each, beside one for each byte of what
/// is rendered.
const STEPS: u64 = 2_000_000;
/// Bytes that a rendering may add, beside eight for each byte of what is rendered.
const ADDED_BYTES: usize = 1 << 20;
/// The stack of the thread that compiles: the parser recurses with the nesting of the source.
const COMPILER_STACK: usize = 64 << 20;

/// Why a template cannot be compiled or rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateFault {
    /// The source is longer than any template.
    #[error("is {found} bytes long, and at most {LONGEST_SOURCE} are read; use a shorter template")]
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// An expression or a chain of conditions nests too deep.
    #[error("nests deeper than {limit} levels in line {line}; divide it with `set`")]
    TooDeep {
        /// The line, from 1.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// A rendering takes too much work.
    #[error(
        "needs more than the {steps} steps of work that {bytes} bytes may take; look for a loop or \
         a \
         text in it that grows without end"
    )]
    TooMuchWork {
        /// The limit.
        steps: u64,
        /// Bytes of what is rendered.
        bytes: usize,
    },
    /// The text is too long.
    #[error(
        "renders {bytes} bytes as a text of {found} bytes, and at most {limit} are taken; look for \
         what it repeats"
    )]
    TooMuchText {
        /// Bytes of what is rendered.
        bytes: usize,
        /// Bytes of the text.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// What the template engine says.
    #[error("{}", told(.0))]
    Engine(#[from] Error),
    /// The engine panicked.
    #[error("the template engine cannot handle it: {0}")]
    Broken(String),
}

/// A compiled template in an environment.
#[derive(Clone)]
pub(crate) struct Program {
    environment: Environment<'static>,
    instructions: Arc<Instructions<'static>>,
    /// Variables that are read and that nothing in the template sets.
    undeclared: Vec<String>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("undeclared", &self.undeclared).finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles a template. `name` stands in the engine's messages.
    pub(crate) fn new(
        mut environment: Environment<'static>,
        name: &'static str,
        source: &str,
    ) -> Result<Self, TemplateFault> {
        if source.len() > LONGEST_SOURCE {
            return Err(TemplateFault::TooLong { found: source.len() });
        }
        values::add_filters(&mut environment);
        depth::check(source, environment.syntax())?;
        // Instructions borrow their source. A process compiles a few templates and keeps them to
        // its end.
        let source: &'static str = Box::leak(source.to_owned().into_boxed_str());
        let syntax = environment.syntax().clone();
        let compiled = on_large_stack(|| compile(name, source, syntax))??;
        Ok(Self {
            environment,
            instructions: Arc::new(compiled.instructions),
            undeclared: compiled.undeclared,
        })
    }

    /// The environment, for functions that change between renderings.
    pub(crate) fn environment_mut(&mut self) -> &mut Environment<'static> {
        &mut self.environment
    }

    /// Variables that the template reads without setting them, and that the environment does not
    /// have, sorted.
    pub(crate) fn undeclared(&self) -> impl Iterator<Item = &str> {
        let global = |name: &str| self.environment.globals().any(|(known, _)| known == name);
        self.undeclared.iter().map(String::as_str).filter(move |name| !global(name))
    }

    /// The text of `values`, which hold `bytes` bytes of text.
    pub(crate) fn render(&self, values: Value, bytes: usize) -> Result<String, TemplateFault> {
        let steps = STEPS.saturating_add(bytes as u64);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        let text = contained(|| self.run(&environment, values)).map_err(TemplateFault::Broken)?;
        let text = text.map_err(|error| {
            if out_of_fuel(&error) {
                TemplateFault::TooMuchWork { steps, bytes }
            } else {
                TemplateFault::Engine(error)
            }
        })?;
        let limit = ADDED_BYTES.saturating_add(bytes.saturating_mul(8));
        if text.len() > limit {
            return Err(TemplateFault::TooMuchText { bytes, found: text.len(), limit });
        }
        Ok(text)
    }

    fn run(&self, environment: &Environment<'_>, values: Value) -> Result<String, Error> {
        let mut text = String::new();
        let mut output = machinery::make_string_output(&mut text);
        let blocks = std::collections::BTreeMap::new();
        let escape = AutoEscape::None;
        machinery::eval(environment, &self.instructions, values, &blocks, &mut output, escape)
            .map(drop)?;
        Ok(text)
    }
}

/// Bytes of the text in what is to be rendered, as JSON spells it.
pub(crate) fn size_of_text(of: &impl Serialize) -> usize {
    serde_json::to_vec(of).map_or(0, |bytes| bytes.len())
}

struct Compiled {
    instructions: Instructions<'static>,
    undeclared: Vec<String>,
}

fn compile(
    name: &'static str,
    source: &'static str,
    syntax: minijinja::syntax::SyntaxConfig,
) -> Result<Compiled, Error> {
    let parsed = machinery::parse(source, name, syntax)?;
    let mut names = rewrite::Names::default();
    let guarded = rewrite::statement(&parsed, &mut names);
    let mut generator = CodeGenerator::new(name, source);
    generator.compile_stmt(&guarded);
    let (instructions, _) = generator.finish();
    Ok(Compiled { instructions, undeclared: names.undeclared() })
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TemplateFault> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(COMPILER_STACK)
            .spawn_scoped(scope, || contained(work))
            .map_err(|error| TemplateFault::Broken(format!("no thread for it: {error}")))?;
        match thread.join() {
            Ok(result) => result.map_err(TemplateFault::Broken),
            Err(_) => Err(TemplateFault::Broken("its thread ended".to_owned())),
        }
    })
}

/// Whether fuel is what an error, or an error behind it, is about.
fn out_of_fuel(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        let engine = found.downcast_ref::<Error>();
        if engine.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return true;
        }
        cause = found.source();
    }
    false
}

/// An error of the engine without the long texts that a template may have put into it.
fn told(error: &Error) -> String {
    let place = match (error.name(), error.line()) {
        (Some(name), Some(line)) => format!(" (in {name}:{line})"),
        _ => String::new(),
    };
    match error.detail() {
        Some(detail) if detail.chars().count() <= LONGEST_DETAIL => error.to_string(),
        Some(detail) => format!("{}: {}{place}", error.kind(), cut(detail)),
        None => error.to_string(),
    }
}

/// Characters of what a template says itself, in `raise_exception`, that are shown whole.
const LONGEST_DETAIL: usize = 400;

#[cfg(test)]
mod tests;
