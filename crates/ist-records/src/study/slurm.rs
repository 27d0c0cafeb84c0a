//! A job-array script for Slurm: one array task for each member, or for a few.

use std::fmt::Write;
use std::path::Path;

/// What a script is made from.
#[derive(Debug)]
pub struct Script<'a> {
    /// The program, as it is called.
    pub program: &'a Path,
    /// The study's file.
    pub file: &'a Path,
    /// The study's name.
    pub name: &'a str,
    /// Members.
    pub count: usize,
    /// Members of one array task.
    pub chunk: usize,
    /// Further arguments of each call.
    pub arguments: &'a [String],
    /// The folder the calls are made from.
    pub folder: &'a Path,
}

/// The script's text.
pub fn render(script: &Script) -> String {
    let Script { count, chunk, name, .. } = *script;
    let tasks = count.div_ceil(chunk);
    let call =
        [script.program.display().to_string(), "run".to_owned(), script.file.display().to_string()];
    let words =
        call.iter().chain(script.arguments).map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    let _ = write!(
        text,
        "#!/bin/bash\n\
         # {count} runs of {name} in {tasks} array tasks; what is done already is not done again.\n\
         # Submit it with sbatch. Add what your cluster needs: partition, account, time, memory, \
         GPUs.\n\
         #SBATCH --job-name={name}\n\
         #SBATCH --array=0-{}\n\
         #SBATCH --output={name}-%A_%a.out\n\
         #SBATCH --cpus-per-task=1\n\n\
         cd {} || exit 2\n\
         export RAYON_NUM_THREADS=\"${{RAYON_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}\"\n\
         first=$((SLURM_ARRAY_TASK_ID * {chunk}))\n\
         last=$((first + {}))\n\
         [ \"$last\" -lt {count} ] || last={}\n\
         status=0\n\
         for member in $(seq \"$first\" \"$last\"); do\n\
         \x20 {words} --member \"$member\" || status=$?\n\
         done\n\
         exit \"$status\"\n",
        tasks - 1,
        quoted(&script.folder.display().to_string()),
        chunk - 1,
        count - 1,
    );
    text
}

/// A word as the shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the script under bash with `echo` as the program.
    fn calls(count: usize, chunk: usize, task: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--set".to_owned(), "data.template=it's {{ x }}".to_owned()];
        let (program, file) = (Path::new("echo"), Path::new("a study.toml"));
        let script = Script {
            program,
            file,
            name: "study",
            count,
            chunk,
            arguments: &arguments,
            folder: folder.path(),
        };
        let path = folder.path().join("study.sbatch");
        std::fs::write(&path, render(&script)).unwrap();
        let mut bash = std::process::Command::new("bash");
        let output = bash.arg(&path).env("SLURM_ARRAY_TASK_ID", task.to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_member_is_called_by_one_task_with_its_arguments_whole() {
        let members = |count: usize, chunk: usize| -> Vec<usize> {
            let tasks = 0..count.div_ceil(chunk);
            let lines = tasks.flat_map(|task| calls(count, chunk, task));
            let expected = "run a study.toml --set data.template=it's {{ x }} --member ";
            lines.map(|line| line.strip_prefix(expected).unwrap().parse().unwrap()).collect()
        };
        assert_eq!(members(3, 1), [0, 1, 2]);
        assert_eq!(members(5, 2), [0, 1, 2, 3, 4]);
        assert_eq!(members(1, 7), [0]);
    }
}
