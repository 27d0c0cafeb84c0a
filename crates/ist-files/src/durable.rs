//! Files and folders that are there after a power cut, whole or not at all.
//!
//! A name in a folder and the bytes behind it reach the disk separately and in any order. So
//! whatever a run promises takes the same four steps, here and nowhere else: it is written under a
//! name of its own, synced, renamed to its place, and the folder that holds the name is synced. A
//! folder takes the same steps with all that is in it.
//!
//! What is being written has a name that begins with [`PARTIAL`] and is locked by its writer. A
//! process that is killed leaves it behind, and the system frees the lock, so [`sweep`] can tell
//! leftovers from another process's work.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

/// How the name of what is being written begins.
pub const PARTIAL: &str = ".ist-partial-";

/// How often something is begun anew because another process took it for a leftover before it was
/// locked.
const TRIES: usize = 16;

/// A file that is being written. It vanishes when it is dropped before [`PartialFile::commit`].
#[derive(Debug)]
pub struct PartialFile {
    file: BufWriter<NamedTempFile>,
    place: PathBuf,
}

impl PartialFile {
    /// Begins a file that will stand at `place`. Its mode is what the system gives any new file.
    ///
    /// # Errors
    ///
    /// A folder that does not exist or cannot be written to.
    pub fn create(place: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = named(0o666).tempfile_in(folder_of(place))?;
            lock(file.as_file());
            if file.path().exists() {
                return Ok(Self { file: BufWriter::new(file), place: place.to_owned() });
            }
        }
        Err(io::Error::other("another process keeps removing what is being written"))
    }

    /// Puts the complete file in its place, over whatever file was there.
    ///
    /// # Errors
    ///
    /// A disk that is full or fails; nothing half-written stays then.
    pub fn commit(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        step(Step::SyncFile, file.path());
        file.as_file().sync_all()?;
        step(Step::Rename, &self.place);
        file.persist(&self.place).map_err(|error| error.error)?;
        sync_folder(folder_of(&self.place))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step(Step::Write, &self.place);
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file of these bytes.
///
/// # Errors
///
/// Those of [`PartialFile`].
pub fn write(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = PartialFile::create(place)?;
    file.write_all(bytes)?;
    file.commit()
}

/// A folder that is being filled. It vanishes when it is dropped before [`PartialFolder::commit`].
#[derive(Debug)]
pub struct PartialFolder {
    folder: TempDir,
    place: PathBuf,
    _lock: Option<File>,
}

impl PartialFolder {
    /// Begins a folder that will stand at `place`. Folders above it are created.
    ///
    /// # Errors
    ///
    /// A parent that cannot be created or written to.
    pub fn create(place: &Path) -> io::Result<Self> {
        let parent = folder_of(place);
        create_folder(parent)?;
        for _ in 0..TRIES {
            let folder = named(0o777).tempdir_in(parent)?;
            // Not every system opens folders; then a leftover cannot be told from work and stays.
            let opened = File::open(folder.path()).ok();
            opened.iter().for_each(lock);
            if folder.path().exists() {
                return Ok(Self { folder, place: place.to_owned(), _lock: opened });
            }
        }
        Err(io::Error::other("another process keeps removing what is being written"))
    }

    /// Where it is being filled. Every file in it must be written by this module.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the complete folder in its place, where nothing or an empty folder may be.
    ///
    /// # Errors
    ///
    /// A place that is taken, a disk that fails.
    pub fn commit(self) -> io::Result<()> {
        sync_folder(self.folder.path())?;
        match std::fs::remove_dir(&self.place) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        step(Step::Rename, &self.place);
        std::fs::rename(self.folder.path(), &self.place)?;
        // It has another name now, so that there is nothing to remove.
        let _ = self.folder.keep();
        sync_folder(folder_of(&self.place))
    }
}

/// Creates a folder and those above it that do not exist, each synced into the one above.
///
/// # Errors
///
/// A folder that cannot be created, or something else of that name.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    // `.` stands above itself, and the system may refuse to say that it is there.
    if above != folder {
        create_folder(above)?;
    }
    match std::fs::create_dir(folder) {
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        result => result?,
    }
    sync_folder(folder_of(folder))
}

/// Gives a file or folder, complete and synced, another name on the same disk.
///
/// # Errors
///
/// A folder's name that is taken, a disk that fails.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

/// Removes a folder: at once under its name, then piece by piece under another one.
///
/// A process that is killed meanwhile leaves nothing half-removed under a name that means
/// something.
///
/// # Errors
///
/// A folder that cannot be renamed or removed.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    let parent = folder_of(folder);
    let doomed = named(0o777).make_in(parent, |path| std::fs::rename(folder, path))?;
    // `make_in` would remove it as a file when it is dropped.
    let doomed = doomed.into_temp_path().keep().map_err(|error| error.error)?;
    sync_folder(parent)?;
    std::fs::remove_dir_all(doomed)
}

/// Removes what processes that are gone left half-written in `folder`.
///
/// What cannot be opened, locked or removed stays: it may be another process's work.
///
/// # Errors
///
/// A folder that exists and cannot be read.
pub fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !is_partial(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = crate::regular::open_entry(&path) else { continue };
        if file.try_lock().is_ok() {
            let is_folder = entry.file_type()?.is_dir();
            let remove = if is_folder { std::fs::remove_dir_all } else { std::fs::remove_file };
            // Whoever is faster has removed it.
            let _ = remove(&path);
        }
    }
    Ok(())
}

/// Whether this is the name of something that is being written.
pub fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with(PARTIAL)
}

/// Syncs the names in a folder.
///
/// # Errors
///
/// A disk that fails. Systems on which folders cannot be synced do nothing.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    step(Step::SyncFolder, folder);
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some file systems have no such operation: EINVAL, ENOTSUP.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

/// The folder that holds a path's name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Keeps [`sweep`] away. Where files cannot be locked, nothing is swept either.
fn lock(file: &File) {
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        // Somebody sweeps at this moment; once it is done, the caller sees whether the file is
        // gone.
        let _ = file.lock();
    }
}

#[cfg(unix)]
fn named(mode: u32) -> Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = Builder::new();
    // A temporary file would be for its owner alone; the system takes the umask off this mode.
    builder.prefix(PARTIAL).permissions(std::fs::Permissions::from_mode(mode));
    builder
}

#[cfg(not(unix))]
fn named(_: u32) -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PARTIAL);
    builder
}

/// What is asked of the system, in the order that makes a file durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    SyncFile,
    Rename,
    SyncFolder,
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::RefCell<Vec<(Step, PathBuf)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Notes a step, for the test of their order.
#[cfg(test)]
fn step(step: Step, path: &Path) {
    STEPS.with_borrow_mut(|steps| steps.push((step, path.to_owned())));
}

#[cfg(not(test))]
fn step(_: Step, _: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<(Step, PathBuf)> {
        STEPS.take()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_synced_renamed_and_its_folder_synced() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.json");
        steps();
        write(&place, b"text").unwrap();
        let kinds: Vec<Step> = steps().into_iter().map(|(step, _)| step).collect();
        assert_eq!(kinds, [Step::Write, Step::SyncFile, Step::Rename, Step::SyncFolder]);
        assert_eq!(std::fs::read(&place).unwrap(), b"text");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_folder_is_renamed_after_all_in_it_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/er/model");
        let partial = PartialFolder::create(&place).unwrap();
        let inside = partial.path().to_owned();
        write(&inside.join("a"), b"1").unwrap();
        steps();
        partial.commit().unwrap();
        let parent = folder.path().join("deep/er");
        assert_eq!(
            steps(),
            [(Step::SyncFolder, inside), (Step::Rename, place.clone()), (Step::SyncFolder, parent)]
        );
        assert_eq!(names(&place), ["a"]);
    }

    #[test]
    fn every_created_folder_is_synced_into_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        steps();
        create_folder(&folder.path().join("a/b")).unwrap();
        let synced: Vec<PathBuf> = steps().into_iter().map(|(_, path)| path).collect();
        assert_eq!(synced, [folder.path().to_owned(), folder.path().join("a")]);
        assert!(create_folder(&folder.path().join("a/b")).is_ok());
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = PartialFile::create(&folder.path().join("a")).unwrap();
        file.write_all(b"half").unwrap();
        let partial = PartialFolder::create(&folder.path().join("b")).unwrap();
        std::fs::write(partial.path().join("c"), "half").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        drop((file, partial));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn only_what_nobody_writes_any_more_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = PartialFile::create(&path("a")).unwrap();
        let partial = PartialFolder::create(&path("b")).unwrap();
        std::fs::write(path(".ist-partial-AbCdEf"), "half").unwrap();
        std::fs::create_dir(path(".ist-partial-folder")).unwrap();
        std::fs::write(path(".ist-partial-folder/model.safetensors"), "half").unwrap();
        std::fs::write(path("notes.txt"), "mine").unwrap();
        sweep(folder.path()).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        drop((file, partial));
        assert_eq!(names(folder.path()), ["notes.txt"]);
        sweep(&path("none")).unwrap();
    }

    #[test]
    fn a_removed_folder_is_gone_and_its_name_is_free_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let doomed = folder.path().join("20");
        std::fs::create_dir_all(doomed.join("inner")).unwrap();
        std::fs::write(doomed.join("inner/a"), "1").unwrap();
        remove_folder(&doomed).unwrap();
        assert!(names(folder.path()).is_empty());
        assert!(remove_folder(&doomed).is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_written_has_the_mode_of_any_new_file_and_folder() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        write(&folder.path().join("ours"), b"text").unwrap();
        assert_eq!(mode("ours"), mode("plain"));
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        PartialFolder::create(&folder.path().join("made")).unwrap().commit().unwrap();
        assert_eq!(mode("made"), mode("folder"));
    }
}
