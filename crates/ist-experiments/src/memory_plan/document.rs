//! What `ist plan` prints, as a JSON document and as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use ist_core::LayerSet;
use ist_core::step::{LayerTreatment, Memory};
use serde_json::{Map, Value, json};

use super::{Estimate, Planner, draws};
use ist_records::Failure;
use ist_records::record::plan::KINDS;
use ist_records::terminal::human;

/// The whole plan of a run.
pub fn document(planner: &Planner) -> Result<Value, Failure> {
    let drawn = draws::first(planner)?;
    let treatment = |memory| -> Result<Value, Failure> {
        let worst = draws::worst(planner, memory)?;
        Ok(json!({"expected": expected(planner, &drawn, memory),
                "worst": of(&planner.estimate(&worst, memory))}))
    };
    let configured = treatment(planner.memory())?;
    let (records, sequence) = planner.micro_batch();
    let (config, shape) = (planner.config, planner.shape);
    let all = LayerSet::all(shape.num_layers);
    Ok(json!({
        "model": config.model.path.to_string(),
        "layers": shape.num_layers,
        "layers_updated": planner.largest,
        "adapted_modules": planner.adapted.len(),
        "parameters": {
            "frozen": shape.parameters,
            "trainable": planner.parameters(&all),
            "trained_in_a_step": planner.most_parameters(),
        },
        "micro_batch": {"records": records, "sequence": sequence},
        "budget": {"setting": config.memory.budget, "bytes": planner.limit()},
        "bytes": configured["worst"]["bytes"],
        "peak_bytes": configured["worst"]["peak_bytes"],
        "plain_peft": of(&planner.estimate(&planner.layers, Memory::Keep)),
        "treatments": {"keep": treatment(Memory::Keep)?, "recompute": treatment(Memory::Recompute)?,
        "budget": configured},
    }))
}

/// One draw.
fn of(estimate: &Estimate) -> Value {
    let treated = |treatment| -> Vec<usize> {
        let all = estimate.treatments.iter().enumerate();
        all.filter(|(_, found)| **found == treatment).map(|(layer, _)| layer).collect()
    };
    json!({
        "peak_bytes": estimate.peak,
        "bytes": by_kind(estimate),
        "layers": estimate.layers.as_slice(),
        "kept": treated(LayerTreatment::Keep),
        "kept_in_half": treated(LayerTreatment::KeepHalf),
        "recomputed": treated(LayerTreatment::Recompute),
    })
}

fn by_kind(estimate: &Estimate) -> Map<String, Value> {
    let fixed = estimate.fixed;
    let bytes = [
        fixed.weights,
        fixed.adapters,
        estimate.gradients,
        fixed.optimizer,
        estimate.activations,
        estimate.logits,
        estimate.scoring,
        fixed.data,
        fixed.workspace,
    ];
    KINDS.iter().zip(bytes).map(|(kind, bytes)| ((*kind).to_owned(), bytes.into())).collect()
}

/// The means over the first draws.
fn expected(planner: &Planner, drawn: &BTreeMap<LayerSet, usize>, memory: Memory) -> Value {
    let estimates: BTreeMap<&LayerSet, Value> =
        drawn.keys().map(|set| (set, of(&planner.estimate(set, memory)))).collect();
    let mean = |of: &dyn Fn(&Value) -> u64| draws::mean(drawn, |set| of(&estimates[set]));
    let kinds: Map<String, Value> = KINDS
        .iter()
        .map(|kind| {
            (
                (*kind).to_owned(),
                mean(&|found| found["bytes"][kind].as_u64().unwrap_or_default()).into(),
            )
        })
        .collect();
    json!({"peak_bytes": mean(&|found| found["peak_bytes"].as_u64().unwrap_or_default()),
        "bytes": kinds})
}

/// The plan for a person.
pub fn render(plan: &Value) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<12} {value}").expect("strings take text");
    };
    let (parameters, batch) = (&plan["parameters"], &plan["micro_batch"]);
    let (layers, updated) = (&plan["layers"], &plan["layers_updated"]);
    line(
        "model",
        format!(
            "{} ({layers} layers, at most {updated} trained in a step)",
            text_of(&plan["model"])
        ),
    );
    let [frozen, trainable, trained] =
        ["frozen", "trainable", "trained_in_a_step"].map(|key| &parameters[key]);
    let modules = &plan["adapted_modules"];
    line(
        "parameters",
        format!(
            "{frozen} frozen, {trainable} trainable in {modules} modules, at most {trained} \
             trained in a step"
        ),
    );
    line(
        "micro-batch",
        format!("{} records of at most {} tokens", batch["records"], batch["sequence"]),
    );
    line("budget", budget(&plan["budget"]));
    text + "\n" + &table(plan) + "\n" + &draw(&plan["treatments"]["budget"]["worst"])
}

fn budget(budget: &Value) -> String {
    match (budget["setting"].as_str(), budget["bytes"].as_u64()) {
        (Some(word), Some(bytes)) => format!("{word}: {} of what is free", human(bytes as usize)),
        (Some(word), None) => word.to_owned(),
        (None, _) => human(budget["bytes"].as_u64().unwrap_or_default() as usize),
    }
}

/// A row a kind; a column for plain PEFT and for the expected and the worst draw.
fn table(plan: &Value) -> String {
    let draws = &plan["treatments"]["budget"];
    let columns = [
        ("plain PEFT", &plan["plain_peft"]),
        ("expected", &draws["expected"]),
        ("worst draw", &draws["worst"]),
    ];
    let row = |label: &str, cell: &dyn Fn(&Value) -> String| {
        let cells: String =
            columns.iter().map(|(_, estimate)| format!("{:>14}", cell(estimate))).collect();
        format!("{label:<12}{cells}\n")
    };
    let bytes = |value: &Value| human(value.as_u64().unwrap_or_default() as usize);
    let heads: String = columns.iter().map(|(head, _)| format!("{head:>14}")).collect();
    let kinds: String =
        KINDS.iter().map(|kind| row(kind, &|estimate| bytes(&estimate["bytes"][kind]))).collect();
    let peaks = row("peak", &|estimate| bytes(&estimate["peak_bytes"]));
    let other = |name: &str| {
        let of = |which: &str| bytes(&plan["treatments"][name][which]["peak_bytes"]);
        format!("{name:<12}{:>14}{:>14}{:>14}\n", "", of("expected"), of("worst"))
    };
    format!("{:<12}{heads}\n{kinds}{peaks}{}{}", "", other("keep"), other("recompute"))
}

/// What is done with the layers of the worst draw.
fn draw(worst: &Value) -> String {
    format!(
        "worst draw   trains {}, keeps the graphs of {} and half of those of {}, runs {} again\n",
        worst["layers"], worst["kept"], worst["kept_in_half"], worst["recomputed"]
    )
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
