//! The folder in which files of the hub are kept, laid out as the `huggingface_hub` package has it,
//! so that both find what the other fetched.
//!
//! ```text
//! models--ORG--NAME/blobs/ETAG                  the bytes
//!                   snapshots/COMMIT/FILE       a link to them
//!                   refs/REVISION               the commit a branch or tag stands for
//! ```

use std::io;
use std::path::{Path, PathBuf};

use ist_files::durable;

/// The cache of the hub's files.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// The cache in that folder.
    #[cfg(test)]
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// `HF_HUB_CACHE`, else `hub` in the hub's home.
    pub(crate) fn from_env() -> Self {
        Self(folder_of("HF_HUB_CACHE").unwrap_or_else(|| home().join("hub")))
    }

    /// The part of a model at a revision.
    pub(crate) fn model(&self, id: &str, revision: &str) -> ModelCache {
        let folder = self.0.join(format!("models--{}", id.replace('/', "--")));
        ModelCache { folder, revision: revision.to_owned() }
    }
}

/// The hub's home: `HF_HOME`, else `~/.cache/huggingface`.
pub(crate) fn home() -> PathBuf {
    let usual = || std::env::home_dir().unwrap_or_default().join(".cache/huggingface");
    folder_of("HF_HOME").unwrap_or_else(usual)
}

fn folder_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What the cache holds of one model at one revision.
#[derive(Clone, Debug)]
pub(crate) struct ModelCache {
    folder: PathBuf,
    revision: String,
}

impl ModelCache {
    /// A file, if it is there.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        let commit = std::fs::read_to_string(self.reference()).ok();
        // A revision that is a commit needs no reference.
        let commit = commit.map_or_else(|| self.revision.clone(), |text| text.trim().to_owned());
        Some(self.snapshot(&commit).join(name)).filter(|path| path.exists())
    }

    /// Where the bytes of an entity tag lie.
    pub(crate) fn blob(&self, tag: &str) -> PathBuf {
        self.folder.join("blobs").join(tag)
    }

    /// The files of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Notes which commit the revision stands for.
    pub(crate) fn note_commit(&self, commit: &str) -> io::Result<()> {
        if commit == self.revision {
            return Ok(());
        }
        let reference = self.reference();
        durable::create_folder(durable::folder_of(&reference))?;
        durable::write(&reference, commit.as_bytes())
    }

    /// Puts a blob's bytes under a file's name; returns its path.
    pub(crate) fn link(&self, tag: &str, commit: &str, name: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        if path.exists() {
            return Ok(path);
        }
        let folder = durable::folder_of(&path);
        durable::create_folder(folder)?;
        // A link whose blob was taken away is in the way of the new one.
        if path.is_symlink() {
            std::fs::remove_file(&path)?;
        }
        // A link relative to its own place, so that the cache can be moved.
        #[cfg(unix)]
        {
            // Out of the folders in the name, of the commit's and of `snapshots`.
            let up = "../".repeat(Path::new(name).components().count() + 1);
            std::os::unix::fs::symlink(format!("{up}blobs/{tag}"), &path)?;
        }
        #[cfg(not(unix))]
        durable::rename(&self.blob(tag), &path)?;
        durable::sync_folder(folder)?;
        Ok(path)
    }

    fn reference(&self) -> PathBuf {
        self.folder.join("refs").join(&self.revision)
    }
}
