//! JSON as a template's value, with every object in its own order.
//!
//! minijinja's own maps are sorted by key, and its feature that keeps their order would change a
//! feature of crates far below. A template that prints a tool's description prints its keys as the
//! record gives them, as in Python.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value};
use serde::Serialize;
use serde_json::Value as Json;

/// A JSON object, in its order.
#[derive(Debug)]
struct Ordered(Vec<(String, Value)>);

impl Object for Ordered {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(name.as_str())).collect())
    }
}

/// What serialises, as a template's value.
pub(super) fn value(from: impl Serialize) -> serde_json::Result<Value> {
    serde_json::to_value(from).map(of)
}

fn of(json: Json) -> Value {
    match json {
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, field)| (name, of(field)));
            Value::from_object(Ordered(fields.collect()))
        }
        Json::Array(items) => items.into_iter().map(of).collect(),
        other => Value::from(Serde(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::{Environment, context};
    use serde_json::json;

    fn render(source: &str, json: &Json) -> String {
        let mut environment = Environment::new();
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.render_str(source, context! { x => value(json).unwrap() }).unwrap()
    }

    #[test]
    fn objects_keep_their_order_and_are_maps_in_every_other_way() {
        let json = json!({"b": 1, "a": {"d": [2.5, null, true], "c": "x"}, "e": {}});
        for (source, expected) in [
            ("{% for key, value in x.items() %}{{ key }};{% endfor %}", "b;a;e;"),
            ("{% for key in x %}{{ key }};{% endfor %}", "b;a;e;"),
            ("{{ x.a.c }}{{ x['b'] }}{{ x.get('z', 3) }}{{ x.a.d[0] }}", "x132.5"),
            ("{{ x is mapping }}{{ 'a' in x }}{{ 'z' in x }}", "TrueTrueFalse"),
            ("{{ x.z is defined }}{{ x.e | length }}{{ not x.e }}", "False0True"),
            ("{{ x == x }}{{ x.a == x.e }}", "TrueFalse"),
        ] {
            assert_eq!(render(source, &json), expected, "{source}");
        }
        assert_eq!(serde_json::to_string(&value(&json).unwrap()).unwrap(), json.to_string());
    }
}
