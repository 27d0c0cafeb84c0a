//! The command line: what `ist` understands, and the way from arguments to a command.
//!
//! Everything is generic over the set of PEFT methods, so that a program outside this crate gets
//! the whole command line for its own set by calling [`main`] with it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ist_peft::Adapter;

use crate::commands;
use crate::machine::threads;
use ist_records::Failure;
use ist_records::terminal::{screen, signals};

/// Importance-aware sparse tuning of language models.
#[derive(Debug, Parser)]
#[command(name = "ist", version, arg_required_else_help = true)]
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
    Train(commands::train::Train),
    /// Execute the runs of a study that are not done yet
    Run(commands::run::Arguments),
    /// Show a run on the whole terminal while it goes on
    Watch(commands::watch::Watch),
    /// List runs and their states
    List(commands::list::Arguments),
    /// Log-probabilities and losses of token records
    Score(commands::score::Score),
    /// Continue a prompt
    Generate(commands::generate::Generate),
    /// Converse with a model
    Chat(commands::chat::Chat),
    /// Score a model on tasks
    Eval(commands::eval::Eval),
    /// Fold an adapter into its model and save the result
    Merge(commands::merge::Merge),
    /// Bring an adapter into another program's form
    Convert(commands::convert::Convert),
    /// What a run will need, before anything is loaded
    Plan(commands::plan::Plan),
    /// Describe a model, an adapter or a run
    Inspect(commands::inspect::Inspect),
    /// Runs as one page of tables and figures
    Report(commands::report::Arguments),
    /// Train a small model from scratch
    Pretrain(commands::pretrain::Pretrain),
    /// Measure training steps on random weights
    Bench(commands::bench::Bench),
    /// List the devices this binary knows
    Devices(commands::Json),
    /// Check a device against the reference
    Selftest(commands::selftest::Arguments),
    /// Print the JSON Schema of a run's configuration
    Schema(commands::schema::Schema),
    /// Write the built-in world's task data
    World(commands::world::World),
    /// No command
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Runs the command line of this process; the exit code of the contract.
pub fn main<A: Adapter>() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return not_understood(&error);
        }
    };
    signals::make_file_size_limit_an_error();
    signals::make_abort_a_failure();
    match start_threads().and_then(|()| run::<A>(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let lead = if matches!(failure, Failure::Interrupted(_)) { "" } else { "error: " };
            screen::line(format!("{lead}{failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Prints a fault of the command line, or the help that was asked for.
fn not_understood(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // The code tells it too, where stderr is closed.
        let _ = error.print();
        return ExitCode::from(2);
    }
    match error.print().map_err(|error| screen::stdout_failure(&error)) {
        Err(Some(failure)) => {
            screen::line(format!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Starts the threads that operations are spread over.
fn start_threads() -> Result<(), Failure> {
    let wanted = threads::wanted()?;
    #[cfg(feature = "flex")]
    ist_core::operation::flex::join_pool(wanted).map_err(|error| {
        Failure::run(format!(
            "cannot start {wanted} threads: {error}; set {} lower",
            threads::VARIABLE
        ))
    })?;
    #[cfg(not(feature = "flex"))]
    let _ = wanted;
    Ok(())
}

/// Runs a parsed command line.
pub fn run<A: Adapter>(cli: Cli) -> Result<(), Failure> {
    let quiet = cli.quiet;
    match cli.command {
        Command::Train(arguments) => commands::train::run::<A>(&arguments, quiet, cli.verbose),
        Command::Run(arguments) => commands::run::run::<A>(&arguments, quiet, cli.verbose),
        Command::Watch(arguments) => commands::watch::run(&arguments),
        Command::List(arguments) => commands::list::run::<A>(&arguments),
        Command::Score(arguments) => commands::score::run::<A>(&arguments),
        Command::Generate(arguments) => commands::generate::run::<A>(&arguments),
        Command::Chat(arguments) => commands::chat::run::<A>(&arguments, quiet, cli.verbose),
        Command::Eval(arguments) => commands::eval::run::<A>(&arguments, quiet),
        Command::Merge(arguments) => commands::merge::run::<A>(&arguments, quiet),
        Command::Convert(arguments) => commands::convert::run::<A>(&arguments, quiet),
        Command::Plan(arguments) => commands::plan::run::<A>(&arguments),
        Command::Inspect(arguments) => commands::inspect::run::<A>(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments, quiet),
        Command::Pretrain(arguments) => commands::pretrain::run::<A>(&arguments, quiet),
        Command::Bench(arguments) => commands::bench::run::<A>(&arguments),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Selftest(arguments) => commands::selftest::run(&arguments),
        Command::Schema(arguments) => commands::schema::run(&arguments),
        Command::World(arguments) => commands::world::run(&arguments, quiet),
        Command::Other(words) => Err(unknown(words.first().map_or("", String::as_str))),
    }
}

fn unknown(command: &str) -> Failure {
    let known = <Cli as clap::CommandFactory>::command();
    let names: Vec<&str> = known.get_subcommands().map(clap::Command::get_name).collect();
    let near = |name: &&&str| strsim::jaro(name, command) > 0.7;
    let nearest = names
        .iter()
        .filter(near)
        .max_by(|a, b| strsim::jaro(a, command).total_cmp(&strsim::jaro(b, command)));
    let nearest = nearest.map_or(String::new(), |name| format!("did you mean `{name}`? "));
    Failure::input(format!("unknown command `{command}`; {nearest}known are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn an_unknown_command_is_refused_with_the_nearest() {
        let failure = unknown("trian");
        assert!(
            failure.exit_code() == 2 && failure.to_string().contains("did you mean `train`"),
            "{failure}"
        );
    }
}
