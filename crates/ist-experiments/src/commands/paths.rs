//! Paths on the command line: those that are written into files later, and those that results go
//! to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use ist_files::destination;
use ist_files::destination::Destination;

use ist_records::Failure;

/// Writes a result where a person wants it: over the file that is there, or into the device or
/// pipe.
///
/// # Errors
///
/// Bad usage where nothing can be written under that name, else a failure.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    Ok(destination::write(path, bytes)?)
}

/// Fails where a file of that name is there; `refusal` says so and what to do.
pub(crate) fn must_be_new(path: &Path, refusal: &str) -> Result<(), Failure> {
    let through = Destination::of(path)?.is_through();
    if path.exists() && !through {
        return Err(Failure::input(format!("{} {refusal}", path.display())));
    }
    Ok(())
}

/// A path that is written into files later: into a run's records, a study's manifest, a script.
/// Those are UTF-8, so a path that is not would name another place there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenDown;

impl TypedValueParser for WrittenDown {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, clap::Error> {
        let fault = |problem: &str| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let shown = value.to_string_lossy();
            let message = format!("{name}: `{}` {problem}\n", shown.escape_debug());
            clap::Error::raw(ErrorKind::InvalidValue, message).with_cmd(command)
        };
        match value.to_str() {
            None => {
                Err(fault("is not UTF-8, and it would be written into files that are; rename it"))
            }
            Some("") => Err(fault("is empty; name a file or a folder")),
            Some(path) => Ok(PathBuf::from(path)),
        }
    }
}
