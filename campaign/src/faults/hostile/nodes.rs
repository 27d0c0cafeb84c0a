//! Pipes, folders, links and devices where a file is expected.

use super::{Bomb, Content};

/// A file that a command reads.
struct Entrance {
    path: &'static str,
    needs: &'static [&'static str],
    arguments: &'static [&'static str],
}

const SCORE: &[&str] =
    &["score", "--model", "builtin:village", "--adapter", "adapter", "--tokens", "train.jsonl"];
const EVAL: &[&str] = &[
    "eval",
    "--model",
    "builtin:village",
    "--task",
    "exact-match",
    "--data",
    "questions.jsonl",
    "--limit",
    "1",
    "--max-new-tokens",
    "2",
    "--predictions",
    "predictions.jsonl",
];
const GENERATE: &[&str] =
    &["generate", "--model", "model", "--prompt", "Mira", "--max-new-tokens", "2"];
const CHAT: &[&str] =
    &["generate", "--model", "model", "--chat", "--prompt", "Mira", "--max-new-tokens", "2"];
const TRAIN: &[&str] = &["train", "local.toml", "--output", "fresh"];
const GROW: &[&str] =
    &["train", "run.toml", "--output", "run", "--resume", "--set", "train.steps=11"];
const REPORT: &[&str] = &["report", "run"];
const TEXTS: &[&str] = &["local.toml", "train.jsonl", "questions.jsonl"];
const RESUMED: &[&str] = &["run.toml", "run"];
const STUDY: &[&str] = &["run", "studies/study", "--dry-run"];

const fn entrance(
    path: &'static str,
    needs: &'static [&'static str],
    arguments: &'static [&'static str],
) -> Entrance {
    Entrance { path, needs, arguments }
}

const ENTRANCES: [Entrance; 31] = [
    entrance("local.toml", TEXTS, TRAIN),
    entrance("train.jsonl", TEXTS, TRAIN),
    entrance("questions.jsonl", TEXTS, EVAL),
    entrance("predictions.jsonl", TEXTS, EVAL),
    entrance("predictions.jsonl.settings.json", TEXTS, EVAL),
    entrance("pretrain.toml", &[], &["pretrain", "pretrain.toml"]),
    entrance("text.txt", &["pretrain.toml"], &["pretrain", "pretrain.toml"]),
    entrance("model/config.json", &["model"], GENERATE),
    entrance("model/model.safetensors", &["model"], GENERATE),
    entrance("model/model.safetensors.index.json", &["model"], GENERATE),
    entrance("model/tokenizer.json", &["model"], GENERATE),
    entrance("model/tokenizer_config.json", &["model"], GENERATE),
    entrance("model/generation_config.json", &["model"], GENERATE),
    entrance("model/chat_template.jinja", &["model"], CHAT),
    entrance("adapter/adapter_config.json", &["train.jsonl", "adapter"], SCORE),
    entrance("adapter/adapter_model.safetensors", &["train.jsonl", "adapter"], SCORE),
    entrance("run/config.toml", RESUMED, REPORT),
    entrance("run/metrics.jsonl", RESUMED, REPORT),
    entrance("run/selections.jsonl", RESUMED, REPORT),
    entrance("run/importance.jsonl", RESUMED, REPORT),
    entrance("run/costs.jsonl", RESUMED, REPORT),
    entrance("run/plan.json", RESUMED, REPORT),
    entrance("run/result.json", RESUMED, REPORT),
    entrance("run/failure.json", RESUMED, REPORT),
    entrance("run/.lock", RESUMED, GROW),
    entrance("run/checkpoints/10/state.json", RESUMED, GROW),
    entrance("run/checkpoints/10/optimizer.safetensors", RESUMED, GROW),
    entrance("run/checkpoints/10/adapter_model.safetensors", RESUMED, GROW),
    entrance("run/metrics.jsonl", RESUMED, GROW),
    entrance("studies/study/manifest.json", &["studies"], STUDY),
    entrance("run/result.json", RESUMED, &["inspect", "run"]),
];

/// Every kind of node at every entrance.
pub(super) fn all() -> Vec<Bomb> {
    let nodes = || {
        [
            ("pipe", Content::Fifo),
            ("folder", Content::Folder),
            ("link to itself", Content::Loop),
            ("endless device", Content::Zeros),
        ]
    };
    let mut all = Vec::new();
    for Entrance { path, needs, arguments } in &ENTRANCES {
        for (name, content) in nodes() {
            let name = format!("{name} as {path}, {}", arguments[0]);
            // What the command can do without may be passed over.
            all.push(Bomb::file(name, needs, path, content, arguments).or_taken());
        }
    }
    all
}
