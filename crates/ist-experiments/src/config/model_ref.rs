//! What a model is called: one inside the binary, a folder, or one of the Hugging Face hub.

use std::fmt;
use std::path::{Path, PathBuf};

use ist_files::FileName;
use serde::{Deserialize, Serialize};

/// A reference to a model or, as a folder, to an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ModelRef {
    /// `builtin:NAME`, a model inside the binary.
    Builtin(String),
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    /// `org/name[@revision]` on the hub.
    Hub {
        /// `org/name`.
        id: String,
        /// A branch, tag or commit; the hub's default branch when absent.
        revision: Option<String>,
    },
}

impl ModelRef {
    /// The model that `text` names, seen from `folder`.
    ///
    /// `builtin:NAME` is a model inside the binary. What exists as a folder, is absolute, or begins
    /// with `.` or `~` is a path. What else looks like `org/name` or `org/name@revision` is a hub
    /// id; anything left is a path.
    pub fn parse(text: &str, folder: &Path) -> Self {
        if let Some(name) = text.strip_prefix("builtin:") {
            return Self::Builtin(name.to_owned());
        }
        let path = absolute(text, folder);
        let says_path =
            text.starts_with(['.', '/', '~']) || Path::new(text).is_absolute() || path.exists();
        match hub_id(text).filter(|_| !says_path) {
            Some((id, revision)) => {
                Self::Hub { id: id.to_owned(), revision: revision.map(str::to_owned) }
            }
            None => Self::Folder(path),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Hub { id, revision: None } => write!(f, "{id}"),
            Self::Hub { id, revision: Some(revision) } => write!(f, "{id}@{revision}"),
        }
    }
}

/// A spelling that was resolved before, so that a folder is absolute. What lies in the current
/// folder does not matter.
impl From<String> for ModelRef {
    fn from(text: String) -> Self {
        match (text.strip_prefix("builtin:"), hub_id(&text)) {
            (Some(name), _) => Self::Builtin(name.to_owned()),
            (None, Some((id, revision))) => {
                Self::Hub { id: id.to_owned(), revision: revision.map(str::to_owned) }
            }
            (None, None) => Self::Folder(text.into()),
        }
    }
}

impl From<ModelRef> for String {
    fn from(model: ModelRef) -> Self {
        model.to_string()
    }
}

/// `org/name` and the revision, if `text` looks like a hub id.
fn hub_id(text: &str) -> Option<(&str, Option<&str>)> {
    let (id, revision) =
        text.split_once('@').map_or((text, None), |(id, revision)| (id, Some(revision)));
    let (organisation, name) = id.split_once('/')?;
    let is_name = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    // It becomes a path in the cache, and must not lead out of it.
    let is_plain = |part: &str| FileName::try_from(part.to_owned()).is_ok();
    let stays = revision.is_none_or(|revision| revision.split('/').all(is_plain));
    (is_name(organisation) && is_name(name) && stays).then_some((id, revision))
}

/// The absolute path of `text`, seen from `folder`; `~` is the home folder.
pub(super) fn absolute(text: &str, folder: &Path) -> PathBuf {
    let home = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = match (home, std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        _ => folder.join(text),
    };
    // Two ways to the same file are the same path, so that a resumed run compares files and not
    // spellings. Only an empty path has no absolute form.
    path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ModelRef {
        ModelRef::parse(text, Path::new("/base"))
    }

    #[test]
    fn a_name_inside_the_binary_stays() {
        assert_eq!(parse("builtin:tiny"), ModelRef::Builtin("tiny".into()));
    }

    #[test]
    fn what_looks_like_a_hub_id_and_is_no_folder_is_one() {
        let hub = |id: &str, revision: Option<&str>| ModelRef::Hub {
            id: id.into(),
            revision: revision.map(Into::into),
        };
        assert_eq!(parse("meta-llama/Llama-3.2-1B"), hub("meta-llama/Llama-3.2-1B", None));
        assert_eq!(parse("org/name@refs/pr/3"), hub("org/name", Some("refs/pr/3")));
    }

    #[test]
    fn paths_are_resolved_against_the_folder() {
        let folder = |path: &str| ModelRef::Folder(path.into());
        assert_eq!(parse("./org/name"), folder("/base/org/name"));
        assert_eq!(parse("../models/x"), folder("/base/../models/x"));
        assert_eq!(parse("/models/x"), folder("/models/x"));
        assert_eq!(parse("models/llama/7b"), folder("/base/models/llama/7b"));
        assert_eq!(parse("plain"), folder("/base/plain"));
        assert_eq!(parse("org/name@"), folder("/base/org/name@"));
        assert!(matches!(parse("org/name@refs/../../../x"), ModelRef::Folder(_)));
    }

    #[test]
    fn a_folder_that_exists_is_not_a_hub_id() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("org/name")).unwrap();
        assert_eq!(
            ModelRef::parse("org/name", base.path()),
            ModelRef::Folder(base.path().join("org/name"))
        );
    }

    #[test]
    fn the_home_folder_is_expanded() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(parse("~/models/x"), ModelRef::Folder(home.join("models/x")));
        assert_eq!(parse("~x"), ModelRef::Folder("/base/~x".into()));
    }

    #[test]
    fn a_reference_is_written_and_read_back() {
        for text in ["builtin:tiny", "/models/x", "org/name", "org/name@main"] {
            assert_eq!(parse(text).to_string(), text);
            assert_eq!(ModelRef::from(text.to_owned()), parse(text));
        }
    }
}
