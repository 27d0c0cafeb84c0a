//! The inputs of the campaign: small files, a small model, an adapter and runs, made once by `ist`
//! itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{End, Job, Kill};

/// A run of ten steps with checkpoints, evaluations and a score at its end.
const RUN: &str = r#"seed = 3
[model]
path = "builtin:village"
[data]
train = "{data}train.jsonl"
validation_records = 4
[adapter]
r = 2
alpha = 4
dropout = 0.1
[policy]
kind = "ist"
interval = 3
score_batch = 4
[optimizer]
lr = 1e-3
warmup_steps = 2
[train]
steps = 10
batch = 4
micro_batch = 2
eval_every = 4
save_every = 2
[eval]
task = "exact-match"
data = "{data}questions.jsonl"
limit = 3
max_new_tokens = 3
[logging]
tensorboard = true
"#;

/// A study of two runs.
const STUDY: &str = r#"seeds = [1, 2]
[model]
path = "builtin:village"
[data]
train = "{data}train.jsonl"
[adapter]
r = 2
alpha = 4
[policy]
kind = "rst"
[optimizer]
lr = 1e-3
[train]
steps = 4
batch = 4
save_every = 2
"#;

/// A model of two layers from scratch.
const PRETRAIN: &str = r#"seed = 1
output = "model"
[model]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
[tokenizer]
vocab_size = 300
[data]
source = "text.txt"
tokens = 2048
validation_tokens = 256
sequence_length = 32
[optimizer]
lr = 1e-3
[train]
steps = 8
batch = 4
eval_every = 4
"#;

/// How often a run is killed at a checkpoint before that is given up.
const ATTEMPTS: usize = 20;

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Workbench {
    /// The `ist` binary.
    pub(crate) ist: PathBuf,
    root: PathBuf,
}

impl Workbench {
    /// Makes the inputs in a folder.
    pub(crate) fn new(ist: &Path, root: &Path) -> Result<Self> {
        let ist = ist.canonicalize().with_context(|| format!("{}: no binary", ist.display()))?;
        fs::create_dir_all(root).with_context(|| root.display().to_string())?;
        let bench = Self { ist, root: root.canonicalize()? };
        let inputs = bench.inputs();
        if inputs.exists() {
            fs::remove_dir_all(&inputs)?;
        }
        fs::create_dir_all(&inputs)?;
        write_texts(&inputs)?;
        bench.must(&["train", "run.toml", "--output", "run", "--quiet"])?;
        copy(&inputs.join("run/adapter"), &inputs.join("adapter"))?;
        bench.must(&["pretrain", "pretrain.toml", "--quiet"])?;
        bench.must(&["run", "study.toml", "--output", "studies", "--quiet"])?;
        bench.half_done()?;
        Ok(bench)
    }

    /// The folder of the inputs.
    pub(crate) fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    /// A fresh folder with copies of some inputs.
    pub(crate) fn folder(&self, name: &str, needs: &[&str]) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        self.fill(&folder, needs)?;
        Ok(folder)
    }

    /// Copies some inputs into a folder.
    pub(crate) fn fill(&self, folder: &Path, needs: &[&str]) -> Result<()> {
        needs.iter().try_for_each(|need| copy(&self.inputs().join(need), &folder.join(need)))
    }

    /// The command with these arguments, in a folder.
    pub(crate) fn job<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S], folder: &Path) -> Job {
        Job::new(&self.ist, arguments, folder)
    }

    fn must(&self, arguments: &[&str]) -> Result<()> {
        let outcome = self.job(arguments, &self.inputs()).run()?;
        let done = outcome.end == End::Code(0);
        ensure!(
            done,
            "the inputs cannot be made: ist {}: {}",
            arguments.join(" "),
            outcome.shown()
        );
        Ok(())
    }

    /// `half`: a run that was killed between its checkpoints.
    fn half_done(&self) -> Result<()> {
        self.half_a_run(&self.inputs(), "run.toml", "half")
    }

    /// A run in a folder that is killed when its third checkpoint of five is there.
    pub(crate) fn half_a_run(&self, folder: &Path, config: &str, name: &str) -> Result<()> {
        let run = folder.join(name);
        for _ in 0..ATTEMPTS {
            let arguments = ["train", config, "--output", name, "--quiet"];
            let kill = Kill::At(run.join("checkpoints/6"));
            self.job(&arguments, folder).killed(kill).run()?;
            if !run.join("result.json").exists() {
                return Ok(());
            }
            fs::remove_dir_all(&run)?;
        }
        bail!("no run can be killed between its checkpoints on this machine")
    }
}

/// The files that are written by hand.
fn write_texts(folder: &Path) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    // A run that is copied elsewhere is to find its data where it was made.
    let data = format!("{}/", folder.display());
    write("run.toml", &RUN.replace("{data}", &data))?;
    write("local.toml", &RUN.replace("{data}", ""))?;
    write("study.toml", &STUDY.replace("{data}", &data))?;
    write("pretrain.toml", PRETRAIN)?;
    write("train.jsonl", &(0..24).map(token_record).collect::<String>())?;
    write("questions.jsonl", &questions())?;
    write("text.txt", &text())?;
    Ok(())
}

/// A record of token ids.
fn token_record(number: u64) -> String {
    let ids = (0..6 + number % 5).map(|at| 300 + (7 * number + 13 * at) % 500);
    format!("{}\n", serde_json::json!({"input_ids": ids.collect::<Vec<_>>()}))
}

/// Questions about the built-in world.
fn questions() -> String {
    let asked = ["Which food does Clara eat?", "Which place does the bag have?", "Who is Tom?"];
    let record = |number: usize| {
        let question = asked[number % asked.len()];
        serde_json::json!({"instruction": question, "output": "honey", "answer": "honey"})
    };
    (0..8).map(|number| format!("{}\n", record(number))).collect()
}

/// Text to learn from: every sentence is another.
fn text() -> String {
    let names = ["Mira", "Tom", "Clara", "Rosa"];
    let foods = ["bread", "honey", "corn", "soup", "cheese"];
    let places = ["inn", "mill", "garden"];
    let sentence = |at: usize| {
        let name = names[at % names.len()];
        let food = foods[at % foods.len()];
        let place = places[at % places.len()];
        format!("{name} eats {food} at the {place} on day {at}.\n\n")
    };
    (0..600).map(sentence).collect()
}

/// Copies a file, or a folder with all it holds.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
