//! The terminal: taken with a screen of its own, and given back at the end of a view, after a
//! panic, and on a signal that can be caught.

use std::io::{self, BufWriter, IsTerminal, Stderr, Write, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Frame;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::failure::Failure;
use crate::terminal::plain_text;

static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Fails where stderr, on which views are drawn, is no terminal.
///
/// # Errors
///
/// Bad usage, with `advice`, what to do instead.
pub fn must_be_there(what: &str, advice: &str) -> Result<(), Failure> {
    if stderr().is_terminal() {
        return Ok(());
    }
    Err(Failure::input(format!("{what} needs a terminal, and stderr is none; {advice}")))
}

/// Whether a view has the terminal, so that nothing else may be printed.
pub fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Gives the terminal back, if a view has it.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // There is nobody to tell where this fails: the terminal is gone.
        let _ = disable_raw_mode();
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    }
}

/// stderr while a view has the terminal. Afterwards it takes everything and passes nothing on: what
/// is left to do to the terminal was done by [`give_back`], and ratatui panics where it cannot do
/// it once more.
struct Gate(Stderr);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_taken() { self.0.write(bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if is_taken() { self.0.flush() } else { Ok(()) }
    }
}

/// The terminal while a view has it.
pub(super) struct Terminal(ratatui::Terminal<CrosstermBackend<BufWriter<Gate>>>);

impl Terminal {
    /// Takes it. A panic gives it back first, so that its message is seen.
    pub(super) fn take() -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        TAKEN.store(true, Ordering::SeqCst);
        let taken =
            enable_raw_mode().and_then(|()| execute!(stderr(), EnterAlternateScreen)).and_then(
                |()| ratatui::Terminal::new(CrosstermBackend::new(BufWriter::new(Gate(stderr())))),
            );
        taken.map(Self).inspect_err(|_| give_back())
    }

    /// One picture; fails once the terminal was given back.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !is_taken() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let drawn = |frame: &mut Frame| {
            picture(frame);
            plain(frame.buffer_mut());
        };
        self.0.draw(drawn).map(|_| ())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Takes codes out of a picture that would turn the direction of its text around. All others the
/// library leaves out.
fn plain(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().contains(plain_text::is_control) {
            let kept: String =
                cell.symbol().chars().filter(|c| !plain_text::is_control(*c)).collect();
            cell.set_symbol(if kept.is_empty() { " " } else { &kept });
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::text::Line;
    use ratatui::widgets::Widget;

    use super::*;

    #[test]
    fn a_picture_holds_no_code_that_a_terminal_obeys() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 30, 1));
        let name = "a\x1b[2Jb\u{9b}1m\u{202e}c\u{2066}d\u{200f}";
        Line::from(name).render(buffer.area, &mut buffer);
        plain(&mut buffer);
        let drawn: String = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        assert!(!drawn.contains(plain_text::is_control), "{drawn:?}");
        assert_eq!(drawn.trim_end(), "a[2Jb1mcd");
    }
}
