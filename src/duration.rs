//! Lengths of time as operators write them: `250ms`, `90s`, `5m`, `1h30m`, `1d`.
//!
//! For settings and documents; what travels over the wire has its own form.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads a length of time; units from milliseconds to days, a day being 24 hours.
///
/// `None` for anything else, negative lengths and bare numbers included.
pub fn parse(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: Option<u64>) {
        assert_eq!(parse(text), millis.map(Duration::from_millis), "{text:?}");
    }

    #[test]
    fn lengths_are_read_with_their_units() {
        check("250ms", Some(250));
        check("90s", Some(90_000));
        check("5m", Some(300_000));
        check("1h30m", Some(5_400_000));
        check("1d", Some(86_400_000));
        check("0s", Some(0));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "5x", "-5m", "5m ago", "m", "1mo", "1y", "five", "99999999999999d"] {
            check(text, None);
        }
    }
}
