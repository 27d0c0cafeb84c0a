//! The values that a template makes: how deep they nest and how much text they hold.
//!
//! A list that holds a list twice, forty times over, is a small value and an endless text. A
//! namespace that holds itself has no text at all. Every value that can hold others is weighed when
//! it is made, each of its parts as often as it stands there, and must be one that the fuel left
//! can pay for.

use std::collections::BTreeMap;

use minijinja::value::{DynObject, ObjectRepr, Tuple};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Levels that lists and maps may nest: those of a JSON document and some around it.
pub(super) const DEEPEST: usize = 160;
/// Bytes that one step of fuel pays for.
const BYTES_OF_A_STEP: u64 = 64;
/// Bytes of an item beside its text.
pub(crate) const SLOT: u64 = 32;
/// Items that one step of fuel pays for when they are only looked at.
const LOOKS_OF_A_STEP: u64 = 8;

/// The filters that [`super::rewrite`] puts around what a template writes.
pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter(SETTLED, settled);
    environment.add_filter(GROWN, grown);
    environment.add_filter(HELD, held);
}

/// The name of the filter around values that can hold others.
pub(super) const SETTLED: &str = "__settled";
/// The name of the filter around variables.
pub(super) const GROWN: &str = "__grown";
/// The name of the filter around what a namespace is to hold.
pub(super) const HELD: &str = "__held";

/// The value, once it is known to be neither too deep nor too large. What is computed while it is
/// read becomes a list.
pub(crate) fn settled(state: &State, value: &Value) -> Result<Value, Error> {
    if value.as_object().is_none() {
        return Ok(value.clone());
    }
    let mut scales = Scales { left: payable(state), looks: 0 };
    let changed = scales.settle(value, 0)?;
    state.consume_fuel(scales.looks / LOOKS_OF_A_STEP)?;
    Ok(changed.unwrap_or_else(|| value.clone()))
}

/// A variable's value. It was weighed when it was made, and only a namespace can have grown since.
fn grown(state: &State, value: &Value) -> Result<Value, Error> {
    match value.as_object() {
        Some(object) if is_namespace(object) => settled(state, value),
        _ => Ok(value.clone()),
    }
}

/// Bytes that the fuel left can pay for.
pub(crate) fn payable(state: &State) -> u64 {
    let steps = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
    steps.saturating_mul(BYTES_OF_A_STEP)
}

/// Bytes of a value, each part as often as it stands in it, or that the fuel left cannot pay for
/// them.
pub(crate) fn weight(state: &State, value: &Value) -> Result<u64, Error> {
    let all = payable(state);
    let mut scales = Scales { left: all, looks: 0 };
    scales.settle(value, 0)?;
    Ok(all - scales.left)
}

/// A namespace can hold anything but a namespace, so none holds itself.
fn held(state: &State, value: &Value) -> Result<Value, Error> {
    match value.as_object() {
        Some(object) if is_namespace(object) => Err(namespace_inside()),
        _ => settled(state, value),
    }
}

struct Scales {
    /// Bytes that may still be found.
    left: u64,
    /// Items that were found.
    looks: u64,
}

impl Scales {
    /// A value to take the place of this one, where there is one.
    fn settle(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        self.weigh(value)?;
        let Some(object) = value.as_object() else { return Ok(None) };
        if depth > 0 && is_namespace(object) {
            return Err(namespace_inside());
        }
        if depth >= DEEPEST {
            return Err(refused(format!("a value nests deeper than {DEEPEST} levels")));
        }
        match object.repr() {
            ObjectRepr::Map => self.settle_map(object, depth),
            ObjectRepr::Seq | ObjectRepr::Iterable => self.settle_items(value, object, depth),
            _ => Ok(None),
        }
    }

    fn settle_map(&mut self, object: &DynObject, depth: usize) -> Result<Option<Value>, Error> {
        let mut changed = BTreeMap::new();
        for (key, value) in object.try_iter_pairs().into_iter().flatten() {
            // A key that holds others was weighed when it was made.
            self.weigh(&key)?;
            if let Some(settled) = self.settle(&value, depth + 1)? {
                changed.insert(key, settled);
            }
        }
        if changed.is_empty() || is_namespace(object) {
            return Ok(None);
        }
        let mut entries: BTreeMap<Value, Value> =
            object.try_iter_pairs().into_iter().flatten().collect();
        entries.append(&mut changed);
        Ok(Some(entries.into_iter().collect()))
    }

    fn settle_items(
        &mut self,
        value: &Value,
        object: &DynObject,
        depth: usize,
    ) -> Result<Option<Value>, Error> {
        // A list stays itself unless something in it changes.
        let mut items = (object.repr() == ObjectRepr::Iterable).then(Vec::new);
        for (at, item) in value.try_iter()?.checked().enumerate() {
            let item = item?;
            let settled = self.settle(&item, depth + 1)?;
            if settled.is_some() && items.is_none() {
                items = Some(value.try_iter()?.take(at).collect());
            }
            if let Some(items) = &mut items {
                items.push(settled.unwrap_or(item));
            }
        }
        Ok(items.map(|items| {
            if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) }
        }))
    }

    fn weigh(&mut self, value: &Value) -> Result<(), Error> {
        let text = value.as_bytes().map_or(0, |bytes| bytes.len() as u64);
        self.looks += 1;
        let Some(left) = self.left.checked_sub(SLOT + text) else {
            return Err(Error::from(ErrorKind::OutOfFuel));
        };
        self.left = left;
        Ok(())
    }
}

/// The engine keeps the type to itself, so it is known by its name.
fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("namespace_object::Namespace")
}

fn namespace_inside() -> Error {
    refused("a namespace cannot stand in a list, a map or another namespace".to_owned())
}

fn refused(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
