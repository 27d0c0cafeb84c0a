//! The command line: what `ist` understands, and the way from arguments to a command.
//!
//! Everything is generic over the set of PEFT methods, so that a program outside this crate gets the whole command line for
//! its own set by calling [`main`] with it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ist_peft::Adapter;

use crate::commands;
use crate::failure::Failure;

/// Importance-aware sparse tuning of language models.
#[derive(Debug, Parser)]
#[command(name = "ist", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print errors only.
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Print more.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a model as a configuration says
    Train(Train),
    /// Log-probabilities and losses of token records
    Score(Score),
    /// Continue a prompt
    Generate(Generate),
    /// Score a model on a task
    Eval(Eval),
    /// Fold an adapter into its model and save the result
    Merge(Merge),
    /// What a run will need, before anything is loaded
    Plan(Plan),
    /// Describe a model, an adapter or a run
    Inspect(Inspect),
    /// Train a small model from scratch
    Pretrain(Pretrain),
    /// List the devices this binary knows
    Devices(Json),
    /// Print the JSON Schema of a run's configuration
    Schema(Schema),
    /// Write the built-in world's task data
    World(World),
    /// A command of later work
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// A model, an optional adapter and a device.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A model folder, `builtin:NAME`, or a hub id `org/name[@revision]`
    #[arg(long)]
    pub model: String,
    /// A folder in Hugging Face PEFT layout
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// cpu, flex, ndarray, auto, ...
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Only `--json`.
#[derive(Debug, Args)]
pub struct Json {
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// `ist train`.
#[derive(Debug, Args)]
pub struct Train {
    /// The configuration
    pub config: PathBuf,
    /// Override one key: --set optimizer.lr=1e-3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// The run's folder [default: runs/NAME-N, the next free N]
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Go on with the run in that folder from its newest checkpoint
    #[arg(long)]
    pub resume: bool,
    /// cpu, flex, ndarray, auto, ...
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Print the run's result.json on stdout
    #[arg(long)]
    pub json: bool,
}

/// `ist score`.
#[derive(Debug, Args)]
pub struct Score {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// JSON Lines of token records
    #[arg(long)]
    pub tokens: PathBuf,
}

/// `ist generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text to continue
    #[arg(long, required_unless_present = "input_ids", conflicts_with = "input_ids")]
    pub prompt: Option<String>,
    /// Token ids to continue: 1,2,3
    #[arg(long, value_delimiter = ',')]
    pub input_ids: Option<Vec<u32>>,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw from that many likeliest tokens only
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that hold this share of the probability
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Fixes the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `ist eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The task: exact-match
    #[arg(long)]
    pub task: String,
    /// Records in a TEXT format
    #[arg(long)]
    pub data: PathBuf,
    /// Use only the first records
    #[arg(long)]
    pub limit: Option<usize>,
    /// The prompt's template: alpaca, llm-adapters, none, or a minijinja string
    #[arg(long, default_value = "alpaca")]
    pub template: String,
    /// Tokens to generate at most
    #[arg(long, default_value_t = 16)]
    pub max_new_tokens: usize,
    /// Write every record's prediction here, as JSON Lines
    #[arg(long)]
    pub predictions: Option<PathBuf>,
}

/// `ist merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// The model
    #[arg(long)]
    pub model: String,
    /// The adapter
    #[arg(long)]
    pub adapter: PathBuf,
    /// The folder to write
    #[arg(long)]
    pub output: PathBuf,
}

/// `ist plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The configuration
    pub config: PathBuf,
    /// Override one key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// `ist inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A model, an adapter's folder or a run's folder
    pub path: String,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// `ist pretrain`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// The configuration
    pub config: PathBuf,
    /// Override one key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// cpu, flex, ndarray, auto, ...
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// `ist schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// The schema of `ist pretrain`'s configuration instead of `ist train`'s
    #[arg(long)]
    pub pretrain: bool,
}

/// `ist world`.
#[derive(Debug, Args)]
pub struct World {
    /// The folder to write to
    #[arg(long)]
    pub output: PathBuf,
    /// The seed of the questions
    #[arg(long, default_value_t = crate::world::SEED)]
    pub seed: u64,
    /// Write that many of the world's texts as well
    #[arg(long)]
    pub documents: Option<usize>,
}

/// Commands that later work brings.
const LATER: [&str; 6] = ["report", "selftest", "run", "list", "convert", "chat"];

/// Runs the command line of this process; the exit code of the contract.
pub fn main<A: Adapter>() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(1) };
        }
    };
    match run::<A>(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}{failure}", if matches!(failure, Failure::Interrupted(_)) { "" } else { "error: " });
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs a parsed command line.
pub fn run<A: Adapter>(cli: Cli) -> Result<(), Failure> {
    let quiet = cli.quiet;
    match cli.command {
        Command::Train(arguments) => commands::train::run::<A>(&arguments, quiet, cli.verbose),
        Command::Score(arguments) => commands::score::run::<A>(&arguments),
        Command::Generate(arguments) => commands::generate::run::<A>(&arguments),
        Command::Eval(arguments) => commands::eval::run::<A>(&arguments),
        Command::Merge(arguments) => commands::merge::run::<A>(&arguments, quiet),
        Command::Plan(arguments) => commands::plan::run::<A>(&arguments),
        Command::Inspect(arguments) => commands::inspect::run::<A>(&arguments),
        Command::Pretrain(arguments) => commands::pretrain::run::<A>(&arguments, quiet),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Schema(arguments) => commands::schema::run(&arguments),
        Command::World(arguments) => commands::world::run(&arguments, quiet),
        Command::Other(words) => Err(unknown(words.first().map_or("", String::as_str))),
    }
}

fn unknown(command: &str) -> Failure {
    if LATER.contains(&command) {
        return Failure::input(format!("`ist {command}` is not yet available in this version"));
    }
    let known = <Cli as clap::CommandFactory>::command();
    let names: Vec<&str> = known.get_subcommands().map(clap::Command::get_name).collect();
    let nearest = names.iter().max_by(|a, b| strsim::jaro(a, command).total_cmp(&strsim::jaro(b, command)));
    let nearest = nearest.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    Failure::input(format!("unknown command `{command}`{nearest} Known: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_command_of_later_work_is_refused_as_such() {
        for command in LATER {
            let failure = unknown(command);
            assert!(failure.exit_code() == 2 && failure.to_string().contains("not yet available"), "{failure}");
        }
        assert!(unknown("trian").to_string().contains("did you mean `train`"));
    }
}
