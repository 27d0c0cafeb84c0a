//! ist
fn main() {}
