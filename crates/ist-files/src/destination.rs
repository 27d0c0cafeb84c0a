//! A file that a person names for a result: replaced whole where it is a file, written to where it
//! is something that takes bytes, and refused otherwise.
//!
//! A rename puts a file in the place of whatever bears its name. That is right for a file and wrong
//! for everything else: `/dev/null` would become a file, a pipe's reader would wait for ever, a
//! link would be cut from what it points at.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::durable::{self, folder_of};

/// Links that are followed before they count as a circle; Linux has the same limit.
const MOST_LINKS: usize = 40;

/// Why nothing can be written to a path.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The path names something that does not take a file's bytes, or has no folder to be in.
    #[error("{}: cannot write, {problem}", path.display())]
    Refused {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// What the system says.
    #[error("{}: cannot write: {source}", path.display())]
    Io {
        /// The path as it was given.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl DestinationError {
    /// Whether the path itself is at fault, and not the system.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Where the bytes of a result go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into what is there: a device, a pipe, a socket, a descriptor of the process.
    Through(PathBuf),
    /// Into a file that appears whole in the place of that one, or where nothing is yet.
    Replace(PathBuf),
}

impl Destination {
    /// What writing to `path` means. Links are followed, and nothing is opened.
    ///
    /// # Errors
    ///
    /// A folder, a path in a folder that does not exist, links in a circle; what the system says.
    pub fn of(path: &Path) -> Result<Self, DestinationError> {
        let refused = |problem| DestinationError::Refused { path: path.to_owned(), problem };
        let failed = |source| DestinationError::Io { path: path.to_owned(), source };
        let Some(end) = end_of_links(path).map_err(failed)? else {
            return Err(refused("its links lead in a circle; name another file"));
        };
        match end {
            End::Descriptor(link) => Ok(Self::Through(link)),
            End::There(target, metadata) if metadata.is_file() => Ok(Self::Replace(target)),
            End::There(_, metadata) if metadata.is_dir() => {
                Err(refused("it is a folder; name a file in it"))
            }
            End::There(target, _) => Ok(Self::Through(target)),
            End::Free(target) if target.file_name().is_none() || !folder_of(&target).is_dir() => {
                Err(refused("its folder does not exist; make it first"))
            }
            End::Free(target) => Ok(Self::Replace(target)),
        }
    }

    /// Whether bytes go into something that is there and stays there.
    pub fn is_through(&self) -> bool {
        matches!(self, Self::Through(_))
    }
}

/// Writes the bytes of a result to `path`: whole or not at all where it is or becomes a file.
///
/// # Errors
///
/// As [`Destination::of`] has them, and what the system says of the writing.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DestinationError> {
    let written = match Destination::of(path)? {
        Destination::Replace(target) => durable::write(&target, bytes),
        Destination::Through(target) => through(&target, bytes),
    };
    written.map_err(|source| DestinationError::Io { path: path.to_owned(), source })
}

fn through(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open(target)?;
    file.write_all(bytes)?;
    file.flush()
}

/// Opens the target of [`Destination::Through`], which is neither made nor cut. A pipe waits for
/// its reader here.
///
/// # Errors
///
/// What the system says.
pub fn open(target: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::fd::OwnedFd;
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::UnixStream;
        if std::fs::metadata(target)?.file_type().is_socket() {
            return Ok(File::from(OwnedFd::from(UnixStream::connect(target)?)));
        }
    }
    // The file of a descriptor goes on where it ends, so that what a shell's `>>` kept stays.
    let append = std::fs::metadata(target)?.is_file();
    OpenOptions::new().write(true).append(append).open(target)
}

/// What a path's links come to.
enum End {
    /// Something that is there.
    There(PathBuf, Metadata),
    /// A name that nothing bears yet.
    Free(PathBuf),
    /// A link that stands for an open descriptor, such as `/dev/stdout`.
    Descriptor(PathBuf),
}

/// Follows links at the path's end; those of its folders are the system's. `None` when they do not
/// end.
fn end_of_links(path: &Path) -> io::Result<Option<End>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(End::Free(path))),
            metadata => metadata?,
        };
        if !metadata.is_symlink() {
            return Ok(Some(End::There(path, metadata)));
        }
        if is_descriptor(&path) {
            return Ok(Some(End::Descriptor(path)));
        }
        let target = std::fs::read_link(&path)?;
        path = folder_of(&path).join(target);
    }
    Ok(None)
}

/// Whether a link lies where the system lists a process's open files. Such a link need not name a
/// file: its text may be `pipe:[4711]`.
fn is_descriptor(link: &Path) -> bool {
    folder_of(link).canonicalize().is_ok_and(|folder| {
        folder.starts_with("/proc") && folder.file_name().is_some_and(|name| name == "fd")
    })
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::Command;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn refusal(path: &Path) -> String {
        let error = write(path, b"text").unwrap_err();
        assert!(error.is_refusal(), "{error}");
        error.to_string()
    }

    /// Runs a program that makes a node; false where it cannot.
    fn made(program: &str, arguments: &[&str]) -> bool {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    }

    #[test]
    fn a_file_is_replaced_and_a_new_one_made() {
        let folder = folder();
        let path = folder.path().join("page.html");
        write(&path, b"one").unwrap();
        let other = folder.path().join("other");
        std::fs::hard_link(&path, &other).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        // The old file is untouched under its other name: it was replaced and not written over.
        assert_eq!(std::fs::read(&other).unwrap(), b"one");
    }

    #[test]
    fn a_folder_and_a_place_in_no_folder_are_refused_by_name() {
        let folder = folder();
        let message = refusal(folder.path());
        assert!(
            message.contains("is a folder") && message.contains(folder.path().to_str().unwrap())
        );
        assert!(refusal(&folder.path().join("none/page.html")).contains("does not exist"));
        assert!(refusal(Path::new("")).contains("does not exist"));
        write(&folder.path().join("file"), b"").unwrap();
        assert!(write(&folder.path().join("file/page.html"), b"").is_err());
    }

    #[test]
    fn a_link_stays_and_what_it_points_at_is_replaced() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("deep")).unwrap();
        std::fs::write(at("deep/page"), "old").unwrap();
        symlink("deep/page", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        symlink("deep/new", at("dangling")).unwrap();
        write(&at("second"), b"new").unwrap();
        write(&at("dangling"), b"first").unwrap();
        assert_eq!(std::fs::read(at("deep/page")).unwrap(), b"new");
        assert_eq!(std::fs::read(at("deep/new")).unwrap(), b"first");
        for link in ["link", "second", "dangling"] {
            assert!(std::fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        }
        symlink("circle", at("circle")).unwrap();
        assert!(refusal(&at("circle")).contains("circle"));
    }

    #[test]
    fn a_pipe_gets_the_bytes_and_stays_a_pipe() {
        let folder = folder();
        let path = folder.path().join("pipe");
        assert!(made("mkfifo", &[path.to_str().unwrap()]), "mkfifo is part of every unix");
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).unwrap())
        };
        write(&path, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_socket_gets_the_bytes() {
        use std::io::Read;
        let folder = folder();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        write(&path, b"through").unwrap();
        let mut text = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"through");
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let folder = folder();
        let path = folder.path().join("null");
        // A node like /dev/null, which only root can make, and not in every container.
        if !made("mknod", &[path.to_str().unwrap(), "c", "1", "3"]) {
            return;
        }
        // Some file systems make nodes and let nobody open them.
        if OpenOptions::new().write(true).open(&path).is_ok() {
            write(&path, b"gone").unwrap();
        } else {
            assert!(Destination::of(&path).unwrap().is_through());
        }
        assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_char_device());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_descriptor_of_the_process_is_written_to_and_not_replaced() {
        use std::os::fd::AsRawFd;
        let folder = folder();
        let path = folder.path().join("log");
        std::fs::write(&path, "kept\n").unwrap();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let number = file.as_raw_fd();
        let inode =
            |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&path);
        write(Path::new(&format!("/dev/fd/{number}")), b"added\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept\nadded\n");
        assert_eq!(inode(&path), before);
    }
}
