//! What the host has free, as its system tells.

use std::path::Path;

use ist_records::Failure;
use ist_records::terminal::human;

/// Bytes that programs can still get: `MemAvailable` of `/proc/meminfo`, and no more than the
/// control group of the process and its limit of address space (`ulimit -v`) leave. `None` where
/// the system does not say.
pub fn on_host() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| kib_line(&text, "MemAvailable:"));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let group = group_left(Path::new("/sys/fs/cgroup"), &groups);
    let limit = address_space().map(|[limit, used]| limit.saturating_sub(used));
    machine.into_iter().chain(group).chain(limit).min()
}

/// The limit on the process's address space, where there is one, and what is used of it.
fn address_space() -> Option<[u64; 2]> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some([address_space_limit(&limits)?, kib_line(&status, "VmSize:")?])
}

/// The soft limit of a line such as `Max address space   1048576000   unlimited   bytes`.
fn address_space_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fails where work needs more bytes than the `most` there are: it would end by being killed,
/// without a word.
///
/// # Errors
///
/// Bad usage, with what the work is and `advice`. Where it is not known what there is, nothing is
/// refused.
pub(crate) fn must_fit(
    what: &str,
    bytes: u64,
    most: Option<u64>,
    advice: &str,
) -> Result<(), Failure> {
    let Some(most) = most.filter(|most| bytes > *most) else { return Ok(()) };
    let shown = |bytes: u64| human(usize::try_from(bytes).unwrap_or(usize::MAX));
    Err(Failure::input(format!(
        "{what} needs {} of memory at least, and this machine has {} in all; {advice}",
        shown(bytes),
        shown(most)
    )))
}

/// All that the process could ever get: the machine's memory and its swap, within its limit of
/// address space.
pub(crate) fn most_on_host() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let swap = kib_line(&text, "SwapTotal:").unwrap_or_default();
    let machine = kib_line(&text, "MemTotal:")?.saturating_add(swap);
    let limit = address_space().map_or(u64::MAX, |[limit, _]| limit);
    Some(machine.min(limit))
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

/// The least that any control group around the process has left, in both versions of their files.
/// `groups` is `/proc/self/cgroup`; inside a container the group's own files stand at the root.
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
    fn a_limit_of_address_space_is_in_bytes_and_may_be_none() {
        let limits = "Max file locks   unlimited  unlimited  locks\n\
                      Max address space     2048000     unlimited    bytes\n";
        assert_eq!(address_space_limit(limits), Some(2_048_000));
        assert_eq!(address_space_limit(&limits.replace("2048000", "unlimited")), None);
    }

    #[test]
    fn work_beyond_the_machine_is_refused_with_advice() {
        assert!(must_fit("a step", 10, Some(10), "").is_ok() && must_fit("", 10, None, "").is_ok());
        let failure = must_fit("a step", 3 << 30, Some(1 << 30), "lower --seq").unwrap_err();
        let expected = "a step needs 3.0 GiB of memory at least, and this machine has 1.0 GiB in \
                        all; lower --seq";
        assert_eq!((failure.exit_code(), failure.to_string().as_str()), (2, expected));
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
