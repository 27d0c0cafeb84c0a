//! Panics of other people's libraries as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cut;

thread_local! {
    /// How many calls of [`contained`] this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How many calls of [`contained_in_pool`] are going on.
static IN_POOL: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`. A panic inside becomes an error with the first line of its message, and prints
/// nothing.
///
/// This is for readers that panic on damaged files. What they leave half-done must not be used
/// afterwards.
///
/// # Errors
///
/// The panic's message.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence_contained_panics();
    DEPTH.set(DEPTH.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    outcome.map_err(|panic| message(&*panic))
}

/// As [`contained`], for work that a pool of threads shares. Until it is done no thread prints its
/// panic.
///
/// # Errors
///
/// The panic's message.
pub fn contained_in_pool<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    IN_POOL.fetch_add(1, Ordering::SeqCst);
    let outcome = contained(work);
    IN_POOL.fetch_sub(1, Ordering::SeqCst);
    outcome
}

/// The hook that prints panics stays in place for all others.
fn silence_contained_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 && IN_POOL.load(Ordering::SeqCst) == 0 {
                report(panic);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.unwrap_or("no message").lines().next().unwrap_or_default();
    cut(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_first_line() {
        assert_eq!(contained(|| 3), Ok(3));
        let failed = contained(|| -> i32 { panic!("index {}\nand more", 7) });
        assert_eq!(failed, Err("index 7".to_owned()));
        let nested = contained(|| contained(|| panic!("inner")).map(|()| panic!("never")));
        assert_eq!(nested, Ok(Err("inner".to_owned())));
        assert_eq!(DEPTH.get(), 0);
    }
}
