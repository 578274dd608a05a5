//! Until when an answer is worth anything: the caller's `grpc-timeout`.
//!
//! tonic ends a request at that instant with CANCELLED; answering a little earlier keeps the reason.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::{Extensions, Request, Status};

/// What a caller that names no deadline is given.
pub const DEFAULT: Duration = Duration::from_secs(2);

/// Longest deadline that is kept; a longer one is as good.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// When the request must be answered.
#[derive(Clone, Copy, Debug)]
struct Deadline(Instant);

/// Notes the deadline of a request as its headers arrive, and refuses one that has passed already.
#[allow(clippy::result_large_err, reason = "the signature of tonic's interceptors")]
pub fn intercept(mut request: Request<()>) -> Result<Request<()>, Status> {
    let allowed = timeout(request.metadata().as_ref()).unwrap_or(DEFAULT);
    // A tenth is left for the way back.
    let useful = allowed.min(LONGEST) * 9 / 10;
    if useful.is_zero() {
        return Err(Status::deadline_exceeded(
            "the deadline had passed before the request arrived",
        ));
    }
    request.extensions_mut().insert(Deadline(Instant::now() + useful));
    Ok(request)
}

/// When the request must be answered, as [`intercept`] noted it.
pub fn of(extensions: &Extensions) -> Instant {
    extensions.get::<Deadline>().map_or_else(|| Instant::now() + DEFAULT, |deadline| deadline.0)
}

/// The `grpc-timeout` header: at most 8 digits and a unit. `None` where it is absent or malformed.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let well_formed = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| well_formed)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The same header for what is left, cut to microseconds, or to milliseconds where it is long.
pub fn header(left: Duration) -> HeaderValue {
    let micros = left.as_micros();
    let text = match micros < 100_000_000 {
        true => format!("{micros}u"),
        false => format!("{}m", left.min(LONGEST).as_millis()),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0u"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, expected: Option<Duration>) {
        let mut metadata = HeaderMap::new();
        metadata.insert("grpc-timeout", header.parse().expect("a header value"));
        assert_eq!(timeout(&metadata), expected, "{header:?}");
    }

    #[test]
    fn every_unit_is_read() {
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("4S", Some(Duration::from_secs(4)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("0n", Some(Duration::ZERO));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for header in
            ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "100000000S", " 1S", "1SS", "\u{e9}"]
        {
            let mut metadata = HeaderMap::new();
            if let Ok(value) = header.parse() {
                metadata.insert("grpc-timeout", value);
            }
            assert_eq!(timeout(&metadata), None, "{header:?}");
        }
    }

    #[test]
    fn what_is_left_is_written_as_it_is_read() {
        for left in [0, 1, 1_500_000, 99_999_999, 100_000_000, 3_600_000_000] {
            let left = Duration::from_micros(left);
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                header(left),
            )]);
            assert_eq!(timeout(&headers), Some(left));
        }
    }

    #[tokio::test]
    async fn a_tenth_is_left_for_the_way_back() {
        let mut request = Request::new(());
        request.set_timeout(Duration::from_secs(10));
        let arrived = Instant::now();
        let request = intercept(request).expect("time is left");
        let left = of(request.extensions()) - arrived;
        assert!((9_000..9_100).contains(&left.as_millis()), "{left:?}");
    }

    #[tokio::test]
    async fn a_deadline_that_has_passed_is_refused() {
        let mut request = Request::new(());
        request.set_timeout(Duration::ZERO);
        let status = intercept(request).expect_err("no time is left");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }
}
