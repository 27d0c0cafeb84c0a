//! Figures and samples of the README and the book are those of recorded runs in
//! `experiments/results/`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use ist_experiments::display::summary;
use serde_json::Value;

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(name)).unwrap()
}

/// The rows of a report's CSV by column. No cell of these records holds a line break.
fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = csv.lines().map(cells);
    let header = lines.next().unwrap();
    lines.map(|row| header.iter().cloned().zip(row).collect()).collect()
}

fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}

/// The mean, and in parentheses the least and the greatest.
fn spread(values: &[f64], digits: usize) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{mean:.digits$} ({least:.digits$}–{greatest:.digits$})")
}

#[test]
fn the_tables_of_three_policies_are_the_recorded_runs() {
    let runs = rows(&read("experiments/results/quickstart.csv"));
    assert_eq!(runs.len(), 9);
    let book = read("docs/src/results.md");
    let readme = read("README.md");
    for policy in ["ist", "rst", "all"] {
        let of = |column: &str| -> Vec<f64> {
            let own = runs.iter().filter(|run| run["config.policy.kind"] == policy);
            own.map(|run| run[column].parse().unwrap()).collect()
        };
        let accuracy: Vec<f64> =
            of("accuracy.exact-match").iter().map(|share| 100.0 * share).collect();
        let peak = of("peak_bytes").into_iter().fold(0.0, f64::max) / f64::from(1 << 20);
        let figures = format!(
            "{} % | {} | {} | {peak:.1} MiB |",
            spread(&accuracy, 1),
            spread(&of("eval_loss"), 4),
            spread(&of("seconds"), 1),
        );
        let row = format!("| `{policy}` | {figures}");
        assert!(book.contains(&row), "results.md should have\n{row}");
        let named = |line: &&str| line.starts_with(&format!("| `{policy}`"));
        let line = readme.lines().find(named).unwrap();
        assert!(line.ends_with(&figures), "README.md should end a row with\n{figures}");
    }
}

#[test]
fn the_summaries_that_are_shown_are_that_of_the_recorded_run() {
    let result: Value = serde_json::from_str(&read("experiments/results/quickstart.json")).unwrap();
    let printed = summary::render(&result, "runs/quickstart-1");
    let page = read("docs/src/quickstart.md");
    assert!(page.contains(printed.trim_end()), "quickstart.md should have\n{printed}");
    let readme = read("README.md");
    let [shown] = between(&readme, "```text\n", '`')[..] else {
        panic!("README.md shows one text")
    };
    for line in shown.lines() {
        assert!(printed.lines().any(|printed| printed == line), "README.md shows {line}");
    }
}

/// Every page of the repository's prose, by its path.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benches/README.md"]
            .map(String::from)
            .to_vec();
    for folder in ["docs/src", "docs/src/howto", "docs/src/backends"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        for entry in std::fs::read_dir(root).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap().to_str().unwrap();
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// What stands behind `opening` up to `closing`, wherever that is in a text.
fn between<'a>(text: &'a str, opening: &str, closing: char) -> Vec<&'a str> {
    text.split(opening).skip(1).filter_map(|rest| rest.split(closing).next()).collect()
}

/// A heading as the target of a link, by the rule that mdbook and GitHub share.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn every_page_of_the_book_is_listed_and_says_something() {
    let summary = read("docs/src/SUMMARY.md");
    for (name, text) in pages() {
        assert!(text.lines().count() >= 9, "{name} has {} lines", text.lines().count());
        let Some(page) = name.strip_prefix("docs/src/") else { continue };
        assert!(page == "SUMMARY.md" || summary.contains(&format!("({page})")), "{name}");
    }
}

#[test]
fn links_pictures_and_included_files_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, text) in pages() {
        let folder = root.join(&name).parent().unwrap().to_owned();
        let links = between(&text, "](", ')').into_iter();
        let sources = between(&text, "src=\"", '"').into_iter();
        let sets = between(&text, "srcset=\"", '"').into_iter();
        let included = between(&text, "{{#include ", '}').into_iter();
        for link in links.chain(sources).chain(sets).chain(included) {
            if link.contains("://") || link.contains('\n') {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let place = if file.is_empty() { root.join(&name) } else { folder.join(file) };
            assert!(place.exists(), "{name}: {link}");
            if !heading.is_empty() {
                let page = std::fs::read_to_string(&place).unwrap();
                let mut headings = page.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{name}: {link}");
            }
        }
    }
}
