//! Reports of real runs: every figure is there, names stand as they are, broken files are told of.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

use common::Workbench;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

/// A name that would break HTML, XML, Markdown and CSV alike.
const NAME: &str = "runs/<b>&amp; \"x\", 'y' | z";

fn parse(page: &str) -> Document<'_> {
    Document::parse_with_options(
        page,
        ParsingOptions { allow_dtd: true, ..ParsingOptions::default() },
    )
    .unwrap()
}

fn elements<'a>(page: &'a Document, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> + 'a {
    page.descendants().filter(move |node| node.tag_name().name() == name)
}

fn text(node: Node) -> String {
    node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect()
}

fn train(bench: &Workbench, output: &str, settings: &[&str]) {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> =
        ["train", "run.toml", "--output", output, "--quiet"].into_iter().chain(set).collect();
    bench.run(&arguments, 0);
}

/// Two groups with two seeds each, one run with a troublesome name.
fn study() -> Workbench {
    let bench = Workbench::new("");
    for seed in ["seed=1", "seed=2"] {
        train(
            &bench,
            &format!("runs/all-{seed}"),
            &["policy={kind=\"all\"}", seed, "memory.budget=recompute"],
        );
    }
    train(&bench, "runs/ist-1", &["seed=1", "memory.budget=recompute"]);
    train(&bench, NAME, &["seed=2", "memory.budget=recompute"]);
    bench
}

fn page(bench: &Workbench, arguments: &[&str]) -> String {
    bench
        .run(&[&["report", "runs", "--output", "page.html", "--quiet"][..], arguments].concat(), 0);
    bench.read("page.html")
}

#[test]
fn a_page_has_every_figure_and_needs_nothing_else() {
    let bench = study();
    let evaluation =
        r#"{"task": "a <task>", "accuracy": 0.75, "interval": [0.5, 0.9], "records": 20}"#;
    bench.write("runs/ist-1/x.eval.json", evaluation);
    let text_of_page = page(&bench, &[]);
    let page = parse(&text_of_page);
    let ids: Vec<&str> = page.descendants().filter_map(|node| node.attribute("id")).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "no id stands twice");
    let figures = [
        "training-loss",
        "validation-loss",
        "validation-time",
        "differences",
        "accuracy-0",
        "selections",
        "memory",
        "memory-kinds",
        "time",
        "scores-0",
        "probability-0",
        "scores-1",
        "probability-1",
    ];
    let found: BTreeSet<&str> =
        elements(&page, "figure").map(|figure| figure.attribute("id").unwrap()).collect();
    assert_eq!(
        found,
        figures
            .iter()
            .map(|name| format!("figure-{name}"))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
    for figure in elements(&page, "figure") {
        let chart = figure
            .descendants()
            .find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg")))
            .unwrap();
        assert_eq!(chart.attribute("role"), Some("img"));
        for id in chart.attribute("aria-labelledby").unwrap().split(' ') {
            assert!(
                !text(page.descendants().find(|node| node.attribute("id") == Some(id)).unwrap())
                    .is_empty(),
                "{id}"
            );
        }
        let shapes = ["polyline", "rect", "circle"];
        assert!(
            chart.descendants().filter(|node| shapes.contains(&node.tag_name().name())).count() > 2,
            "{figure:?}"
        );
        let table = figure.descendants().find(|node| node.tag_name().name() == "table").unwrap();
        assert!(
            table.descendants().filter(|node| node.tag_name().name() == "td").count() > 1,
            "{figure:?}"
        );
    }
    for link in page.descendants().filter_map(|node| node.attribute("href")) {
        let inside = link.strip_prefix('#').is_some_and(|id| ids.contains(&id));
        assert!(inside || link == "data:,", "{link} leads nowhere");
    }
    let sources = ["script", "img", "iframe", "object", "embed"];
    assert!(sources.iter().all(|name| elements(&page, name).next().is_none()));
    let policy = elements(&page, "meta")
        .find(|meta| meta.attribute("http-equiv") == Some("Content-Security-Policy"))
        .and_then(|meta| meta.attribute("content"))
        .unwrap();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("script-src"),
        "{policy}"
    );
    let style = text(elements(&page, "style").next().unwrap());
    assert!(
        !style.contains("url(")
            && !style.contains("@import")
            && style.contains("prefers-color-scheme:dark")
    );
    // Every colour of a chart follows the page, but for heat maps.
    let maps = |node: &Node| {
        node.ancestors().any(|a| {
            a.attribute("id")
                .is_some_and(|id| id.contains("-scores-") || id.contains("-probability-"))
        })
    };
    for node in page.descendants().filter(|node| !maps(node)) {
        for colour in ["fill", "stroke"]
            .into_iter()
            .filter_map(|name| node.attribute(name))
            .filter(|colour| colour.starts_with('#'))
        {
            assert!(style.contains(&format!("\"{colour}\"]")), "{colour}");
        }
    }
}

#[test]
fn names_stand_as_they_are_wherever_they_are_written() {
    let bench = study();
    let name = NAME.strip_prefix("runs/").unwrap();
    let text_of_page = page(&bench, &["--csv", "runs.csv", "--markdown", "runs.md"]);
    let page = parse(&text_of_page);
    assert!(elements(&page, "th").any(|cell| text(cell) == name));
    assert!(elements(&page, "summary").any(|summary| text(summary).ends_with(name)));
    assert!(elements(&page, "b").next().is_none(), "a name is no element");
    assert!(bench.read("runs.csv").contains("\"<b>&amp; \"\"x\"\", 'y' | z\""));
    let markdown = bench.read("runs.md");
    let row = markdown.lines().find(|line| line.contains("\\<b>")).unwrap();
    assert_eq!(
        row.replace("\\|", "").matches('|').count(),
        markdown.lines().find(|line| line.starts_with("| run")).unwrap().matches('|').count()
    );
}

#[test]
fn the_document_compares_by_seed() {
    let bench = study();
    let document = bench.json(&["report", "runs", "--json", "--at", "steps", "--quiet"]);
    assert!(!bench.path("report.html").exists(), "only what was asked for is written");
    assert_eq!((&document["baseline"], &document["at"]), (&"all".into(), &"steps".into()));
    let losses = |folder: &str| -> f64 {
        let result: Value =
            serde_json::from_str(&bench.read(&format!("{folder}/result.json"))).unwrap();
        result["train"]["evaluations"].as_array().unwrap().last().unwrap()[1].as_f64().unwrap()
    };
    let by_hand = [
        losses("runs/ist-1") - losses("runs/all-seed=1"),
        losses(NAME) - losses("runs/all-seed=2"),
    ];
    let comparison = &document["comparisons"][0]["comparisons"][0];
    assert_eq!(comparison["figure"], "validation loss");
    let row =
        comparison["rows"].as_array().unwrap().iter().find(|row| row["name"] != "all").unwrap();
    let difference = &row["difference"];
    for (found, expected) in difference["by_seed"].as_array().unwrap().iter().zip(by_hand) {
        assert!((found[1].as_f64().unwrap() - expected).abs() < 1e-9, "{found} {expected}");
    }
    // Of two differences the interval reaches from one to the other.
    let ends = [by_hand[0].min(by_hand[1]), by_hand[0].max(by_hand[1])];
    for (end, expected) in ["low", "high"].into_iter().zip(ends) {
        assert!((difference["interval"][end].as_f64().unwrap() - expected).abs() < 1e-9);
    }
    let time = &document["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["run"] == "ist-1")
        .unwrap()["time"];
    for part in ["forward", "recompute", "backward", "optimizer", "scoring"] {
        assert!(time[part].as_f64().unwrap() > 0.0, "{part}: {time}");
    }
    let message = bench.refused(&["report", "runs", "--baseline", "none"]);
    assert!(
        message.contains("\"none\" is none of the groups") && message.contains("\"all\""),
        "{message}"
    );
}

#[test]
fn half_written_and_broken_runs_are_told_of() {
    let bench = Workbench::new("");
    train(&bench, "runs/one", &[]);
    // Killed while it wrote a line.
    train(&bench, "runs/two", &["seed=4"]);
    std::fs::remove_file(bench.path("runs/two/result.json")).unwrap();
    for log in ["metrics", "importance", "selections", "costs"] {
        let mut file = OpenOptions::new()
            .append(true)
            .open(bench.path(&format!("runs/two/{log}.jsonl")))
            .unwrap();
        file.write_all(b"{\"step\": 10, \"lo").unwrap();
    }
    // Begun and nothing more.
    std::fs::create_dir_all(bench.path("runs/three/checkpoints")).unwrap();
    std::fs::copy(bench.path("runs/one/config.toml"), bench.path("runs/three/config.toml"))
        .unwrap();
    let output = bench.run(&["report", "runs", "runs/one", "--output", "page.html"], 0);
    let told = String::from_utf8(output.stderr).unwrap();
    for log in ["metrics", "importance", "selections", "costs"] {
        assert!(told.contains(&format!("two/{log}.jsonl: line")), "{log}: {told}");
    }
    for expected in [
        "two is unfinished",
        "three is unfinished (failed or killed), after 0 steps",
        "more than once",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(text(parse(&bench.read("page.html")).root_element()).contains("two is unfinished"));
    let lines = bench.read("runs/two/metrics.jsonl").replacen("{\"step\":3", "{\"step\":3,,", 1);
    bench.write("runs/two/metrics.jsonl", &lines);
    let message = bench.refused(&["report", "runs"]);
    assert!(message.contains("runs/two/metrics.jsonl: line 4 is not JSON"), "{message}");
    assert!(bench.refused(&["report", "nowhere"]).contains("nowhere does not exist"));
    assert!(bench.refused(&["report", "train.jsonl"]).contains("is no folder"));
    assert!(
        bench
            .refused(&["report", "runs/one", "--csv", "none/x.csv"])
            .contains("its folder does not exist")
    );
}

#[test]
fn a_page_of_thousands_of_steps_stays_small() {
    let bench = Workbench::new("");
    train(&bench, "runs/one", &[]);
    let steps = || 0..20_000;
    let line = |step: i32| {
        // What is no number is null in a log.
        let loss = Some(3.0 + f64::from(step % 13) / 10.0).filter(|_| step != 77);
        json!({"step": step, "loss": loss, "tokens": 9, "seconds": 0.1, "peak_bytes": 5})
    };
    let scores = |step: i32| (0..8).map(|layer| f64::from(step * layer).sin()).collect::<Vec<_>>();
    let lines = |values: &mut dyn Iterator<Item = Value>| {
        values.map(|value| format!("{value}\n")).collect::<String>()
    };
    let metrics = lines(&mut steps().map(line));
    let selections = lines(&mut steps().map(|step| json!({"step": step, "layers": [step % 7, 7]})));
    let updates = steps().filter(|step| step % 10 == 9);
    let importance = lines(&mut updates.map(|step| json!({"step": step, "scores": scores(step)})));
    bench.write("runs/one/metrics.jsonl", &metrics);
    bench.write("runs/one/selections.jsonl", &selections);
    bench.write("runs/one/importance.jsonl", &importance);
    let text_of_page = page(&bench, &[]);
    assert!(text_of_page.len() < 400_000, "{}", text_of_page.len());
    assert!(text_of_page.contains("1 steps have no finite loss") && !text_of_page.contains("NaN"));
    parse(&text_of_page);
}

#[test]
fn a_run_with_tensorboard_has_each_step_once_however_often_it_is_resumed() {
    let bench = Workbench::new("[logging]\ntensorboard = true\n");
    train(&bench, "run", &[]);
    let file = "run/tensorboard/events.out.tfevents.0.ist";
    let size = |steps: &str| {
        let longer = format!("train.steps={steps}");
        let arguments =
            ["train", "run.toml", "--output", "run", "--resume", "--quiet", "--set", &longer];
        bench.run(&arguments, 0);
        std::fs::metadata(bench.path(file)).unwrap().len()
    };
    let whole = std::fs::metadata(bench.path(file)).unwrap().len();
    // Nothing is left to do: every event stays, none is added but the tail that was cut off goes.
    let mut log = OpenOptions::new().append(true).open(bench.path(file)).unwrap();
    log.write_all(&[7; 33]).unwrap();
    assert_eq!(size("10"), whole);
    assert!(size("12") > whole);
    assert!(bench.path("run/tensorboard").read_dir().unwrap().nth(1).is_none(), "one file");
}
