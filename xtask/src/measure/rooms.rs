//! The rooms of each crate and who uses whom.
//!
//! A room is a top-level module. An arrow leads from one room to another when code of the first
//! names something of the second. Rooms that reach each other both ways stand in a circle: none of
//! them can be understood, tested or moved alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

use super::sources::{SourceFile, Sources};
use super::tokens;
use crate::table::Table;

/// How many names are shown for an arrow of a circle.
const NAMES_SHOWN: usize = 6;

/// What is said of the rooms.
#[derive(Debug, Serialize)]
pub(crate) struct Rooms {
    /// One entry for each crate with more than one room.
    pub(crate) crates: Vec<Crate>,
}

/// The rooms of one crate.
#[derive(Debug, Serialize)]
pub(crate) struct Crate {
    /// Name of the crate.
    pub(crate) name: String,
    /// Its rooms.
    pub(crate) rooms: Vec<String>,
    /// Its arrows, each once.
    pub(crate) arrows: Vec<Arrow>,
    /// Rooms that reach each other.
    pub(crate) circles: Vec<Circle>,
}

/// One room uses another.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Arrow {
    /// The room that uses.
    pub(crate) from: String,
    /// The room that is used.
    pub(crate) to: String,
    /// Where, and what is named there.
    pub(crate) uses: BTreeSet<Use>,
}

/// One name of another room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Use {
    /// File and line.
    pub(crate) place: String,
    /// The path within the other room.
    pub(crate) name: String,
}

/// Rooms that reach each other, and the arrows among them.
#[derive(Debug, Serialize)]
pub(crate) struct Circle {
    /// The rooms.
    pub(crate) rooms: Vec<String>,
    /// What ties them.
    pub(crate) arrows: Vec<Arrow>,
}

/// Measures the rooms of every crate.
pub(crate) fn measure(sources: &Sources) -> Rooms {
    let crates =
        sources.crates().into_iter().filter_map(|(name, files)| measure_crate(name, &files));
    Rooms { crates: crates.collect() }
}

fn measure_crate(name: &str, files: &[&SourceFile]) -> Option<Crate> {
    let root = Root::of(files);
    if root.rooms.len() < 2 {
        return None;
    }
    let mut found: BTreeMap<Ends, BTreeSet<Use>> = BTreeMap::new();
    for file in files {
        let mut paths = Paths { file, module: file.module.clone(), root: &root, found: &mut found };
        paths.visit_file(&file.code);
    }
    let arrows: Vec<Arrow> = found
        .into_iter()
        .map(|(ends, uses)| Arrow { from: ends.from, to: ends.to, uses })
        .collect();
    let rooms: Vec<String> = root.rooms.into_iter().collect();
    let circles = circles(&rooms, &arrows);
    Some(Crate { name: name.to_owned(), rooms, arrows, circles })
}

/// The two ends of an arrow.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ends {
    from: String,
    to: String,
}

/// What the root of a crate says: its rooms, and which names it lends from them.
#[derive(Default)]
struct Root {
    rooms: BTreeSet<String>,
    lent: BTreeMap<String, String>,
}

impl Root {
    fn of(files: &[&SourceFile]) -> Self {
        let mut root = Self::default();
        let items =
            || files.iter().filter(|file| file.module.is_empty()).flat_map(|f| &f.code.items);
        for item in items() {
            if let Item::Mod(module) = item {
                root.rooms.insert(module.ident.to_string());
            }
        }
        for item in items() {
            let Item::Use(item) = item else { continue };
            for named in flatten(&item.tree) {
                let own = matches!(named.path[0].as_str(), "crate" | "self");
                let path = &named.path[usize::from(own)..];
                if path.len() > 1 && root.rooms.contains(&path[0]) {
                    root.lent.insert(named.visible_as, path[0].clone());
                }
            }
        }
        root
    }
}

/// One path of a `use`, and the name that it has afterwards.
struct Named {
    path: Vec<String>,
    visible_as: String,
    line: usize,
}

/// `a::{b, c as d}` as the paths `a::b` and `a::c`.
fn flatten(tree: &UseTree) -> Vec<Named> {
    let mut named = Vec::new();
    push_paths(tree, &mut Vec::new(), &mut named);
    named
}

fn push_paths(tree: &UseTree, before: &mut Vec<String>, named: &mut Vec<Named>) {
    let mut push = |last: &syn::Ident, visible_as: &syn::Ident| {
        let mut path = before.clone();
        path.push(last.to_string());
        let line = last.span().start().line;
        named.push(Named { path, visible_as: visible_as.to_string(), line });
    };
    match tree {
        UseTree::Name(name) => push(&name.ident, &name.ident),
        UseTree::Rename(name) => push(&name.ident, &name.rename),
        UseTree::Glob(glob) => {
            let mut path = before.clone();
            path.push("*".into());
            let line = glob.star_token.spans[0].start().line;
            named.push(Named { path, visible_as: "*".into(), line });
        }
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            push_paths(&path.tree, before, named);
            before.pop();
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|inner| push_paths(inner, before, named));
        }
    }
}

/// Finds the paths of one file that lead to another room.
struct Paths<'a> {
    file: &'a SourceFile,
    module: Vec<String>,
    root: &'a Root,
    found: &'a mut BTreeMap<Ends, BTreeSet<Use>>,
}

impl Paths<'_> {
    fn note(&mut self, path: &[String], line: usize) {
        let Some(from) = self.module.first() else { return };
        let Some(absolute) = self.absolute(path) else { return };
        let Some(first) = absolute.first() else { return };
        let lender = self.root.lent.get(first);
        let to = if self.root.rooms.contains(first) { Some(first) } else { lender };
        let Some(to) = to else { return };
        if to == from || !self.root.rooms.contains(from) {
            return;
        }
        let name = if lender.is_some() || absolute.len() == 1 {
            absolute.join("::")
        } else {
            absolute[1..].join("::")
        };
        let ends = Ends { from: from.clone(), to: to.clone() };
        let place = self.file.place(line);
        self.found.entry(ends).or_default().insert(Use { place, name });
    }

    /// A path from the root of the crate, where it begins with `crate`, `self` or `super`.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut rest = path;
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => return None,
        };
        if path[0] != "super" {
            rest = &path[1..];
        }
        while rest.first().is_some_and(|part| part == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for named in flatten(&item.tree) {
            self.note(&named.path, named.line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments[0].ident.span().start().line;
        self.note(&parts, line);
        visit::visit_path(self, path);
    }

    /// `pub(in crate::a)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        let tokens = tokens::flat(call.tokens.clone());
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let mut at = 0;
        while at < tokens.len() {
            let start = at;
            at += 1;
            if !matches!(text(start), "crate" | "super") || text(start.wrapping_sub(1)) == ":" {
                continue;
            }
            let mut path = vec![text(start).to_owned()];
            while text(at) == ":" && text(at + 1) == ":" && is_name(text(at + 2)) {
                path.push(text(at + 2).to_owned());
                at += 3;
            }
            self.note(&path, tokens[start].line);
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_alphabetic())
}

/// Groups of rooms that reach each other.
fn circles(rooms: &[String], arrows: &[Arrow]) -> Vec<Circle> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        rooms.iter().map(|room| (room.as_str(), reachable(room, arrows))).collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for room in rooms {
        if done.contains(room.as_str()) || !reach[room.as_str()].contains(room.as_str()) {
            continue;
        }
        let together: BTreeSet<&str> = reach[room.as_str()]
            .iter()
            .copied()
            .filter(|other| reach[other].contains(room.as_str()))
            .collect();
        done.extend(&together);
        let inside = arrows.iter().filter(|arrow| {
            together.contains(arrow.from.as_str()) && together.contains(arrow.to.as_str())
        });
        circles.push(Circle {
            rooms: together.iter().map(|room| (*room).to_owned()).collect(),
            arrows: inside.cloned().collect(),
        });
    }
    circles
}

/// All rooms that can be reached along arrows. A room is among them when it stands in a circle.
fn reachable<'a>(from: &str, arrows: &'a [Arrow]) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(room) = open.pop() {
        for arrow in arrows.iter().filter(|arrow| arrow.from == room) {
            if reached.insert(arrow.to.as_str()) {
                open.push(arrow.to.clone());
            }
        }
    }
    reached
}

impl Rooms {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        table.heading("Rooms: top-level modules, arrows between them, circles");
        let titles = ["crate", "rooms", "arrows", "circles", "rooms in circles"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        for one in &self.crates {
            let inside: usize = one.circles.iter().map(|circle| circle.rooms.len()).sum();
            let counts = [one.rooms.len(), one.arrows.len(), one.circles.len(), inside];
            let mut row = vec![one.name.clone()];
            row.extend(counts.map(|count| count.to_string()));
            rows.push(row);
        }
        table.grid(&rows);
        for one in &self.crates {
            for circle in &one.circles {
                circle.show(&one.name, table);
            }
        }
    }
}

impl Circle {
    fn show(&self, krate: &str, table: &mut Table) {
        table.heading(&format!("  Circle in {krate}: {}", self.rooms.join(", ")));
        for arrow in &self.arrows {
            let names: BTreeSet<&str> = arrow.uses.iter().map(|one| one.name.as_str()).collect();
            let shown: Vec<&str> = names.iter().copied().take(NAMES_SHOWN).collect();
            let more = if names.len() > shown.len() { ", ..." } else { "" };
            let place = arrow.uses.first().map_or("", |one| one.place.as_str());
            let ends = format!("{} -> {}", arrow.from, arrow.to);
            table.entry(format!(
                "{ends}: {}{more} ({} uses, {place})",
                shown.join(", "),
                arrow.uses.len()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) = ("lib", "mod a;\nmod b;\nmod c;\npub use c::Lent;\n");

    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let rooms = measure(&Sources::sample(files));
        let one = |arrow: &Arrow| {
            let names: Vec<&str> = arrow.uses.iter().map(|one| one.name.as_str()).collect();
            format!("{}>{} {}", arrow.from, arrow.to, names.join(" "))
        };
        rooms.crates[0].arrows.iter().map(one).collect()
    }

    #[test]
    fn paths_of_every_kind_are_arrows() {
        let a = "use crate::{b::{X, Y as Z}, c};\nfn f() { g!(crate::b::m::W) }\n";
        assert_eq!(arrows(&[ROOT, ("a", a)]), ["a>b X Y m::W", "a>c c"]);
        let deep = "fn f(x: super::super::b::X) { super::own(); self::own(); }\n";
        assert_eq!(arrows(&[ROOT, ("a::deep", deep)]), ["a>b X"]);
        let inline = "mod inner {\n    use super::super::b::X;\n    use super::Own;\n}\n";
        assert_eq!(arrows(&[ROOT, ("a", inline)]), ["a>b X"]);
        assert_eq!(arrows(&[ROOT, ("a", "use crate::Lent;\n")]), ["a>c Lent"]);
    }

    #[test]
    fn what_is_no_use_of_another_room_is_no_arrow() {
        let a = "use other::b::X;\nuse crate::a::Own;\npub(in crate::b) fn f() {}\n\
                 #[cfg(test)]\nmod tests {\n    use crate::b::X;\n}\n";
        assert!(arrows(&[ROOT, ("a", a)]).is_empty());
    }

    #[test]
    fn rooms_that_reach_each_other_are_a_circle() {
        let files = [
            ROOT,
            ("a", "use crate::b::X;\n"),
            ("b", "use crate::c::Y;\n"),
            ("c::deep", "use crate::a::Z;\n"),
        ];
        let rooms = measure(&Sources::sample(&files));
        assert_eq!(rooms.crates[0].circles[0].rooms, ["a", "b", "c"]);
        assert_eq!(rooms.crates[0].circles[0].arrows.len(), 3);
        let open = measure(&Sources::sample(&files[..3]));
        assert!(open.crates[0].circles.is_empty());
        assert_eq!(open.crates[0].rooms, ["a", "b", "c"]);
    }
}
