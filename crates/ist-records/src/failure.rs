//! How a command ends when it does not end well.

use std::fmt::Display;

use crate::terminal::plain_text;
use ist_files::destination::DestinationError;

/// A failed command: its message and its exit code.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage, configuration or input file: exit code 2.
    Input(anyhow::Error),
    /// Failed while running: exit code 1.
    Run(anyhow::Error),
    /// Stopped by Ctrl-C after saving: exit code 130.
    Interrupted(String),
}

impl Failure {
    /// Bad input, described by `message`.
    pub fn input(message: impl Display) -> Self {
        Self::Input(anyhow::anyhow!("{message}"))
    }

    /// A failure at run time, described by `message`.
    pub fn run(message: impl Display) -> Self {
        Self::Run(anyhow::anyhow!("{message}"))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Run(_) => 1,
            Self::Interrupted(_) => 130,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(error) | Self::Run(error) => {
                f.write_str(&plain_text::message(&told_once(error)))
            }
            Self::Interrupted(message) => f.write_str(&plain_text::message(message)),
        }
    }
}

/// A path that cannot be written to is bad usage; what the system says of the writing is a failure.
impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        if error.is_refusal() { Self::Input(error.into()) } else { Self::Run(error.into()) }
    }
}

/// The causes of an error, outermost first, but for those that the text before already tells.
fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told {
        told if told.is_empty() => cause,
        told if told.contains(&cause) => told,
        told => format!("{told}: {cause}"),
    })
}

/// Marks the error of a result as bad input or as a failure at run time.
pub trait OrFail<T> {
    /// As bad input (exit code 2).
    fn or_input(self) -> Result<T, Failure>;
    /// As a failure at run time (exit code 1).
    fn or_run(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn or_run(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_message_holds_no_code_that_a_terminal_obeys() {
        let failure = Failure::input("a\x1b[2Jb\u{202e}.json: no such file");
        assert_eq!(failure.to_string(), "a\\x1b[2Jb\\u{202e}.json: no such file");
        assert!(Failure::run("x".repeat(1 << 20)).to_string().len() < 5000);
    }

    #[test]
    fn a_cause_that_its_effect_quotes_is_told_once() {
        let error = std::io::Error::other("no space left");
        let quoted =
            anyhow::Error::new(error).context("a.json: no space left").context("cannot save");
        assert_eq!(Failure::Run(quoted).to_string(), "cannot save: a.json: no space left");
        let plain: anyhow::Result<()> = Err(anyhow::anyhow!("cause")).context("effect");
        assert_eq!(plain.or_input().unwrap_err().to_string(), "effect: cause");
    }
}
