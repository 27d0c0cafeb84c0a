//! The figures that are limits.

use super::Report;
use super::rooms::Crate;
use crate::table::Table;

/// The most rooms that a crate may have.
const MOST_ROOMS: [RoomLimit; 2] =
    [RoomLimit { krate: "ist-experiments", rooms: 20 }, RoomLimit { krate: "ist-peft", rooms: 10 }];

/// The most semicolons in a thousand words of README and book.
const MOST_SEMICOLONS: f64 = 2.0;

/// The least share of sentences that are not long, in percent.
const LEAST_SHORT_SENTENCES: f64 = 90.0;

/// The fewest plain comments for each hundred lines of code.
const FEWEST_COMMENTS: f64 = 2.5;

/// How many places are listed for each limit. `--json` has them all.
const LISTED: usize = 20;

struct RoomLimit {
    krate: &'static str,
    rooms: usize,
}

/// A limit that does not hold, and what breaks it.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The limit and the figure.
    limit: String,
    /// Places that break it, or come nearest to the reason.
    places: Vec<String>,
}

/// All limits that do not hold.
pub(crate) fn broken_limits(report: &Report) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut none_of = |limit: &str, places: &[String]| {
        if !places.is_empty() {
            let limit = format!("{limit}: {}, not 0", places.len());
            broken.push(Broken { limit, places: places.to_vec() });
        }
    };
    none_of("tuple or array patterns as parameters", &report.style.pattern_parameters);
    none_of("lines over 100 columns", &report.style.wide_lines);
    let names = report.names.repeated.iter();
    let repeated: Vec<String> =
        names.map(|one| format!("{} {}: {}", one.krate, one.name, one.places.join(", "))).collect();
    none_of("names of types used twice in one crate", &repeated);
    none_of("circles between rooms", &circles(&report.rooms.crates));
    broken.extend(rooms(&report.rooms.crates));
    broken.extend(prose(report));
    broken.extend(comments(report));
    broken
}

fn circles(crates: &[Crate]) -> Vec<String> {
    let circles = crates.iter().flat_map(|one| one.circles.iter().map(|c| (&one.name, &c.rooms)));
    circles.map(|named| format!("{}: {}", named.0, named.1.join(", "))).collect()
}

fn rooms(crates: &[Crate]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for limit in &MOST_ROOMS {
        let Some(found) = crates.iter().find(|one| one.name == limit.krate) else { continue };
        if found.rooms.len() > limit.rooms {
            let count = found.rooms.len();
            let text = format!("rooms of {}: {count}, more than {}", limit.krate, limit.rooms);
            broken.push(Broken { limit: text, places: vec![found.rooms.join(", ")] });
        }
    }
    broken
}

fn prose(report: &Report) -> Vec<Broken> {
    let figures = &report.prose.readme_and_book;
    let mut broken = Vec::new();
    let semicolons = figures.semicolons_per_1000();
    if semicolons > MOST_SEMICOLONS {
        let limit = format!(
            "semicolons per 1,000 words of README and book: {semicolons:.1}, more than \
             {MOST_SEMICOLONS}"
        );
        broken.push(Broken { limit, places: vec![] });
    }
    let short = figures.not_long_percent();
    if figures.sentence.count > 0 && short < LEAST_SHORT_SENTENCES {
        let limit = format!(
            "sentences of at most {} words in README and book: {short:.1} %, fewer than \
             {LEAST_SHORT_SENTENCES} %",
            super::prose::LONG
        );
        let longest = figures.longest.iter();
        let places = longest.map(|one| format!("{} ({} words)", one.place, one.words)).collect();
        broken.push(Broken { limit, places });
    }
    broken
}

fn comments(report: &Report) -> Option<Broken> {
    let comments = &report.comments;
    (comments.per_100_lines < FEWEST_COMMENTS).then(|| Broken {
        limit: format!(
            "plain comments per 100 lines of code: {:.2}, fewer than {FEWEST_COMMENTS}",
            comments.per_100_lines
        ),
        places: comments.crates.iter().map(|one| format!("{} {:.2}", one.0, one.1)).collect(),
    })
}

/// The broken limits as text.
pub(crate) fn show(broken: &[Broken]) -> String {
    let mut table = Table::default();
    if broken.is_empty() {
        table.heading("every limit holds");
    }
    for one in broken {
        table.heading(&one.limit);
        one.places.iter().take(LISTED).for_each(|place| table.entry(place));
        if one.places.len() > LISTED {
            table
                .entry(format!("and {} more; `--json FILE` lists them", one.places.len() - LISTED));
        }
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sources::Sources;
    use super::super::{comments, files, functions, names, prose, rooms, style};
    use super::*;

    fn report(files: &[(&str, &str)], readme: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), readme).unwrap();
        let sources = Sources::sample(files);
        Report {
            files: files::measure(&sources),
            functions: functions::measure(&sources),
            comments: comments::measure(&sources),
            style: style::measure(&sources),
            names: names::measure(&sources),
            rooms: rooms::measure(&sources),
            prose: prose::measure(folder.path(), Path::new("book"), &sources).unwrap(),
        }
    }

    fn limits(report: &Report) -> Vec<String> {
        broken_limits(report).into_iter().map(|broken| broken.limit).collect()
    }

    #[test]
    fn what_keeps_every_limit_breaks_none() {
        let files = [
            ("lib", "mod a;\nmod b;\n"),
            ("a", "// Why.\nuse crate::b::X;\n"),
            ("b", "struct X;\n"),
        ];
        assert_eq!(limits(&report(&files, "One sentence. Another.")), Vec::<String>::new());
    }

    #[test]
    fn every_limit_can_be_broken() {
        let wide = format!("const A: &str = \"{}\";\n", "x".repeat(90));
        let a = format!("use crate::b::X;\npub struct Y;\nfn f((a, b): (u8, u8)) {{}}\n{wide}");
        let files = [
            ("lib", "mod a;\nmod b;\n"),
            ("a", &a),
            ("b", "use crate::a::Y;\nstruct X;\nstruct Y;\n"),
        ];
        let readme = format!("One; two. {}.", vec!["word"; 27].join(" "));
        let mut report = report(&files, &readme);
        report.rooms.crates[0].name = "ist-peft".into();
        report.rooms.crates[0].rooms = vec!["room".into(); 11];
        let found = limits(&report);
        let starts = [
            "tuple",
            "lines over",
            "names",
            "circles",
            "rooms",
            "semicolons",
            "sentences",
            "plain",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (limit, start) in found.iter().zip(starts) {
            assert!(limit.starts_with(start), "{limit}");
        }
        let shown = show(&broken_limits(&report));
        assert!(
            shown.contains("src/a.rs:3 f") && shown.contains("sample Y: src/a.rs:2, src/b.rs:3")
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let places = (0..LISTED + 3).map(|n| format!("place {n}")).collect();
        let text = show(&[Broken { limit: "limit".into(), places }]);
        assert!(text.contains("place 19") && !text.contains("place 20"));
        assert!(text.contains("and 3 more"));
    }
}
