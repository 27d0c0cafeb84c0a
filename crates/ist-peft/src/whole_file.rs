//! Files that appear whole or not at all: written under another name beside their place and renamed when complete.

use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// An empty file beside `path`, to be handed to [`put`]. It vanishes when it is dropped before.
///
/// Who may read it is what the system gives any new file; a temporary file would be for its owner alone.
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    shared(&mut Builder::new(), 0o666).tempfile_in(path.parent().unwrap_or(Path::new(".")))
}

/// Puts a complete file in its place, over whatever was there.
pub fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Writes a file of these bytes.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path)?;
    io::Write::write_all(&mut file, bytes)?;
    put(file, path)
}

/// An empty folder in `folder` whose name begins with `prefix`; renaming it is the caller's. It vanishes when it is dropped.
pub fn begin_folder(folder: &Path, prefix: &str) -> io::Result<TempDir> {
    shared(Builder::new().prefix(prefix), 0o777).tempdir_in(folder)
}

#[cfg(unix)]
fn shared<'a, 'b, 'c>(builder: &'a mut Builder<'b, 'c>, mode: u32) -> &'a mut Builder<'b, 'c> {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn shared<'a, 'b, 'c>(builder: &'a mut Builder<'b, 'c>, _: u32) -> &'a mut Builder<'b, 'c> {
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_can_be_read_by_whoever_may_read_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let [plain, ours] = ["plain", "ours"].map(|name| folder.path().join(name));
        std::fs::write(&plain, "").unwrap();
        write(&ours, b"text").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
        assert_eq!(std::fs::read(&ours).unwrap(), b"text");
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let made = begin_folder(folder.path(), ".partial-").unwrap();
        assert_eq!(mode(made.path()), mode(&folder.path().join("folder")));
    }
}
