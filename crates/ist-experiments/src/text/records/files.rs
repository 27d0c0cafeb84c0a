//! Which files a path stands for: itself, or the data files of a folder.

use std::path::{Path, PathBuf};

use super::error::DataError;

/// The ends of names that data files have.
const ENDS: [&str; 4] = [".json", ".jsonl", ".ndjson", ".parquet"];
/// What compression puts behind them.
const PACKED: [&str; 2] = [".gz", ".zst"];

/// The files that a path stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The data files, by name.
    pub(crate) files: Vec<PathBuf>,
    /// What else is in the folder.
    pub(crate) passed_over: Vec<PathBuf>,
}

/// The file itself, or the data files that lie in the folder. Hidden files and folders within it
/// are passed over.
///
/// # Errors
///
/// A folder that cannot be read or holds no data file.
pub(crate) fn at(path: &Path) -> Result<Files, DataError> {
    if !path.is_dir() {
        return Ok(Files { files: vec![path.to_owned()], ..Files::default() });
    }
    let read = |source| DataError::Read { path: path.to_owned(), source };
    let mut found = Files::default();
    let entries = std::fs::read_dir(path).map_err(read)?;
    for entry in entries.collect::<Result<Vec<_>, _>>().map_err(read)? {
        let inner = entry.path();
        if inner.is_file() && is_data(&entry.file_name().to_string_lossy()) {
            found.files.push(inner);
        } else {
            found.passed_over.push(inner);
        }
    }
    found.files.sort();
    found.passed_over.sort();
    if found.files.is_empty() {
        let problem = format!(
            "the folder holds no data file; \
             expected names that end with {}, alone or with {} behind it",
            ENDS.join(", "),
            PACKED.join(" or ")
        );
        return Err(DataError::File { path: path.to_owned(), problem });
    }
    Ok(found)
}

fn is_data(name: &str) -> bool {
    let name = name.to_lowercase();
    let plain = PACKED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    !name.starts_with('.') && ENDS.iter().any(|end| plain.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_data_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.parquet", "a.jsonl.gz", "README.md", ".a.json", "c.JSON"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.json")).unwrap();
        let found = at(folder.path()).unwrap();
        let paths = |names: &[&str]| -> Vec<PathBuf> {
            names.iter().map(|name| folder.path().join(name)).collect()
        };
        assert_eq!(found.files, paths(&["a.jsonl.gz", "b.parquet", "c.JSON"]));
        assert_eq!(found.passed_over, paths(&[".a.json", "README.md", "d.json"]));
        assert_eq!(at(&found.files[0]).unwrap().files, found.files[..1]);
    }

    #[test]
    fn a_folder_without_a_data_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        assert!(at(folder.path()).unwrap_err().to_string().contains("holds no data file"));
    }
}
