//! What the system counts for this process: resident memory and processor time. Linux only;
//! elsewhere everything is `None`.

use std::fs;

/// Bytes that are resident now.
pub fn resident() -> Option<u64> {
    status("VmRSS")
}

/// The most bytes that were resident since [`reset_peak_resident`], else since the process began.
pub fn peak_resident() -> Option<u64> {
    status("VmHWM")
}

/// Forgets the peak of resident bytes. Where the system refuses, the peak stays that of the whole
/// process.
pub fn reset_peak_resident() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Milliseconds of processor time of all threads that live. Threads of a pool outlive what is
/// measured, so none is missed; the counter of ended threads has a resolution of 10 ms only.
pub fn processor_ms() -> Option<f64> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(nanoseconds.sum::<u64>() as f64 / 1e6)
}

/// The mean number of runnable processes in the last minute: what else the machine was doing.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time_and_memory() {
        let before = processor_ms().unwrap();
        let values: Vec<u64> = (0..20_000_000).collect();
        assert!(std::hint::black_box(values).len() == 20_000_000);
        assert!(processor_ms().unwrap() > before);
        assert!(peak_resident().unwrap() >= resident().unwrap());
    }
}
