//! Studies as this program executes them: opening a file or a folder, its manifest, one member.
//!
//! Who works on which member, and when, is decided in [`ist_records::study`].

pub mod manifest;
pub mod member;
pub mod open;
