//! The closing summary of a run, for a person.

use std::fmt::Write;

use serde_json::Value;

use ist_records::terminal::human;

/// Cells of the longest bar.
const BAR: f64 = 24.0;

/// What the run did, in a screenful: losses, scores, layers, memory, where the adapter lies.
pub fn render(result: &Value, folder: &str) -> String {
    let mut text = String::new();
    let train = &result["train"];
    let number = |value: &Value| {
        value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"))
    };
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<14} {value}").expect("strings take text");
    };
    let tenths = (number(&train["loss_first_tenth"]), number(&train["loss_last_tenth"]));
    line(
        "training loss",
        format!(
            "{} -> {}  (mean of the first and the last tenth of {} steps)",
            tenths.0, tenths.1, train["steps"]
        ),
    );
    if let Some((step, loss)) = best(result) {
        line("validation", format!("best {loss:.4} after step {}", step + 1));
    }
    if let (Some(before), Some(after)) = (score(result, "before"), score(result, "after")) {
        let majority =
            100.0 * result["eval"]["after"]["majority_baseline"].as_f64().unwrap_or_default();
        let task = result["eval"]["after"]["task"].as_str().filter(|task| *task != "exact-match");
        line(
            task.unwrap_or("exact match"),
            format!("{before} -> {after}  (always the commonest answer: {majority:.1} %)"),
        );
    }
    let seconds = train["seconds"].as_f64().unwrap_or_default();
    line(
        "time",
        format!(
            "{seconds:.1} s, {:.0} learned tokens/s",
            train["tokens"].as_f64().unwrap_or_default() / seconds.max(1e-9)
        ),
    );
    if let Some(scoring) = scoring(&result["scoring"]) {
        line("of it scoring", scoring);
    }
    line("peak memory", peak(train, &result["memory"]));
    let parameters = &train["parameters"];
    line("parameters", format!("{} trainable of {}", parameters["trainable"], parameters["total"]));
    line("adapter", format!("{folder}/adapter"));
    text.push_str(&layers(result));
    text
}

/// The time of the scoring passes, where there were any.
fn scoring(scoring: &Value) -> Option<String> {
    let updates = scoring["updates"].as_u64().filter(|updates| *updates > 0)?;
    let (seconds, share) = (scoring["seconds"].as_f64()?, scoring["share"].as_f64()?);
    Some(format!("{seconds:.1} s, {:.1} %, in {updates} updates of the importance", 100.0 * share))
}

fn peak(train: &Value, memory: &Value) -> String {
    let human = |bytes: &Value| human(bytes.as_u64().unwrap_or_default() as usize);
    let measured = human(&train["peak_bytes"]);
    match &memory["predicted_peak_bytes"] {
        Value::Null => measured,
        predicted => format!("{measured}  (predicted {})", human(predicted)),
    }
}

fn best(result: &Value) -> Option<(u64, f64)> {
    let best = &result["best"];
    Some((best["step"].as_u64()?, best["eval_loss"].as_f64()?))
}

fn score(result: &Value, when: &str) -> Option<String> {
    let score = &result["eval"][when];
    let (right, of) = (score["correct"].as_u64()?, score["records"].as_u64()?);
    Some(format!("{:.1} % ({right} of {of})", 100.0 * right as f64 / of.max(1) as f64))
}

/// A bar per layer: its chance to be chosen where there are importance scores, else how often it
/// was chosen.
fn layers(result: &Value) -> String {
    let list = |key: &str| -> Vec<f64> {
        result["layers"][key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (counts, scores) = (list("selected"), list("scores"));
    let weights: Vec<f64> = if scores.is_empty() {
        counts.clone()
    } else {
        scores.iter().map(|&score| ist_core::sampling::sigmoid(-score)).collect()
    };
    let head = if scores.is_empty() {
        "layer  times chosen".to_owned()
    } else {
        "layer  update probability σ(-I), importance score I, times chosen".to_owned()
    };
    let largest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let rows = weights.iter().enumerate().map(|(layer, weight)| {
        let bar = "█".repeat((BAR * weight / largest).round() as usize);
        let count = counts.get(layer).copied().unwrap_or_default();
        match scores.get(layer) {
            Some(score) => format!("{layer:>5}  {bar:<24} {weight:.4}  {score:+.4}  {count}\n"),
            None => format!("{layer:>5}  {bar:<24} {count}\n"),
        }
    });
    format!("{head}\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_less_important_layer_has_a_shorter_bar() {
        let text = layers(&json!({"layers": {"selected": [3, 1], "scores": [-2.0, 2.0]}}));
        let bars: Vec<usize> = text.lines().skip(1).map(|line| line.matches('█').count()).collect();
        assert!(bars[0] == 24 && bars[1] < 6, "{text}");
    }

    #[test]
    fn the_summary_says_where_the_adapter_lies() {
        let result = json!({"train": {"loss_first_tenth": 2.0, "loss_last_tenth": 1.0, "steps": 10},
            "layers": {}});
        let text = render(&result, "runs/x-1");
        assert!(text.contains("2.0000 -> 1.0000") && text.contains("runs/x-1/adapter"), "{text}");
    }
}
