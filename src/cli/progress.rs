//! How far long work is, on standard error; nothing where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two pictures of a bar that turns.
const TURN: Duration = Duration::from_millis(100);

/// Work that is under way; its line is gone with this value.
pub struct Progress(ProgressBar);

impl Progress {
    /// Work whose end nobody knows: a line that turns, with its time.
    pub fn waiting(what: &'static str) -> Progress {
        Progress::turning("{spinner} {msg} {elapsed}", what)
    }

    /// Things that arrive, nobody knows how many: counted.
    pub fn counting(what: &'static str) -> Progress {
        Progress::turning("{spinner} {human_pos} {msg} in {elapsed}, {per_sec}", what)
    }

    fn turning(template: &str, what: &'static str) -> Progress {
        // Draws on standard error, and only where that is a terminal.
        let bar = ProgressBar::new_spinner().with_message(what);
        // The templates stand in this file: without a style there is still a line.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        // At once: the thread that turns it may come too late for short work.
        bar.tick();
        bar.enable_steady_tick(TURN);
        Progress(bar)
    }

    /// One more has arrived.
    pub fn one(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
