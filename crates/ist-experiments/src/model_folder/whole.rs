//! Model folders that appear whole or not at all.

use std::path::Path;

use anyhow::Context;
use ist_files::durable;
use ist_files::durable::PartialFolder;

use ist_records::{Failure, OrFail};

/// Fails unless `folder` does not exist or is an empty folder.
pub fn must_be_free(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    if folder.join("config.json").exists() {
        return Err(Failure::input(format!("{shown} already holds a model; name another folder")));
    }
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::input(format!("{shown} holds other files; name a new folder"))),
        Err(_) if !folder.exists() => Ok(()),
        Err(error) => {
            Err(Failure::input(format!("{shown}: not a folder that can be written to: {error}")))
        }
    }
}

/// Lets `write` fill a folder of another name and renames it to `folder` when it is complete. What
/// killed processes left half-written beside it is removed first.
pub fn write(
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let context = || format!("{}: cannot write", folder.display());
    durable::sweep(durable::folder_of(folder)).with_context(context).or_run()?;
    let partial = PartialFolder::create(folder).with_context(context).or_run()?;
    write(partial.path())?;
    partial.commit().with_context(context).or_run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_nothing_and_success_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/model");
        let fill = |partial: &Path| std::fs::write(partial.join("a"), "1").or_run();
        write(&target, |partial| fill(partial).and(Err(Failure::run("no space left"))))
            .unwrap_err();
        assert!(
            !target.exists()
                && std::fs::read_dir(target.parent().unwrap()).unwrap().next().is_none()
        );
        must_be_free(&target).unwrap();
        write(&target, fill).unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"1");
        assert!(must_be_free(&target).unwrap_err().to_string().contains("holds other files"));
        assert_eq!(must_be_free(&target.join("a")).unwrap_err().exit_code(), 2);
    }
}
