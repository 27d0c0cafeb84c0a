//! `ist schema`: the JSON Schema of a configuration, for editors.

use super::print_json;
use crate::cli::Schema;
use crate::config;
use crate::failure::Failure;

/// Prints the schema.
pub fn run(arguments: &Schema) -> Result<(), Failure> {
    print_json(&if arguments.pretrain { config::pretrain_json_schema() } else { config::json_schema() })
}
