//! How hard the prose is to read: sentences and semicolons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::lexer::{Comment, CommentKind};
use super::markdown::{self, CODE, Paragraph};
use super::sources::{SourceFile, Sources};
use super::summary::{Summary, share};
use crate::table::Table;

/// A sentence of more words is long.
pub(crate) const LONG: usize = 26;

/// How many of the longest sentences are listed.
const LISTED: usize = 10;

/// How many words of a listed sentence are shown.
const WORDS_SHOWN: usize = 12;

/// Words that end with a full stop within a sentence.
const ABBREVIATIONS: [&str; 10] =
    ["e.g.", "i.e.", "al.", "vs.", "cf.", "approx.", "Fig.", "Sec.", "Eq.", "No."];

/// What is said of prose.
#[derive(Debug, Serialize)]
pub(crate) struct Prose {
    /// README and the book: for users.
    pub(crate) readme_and_book: Figures,
    /// ARCHITECTURE and CONTRIBUTING: for contributors.
    pub(crate) maps: Figures,
    /// Documentation in the code, tests included.
    pub(crate) doc_comments: Figures,
}

/// Figures of some prose.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Words. A piece of code counts as one.
    pub(crate) words: usize,
    /// Semicolons.
    pub(crate) semicolons: usize,
    /// Words of a sentence.
    pub(crate) sentence: Summary,
    /// Sentences that are not long.
    pub(crate) not_long: usize,
    /// The longest sentences.
    pub(crate) longest: Vec<Sentence>,
}

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sentence {
    /// Where it begins.
    pub(crate) place: String,
    /// How many words it has.
    pub(crate) words: usize,
    /// Its first words.
    pub(crate) start: String,
}

/// Measures the prose of a checkout whose book stands in the folder `book`.
///
/// # Errors
///
/// A page that cannot be read. A page that does not exist is passed over.
pub(crate) fn measure(root: &Path, book: &Path, sources: &Sources) -> Result<Prose> {
    let mut pages = vec![root.join("README.md")];
    collect_pages(&root.join(book), &mut pages)?;
    let maps = ["ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name));
    Ok(Prose {
        readme_and_book: of_pages(root, &pages)?,
        maps: of_pages(root, &maps)?,
        doc_comments: of_doc_comments(sources),
    })
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    for path in paths {
        // A table of contents is links alone.
        let is_contents = path.file_name().is_some_and(|name| name == "SUMMARY.md");
        if path.is_dir() {
            collect_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") && !is_contents {
            pages.push(path);
        }
    }
    Ok(())
}

fn of_pages(root: &Path, pages: &[PathBuf]) -> Result<Figures> {
    let mut count = Count::default();
    for page in pages.iter().filter(|page| page.exists()) {
        let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
        let name = page.strip_prefix(root).unwrap_or(page).display().to_string();
        count.add(&name, &markdown::paragraphs(&text, 1));
    }
    Ok(count.finish())
}

fn of_doc_comments(sources: &Sources) -> Figures {
    let mut count = Count::default();
    for file in &sources.files {
        let name = file.path.display().to_string();
        for block in doc_blocks(file) {
            count.add(&name, &markdown::paragraphs(&block.text, block.line));
        }
    }
    count.finish()
}

/// Comments of documentation, those on lines after each other as one text.
fn doc_blocks(file: &SourceFile) -> Vec<Comment> {
    let mut blocks: Vec<Comment> = Vec::new();
    let docs = file.lexed.comments.iter().filter(|comment| comment.kind == CommentKind::Doc);
    for comment in docs {
        let next = blocks.last().map(|block| block.line + block.text.matches('\n').count() + 1);
        match blocks.last_mut() {
            Some(block) if next == Some(comment.line) => {
                block.text.push('\n');
                block.text.push_str(&comment.text);
            }
            _ => blocks.push(comment.clone()),
        }
    }
    blocks
}

#[derive(Default)]
struct Count {
    words: usize,
    semicolons: usize,
    sentences: Vec<Sentence>,
}

impl Count {
    fn add(&mut self, page: &str, paragraphs: &[Paragraph]) {
        for paragraph in paragraphs {
            self.semicolons += paragraph.text.matches(';').count();
            let sentences = sentences(page, paragraph);
            self.words += sentences.iter().map(|sentence| sentence.words).sum::<usize>();
            self.sentences.extend(sentences);
        }
    }

    fn finish(mut self) -> Figures {
        let sentence = Summary::of(self.sentences.iter().map(|sentence| sentence.words));
        let not_long = self.sentences.iter().filter(|sentence| sentence.words <= LONG).count();
        self.sentences.sort_by(|a, b| b.words.cmp(&a.words).then_with(|| a.place.cmp(&b.place)));
        self.sentences.truncate(LISTED);
        Figures {
            words: self.words,
            semicolons: self.semicolons,
            sentence,
            not_long,
            longest: self.sentences,
        }
    }
}

/// A piece of text between spaces, and its line.
struct Piece<'a> {
    text: &'a str,
    line: usize,
}

impl Piece<'_> {
    /// Dashes and other signs are not words.
    fn is_word(&self) -> bool {
        self.text.contains(|character: char| character.is_alphanumeric() || character == CODE)
    }

    fn ends_sentence(&self, next: Option<&Self>) -> bool {
        let Some(next) = next else { return true };
        let closing = |character: char| matches!(character, ')' | '"' | '\'' | '”' | '’' | '_');
        let bare = self.text.trim_end_matches(closing);
        let word = self.text.trim_start_matches(|character: char| !character.is_alphanumeric());
        let continues = next.text.starts_with(char::is_lowercase);
        bare.ends_with(['.', '!', '?']) && !continues && !ABBREVIATIONS.contains(&word)
    }
}

fn sentences(page: &str, paragraph: &Paragraph) -> Vec<Sentence> {
    let mut pieces = Vec::new();
    for (index, line) in paragraph.text.lines().enumerate() {
        let words = line.split_ascii_whitespace();
        pieces.extend(words.map(|text| Piece { text, line: paragraph.line + index }));
    }
    let mut sentences = Vec::new();
    let mut start = 0;
    for end in 0..pieces.len() {
        if pieces[end].ends_sentence(pieces.get(end + 1)) {
            let inside = &pieces[start..=end];
            let words = inside.iter().filter(|piece| piece.is_word()).count();
            if words > 0 {
                let shown: Vec<&str> = inside.iter().take(WORDS_SHOWN).map(|p| p.text).collect();
                let place = format!("{page}:{}", inside[0].line);
                let start = shown.join(" ").replace(CODE, "`..`");
                sentences.push(Sentence { place, words, start });
            }
            start = end + 1;
        }
    }
    sentences
}

impl Figures {
    /// Semicolons for each thousand words.
    pub(crate) fn semicolons_per_1000(&self) -> f64 {
        share(self.semicolons, self.words, 1000.0)
    }

    /// Sentences that are not long, in percent.
    pub(crate) fn not_long_percent(&self) -> f64 {
        share(self.not_long, self.sentence.count, 100.0)
    }

    fn show(&self, title: &str, table: &mut Table) {
        table.heading(title);
        if self.words == 0 {
            table.row("words", 0);
            return;
        }
        table.row("words / sentences", format!("{} / {}", self.words, self.sentence.count));
        let semicolons = format!("{:.1} ({})", self.semicolons_per_1000(), self.semicolons);
        table.row("semicolons per 1,000 words", semicolons);
        table.row("words of a sentence", self.sentence);
        let percent = format!("{:.1} %", self.not_long_percent());
        table.row(&format!("sentences of at most {LONG} words"), percent);
        for sentence in &self.longest {
            table.entry(format!("{:>5}  {}  {}", sentence.words, sentence.place, sentence.start));
        }
    }
}

impl Prose {
    /// Adds the figures to a table.
    pub(crate) fn show(&self, table: &mut Table) {
        self.readme_and_book.show("Prose of README and book", table);
        self.maps.show("Prose of ARCHITECTURE and CONTRIBUTING", table);
        self.doc_comments.show("Prose of doc comments", table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<usize> {
        let mut count = Count::default();
        count.add("page", &markdown::paragraphs(text, 1));
        count.sentences.iter().map(|sentence| sentence.words).collect()
    }

    #[test]
    fn sentences_end_at_full_stops_before_a_new_start() {
        assert_eq!(words("One two. Three four five! Six?"), [2, 3, 1]);
        assert_eq!(
            words("Version 1.2 of e.g. This et al. 2020 holds. (It does.) `x` too."),
            [9, 2, 2]
        );
        assert_eq!(
            words("Names such as a.b. are kept - always.\n\n- an entry\n- another"),
            [7, 2, 1]
        );
    }

    #[test]
    fn figures_of_prose_are_those_of_its_sentences() {
        let long = vec!["word"; LONG + 1].join(" ");
        let mut count = Count::default();
        count.add("page", &markdown::paragraphs(&format!("One; two.\n\n{long}."), 1));
        let figures = count.finish();
        assert_eq!((figures.words, figures.semicolons, figures.not_long), (LONG + 3, 1, 1));
        assert_eq!(figures.longest[0].place, "page:3");
        assert!(figures.not_long_percent() == 50.0);
    }

    #[test]
    fn documentation_is_joined_across_lines() {
        let text = "//! One\n//! two.\n\n/// Three.\n///\n/// ```\n/// code; code\n/// ```\n\
                    // four; five\nfn a() {}\n";
        let figures = of_doc_comments(&Sources::sample(&[("lib", text)]));
        assert_eq!((figures.words, figures.semicolons, figures.sentence.count), (3, 0, 2));
        assert_eq!(figures.longest[0].place, "src/lib.rs:1");
        assert_eq!(figures.longest[1].place, "src/lib.rs:4");
    }

    #[test]
    fn pages_are_found_and_the_contents_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("docs/src/deep");
        fs::create_dir_all(&book).unwrap();
        fs::write(folder.path().join("README.md"), "One.").unwrap();
        fs::write(book.join("page.md"), "Two three.").unwrap();
        fs::write(book.join("SUMMARY.md"), "Four.").unwrap();
        let prose = measure(folder.path(), Path::new("docs/src"), &Sources::default()).unwrap();
        assert_eq!((prose.readme_and_book.words, prose.maps.words), (3, 0));
        assert_eq!(prose.readme_and_book.longest[0].place, "docs/src/deep/page.md:1");
    }
}
