//! `digests.json`: what a checkpoint's files and the run's logs held when the checkpoint was saved.
//!
//! A disk, a copy or an editor can change one bit, and a resumed run would silently become another
//! one. So everything that a resume reads back is compared with its SHA-256 first. Logs are
//! compared up to where they stood: later lines are cut off anyway.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use ist_files::{FileName, durable, regular};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file in a checkpoint's folder.
pub const FILE: &str = "digests.json";

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 18;

/// How far a log had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMark {
    /// Bytes of its whole lines.
    pub bytes: u64,
    /// SHA-256 of those bytes.
    pub sha256: String,
}

/// Marks of logs by their names in the run's folder.
pub type LogMarks = BTreeMap<FileName, LogMark>;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// SHA-256 of each file in the checkpoint's folder, by the names that lead to it, joined by
    /// `/`.
    pub files: BTreeMap<String, String>,
    /// The run's logs.
    pub logs: LogMarks,
    /// The bytes that the run may take, as `plan.json` says them. It differs from run to run, as
    /// logs do.
    pub budget: Option<u64>,
}

/// Why something cannot be believed.
#[derive(Debug)]
pub enum Fault {
    /// It is not what was saved. Trying again cannot help.
    Broken(String),
    /// The system did not let it be read. It may be whole.
    Unreadable(anyhow::Error),
}

impl Fault {
    /// The fault that a failed read of `path` stands for: a file that is not there is broken,
    /// anything else may pass.
    pub fn of_reading(path: &Path, error: io::Error) -> Self {
        let shown = path.display();
        // Whatever it leads to, a link is not the file that was written.
        if path.is_symlink() {
            return Self::Broken(format!("{shown} is a symbolic link: {error}"));
        }
        match error.kind() {
            ErrorKind::NotFound => Self::Broken(format!("{shown} is missing")),
            // Something else stands where the file was.
            ErrorKind::InvalidInput | ErrorKind::NotADirectory => {
                Self::Broken(format!("{shown}: {error}"))
            }
            _ => {
                Self::Unreadable(anyhow::Error::new(error).context(format!("{shown}: cannot read")))
            }
        }
    }
}

impl Digests {
    /// Writes what `folder` holds now, beside the marks of the logs and the budget.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or written.
    pub fn write(folder: &Path, logs: LogMarks, budget: Option<u64>) -> io::Result<()> {
        let files = of_folder(folder)?;
        let text = serde_json::to_vec(&Self { files, logs, budget }).map_err(io::Error::other)?;
        durable::write(&folder.join(FILE), &text)
    }

    /// The digests of a checkpoint, after its files were compared with them. `None` where it has
    /// none.
    ///
    /// # Errors
    ///
    /// A file that is missing, changed or not listed is [`Fault::Broken`].
    pub fn check(folder: &Path) -> Result<Option<Self>, Fault> {
        let path = folder.join(FILE);
        let bytes = match regular::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|error| Fault::of_reading(&path, error))?,
        };
        let digests: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::Broken(format!("{}: {error}", path.display())))?;
        let found = of_names(folder).map_err(|error| Fault::of_reading(folder, error))?;
        for (name, expected) in &digests.files {
            let path = folder.join(name);
            // Asked of the names that were found, so that no name leads out of the folder.
            if !found.contains(name) {
                return Err(Fault::Broken(format!("{} is missing", path.display())));
            }
            let sha256 = digest(&path).map_err(|error| Fault::of_reading(&path, error))?;
            if sha256 != *expected {
                return Err(Fault::Broken(changed(&path, &sha256, expected)));
            }
        }
        let ours = |name: &String| name == FILE || digests.files.contains_key(name);
        match found.iter().find(|name| !ours(name)) {
            Some(name) => {
                let path = folder.join(name);
                Err(Fault::Broken(format!("{} belongs to no checkpoint", path.display())))
            }
            None => Ok(Some(digests)),
        }
    }
}

/// Compares those logs in a run's folder with their marks.
///
/// # Errors
///
/// A log that has no mark, is missing, shorter or changed is [`Fault::Broken`].
pub fn check_logs(run: &Path, names: &[&str], marks: &LogMarks) -> Result<(), Fault> {
    for name in names {
        let path = run.join(name);
        let mark = marks.iter().find(|(marked, _)| marked.as_str() == *name);
        let (_, mark) = mark.ok_or_else(|| {
            Fault::Broken(format!("{}: the checkpoint does not say what it held", path.display()))
        })?;
        check_log(&path, mark)?;
    }
    Ok(())
}

/// Compares one log with its mark.
///
/// # Errors
///
/// As [`check_logs`].
pub fn check_log(path: &Path, mark: &LogMark) -> Result<(), Fault> {
    let file = match regular::open(path) {
        // A log that is not there holds what an empty one does.
        Err(error) if error.kind() == ErrorKind::NotFound && mark.bytes == 0 => return Ok(()),
        file => file.map_err(|error| Fault::of_reading(path, error))?,
    };
    let (bytes, found) =
        digest_of(file.take(mark.bytes)).map_err(|error| Fault::of_reading(path, error))?;
    if bytes < mark.bytes {
        return Err(Fault::Broken(format!(
            "{} has {bytes} bytes, and had {} when the checkpoint was saved",
            path.display(),
            mark.bytes
        )));
    }
    if found != mark.sha256 {
        return Err(Fault::Broken(changed(path, &found, &mark.sha256)));
    }
    Ok(())
}

fn changed(path: &Path, found: &str, expected: &str) -> String {
    format!(
        "{} was changed: its SHA-256 is {}..., expected {}...",
        path.display(),
        found.get(..12).unwrap_or(found),
        expected.get(..12).unwrap_or(expected),
    )
}

/// SHA-256 of a file in hexadecimal digits.
///
/// # Errors
///
/// A file that cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    digest_of(regular::open(path)?).map(|(_, digest)| digest)
}

/// How many bytes there are, and their SHA-256.
fn digest_of(bytes: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let count = feed(bytes, &mut hasher)?;
    Ok((count, hex(hasher)))
}

/// Feeds bytes to a hasher, to their end; returns how many there were.
///
/// # Errors
///
/// Bytes that cannot be read.
pub fn feed(mut bytes: impl Read, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut count = 0;
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(count),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                count += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The digest of what was fed so far.
pub fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_folder(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    of_names(folder)?
        .into_iter()
        .map(|name| {
            let found = digest(&folder.join(&name))?;
            Ok((name, found))
        })
        .collect()
}

/// Every file below `folder`, by the names that lead to it.
fn of_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let inner = of_names(&entry.path())?;
            names.extend(inner.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn saved() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("style")).unwrap();
        std::fs::write(folder.path().join("style/adapter_config.json"), "{}").unwrap();
        std::fs::write(folder.path().join("state.json"), "{\"steps\": 4}").unwrap();
        let mark = LogMark { bytes: 3, sha256: hex(Sha256::new_with_prefix(b"one")) };
        let name = FileName::try_from("metrics.jsonl".to_owned()).unwrap();
        Digests::write(folder.path(), [(name, mark)].into(), Some(7)).unwrap();
        folder
    }

    fn broken(result: Result<Option<Digests>, Fault>) -> String {
        match result {
            Err(Fault::Broken(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_as_it_was_saved_passes() {
        let folder = saved();
        let digests = Digests::check(folder.path()).unwrap().unwrap();
        let names: Vec<&String> = digests.files.keys().collect();
        assert_eq!(names, ["state.json", "style/adapter_config.json"]);
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        assert!(Digests::check(folder.path()).unwrap().is_none());
    }

    #[test]
    fn missing_and_surplus_files_are_named() {
        let folder = saved();
        std::fs::write(folder.path().join("style/more"), "").unwrap();
        assert!(broken(Digests::check(folder.path())).contains("style/more belongs to no"));
        std::fs::remove_file(folder.path().join("style/more")).unwrap();
        std::fs::remove_file(folder.path().join("state.json")).unwrap();
        assert!(broken(Digests::check(folder.path())).contains("state.json is missing"));
    }

    #[test]
    fn a_log_is_compared_up_to_where_it_stood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mark = LogMark { bytes: 3, sha256: hex(Sha256::new_with_prefix(b"one")) };
        let cases =
            [("one", ""), ("one and more", ""), ("on", "has 2 bytes"), ("oNe", "was changed")];
        for (text, reason) in cases {
            std::fs::write(&path, text).unwrap();
            match check_log(&path, &mark) {
                Ok(()) => assert_eq!(reason, "", "{text}"),
                Err(Fault::Broken(found)) => assert!(found.contains(reason), "{found}"),
                Err(fault) => panic!("{fault:?}"),
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert!(check_log(&path, &mark).is_err());
        assert!(check_log(&path, &LogMark { bytes: 0, ..mark }).is_ok());
    }

    #[test]
    fn only_what_trying_again_cannot_help_is_broken() {
        let fault = |kind| Fault::of_reading(Path::new("x"), io::Error::from(kind));
        assert!(matches!(fault(ErrorKind::NotFound), Fault::Broken(_)));
        for passing in [ErrorKind::PermissionDenied, ErrorKind::Other, ErrorKind::OutOfMemory] {
            assert!(matches!(fault(passing), Fault::Unreadable(_)));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_itself_in_the_place_of_a_file_is_broken() {
        let folder = saved();
        let path = folder.path().join("state.json");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(broken(Digests::check(folder.path())).contains("state.json is a symbolic link"));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_passes(file in 0usize..3, bit in any::<prop::sample::Index>()) {
            let folder = saved();
            let path = folder.path().join(["state.json", "style/adapter_config.json", FILE][file]);
            let mut bytes = std::fs::read(&path).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let whole = Digests::check(folder.path()).ok().flatten();
            // Marks and budget are believed here, and compared with the logs and the plan
            // themselves.
            let budget = whole.as_ref().map(|digests| digests.budget);
            let marks = whole.map(|digests| digests.logs);
            let name = FileName::try_from("metrics.jsonl".to_owned()).unwrap();
            let mark = LogMark { bytes: 3, sha256: hex(Sha256::new_with_prefix(b"one")) };
            let same = marks.is_some_and(|marks| marks.get(&name) == Some(&mark));
            prop_assert!(!same || budget != Some(Some(7)));
        }
    }
}
