//! Types that share their name with another type of the same crate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use syn::Item;

use super::sources::{SourceFile, Sources};
use crate::table::Table;

/// What is said of names.
#[derive(Debug, Serialize)]
pub(crate) struct Names {
    /// Types outside tests.
    pub(crate) types: usize,
    /// Names that several types of one crate have.
    pub(crate) repeated: Vec<Repeated>,
}

/// One name and the types that have it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Repeated {
    /// The crate.
    pub(crate) krate: String,
    /// The name.
    pub(crate) name: String,
    /// Where each of the types is defined.
    pub(crate) places: Vec<String>,
}

/// Collects the types of every crate by name.
pub(crate) fn measure(sources: &Sources) -> Names {
    let mut types = 0;
    let mut repeated = Vec::new();
    for (krate, files) in sources.crates() {
        let mut named: BTreeMap<String, Vec<Definition>> = BTreeMap::new();
        for file in files {
            let mut found = Types { file, module: file.module.clone(), named: &mut named };
            found.collect(&file.code.items);
        }
        types += named.values().map(Vec::len).sum::<usize>();
        for (name, definitions) in named {
            // Two in one module are forms of one type, of which `cfg` chooses.
            let modules: BTreeSet<&Vec<String>> = definitions.iter().map(|d| &d.module).collect();
            if modules.len() > 1 {
                let places = definitions.iter().map(|definition| definition.place.clone());
                repeated.push(Repeated { krate: krate.to_owned(), name, places: places.collect() });
            }
        }
    }
    Names { types, repeated }
}

impl Names {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Names of types, outside tests");
        table.row("types", self.types);
        table.row("names used twice in one crate", self.repeated.len());
        for one in &self.repeated {
            table.entry(format!("{} {}: {}", one.krate, one.name, one.places.join(", ")));
        }
    }
}

struct Definition {
    module: Vec<String>,
    place: String,
}

struct Types<'a> {
    file: &'a SourceFile,
    module: Vec<String>,
    named: &'a mut BTreeMap<String, Vec<Definition>>,
}

impl Types<'_> {
    fn collect(&mut self, items: &[Item]) {
        for item in items {
            let name = match item {
                Item::Struct(item) => &item.ident,
                Item::Enum(item) => &item.ident,
                Item::Union(item) => &item.ident,
                Item::Trait(item) => &item.ident,
                Item::Type(item) => &item.ident,
                Item::Mod(module) => {
                    if let Some((_, inner)) = &module.content {
                        self.module.push(module.ident.to_string());
                        self.collect(inner);
                        self.module.pop();
                    }
                    continue;
                }
                _ => continue,
            };
            let place = self.file.place(name.span().start().line);
            let definition = Definition { module: self.module.clone(), place };
            self.named.entry(name.to_string()).or_default().push(definition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_two_modules_is_repeated() {
        let names = measure(&Sources::sample(&[
            ("lib", "struct A;\ntrait B {}\n#[cfg(test)]\nmod tests {\n    struct C;\n}\n"),
            ("m", "mod inner {\n    enum A {}\n}\ntype B = u8;\nstruct C;\nfn f() { struct D; }\n"),
            ("n", "struct D;\n"),
        ]));
        let found: Vec<(&str, String)> =
            names.repeated.iter().map(|one| (one.name.as_str(), one.places.join(" "))).collect();
        let expected = [
            ("A", "src/lib.rs:1 src/m.rs:2".to_owned()),
            ("B", "src/lib.rs:2 src/m.rs:4".to_owned()),
        ];
        assert_eq!(found, expected);
        assert_eq!(names.types, 6);
    }

    #[test]
    fn forms_for_two_platforms_are_one_type() {
        let text = "#[cfg(unix)]\nstruct A;\n#[cfg(not(unix))]\nstruct A;\n";
        assert!(measure(&Sources::sample(&[("lib", text)])).repeated.is_empty());
    }
}
