//! What the host has free, as its system tells.

use std::path::Path;

/// Bytes that programs can still get: `MemAvailable` of `/proc/meminfo`, and no more than the control group of the process
/// has left. `None` where the system does not say.
pub fn on_host() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| kib_line(&text, "MemAvailable:"));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let group = group_left(Path::new("/sys/fs/cgroup"), &groups);
    machine.into_iter().chain(group).min()
}

/// The machine's memory in bytes.
pub fn total_on_host() -> Option<u64> {
    kib_line(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Bytes of one core's second-level cache; 1 MiB where the system does not say.
pub fn second_level_cache() -> u64 {
    let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok();
    let kib = size.and_then(|size| size.trim().strip_suffix('K')?.parse::<u64>().ok());
    kib.map_or(1 << 20, |kib| kib * 1024)
}

/// The bytes of a line such as `MemTotal:  16384 kB`.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The least that any control group around the process has left, in both versions of their files. `groups` is
/// `/proc/self/cgroup`; inside a container the group's own files stand at the root.
fn group_left(root: &Path, groups: &str) -> Option<u64> {
    let mut left = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, names) = match controllers {
            "" => (root.to_owned(), ["memory.max", "memory.current"]),
            "memory" => (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
            _ => continue,
        };
        let inside = root.join(path.trim_start_matches('/'));
        let around = inside.ancestors().take_while(|folder| folder.starts_with(&root));
        left.extend(around.filter_map(|folder| left_in(folder, names)));
    }
    left.into_iter().min()
}

/// Limit minus use; file pages that the system can drop at once do not count as used.
fn left_in(folder: &Path, [limit, used]: [&str; 2]) -> Option<u64> {
    let number =
        |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(droppable.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_in_kibibytes() {
        let text = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(kib_line(text, "MemAvailable:"), Some(8 << 20));
        assert_eq!(kib_line("MemFree: 1 kB", "MemAvailable:"), None);
    }

    #[test]
    fn the_tightest_group_counts_and_an_unlimited_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(group_left(folder.path(), "0::/user/job\n"), None);
        write("user/memory.max", "1000\n");
        write("user/memory.current", "400\n");
        write("user/memory.stat", "anon 1\ninactive_file 150\n");
        write("user/job/memory.max", "max\n");
        write("user/job/memory.current", "300\n");
        assert_eq!(group_left(folder.path(), "0::/user/job\n"), Some(750));
        write("memory/memory.limit_in_bytes", "500\n");
        write("memory/memory.usage_in_bytes", "100\n");
        assert_eq!(
            group_left(folder.path(), "12:memory:/\n1:name=systemd:/x\n0::/user/job\n"),
            Some(400)
        );
    }
}
