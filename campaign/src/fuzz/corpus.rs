//! The seeds that `ist` itself makes: a small model, adapters, runs, a study, predictions, Parquet
//! files.
//!
//! Cases whose names begin with `made-` are written here; all others are written by hand, or were
//! found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::faults::Workbench;
use crate::process::End;

/// Where the corpus lies.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
/// Files of models that other tests have.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/ist-models/tests/fixtures");

/// `ist-campaign corpus`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The binary
    #[arg(long)]
    ist: PathBuf,
    /// Where the runs are made
    #[arg(long, default_value = "/tmp/ist-campaign-corpus")]
    folder: PathBuf,
    /// The corpus
    #[arg(long, default_value = FOLDER)]
    corpus: PathBuf,
}

/// Adapters of the small model, by method, with what their table says.
const ADAPTERS: [(&str, &str); 6] = [
    ("lora", "r = 2\nalpha = 4\n"),
    ("dora", "r = 2\nalpha = 4\n"),
    ("ia3", ""),
    ("prefix-tuning", "num_virtual_tokens = 2\n"),
    ("series", "bottleneck_size = 2\n"),
    ("layernorm", ""),
];

/// A run on the small model.
fn run_of(method: &str, fields: &str) -> String {
    format!(
        "[model]\npath = \"model\"\n[data]\ntrain = \"small.jsonl\"\nvalidation_records = 2\n\
         cutoff = 32\n\
         [adapter]\nmethod = \"{method}\"\n{fields}[policy]\nkind = \"ist\"\ninterval = 2\n\
         score_batch = 2\nlayers_updated = 1\nlayers_suppressed = 1\n\
         [train]\nsteps = 6\nbatch = 2\neval_every = 3\nsave_every = 6\n\
         [logging]\ntensorboard = true\n"
    )
}

/// Makes all cases that begin with `made-` anew.
pub(crate) fn make(arguments: &Arguments) -> Result<()> {
    let bench = Workbench::new(&arguments.ist, &arguments.folder)?;
    let inputs = bench.inputs();
    let records: String =
        (0..8).map(|n| format!("{{\"input_ids\": [{n}, 20, 30, 4{n}]}}\n")).collect();
    fs::write(inputs.join("small.jsonl"), records)?;
    for (method, fields) in ADAPTERS {
        fs::write(inputs.join("small.toml"), run_of(method, fields))?;
        let output = format!("small-{method}");
        let arguments = ["train", "small.toml", "--output", &output, "--quiet"];
        let outcome = bench.job(&arguments, &inputs).run()?;
        ensure!(outcome.end == End::Code(0), "{method}: {}", outcome.shown());
    }
    let corpus = Corpus { root: arguments.corpus.clone(), inputs };
    corpus.remove_made()?;
    corpus.models()?;
    corpus.adapters()?;
    corpus.runs()?;
    corpus.fixtures()?;
    parquet_files(&corpus)
}

struct Corpus {
    root: PathBuf,
    inputs: PathBuf,
}

impl Corpus {
    fn remove_made(&self) -> Result<()> {
        for target in fs::read_dir(&self.root)? {
            for case in fs::read_dir(target?.path())? {
                let path = case?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with("made-") {
                    fs::remove_dir_all(path)?;
                }
            }
        }
        Ok(())
    }

    /// Puts a file into a case, with no path of this machine in it.
    fn put(&self, case: &str, name: &str, from: &Path) -> Result<()> {
        let mut bytes = fs::read(from).with_context(|| from.display().to_string())?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            bytes = text.replace(&*self.inputs.to_string_lossy(), "/data").into_bytes();
        }
        self.write(case, name, &bytes)
    }

    fn write(&self, case: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(case).join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    }

    /// Copies inputs into a case by name.
    fn copy(&self, case: &str, from: &str, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.put(case, name, &self.inputs.join(from).join(name)))
    }

    fn models(&self) -> Result<()> {
        let weights = "model.safetensors";
        self.copy("model/made-whole", "model", &["config.json", weights])?;
        self.copy("model/made-shards", "model", &["config.json"])?;
        let shard = "model-00001-of-00001.safetensors";
        self.put("model/made-shards", shard, &self.inputs.join("model").join(weights))?;
        let file = ist_peft::TensorFile::open(&self.inputs.join("model").join(weights))?;
        let map: serde_json::Map<String, serde_json::Value> =
            file.names().map(|name| (name.to_owned(), shard.into())).collect();
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        let index = serde_json::to_vec_pretty(&index)?;
        self.write("model/made-shards", "model.safetensors.index.json", &index)?;
        let text = ["config.json", "tokenizer.json", "generation_config.json"];
        self.copy("tokenizer/made-small", "model", &text)
    }

    fn adapters(&self) -> Result<()> {
        let files = ["adapter_config.json", "adapter_model.safetensors"];
        for (method, _) in ADAPTERS {
            let case = format!("adapter/made-{method}");
            self.copy(&case, &format!("small-{method}/adapter"), &files)?;
        }
        let tensors = self.inputs.join("small-lora/adapter/adapter_model.safetensors");
        self.put("tensors/made-adapter", "tensors.safetensors", &tensors)
    }

    fn runs(&self) -> Result<()> {
        let files = [
            "config.toml",
            "metrics.jsonl",
            "selections.jsonl",
            "importance.jsonl",
            "costs.jsonl",
            "plan.json",
            "result.json",
            "tensorboard/events.out.tfevents.0.ist",
        ];
        self.copy("run/made-lora", "small-lora", &files)?;
        let checkpoint = [
            "adapter_config.json",
            "adapter_model.safetensors",
            "optimizer.safetensors",
            "state.json",
            "digests.json",
        ];
        self.copy("checkpoint/made-lora", "small-lora/checkpoints/6", &checkpoint)?;
        self.copy("replay/made-lora", "small-lora", &["selections.jsonl"])?;
        let run = self.inputs.join("local.toml");
        self.put("config/made-run", "run.toml", &run)?;
        self.copy("config/made-run", ".", &["train.jsonl", "questions.jsonl"])?;
        self.copy("pretrain-config/made-small", ".", &["pretrain.toml", "questions.jsonl"])?;
        let study = self.inputs.join("studies/study");
        self.put("study/made-seeds", "manifest.json", &study.join("manifest.json"))?;
        for claim in fs::read_dir(study.join("claims"))? {
            let claim = claim?;
            let name = format!("claims/{}", claim.file_name().to_string_lossy());
            self.put("study/made-seeds", &name, &claim.path())?;
        }
        Ok(())
    }

    /// Configurations of every architecture, and models of SentencePiece.
    fn fixtures(&self) -> Result<()> {
        let fixtures = Path::new(FIXTURES);
        for entry in fs::read_dir(fixtures.join("models"))? {
            let path = entry?.path().join("config.json");
            if path.is_file() {
                let name = path.parent().and_then(Path::file_name).unwrap_or_default();
                let case = format!("model-config/made-{}", name.to_string_lossy());
                self.put(&case, "config.json", &path)?;
            }
        }
        for name in ["bpe_rules", "unigram_bytes"] {
            let case = format!("sentencepiece/made-{name}");
            let model = fixtures.join("sentencepiece").join(name).join("tokenizer.model");
            self.put(&case, "tokenizer.model", &model)?;
            let config = b"{\"model_type\": \"llama\", \"vocab_size\": 1000}\n";
            self.write(&case, "config.json", config)?;
            self.write(&case, "tokenizer_config.json", b"{\"legacy\": false}\n")?;
        }
        Ok(())
    }
}

/// Records as Parquet, plain and compressed.
fn parquet_files(corpus: &Corpus) -> Result<()> {
    let forms = [
        ("made-plain", Compression::UNCOMPRESSED, ["text", "id"]),
        ("made-snappy", Compression::SNAPPY, ["instruction", "output"]),
    ];
    for (name, compression, columns) in forms {
        let folder = corpus.root.join("parquet").join(name);
        fs::create_dir_all(&folder)?;
        parquet_file(&folder.join("records"), compression, &columns)?;
    }
    Ok(())
}

fn parquet_file(path: &Path, compression: Compression, columns: &[&str]) -> Result<()> {
    let fields: String =
        columns.iter().map(|name| format!("required binary {name} (UTF8); ")).collect();
    let schema = Arc::new(parse_message_type(&format!("message records {{ {fields}}}"))?);
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(File::create(path)?, schema, properties)?;
    let mut group = writer.next_row_group()?;
    while let Some(mut column) = group.next_column()? {
        let values: Vec<ByteArray> =
            (0..6).map(|n| ByteArray::from(&*format!("Mira eats at {n}."))).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}
