//! Names from outside that become part of a path.
//!
//! An index of shards, a manifest, a checkpoint: each names files, and whoever wrote it decides
//! where we read and write. So a name is checked once, when it is read, and has a type of its own
//! from then on.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of the longest name. File systems take 255, and what is written beside a file adds an
/// ending.
const LONGEST: usize = 220;

/// The name of one file or folder within another: not a path, and nothing that leads anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// A text that is not the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a plain file name: {reason}")]
pub struct FileNameError {
    name: String,
    reason: &'static str,
}

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = FileNameError;

    fn try_from(name: String) -> Result<Self, FileNameError> {
        let reason = match name.as_str() {
            "" => "it is empty",
            "." | ".." => "it names a folder that is there already",
            text if text.contains(['/', '\\']) => "it leads into another folder",
            text if cfg!(windows) && text.contains(':') => "it names a drive",
            text if text.chars().any(char::is_control) => "it holds control characters",
            text if text.len() > LONGEST => "it is longer than 220 bytes",
            _ => return Ok(Self(name)),
        };
        // A hostile name may be of any length; its beginning says enough.
        Err(FileNameError { name: name.chars().take(80).collect(), reason })
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl AsRef<Path> for FileName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn name(text: &str) -> Result<FileName, FileNameError> {
        text.to_owned().try_into()
    }

    #[test]
    fn only_plain_names_pass() {
        for plain in ["model-00001-of-00002.safetensors", "lr=1e-3,seed=0", "...", ".hidden", "é"]
        {
            assert_eq!(name(plain).unwrap().as_str(), plain);
        }
        for path in ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a\0b", "a\nb", "a\u{9b}"] {
            assert!(name(path).is_err(), "{path:?}");
        }
        assert!(name(&"x".repeat(221)).unwrap_err().to_string().len() < 160);
        let json = r#""../../x""#;
        let error = serde_json::from_str::<FileName>(json).unwrap_err().to_string();
        assert!(error.contains(r#""../../x" is not a plain file name"#), "{error}");
    }

    proptest! {
        #[test]
        fn a_name_stays_in_its_folder(text in any::<String>()) {
            if let Ok(name) = name(&text) {
                let parts: Vec<Component> = Path::new(name.as_str()).components().collect();
                prop_assert!(matches!(parts[..],
                    [Component::Normal(part)] if part == name.as_str()));
            }
        }
    }
}
