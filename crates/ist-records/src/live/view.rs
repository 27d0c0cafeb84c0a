//! What is on the screen: a head that says how far the run is, one of several pages, the keys.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Gauge, Tabs};

use super::ink::{ASIDE, Ink, STRONG};
use super::pages::Page;
use crate::report::{RunRecord, State};
use crate::terminal::interrupt;

/// What a key asks of whoever shows the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Stop the run after its step.
    Stop,
    /// End the process.
    StopAtOnce,
    /// Leave the view, whatever the run does.
    Leave,
}

/// A run and what of it is on the screen.
pub(super) struct View {
    pub(super) run: RunRecord,
    pub(super) ink: Ink,
    /// Whether the run is this process's, so that a key can stop it.
    pub(super) own: bool,
    /// What the run said.
    pub(super) messages: Vec<String>,
    page: Page,
    /// Rows of the page in the last picture.
    rows: usize,
    /// When stopping was asked for.
    stopping: Option<Instant>,
    /// How many lines of the page have gone past its top.
    pub(super) scrolled: usize,
    /// Whether losses stand on a logarithmic axis.
    pub(super) logarithmic: bool,
}

/// Steps whose pace tells when a run will be done.
const PACE: usize = 32;
/// Lines that a page key goes.
const LEAP: isize = 10;
/// Rows of a page that are its borders.
const BORDERS: usize = 2;
/// How long a key that is held is one key.
const HELD: Duration = Duration::from_secs(1);

impl View {
    /// Of a run that is this process's own or goes on, or went on, elsewhere.
    pub(super) fn new(run: RunRecord, own: bool, ink: Ink) -> Self {
        Self {
            run,
            ink,
            own,
            messages: Vec::new(),
            page: Page::Overview,
            rows: 0,
            stopping: None,
            scrolled: 0,
            logarithmic: false,
        }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Asked> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(self.leave(true)),
            KeyCode::Char('q') => return Some(self.leave(false)),
            KeyCode::Char(digit @ '1'..='9') => {
                let page = digit as usize - '1' as usize;
                self.turn_to(Page::ALL.get(page).copied().unwrap_or(self.page));
            }
            KeyCode::Tab | KeyCode::Right => self.turn_to(self.page.after(1)),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(self.page.after(Page::ALL.len() - 1)),
            KeyCode::Char('l') => self.logarithmic = !self.logarithmic,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(LEAP),
            KeyCode::PageUp => self.scroll(-LEAP),
            KeyCode::Home => self.scroll(-isize::MAX),
            KeyCode::End => self.scroll(isize::MAX),
            _ => {}
        }
        None
    }

    /// What a key to leave asks for. Only Ctrl-C asks twice, and not while it is still held.
    fn leave(&mut self, control: bool) -> Asked {
        if !self.own {
            return Asked::Leave;
        }
        let since = *self.stopping.get_or_insert_with(Instant::now);
        if control && since.elapsed() >= HELD { Asked::StopAtOnce } else { Asked::Stop }
    }

    /// Goes so many lines down. Messages are counted from the last one back.
    fn scroll(&mut self, lines: isize) {
        let lines = if self.page == Page::Messages { -lines } else { lines };
        let most = self.page.lines(self).saturating_sub(self.rows.saturating_sub(BORDERS).max(1));
        self.scrolled = self.scrolled.saturating_add_signed(lines).min(most);
    }

    fn turn_to(&mut self, page: Page) {
        if page != self.page {
            (self.page, self.scrolled) = (page, 0);
        }
    }

    /// Draws all of it.
    pub(super) fn draw(&mut self, frame: &mut Frame, fault: Option<&str>) {
        let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Length(1)];
        let rows = rows.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]);
        let [title, gauge, tabs, page, foot] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(self.title(), title);
        self.gauge(frame, gauge);
        let names = Page::ALL
            .iter()
            .enumerate()
            .map(|(number, page)| format!("{} {}", number + 1, page.name()));
        frame.render_widget(
            Tabs::new(names).select(self.page.number()).highlight_style(STRONG.reversed()),
            tabs,
        );
        self.rows = page.height.into();
        self.page.draw(self, frame, page);
        frame.render_widget(self.foot(fault), foot);
    }

    fn title(&self) -> Line<'_> {
        let setting = |key: &str| self.run.setting(key).as_str().unwrap_or("-").to_owned();
        let what = format!("  policy {}, seed {}", setting("policy.kind"), self.run.seed());
        let state = Span::styled(
            format!("  {}", self.state()),
            if self.is_wrong() { self.ink.wrong() } else { ASIDE },
        );
        Line::from(vec![
            Span::styled(self.run.folder.display().to_string(), STRONG),
            what.into(),
            state,
        ])
    }

    fn state(&self) -> &'static str {
        if self.own && interrupt::asked() {
            "stopping after this step"
        } else {
            self.run.state.words()
        }
    }

    fn is_wrong(&self) -> bool {
        matches!(self.run.state, State::Failed | State::Unfinished)
    }

    /// How far the run is, and what it does.
    fn gauge(&self, frame: &mut Frame, area: Rect) {
        let (done, total) = (self.done(), self.total());
        let share = if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
        let gauge = Gauge::default()
            .ratio(share)
            .label(self.progress(done, total))
            .gauge_style(self.ink.series(4));
        frame.render_widget(gauge, area);
    }

    fn progress(&self, done: usize, total: usize) -> String {
        let mut text = format!("step {done} of {total}");
        let steps = &self.run.steps[self.run.steps.len().saturating_sub(PACE + 1)..];
        let [first, .., last] = steps else { return text };
        write!(text, "  last loss {:.4}", last.loss).expect("strings take text");
        let seconds = last.elapsed - first.elapsed;
        let tokens: f64 = steps[1..].iter().map(|step| step.tokens).sum();
        if seconds > 0.0 {
            write!(text, "  {:.0} learned tokens/s", tokens / seconds).expect("strings take text");
            let left = seconds / (steps.len() - 1) as f64 * total.saturating_sub(done) as f64;
            if self.run.state == State::Running && left > 0.0 {
                write!(text, "  {} left", clock(left)).expect("strings take text");
            }
        }
        text
    }

    fn done(&self) -> usize {
        self.run.steps.last().map_or(0, |step| step.step + 1)
    }

    /// Steps of the whole run, as planned.
    pub(super) fn total(&self) -> usize {
        let planned = self.run.plan["total_steps"].as_u64().unwrap_or_default() as usize;
        planned.max(self.done())
    }

    fn foot<'a>(&self, fault: Option<&'a str>) -> Line<'a> {
        if let Some(fault) = fault {
            return Line::styled(fault, self.ink.wrong());
        }
        let leave = match (self.own, interrupt::asked()) {
            (false, _) => "q leave, the run goes on",
            (true, false) => "q stop after this step",
            (true, true) => "Ctrl-C stop at once, unsaved",
        };
        Line::styled(
            format!(
                "1-{} or Tab pages   \u{2191}\u{2193} scroll   l log scale   {leave}",
                Page::ALL.len()
            ),
            ASIDE,
        )
    }
}

/// Hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::testing;
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> Option<Asked> {
        view.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    /// What is on a screen of that size, a line a row.
    fn shown(view: &mut View, (width, height): (u16, u16), fault: Option<&str>) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame, fault)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_head_tells_how_far_the_run_is() {
        let mut view = View::new(testing::run(100), true, Ink::Plain);
        let screen = shown(&mut view, (80, 24), None);
        // Steps of half a second with 8 tokens each.
        for part in [
            "runs/x-1",
            "policy ist, seed 3",
            "running",
            "step 100 of 400",
            "16 learned tokens/s",
            "2:30 left",
        ] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
        view.run.state = State::Failed;
        let screen = shown(&mut view, (80, 24), Some("metrics.jsonl: line 3 is not JSON"));
        assert!(
            screen.contains("failed")
                && !screen.contains(" left")
                && screen.contains("line 3 is not JSON"),
            "{screen}"
        );
    }

    #[test]
    fn every_page_shows_its_figures() {
        let mut view = View::new(testing::run(100), true, Ink::Plain);
        view.messages.push("step 50: validation loss 1.2500".to_owned());
        let expected: [&[&str]; 6] = [
            &["best validation", "update probability", "measured", "validation loss 1.2500"],
            &[
                "best validation 0.6100 after step 90",
                "each step",
                "mean",
                "validation",
                "step 400",
            ],
            &["score", "-2.0000", "0.881", "75.0%", "+2.0000", "0.119", "25.0%"],
            &["1.0 MiB", "weights", "workspace", "2.0 MiB", "recompute", "30.0 s  60.0%"],
            &["policy.kind", "\"ist\"", "seed"],
            &["step 50: validation loss 1.2500"],
        ];
        for (number, parts) in expected.into_iter().enumerate() {
            press(&mut view, KeyCode::Char(char::from(b'1' + number as u8)));
            let screen = shown(&mut view, (120, 40), None);
            for part in parts {
                assert!(screen.contains(part), "page {}: {part} in\n{screen}", number + 1);
            }
        }
    }

    #[test]
    fn the_map_of_importance_reaches_as_far_as_the_run() {
        let mut view = View::new(testing::run(200), true, Ink::Plain);
        press(&mut view, KeyCode::Char('3'));
        let screen = shown(&mut view, (43 + 80, 12), None);
        let row = screen.lines().find(|line| line.contains("-2.0000")).unwrap();
        // Half of 400 steps: 20 columns at even odds before the first update in step 100, then 20
        // of what was learned.
        assert_eq!(
            (row.matches('\u{2592}').count(), row.matches('\u{2588}').count()),
            (20, 20 + 8),
            "{screen}"
        );
    }

    #[test]
    fn keys_turn_pages_scroll_and_leave() {
        let mut view = View::new(testing::run(3), true, Ink::Plain);
        assert_eq!((press(&mut view, KeyCode::BackTab), view.page), (None, Page::Messages));
        assert_eq!((press(&mut view, KeyCode::Tab), view.page), (None, Page::Overview));
        press(&mut view, KeyCode::Char('5'));
        press(&mut view, KeyCode::End);
        assert_eq!(view.scrolled, view.run.configuration.len() - 1);
        press(&mut view, KeyCode::PageDown);
        press(&mut view, KeyCode::Up);
        assert_eq!(view.scrolled, view.run.configuration.len() - 2);
        press(&mut view, KeyCode::Char('9'));
        assert_eq!(
            (view.page, view.scrolled),
            (Page::Settings, view.run.configuration.len() - 2),
            "there is no ninth"
        );
        press(&mut view, KeyCode::Char('2'));
        assert_eq!(view.scrolled, 0);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(
            (view.press(interrupt), press(&mut view, KeyCode::Char('c'))),
            (Some(Asked::Stop), None)
        );
        assert_eq!(view.press(interrupt), Some(Asked::Stop), "it is still held");
        view.stopping = Instant::now().checked_sub(HELD);
        assert_eq!(press(&mut view, KeyCode::Char('q')), Some(Asked::Stop));
        assert_eq!(view.press(interrupt), Some(Asked::StopAtOnce));
        view.own = false;
        assert_eq!(press(&mut view, KeyCode::Char('q')), Some(Asked::Leave));
        assert_eq!(press(&mut view, KeyCode::Esc), None, "slow terminals send it before an arrow");
    }

    #[test]
    fn messages_scroll_from_the_last_one_back() {
        let mut view = View::new(testing::run(3), true, Ink::Plain);
        view.messages = (0..30).map(|number| format!("message {number:02}.")).collect();
        press(&mut view, KeyCode::Char('6'));
        let mut screen = |key: Option<KeyCode>| {
            key.map(|key| press(&mut view, key));
            shown(&mut view, (80, 16), None)
        };
        // Ten lines of 16 are messages.
        let has = |screen: &str, first: usize, last: usize| {
            let told = |number: usize| screen.contains(&format!("message {number:02}."));
            assert!(
                told(first) && told(last) && (first == 0 || !told(first - 1)) && !told(last + 1),
                "{screen}"
            );
        };
        has(&screen(None), 20, 29);
        has(&screen(Some(KeyCode::Down)), 20, 29);
        has(&screen(Some(KeyCode::Up)), 19, 28);
        has(&screen(Some(KeyCode::Home)), 0, 9);
        has(&screen(Some(KeyCode::PageDown)), 10, 19);
    }

    #[test]
    fn what_a_run_of_another_process_wrote_and_failed_of_is_told() {
        let mut view = View::new(testing::run(100), false, Ink::Plain);
        view.run.notes.push("runs/x-1: no space left".to_owned());
        press(&mut view, KeyCode::Char('6'));
        let screen = shown(&mut view, (80, 24), None);
        assert!(
            screen.contains("step 90: validation loss 0.6100") && screen.contains("no space left"),
            "{screen}"
        );
    }

    #[test]
    fn a_layer_that_no_score_tells_of_stands_without_one() {
        let mut view = View::new(testing::run(100), false, Ink::Plain);
        view.run.selected = vec![1, 2, 3];
        press(&mut view, KeyCode::Char('3'));
        let screen = shown(&mut view, (80, 24), None);
        assert!(screen.contains("   2  ") && screen.contains("3.0%"), "{screen}");
    }

    #[test]
    fn a_logarithmic_axis_tells_losses() {
        let mut view = View::new(testing::run(2), true, Ink::Plain);
        (view.run.steps[0].loss, view.run.steps[1].loss) = (10.0, 0.1);
        press(&mut view, KeyCode::Char('2'));
        press(&mut view, KeyCode::Char('l'));
        let screen = shown(&mut view, (80, 24), None);
        assert!(screen.contains("1.0000"), "the middle between 0.1 and 10: {screen}");
    }

    #[test]
    fn hours_are_told_where_there_are_some() {
        assert_eq!([0.4, 59.6, 3599.0, 3661.0].map(clock), ["0:00", "1:00", "59:59", "1:01:01"]);
    }

    proptest! {
        #[test]
        fn no_size_and_no_run_is_too_odd(
            width in 1u16..200, height in 1u16..60, steps in 0usize..40, page in 0u8..6, log: bool, losses in
            prop::collection::vec(prop_oneof![Just(f64::NAN), Just(0.0), Just(f64::INFINITY), -9.0..9.0], 40),
        ) {
            let mut view = View::new(testing::run(steps), false, Ink::Indexed);
            view.run.steps.iter_mut().zip(losses).for_each(|(step, loss)| step.loss = loss);
            view.logarithmic = log;
            if steps % 2 == 1 {
                view.run.plan = json!(null);
            }
            press(&mut view, KeyCode::Char(char::from(b'1' + page)));
            press(&mut view, KeyCode::End);
            shown(&mut view, (width, height), None);
        }
    }
}
