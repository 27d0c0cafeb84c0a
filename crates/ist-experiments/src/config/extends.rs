//! `extends = "other.toml"`: a file that says only what differs from another.
//!
//! Each file's paths are resolved against its own folder before the tables are laid over each
//! other, so a base can be extended from anywhere. What may be spelt in two ways is brought to one,
//! so that each is laid over the other.

use std::path::{Path, PathBuf};

use ist_files::regular;
use sha2::{Digest, Sha256};
use toml::Value;

use super::document::Document;
use super::faults::ConfigError;
use super::model_ref::absolute;
use super::words::found;
use super::{method, paths, schema, study};

/// The key.
pub(super) const KEY: &str = "extends";

/// A file with all that it extends.
pub(super) struct Chain {
    /// One table of all of them.
    pub(super) document: Document,
    /// SHA-256 of their contents, the file itself first.
    pub(super) digest: String,
}

/// Reads a configuration and, in turn, the files it extends; a nearer file's keys win.
///
/// # Errors
///
/// A file that cannot be read or is not TOML. A base that is not there, or that extends what
/// extends it, is a fault of the document.
pub(super) fn read(path: &Path) -> Result<Chain, ConfigError> {
    let (mut names, mut digest) = (Vec::new(), Sha256::new());
    let mut files = vec![open(path, &mut digest)?];
    names.push(identity(path));
    while let Some(base) = files.last_mut().and_then(base_of) {
        let circle = names.contains(&identity(&base));
        names.push(identity(&base));
        let last = files.last_mut().expect("the file itself is there");
        if circle {
            let chain: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
            last.fault(
                KEY,
                format!("goes in a circle: {}; take it out of one of them", chain.join(" -> ")),
            );
            break;
        }
        match open(&base, &mut digest) {
            Err(ConfigError::Read { path, source }) => {
                last.fault(
                    KEY,
                    format!("names {}, which cannot be read: {source}", path.display()),
                );
                break;
            }
            opened => files.push(opened?),
        }
    }
    let mut document = files.pop().expect("the file itself is there");
    while let Some(mut nearer) = files.pop() {
        nearer.lay_over(document);
        document = nearer;
    }
    let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Chain { document, digest })
}

/// The content `text` of one file, its paths absolute.
pub(super) fn parse(path: &Path, folder: PathBuf, text: &str) -> Result<Document, ConfigError> {
    let mut document = Document::parse(path, folder, text)?;
    method::unwrap_single(&mut document);
    study::spell_out(&mut document);
    let folder = document.folder.clone();
    paths::resolve(&schema::RUN, &mut document.table, &folder);
    Ok(document)
}

fn open(path: &Path, digest: &mut Sha256) -> Result<Document, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = regular::read_to_string(path).map_err(failed)?;
    digest.update((text.len() as u64).to_le_bytes());
    digest.update(&text);
    let absolute = std::path::absolute(path).map_err(failed)?;
    parse(path, absolute.parent().map(Path::to_path_buf).unwrap_or_default(), &text)
}

/// Takes out what a file extends: its path, as seen from where the file was named.
fn base_of(document: &mut Document) -> Option<PathBuf> {
    match document.table.remove(KEY)? {
        Value::String(text) if !text.is_empty() => {
            let folder = document.path().parent().unwrap_or(Path::new(""));
            Some(if text.starts_with('~') { absolute(&text, folder) } else { folder.join(text) })
        }
        other => {
            document.fault(
                KEY,
                format!("must be the path of a configuration, found {}", found(&other)),
            );
            None
        }
    }
}

/// The same for two ways to one file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
