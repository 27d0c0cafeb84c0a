//! `ist schema`: the JSON Schema of a configuration, for editors.

use super::print_json;
use crate::config;
use clap::Args;
use ist_records::Failure;

/// `ist schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// The schema of `ist pretrain`'s configuration instead of `ist train`'s
    #[arg(long)]
    pub pretrain: bool,
}

/// Prints the schema.
pub fn run(arguments: &Schema) -> Result<(), Failure> {
    print_json(&if arguments.pretrain {
        config::pretrain_json_schema()
    } else {
        config::json_schema()
    })
}
