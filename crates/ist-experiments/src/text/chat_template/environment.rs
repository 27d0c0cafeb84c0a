//! minijinja set up as transformers sets up Jinja2 for chat templates.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, from_args};
use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
};
use minijinja_contrib::pycompat;

use super::date;
use super::python_json::{self, Spelling};
use crate::text::jinja;

/// An environment without a template: blocks take their line with them, Python's methods exist, and
/// so do `raise_exception`, `strftime_now` and `tojson`.
pub(super) fn like_transformers() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(format);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    set_clock(&mut environment, date::FIXED);
    Ok(environment)
}

/// Sets what `strftime_now` takes for now, in seconds since 1970.
pub(super) fn set_clock(environment: &mut Environment<'static>, seconds: i64) {
    environment.add_function("strftime_now", move |format: &str| {
        date::format(format, seconds)
            .map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
    });
}

/// Python's methods; two that minijinja's own list lacks are added.
fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), method) {
        (Some(text), "removeprefix") => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        (Some(text), "removesuffix") => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        (Some(text), "format") => {
            payable_format(state, text, arguments)?;
            pycompat::unknown_method_callback(state, value, method, arguments)
        }
        (Some(text), "split" | "splitlines") => {
            payable_split(state, text, arguments)?;
            pycompat::unknown_method_callback(state, value, method, arguments)
        }
        _ => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// Fails where the text that `format` makes may cost more fuel than there is: every number in it
/// may be a width, and every field the longest argument.
fn payable_format(state: &State, text: &str, arguments: &[Value]) -> Result<(), Error> {
    let numbers = text.split(|character: char| !character.is_ascii_digit());
    let width = |digits: &str| match digits {
        "" => 0,
        digits => digits.parse().unwrap_or(u64::MAX),
    };
    let widths = numbers.map(width).fold(0, u64::saturating_add);
    let argument = |value: &Value| jinja::weight(state, value);
    let longest = arguments.iter().map(argument).collect::<Result<Vec<u64>, Error>>()?;
    let longest = longest.into_iter().max().unwrap_or(0);
    let fields = text.matches('{').count() as u64;
    payable(state, widths.saturating_add(fields.saturating_mul(longest)))
}

/// Fails where the parts of a text cost more fuel than there is.
fn payable_split(state: &State, text: &str, arguments: &[Value]) -> Result<(), Error> {
    let parts = match arguments.first().and_then(Value::as_str) {
        Some(separator) if !separator.is_empty() => text.matches(separator).count(),
        _ => text.len(),
    };
    payable(state, (parts as u64).saturating_mul(jinja::SLOT))
}

fn payable(state: &State, bytes: u64) -> Result<(), Error> {
    if bytes > jinja::payable(state) {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Ok(())
}

/// Prints `None`, `True` and `False` as Python does.
fn format(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let value = &jinja::settled(state, value)?;
    let printed = match bool::try_from(value.clone()) {
        Ok(truth) if value.kind() == minijinja::value::ValueKind::Bool => {
            Value::from(if truth { "True" } else { "False" })
        }
        _ if value.is_none() => Value::from("None"),
        _ => value.clone(),
    };
    escape_formatter(output, state, &printed)
}

/// `json.dumps` with the arguments that transformers' filter has.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = options.get("separators")?;
    let spelling = Spelling {
        indent: options.get("indent")?,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        separators: separators.and_then(|pair| <[String; 2]>::try_from(pair).ok()),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let value = jinja::settled(state, value)?;
    let limit = usize::try_from(jinja::payable(state)).unwrap_or(usize::MAX);
    let fault = |error: serde_json::Error| {
        if error.is_io() {
            Error::from(ErrorKind::OutOfFuel)
        } else {
            Error::new(ErrorKind::BadSerialization, error.to_string())
        }
    };
    if sort_keys {
        let mut json = serde_json::to_value(value).map_err(fault)?;
        json.sort_all_objects();
        return python_json::dumps(&json, &spelling, limit).map_err(fault);
    }
    python_json::dumps(&value, &spelling, limit).map_err(fault)
}
