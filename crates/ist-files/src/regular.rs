//! Files that a folder is expected to hold, opened only when they are regular files.
//!
//! Folders come from anywhere. A FIFO in the place of a file would be waited for without end, a
//! device would be read without end. A symbolic link is followed where a file is read, because
//! caches of models are made of them, and never where a file is written.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file to read it.
///
/// # Errors
///
/// What the system says; [`ErrorKind::InvalidInput`] for something that is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    regular(without_waiting(&mut options).open(path)?)
}

/// The bytes of a regular file.
///
/// # Errors
///
/// Those of [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file.
///
/// # Errors
///
/// Those of [`open`]; [`ErrorKind::InvalidData`] for bytes that are not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a regular file of our own to write to it, and creates it where there is none. What it
/// holds stays.
///
/// A link of that name is not followed: it could name any file of the user's.
///
/// # Errors
///
/// What the system says; [`ErrorKind::InvalidInput`] for a link and for something that is not a
/// regular file.
pub fn open_own(path: &Path) -> io::Result<File> {
    refuse_link(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    regular(without_following(&mut options).open(path)?)
}

/// Opens a regular file of our own to write behind what it holds, and creates it where there is
/// none.
///
/// # Errors
///
/// Those of [`open_own`].
pub fn append_to_own(path: &Path) -> io::Result<File> {
    refuse_link(path)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    regular(without_following(&mut options).open(path)?)
}

/// Fails when `folder` is a link, or exists and is not a folder.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] says which.
pub fn own_folder(folder: &Path) -> io::Result<()> {
    refuse_link(folder)?;
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Err(wrong("is not a folder")),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file or folder by its own name, to lock it. A link is not followed.
pub(crate) fn open_entry(path: &Path) -> io::Result<File> {
    refuse_link(path)?;
    let mut options = OpenOptions::new();
    options.read(true);
    without_following(&mut options).open(path)
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    Err(wrong(if kind.is_dir() {
        "is a folder, expected a file"
    } else {
        "is a device, pipe or socket, expected a regular file"
    }))
}

fn refuse_link(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            Err(wrong("is a symbolic link, and what is written here must stay here; remove it"))
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

/// Opening a FIFO returns at once.
#[cfg(unix)]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NONBLOCK)
}

/// A link that was made after it was looked for is an error as well.
#[cfg(unix)]
fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
}

#[cfg(not(unix))]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(not(unix))]
fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// A FIFO; `None` where the command that makes one is missing.
    fn fifo(path: &Path) -> Option<()> {
        let made = std::process::Command::new("mkfifo").arg(path).status().ok()?;
        made.success().then_some(())
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        if fifo(&path).is_some() {
            assert!(read(&path).unwrap_err().to_string().contains("expected a regular file"));
            assert!(append_to_own(&path).is_err());
        }
        assert!(read(folder.path()).unwrap_err().to_string().contains("is a folder"));
        assert!(read(Path::new("/dev/zero")).is_err());
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn links_are_followed_to_read_and_never_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        let link = folder.path().join("link");
        std::fs::write(&target, "the user's").unwrap();
        symlink(&target, &link).unwrap();
        assert_eq!(read_to_string(&link).unwrap(), "the user's");
        let error = open_own(&link).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        symlink(folder.path(), folder.path().join("logs")).unwrap();
        assert!(own_folder(&folder.path().join("logs")).is_err());
        assert!(own_folder(folder.path()).is_ok() && own_folder(&target).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"the user's");
    }

    #[test]
    fn what_a_file_of_our_own_holds_stays_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append_to_own(&path).unwrap().write_all(b"one").unwrap();
        append_to_own(&path).unwrap().write_all(b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"onetwo");
    }
}
