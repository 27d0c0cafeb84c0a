//! Where the files of several tasks lie in one folder.

use std::path::{Path, PathBuf};

use super::{Selection, Task};
use ist_records::Failure;

/// Folders between the given one and a task's own.
const BETWEEN: [&str; 4] = ["", "commonsense", "math", "dataset"];

/// The files of the tasks that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Every task whose file there is.
    pub files: Vec<(&'static Task, PathBuf)>,
    /// Every other, with the file that was looked for.
    pub missing: Vec<(&'static Task, PathBuf)>,
}

/// Finds the files of the selected tasks: `data` itself for a single task, else
/// `data/NAME/test.json`, also in a folder `commonsense`, `math` or `dataset` of `data`.
///
/// # Errors
///
/// A file where a folder is needed; a task named by itself whose file is missing; no file at all.
pub fn find(selection: &Selection, data: &Path) -> Result<Found, Failure> {
    if !data.is_dir() {
        let [task] = selection.tasks[..] else {
            let shown = data.display();
            return Err(Failure::input(format!(
                "--data {shown}: several tasks need a folder with NAME/test.json in it"
            )));
        };
        return Ok(Found { files: vec![(task, data.to_owned())], missing: Vec::new() });
    }
    let mut found = Found { files: Vec::new(), missing: Vec::new() };
    for task in &selection.tasks {
        match BETWEEN
            .iter()
            .map(|between| file(&data.join(between), task))
            .find(|file| file.is_file())
        {
            Some(file) => found.files.push((task, file)),
            None => found.missing.push((task, file(data, task))),
        }
    }
    let fatal = |(task, _): &&(&Task, PathBuf)| found.files.is_empty() || !selection.may_lack(task);
    match found.missing.iter().find(fatal) {
        Some((task, file)) => {
            Err(Failure::input(format!("task {task}: there is no {}", file.display())))
        }
        None => Ok(found),
    }
}

fn file(folder: &Path, task: &Task) -> PathBuf {
    folder.join(task.name()).join("test.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_lack_sets_and_a_task_named_by_itself_may_not() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["boolq", "math/gsm8k"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("test.json"), "[]").unwrap();
        }
        let find = |text: &str| find(&Selection::parse(text).unwrap(), folder.path());
        let all = find("all").unwrap();
        assert_eq!(
            all.files.iter().map(|(task, _)| task.name()).collect::<Vec<_>>(),
            ["boolq", "gsm8k"]
        );
        assert_eq!((all.missing.len(), all.missing[0].0.name()), (13, "piqa"));
        assert_eq!(find("gsm8k").unwrap().missing, []);
        for text in ["piqa", "boolq,piqa"] {
            let message = find(text).unwrap_err().to_string();
            assert!(
                message.contains("task piqa: there is no") && message.contains("piqa/test.json"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_is_for_one_task() {
        let path = Path::new("test.json");
        assert_eq!(find(&Selection::parse("boolq").unwrap(), path).unwrap().files[0].1, path);
        assert!(
            find(&Selection::parse("all").unwrap(), path)
                .unwrap_err()
                .to_string()
                .contains("need a folder")
        );
    }
}
