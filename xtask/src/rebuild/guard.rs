//! A file that is edited for a while and comes back as it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Holds the text of a file and writes it back when dropped: at the end, after an error, after a
/// panic. A signal that asks the program to stop becomes an error, so that it comes here too.
#[derive(Debug)]
pub(crate) struct Guard {
    path: PathBuf,
    original: Vec<u8>,
    is_edited: bool,
}

impl Guard {
    /// Remembers a file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), original: fs::read(path)?, is_edited: false })
    }

    /// Writes the original with something behind it.
    pub(crate) fn append(&mut self, text: &str) -> io::Result<()> {
        let mut edited = self.original.clone();
        edited.extend_from_slice(text.as_bytes());
        self.is_edited = true;
        fs::write(&self.path, edited)
    }

    /// Brings the file back.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        // The time of the change stays new. With the old time, cargo would take what it made of the
        // edited file for up to date.
        if self.is_edited {
            fs::write(&self.path, &self.original)?;
            self.is_edited = false;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_when_the_guard_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rs");
        fs::write(&path, "fn a() {}\n").unwrap();
        let mut guard = Guard::of(&path).unwrap();
        guard.append("fn b() {}\n").unwrap();
        guard.append("fn c() {}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn a() {}\nfn c() {}\n");
        drop(guard);
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn a() {}\n");
    }

    #[test]
    fn a_file_comes_back_after_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rs");
        fs::write(&path, "fn a() {}\n").unwrap();
        let edit = || {
            let mut guard = Guard::of(&path).unwrap();
            guard.append("fn b() {}\n").unwrap();
            panic!("on purpose");
        };
        assert!(std::panic::catch_unwind(edit).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn a() {}\n");
    }
}
