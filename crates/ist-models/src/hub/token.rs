//! The token by which the hub knows whoever asks, found where the `huggingface_hub` package looks
//! for it.

use std::fmt;
use std::path::PathBuf;

use super::cache;

/// Variables that hold it, in the order in which they are read.
const VARIABLES: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// A token and where it was found. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH`, else `token` in the
    /// hub's home.
    ///
    /// # Errors
    ///
    /// A token that could not stand in a request.
    pub(crate) fn from_env() -> Result<Option<Self>, String> {
        for variable in VARIABLES {
            let Some(value) = std::env::var_os(variable) else { continue };
            if let Some(token) = Self::new(&value.to_string_lossy(), variable)? {
                return Ok(Some(token));
            }
        }
        let path = std::env::var_os("HF_TOKEN_PATH")
            .filter(|path| !path.is_empty())
            .map_or_else(|| cache::home().join("token"), PathBuf::from);
        // Whoever never logged in has no such file.
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::new(&text, &path.display().to_string()),
            Err(_) => Ok(None),
        }
    }

    /// A token without the white space around it; `None` when that is all there is.
    pub(crate) fn new(text: &str, origin: &str) -> Result<Option<Self>, String> {
        let secret = text.trim();
        if secret.is_empty() {
            return Ok(None);
        }
        if !secret.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("{origin} holds no token: it has characters that no token has"));
        }
        Ok(Some(Self { secret: secret.to_owned(), origin: origin.to_owned() }))
    }

    /// The value of a request's `Authorization`.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    /// The variable or the file it was found in.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(of {})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_checked_and_never_shown() {
        let token = Token::new(" hf_secret\n", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(token.authorization(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(Token::new(" \n", "HF_TOKEN"), Ok(None));
        let fault = Token::new("hf_a\r\nHost: b", "HF_TOKEN").unwrap_err();
        assert!(fault.contains("HF_TOKEN") && !fault.contains("hf_a"), "{fault}");
    }
}
