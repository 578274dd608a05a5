//! Foreign text as a message may quote it.

use std::fmt;

/// Foreign text, cut and without control characters, so that a message stays one line.
pub struct Short<'a>(pub &'a str);

impl Short<'_> {
    /// Without quotes: at most 64 characters.
    pub fn plain(&self) -> String {
        self.0.escape_debug().take(64).collect()
    }
}

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.0.chars().nth(64).is_some() { "…" } else { "" };
        write!(f, "\"{}{cut}\"", self.plain())
    }
}
