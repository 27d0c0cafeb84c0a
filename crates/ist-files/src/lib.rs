//! Files that are whole after a power cut, and files of strangers that do no harm.
//!
//! The ground floor of the workspace: it knows neither tensors nor runs, and every other crate that
//! reads or writes a file stands on it.
//!
//! | to read about | look at |
//! |---|---|
//! | a file or folder that is whole and there after a power cut, or not there at all | [`durable`] |
//! | a file whose place a person names: replaced, written through, or refused | [`destination`] |
//! | opening only regular files, and following no link that was planted | [`regular`] |
//! | a name from outside that becomes part of a path | [`FileName`] |
//! | a stranger's text in messages, a stranger's JSON, libraries that panic on either | [`untrusted`] |
//!
//! # Example
//!
//! ```
//! let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("result.json");
//! ist_files::durable::write(&path, b"{}").unwrap();
//! assert_eq!(ist_files::regular::read(&path).unwrap(), b"{}");
//! assert!(ist_files::FileName::try_from("../../x".to_owned()).is_err());
//! ```

pub mod destination;
pub mod durable;
pub mod file_name;
pub mod regular;
pub mod untrusted;

pub use file_name::{FileName, FileNameError};
