//! How many threads operations are spread over.

use ist_records::Failure;

/// The variable that says how many; without it there is one for each core.
pub(crate) const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Threads that may be asked for on any machine. More than cores serve only to continue a run that
/// began on a larger machine, whose numbers depend on how many there were.
const ALWAYS_ALLOWED: usize = 256;

/// The cores of this machine that the process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The threads that [`VARIABLE`] asks for.
///
/// # Errors
///
/// Bad usage: not a whole number, or more than this machine could ever use.
pub(crate) fn wanted() -> Result<usize, Failure> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(cores()) };
    parse(&value.to_string_lossy(), cores()).map_err(Failure::input)
}

/// The threads that operations of this process are spread over, for its records.
pub(crate) fn count() -> usize {
    // A program of its own that starts without the command line has rayon's rule: what is no number
    // is ignored.
    wanted().unwrap_or_else(|_| cores())
}

/// As rayon reads it: 0, or nothing at all, stands for one thread for each core.
fn parse(value: &str, cores: usize) -> Result<usize, String> {
    let value = value.trim();
    let most = cores.max(ALWAYS_ALLOWED);
    match value.parse::<u128>() {
        _ if value.is_empty() => Ok(cores),
        Ok(0) => Ok(cores),
        Ok(threads) if threads <= most as u128 => Ok(threads as usize),
        _ => Err(format!(
            "{VARIABLE} is `{}`, expected a whole number of threads from 1 to {most} (this machine \
             has {cores} \
             cores); correct it, or unset it for one thread a core",
            value.escape_debug()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_threads_is_taken_and_no_number_is_one_for_each_core() {
        assert_eq!(parse("3", 2), Ok(3));
        assert_eq!(parse("0", 2), Ok(2));
        assert_eq!(parse("", 2), Ok(2));
        assert_eq!(parse("256", 2), Ok(256));
        assert_eq!(parse("384", 384), Ok(384));
    }

    #[test]
    fn what_no_machine_could_use_is_refused() {
        for value in
            ["100000", "257", "-1", "two", "1.5", "99999999999999999999999999999999999999999"]
        {
            let fault = parse(value, 2).unwrap_err();
            assert!(fault.contains(value) && fault.contains("from 1 to 256"), "{fault}");
        }
    }
}
