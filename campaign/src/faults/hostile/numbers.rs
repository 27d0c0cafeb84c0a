//! Numbers in arguments and configurations that no machine can satisfy.

use super::Bomb;

const VALUES: [&str; 6] =
    ["0", "-1", "1000000000", "1000000000000000000", "18446744073709551615", "1e999"];
/// Keys of a run that hold numbers.
const KEYS: [&str; 24] = [
    "seed",
    "data.cutoff",
    "data.validation_records",
    "adapter.r",
    "adapter.alpha",
    "adapter.dropout",
    "policy.layers_updated",
    "policy.layers_suppressed",
    "policy.candidates",
    "policy.suppression",
    "policy.interval",
    "policy.importance_lr",
    "policy.score_batch",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.eps",
    "optimizer.warmup_steps",
    "train.batch",
    "train.micro_batch",
    "train.eval_every",
    "train.save_every",
    "train.keep_last",
    "eval.limit",
    "eval.max_new_tokens",
];

/// All numbers.
pub(super) fn all() -> Vec<Bomb> {
    let mut all = Vec::new();
    let texts = &["run.toml", "train.jsonl", "questions.jsonl"];
    for key in KEYS {
        for value in VALUES {
            let set = format!("{key}={value}");
            let arguments = ["train", "run.toml", "--output", "fresh", "--set", &set];
            all.push(command(format!("--set {set}"), texts, &arguments));
        }
    }
    let long = ["train.steps", "seeds"];
    for key in long {
        for value in VALUES {
            let set = format!("{key}={value}");
            // To plan many steps takes no longer than to plan a few.
            let arguments = ["plan", "run.toml", "--set", &set];
            all.push(command(format!("plan --set {set}"), texts, &arguments));
        }
    }
    for value in VALUES {
        let generate = ["generate", "--model", "builtin:village", "--input-ids", "1,2"];
        for option in ["--beams", "--top-k", "--top-p", "--temperature", "--seed"] {
            let arguments = [&generate[..], &["--max-new-tokens", "2", option, value]].concat();
            all.push(command(format!("generate {option} {value}"), &[], &arguments));
        }
        let arguments = [&generate[..], &["--max-new-tokens", value]].concat();
        all.push(command(format!("generate --max-new-tokens {value}"), &[], &arguments));
        let arguments = ["generate", "--model", "builtin:village", "--input-ids", value];
        all.push(command(format!("generate --input-ids {value}"), &[], &arguments));
        for option in ["--seq", "--batch", "--steps", "--r"] {
            // A measurement of many steps takes its time by right.
            if option == "--steps" && value.len() > 2 {
                continue;
            }
            let bench = ["bench", "--config", "model/config.json", "--warmup", "0"];
            let arguments = [&bench[..], &[option, value]].concat();
            all.push(command(format!("bench {option} {value}"), &["model"], &arguments));
        }
        for option in ["--beams", "--batch", "--limit", "--max-new-tokens"] {
            let eval = ["eval", "--model", "builtin:village", "--task", "exact-match"];
            let arguments = [&eval[..], &["--data", "questions.jsonl", option, value]].concat();
            all.push(command(format!("eval {option} {value}"), &["questions.jsonl"], &arguments));
        }
    }
    all
}

/// Some numbers are fine at some places: what counts is that the command ends well.
fn command(name: String, needs: &'static [&'static str], arguments: &[&str]) -> Bomb {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Bomb { name, needs, files: Vec::new(), arguments, may_be_taken: true }
}
