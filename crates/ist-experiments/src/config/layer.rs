//! Tables laid over each other: a file over the one it extends, a run of a sweep over its file.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::schema::{RUN, is_default, variants_of};

/// Lays `over` on `base`: what both have as a table is laid key by key, anything else is replaced.
///
/// Where `over` gives a section another kind (`policy.kind`, `adapter.method`), the keys of `base`
/// that the new kind does not take fall away; those that it takes stay.
pub(super) fn lay(base: &mut Table, over: Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(value)) => {
                drop_foreign(&RUN["properties"][&name], under, &value);
                lay_plain(under, value);
            }
            (_, value) => drop(base.insert(name, value)),
        }
    }
}

fn lay_plain(base: &mut Table, over: Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(value)) => lay_plain(under, value),
            (_, value) => drop(base.insert(name, value)),
        }
    }
}

/// Takes out of `under` what does not belong to the kind that `over` names, if that is another.
fn drop_foreign(section: &Json, under: &mut Table, over: &Table) {
    let Some((tag, variants)) = variants_of(section) else { return };
    let default =
        variants.iter().find(|(_, variant)| is_default(variant, tag)).map(|(name, _)| *name);
    let kind = |table: &Table| table.get(tag).and_then(Value::as_str).map(str::to_owned);
    let Some(new) = kind(over) else { return };
    if kind(under).as_deref().or(default) == Some(&new) {
        return;
    }
    // A kind that the schema does not know is judged elsewhere.
    if let Some((_, variant)) = variants.iter().find(|(name, _)| *name == new) {
        under.retain(|key, _| variant["properties"].get(key).is_some());
    }
}
