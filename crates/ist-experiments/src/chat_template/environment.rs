//! minijinja set up as transformers sets up Jinja2 for chat templates.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, from_args};
use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
};
use minijinja_contrib::pycompat;

use super::date;
use super::python_json::{self, Spelling};

/// An environment without a template: blocks take their line with them, Python's methods exist, and so do
/// `raise_exception`, `strftime_now` and `tojson`.
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
        _ => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// Prints `None`, `True` and `False` as Python does.
fn format(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
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
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = options.get("separators")?;
    let spelling = Spelling {
        indent: options.get("indent")?,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        separators: separators.and_then(|pair| <[String; 2]>::try_from(pair).ok()),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let fault =
        |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    if sort_keys {
        let mut json = serde_json::to_value(value).map_err(fault)?;
        json.sort_all_objects();
        return python_json::dumps(&json, &spelling).map_err(fault);
    }
    python_json::dumps(value, &spelling).map_err(fault)
}
