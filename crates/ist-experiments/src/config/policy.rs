//! `[policy]`: which layers train in a step.
//!
//! The settings of every kind are those of the policy itself. A key of another kind is refused
//! rather than ignored, so a file never suggests a setting that has no effect.

use ist_core::policy::PolicyConfig;
use schemars::{Schema, SchemaGenerator};

use super::schema::variants;

/// The schema of `[policy]`: one variant for each kind.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    variants("kind", PolicyConfig::DEFAULT_KIND, PolicyConfig::schemas(generator))
}
