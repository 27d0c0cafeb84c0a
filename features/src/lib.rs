//! Nothing but dependencies with features; `Cargo.toml` says why.
