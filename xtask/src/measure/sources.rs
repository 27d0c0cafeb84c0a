//! The Rust sources of a checkout: packages, files, modules, and which code is there for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, Item};

use super::lexer::{self, Lexed};

/// Folders that hold no sources of the checkout's own.
const PASSED_OVER: [&str; 3] = ["target", "vendor", "node_modules"];

/// Everything that is measured.
#[derive(Default)]
pub(crate) struct Sources {
    /// Every file that could be read, in the order of paths.
    pub(crate) files: Vec<SourceFile>,
    /// Files that are not Rust as `syn` knows it.
    pub(crate) unread: Vec<PathBuf>,
}

/// One file.
pub(crate) struct SourceFile {
    /// Path within the checkout.
    pub(crate) path: PathBuf,
    /// Name of the crate that it belongs to. A second binary of a package is a crate of its own.
    pub(crate) krate: String,
    /// The module that the file is, from the root of its crate.
    pub(crate) module: Vec<String>,
    /// Whether the whole file is there for tests.
    pub(crate) is_test: bool,
    /// Its text.
    pub(crate) text: String,
    /// Its comments and lines of code.
    pub(crate) lexed: Lexed,
    /// Everything in it.
    pub(crate) whole: syn::File,
    /// What is left without tests.
    pub(crate) code: syn::File,
    /// Lines of the tests that stand among the code.
    test_lines: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that are there for tests.
    test_modules: Vec<Vec<String>>,
}

impl SourceFile {
    /// Whether a line, from 1, belongs to tests.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// A place in the file as compilers write it.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// A file of the crate `sample` from its module and text.
    #[cfg(test)]
    pub(crate) fn sample(module: &str, text: &str) -> Self {
        let path = PathBuf::from(format!("src/{}.rs", module.replace("::", "/")));
        let module: Vec<String> =
            module.split("::").filter(|part| *part != "lib").map(str::to_owned).collect();
        let place = Place { path, krate: "sample".into(), module, is_test: false };
        Self::parse(place, text.to_owned()).unwrap()
    }

    fn parse(place: Place, text: String) -> syn::Result<Self> {
        let whole = syn::parse_file(&text)?;
        let mut code = whole.clone();
        let mut tests = Tests { module: place.module.clone(), lines: vec![], modules: vec![] };
        tests.remove_from(&mut code.items);
        let mut file = Self {
            path: place.path,
            krate: place.krate,
            module: place.module,
            is_test: false,
            lexed: lexer::lex(&text),
            text,
            whole,
            code,
            test_lines: tests.lines,
            test_modules: tests.modules,
        };
        if place.is_test || file.whole.attrs.iter().any(is_test_only) {
            file.make_test();
        }
        Ok(file)
    }

    fn make_test(&mut self) {
        self.is_test = true;
        self.code.items.clear();
    }
}

/// Where a file stands, before it is read.
struct Place {
    path: PathBuf,
    krate: String,
    module: Vec<String>,
    is_test: bool,
}

/// One package: where it is and where its modules begin.
struct Package {
    folder: PathBuf,
    name: String,
    /// Folder of the root module.
    source: PathBuf,
}

impl Sources {
    /// Reads every package at or below a folder.
    ///
    /// # Errors
    ///
    /// A folder or manifest that cannot be read. A source that does not parse is listed instead.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut paths = Paths::default();
        paths.collect(root)?;
        let mut packages = Vec::new();
        for manifest in &paths.manifests {
            packages.extend(read_manifest(manifest)?);
        }
        // The innermost package first: it owns a file.
        packages.sort_by_key(|package| std::cmp::Reverse(package.folder.components().count()));
        let mut sources = Self::default();
        for path in &paths.sources {
            let Some(package) = packages.iter().find(|package| path.starts_with(&package.folder))
            else {
                continue;
            };
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let place = place(root, package, path);
            match SourceFile::parse(place, text) {
                Ok(file) => sources.files.push(file),
                Err(_) => sources.unread.push(path.clone()),
            }
        }
        sources.files.sort_by(|a, b| a.path.cmp(&b.path));
        sources.mark_test_modules();
        Ok(sources)
    }

    /// Sources of the crate `sample`: modules with their texts.
    #[cfg(test)]
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|file| SourceFile::sample(file.0, file.1)).collect();
        let mut sources = Self { files, unread: vec![] };
        sources.mark_test_modules();
        sources
    }

    /// The files of each crate.
    pub(crate) fn crates(&self) -> BTreeMap<&str, Vec<&SourceFile>> {
        let mut crates: BTreeMap<&str, Vec<&SourceFile>> = BTreeMap::new();
        for file in &self.files {
            crates.entry(&file.krate).or_default().push(file);
        }
        crates
    }

    /// `#[cfg(test)] mod x;` makes tests of the file `x.rs` and of all below it.
    fn mark_test_modules(&mut self) {
        let mut tests = BTreeSet::new();
        for file in &self.files {
            for module in &file.test_modules {
                tests.insert((file.krate.clone(), module.clone()));
            }
        }
        for file in &mut self.files {
            let is_below = (1..=file.module.len())
                .any(|depth| tests.contains(&(file.krate.clone(), file.module[..depth].to_vec())));
            if is_below {
                file.make_test();
            }
        }
    }
}

#[derive(Default)]
struct Paths {
    manifests: Vec<PathBuf>,
    sources: Vec<PathBuf>,
}

impl Paths {
    fn collect(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links are not followed, so that no file is counted twice.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !name.starts_with('.') && !PASSED_OVER.contains(&name.as_str()) {
                    self.collect(&path)?;
                }
            } else if kind.is_file() && name == "Cargo.toml" {
                self.manifests.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs")
            {
                self.sources.push(path);
            }
        }
        Ok(())
    }
}

/// The package of a manifest; `None` for a workspace without one.
fn read_manifest(path: &Path) -> Result<Option<Package>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let manifest: toml::Table =
        toml::from_str(&text).with_context(|| path.display().to_string())?;
    let name = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let Some(name) = name else { return Ok(None) };
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let source = folder.join(source_folder(&folder, &manifest));
    Ok(Some(Package { folder, name: name.to_owned(), source }))
}

/// The folder of the root module within a package: that of its library, else of its first binary.
fn source_folder(folder: &Path, manifest: &toml::Table) -> PathBuf {
    let library = manifest.get("lib").and_then(|library| library.get("path")?.as_str());
    let has_library = folder.join("src/lib.rs").exists() || folder.join("src/main.rs").exists();
    let binary = manifest.get("bin").and_then(|binaries| binaries.get(0)?.get("path")?.as_str());
    let root = match library {
        None if has_library => None,
        None => binary,
        named => named,
    };
    root.and_then(|path| Path::new(path).parent()).unwrap_or(Path::new("src")).to_owned()
}

/// The crate and module of a file, from its path alone.
fn place(root: &Path, package: &Package, path: &Path) -> Place {
    let within = path.strip_prefix(&package.folder).unwrap_or(path);
    let area = within.components().next().map(|part| part.as_os_str().to_string_lossy());
    let is_test = matches!(area.as_deref(), Some("tests" | "benches"));
    let mut krate = package.name.clone();
    let mut module = Vec::new();
    if let Ok(inner) = path.strip_prefix(&package.source) {
        module = module_of(inner);
    } else {
        // Each test, bench, example or build script is a crate of its own.
        let name: Vec<String> = module_of(within).into_iter().take(2).collect();
        krate = format!("{krate} ({})", name.join("/"));
    }
    if module.first().is_some_and(|first| first == "bin") {
        let name = module.get(1).cloned().unwrap_or_default();
        krate = format!("{krate} (bin {name})");
        module.drain(..module.len().min(2));
    }
    Place { path: path.strip_prefix(root).unwrap_or(path).to_owned(), krate, module, is_test }
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` are the root.
fn module_of(path: &Path) -> Vec<String> {
    let stem = path.with_extension("");
    let mut module: Vec<String> =
        stem.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let is_root = module.len() == 1 && matches!(module[0].as_str(), "lib" | "main");
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// Takes tests out of a list of items and remembers where they were.
struct Tests {
    module: Vec<String>,
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<Vec<String>>,
}

impl Tests {
    fn remove_from(&mut self, items: &mut Vec<Item>) {
        items.retain_mut(|item| {
            if attributes(item).iter().any(is_test_only) {
                self.remember(item);
                return false;
            }
            match item {
                Item::Mod(module) => {
                    if let Some((_, inner)) = &mut module.content {
                        self.module.push(module.ident.to_string());
                        self.remove_from(inner);
                        self.module.pop();
                    }
                }
                Item::Impl(block) => block.items.retain(|item| match item {
                    ImplItem::Fn(function) => {
                        let is_test = function.attrs.iter().any(is_test_only);
                        if is_test {
                            self.lines.push(lines(function));
                        }
                        !is_test
                    }
                    _ => true,
                }),
                _ => {}
            }
            true
        });
    }

    fn remember(&mut self, item: &Item) {
        self.lines.push(lines(item));
        if let Item::Mod(module) = item
            && module.content.is_none()
        {
            let mut path = self.module.clone();
            path.push(module.ident.to_string());
            self.modules.push(path);
        }
    }
}

/// The lines of an item with its attributes.
fn lines(item: &impl Spanned) -> RangeInclusive<usize> {
    let span = item.span();
    span.start().line..=span.end().line
}

/// Whether an attribute makes its item one of the tests: `#[test]`, `#[cfg(test)]`,
/// `#[cfg(all(test, unix))]`, but not `#[cfg(not(test))]`.
pub(crate) fn is_test_only(attribute: &Attribute) -> bool {
    let path = attribute.path();
    if path.segments.last().is_some_and(|last| last.ident == "test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else { return false };
    if !path.is_ident("cfg") {
        return false;
    }
    let text = list.tokens.to_string().replace(' ', "");
    let words: Vec<&str> =
        text.split(|character: char| !character.is_alphanumeric() && character != '_').collect();
    words.contains(&"test") && !text.contains("not(test")
}

/// The attributes of any item that can have them.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_among_the_code_are_taken_out() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nimpl X {\n    \
                    #[cfg(test)]\n    fn c() {}\n}\n#[cfg(not(test))]\nfn d() {}\n";
        let file = SourceFile::sample("lib", text);
        assert_eq!(file.code.items.len(), 3);
        assert_eq!(file.whole.items.len(), 4);
        let tests: Vec<usize> = (1..=11).filter(|line| file.is_test_line(*line)).collect();
        assert_eq!(tests, [2, 3, 4, 5, 7, 8]);
    }

    #[test]
    fn a_file_that_only_tests_name_is_a_test_with_all_below_it() {
        let sources = Sources::sample(&[
            ("lib", "mod a;\n#[cfg(test)]\nmod helpers;"),
            ("a", "#[cfg(all(test, unix))]\nmod inner;"),
            ("a::inner", "fn f() {}"),
            ("helpers", "mod deep;"),
            ("helpers::deep", "fn f() {}"),
        ]);
        let tests: Vec<bool> = sources.files.iter().map(|file| file.is_test).collect();
        assert_eq!(tests, [false, false, true, true, true]);
    }

    #[test]
    fn a_module_follows_from_the_path() {
        assert_eq!(module_of(Path::new("lib.rs")), Vec::<String>::new());
        assert_eq!(module_of(Path::new("a/mod.rs")), ["a"]);
        assert_eq!(module_of(Path::new("a/b.rs")), ["a", "b"]);
    }

    #[test]
    fn packages_of_a_checkout_are_found_with_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Cargo.toml", "[workspace]\nmembers = [\"one\"]");
        write("one/Cargo.toml", "[package]\nname = \"one\"");
        write("one/src/lib.rs", "mod a;");
        write("one/src/a/mod.rs", "");
        write("one/src/bin/tool.rs", "fn main() {}");
        write("one/tests/t.rs", "");
        write("one/target/x.rs", "");
        write("vendor/two/src/lib.rs", "");
        write("one/src/broken.rs", "fn (");
        let sources = Sources::read(folder.path()).unwrap();
        let found: Vec<(&str, String, bool)> = sources
            .files
            .iter()
            .map(|file| (file.krate.as_str(), file.module.join("::"), file.is_test))
            .collect();
        let expected = [
            ("one", "a".to_owned(), false),
            ("one (bin tool)", String::new(), false),
            ("one", String::new(), false),
            ("one (tests/t)", String::new(), true),
        ];
        assert_eq!(found, expected);
        assert_eq!(sources.unread.len(), 1);
    }
}
