//! Wire values to domain values and back; every limit on what a client may send is stated here.
//!
//! Readers say what they expected and leave it to [`FieldViolations`] to collect where; they must not
//! know what the values are for.
//!
//! [`FieldViolations`]: crate::grpc::status::FieldViolations

use std::collections::BTreeMap;

use iso_currency::Currency;
use prost_types::{Duration, Timestamp};

use crate::charging::money::{MoneyError, format_micros, parse_micros, parse_signed_micros};
use crate::charging::short::Short;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::proto::v1::Money;

/// Longest calling, called or original called number, in bytes. What is shorter but no number is
/// refused by a decision, not as malformed.
pub const MAX_NUMBER_BYTES: usize = 256;
/// Longest trunk or user that is only recorded, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest other text, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// Longest grant token or page token, in bytes.
pub use crate::credit_control::signed_grant::MAX_TOKEN_BYTES;
/// Most labels of a call.
pub const MAX_LABELS: usize = 16;
/// Longest key of a label, in bytes.
pub const MAX_LABEL_KEY_BYTES: usize = 64;
/// Longest grant that may be asked for, 24 h.
pub const MAX_REQUESTED: Seconds = Seconds(86_400);
/// Entries of a page where the request states none.
pub const DEFAULT_PAGE: usize = 100;
/// Most entries of a page.
pub const MAX_PAGE: usize = 1000;

/// 9999-12-31T23:59:59Z, the last second that a timestamp can name.
const MAX_TIMESTAMP_SECONDS: i64 = 253_402_300_799;

/// Why a wire value is not the value asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Absent, or an enum's UNSPECIFIED.
    #[error("expected a value")]
    Absent,
    /// Longer than so many bytes.
    #[error("expected at most {0} bytes")]
    TooLong(usize),
    /// A control character.
    #[error("expected no control characters")]
    ControlCharacter,
    /// Seconds and nanos that are no duration.
    #[error("expected nanos from -999999999 to 999999999 with the sign of the seconds")]
    NotADuration,
    /// Below zero.
    #[error("expected a duration of at least 0s")]
    NegativeDuration,
    /// Above so many seconds.
    #[error("expected a duration of at most {0}s")]
    DurationAbove(Seconds),
    /// Seconds and nanos that are no instant, or one outside the years 1970 to 9999.
    #[error("expected a time from 1970 to 9999 with nanos from 0 to 999999999")]
    NotATime,
    /// Not a value of the enum.
    #[error("expected a listed value, found {0}")]
    UnknownValue(i32),
    /// Not a currency.
    #[error("expected an ISO 4217 currency code such as USD")]
    Currency,
    /// Not an amount.
    #[error("{error}, found {}", Short(.found))]
    Amount {
        /// Why not.
        error: MoneyError,
        /// What was sent.
        found: String,
    },
    /// More labels than [`MAX_LABELS`].
    #[error("expected at most {MAX_LABELS} labels")]
    TooManyLabels,
    /// A label whose key is empty or too long.
    #[error("expected keys of 1 to {MAX_LABEL_KEY_BYTES} bytes")]
    LabelKey,
    /// Not a Q.850 cause.
    #[error("expected a Q.850 cause from 1 to 127, or 0 for none")]
    Cause,
    /// A sequence of 2^53 or more.
    #[error("expected a sequence below 9007199254740992")]
    Sequence,
    /// A correction by no whole number of seconds, or by too many.
    #[error("expected whole seconds from -{0} to {0}, and not 0")]
    WholeSeconds(Seconds),
    /// A correction by nothing.
    #[error("expected an amount that is not 0")]
    NothingToDo,
    /// A negative page size.
    #[error("expected a page size of at least 0")]
    PageSize,
}

/// A text of at most `max` bytes without control characters; may be empty.
pub fn text(text: &str, max: usize) -> Result<&str, ConvertError> {
    if text.len() > max {
        Err(ConvertError::TooLong(max))
    } else if text.chars().any(char::is_control) {
        Err(ConvertError::ControlCharacter)
    } else {
        Ok(text)
    }
}

/// A text as [`text`] reads it, that must not be empty.
pub fn required_text(value: &str, max: usize) -> Result<&str, ConvertError> {
    if value.is_empty() { Err(ConvertError::Absent) } else { text(value, max) }
}

/// Labels within their limits.
pub fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConvertError> {
    if labels.len() > MAX_LABELS {
        return Err(ConvertError::TooManyLabels);
    }
    for (key, value) in &labels {
        if key.is_empty() || key.len() > MAX_LABEL_KEY_BYTES {
            return Err(ConvertError::LabelKey);
        }
        text(key, MAX_LABEL_KEY_BYTES)?;
        text(value, MAX_TEXT_BYTES)?;
    }
    Ok(labels)
}

/// A duration from 0 to `max`, cut to whole seconds; more than 0 and less than 1 s counts as 1 s
/// (contract rule 4). An absent one is `None`.
pub fn optional_seconds(
    duration: Option<&Duration>,
    max: Seconds,
) -> Result<Option<Seconds>, ConvertError> {
    duration.map(|duration| whole_seconds(*duration, max)).transpose()
}

/// A duration as [`optional_seconds`] reads it, that must be present.
pub fn seconds(duration: Option<&Duration>, max: Seconds) -> Result<Seconds, ConvertError> {
    optional_seconds(duration, max)?.ok_or(ConvertError::Absent)
}

fn whole_seconds(duration: Duration, max: Seconds) -> Result<Seconds, ConvertError> {
    let Duration { seconds, nanos } = duration;
    let one_sign = seconds == 0 || nanos == 0 || (seconds > 0) == (nanos > 0);
    if !one_sign || !(-999_999_999..=999_999_999).contains(&nanos) {
        return Err(ConvertError::NotADuration);
    }
    if seconds < 0 || nanos < 0 {
        return Err(ConvertError::NegativeDuration);
    }
    if seconds > max.0 || (seconds == max.0 && nanos > 0) {
        return Err(ConvertError::DurationAbove(max));
    }
    Ok(if seconds == 0 && nanos > 0 { Seconds(1) } else { Seconds(seconds) })
}

/// An instant from 1970 to 9999, cut to milliseconds. An absent one is `None`.
pub fn optional_millis(timestamp: Option<&Timestamp>) -> Result<Option<Millis>, ConvertError> {
    let Some(Timestamp { seconds, nanos }) = timestamp else { return Ok(None) };
    let well_formed =
        (0..=MAX_TIMESTAMP_SECONDS).contains(seconds) && (0..=999_999_999).contains(nanos);
    if !well_formed {
        return Err(ConvertError::NotATime);
    }
    Ok(Some(Millis(seconds * 1000 + i64::from(nanos / 1_000_000))))
}

/// An instant as [`optional_millis`] reads it, that must be present.
pub fn millis(timestamp: Option<&Timestamp>) -> Result<Millis, ConvertError> {
    optional_millis(timestamp)?.ok_or(ConvertError::Absent)
}

/// An amount and its currency. Whether it is the tenant's currency is not known here.
pub fn micros(money: Option<&Money>) -> Result<(Micros, Currency), ConvertError> {
    let money = money.ok_or(ConvertError::Absent)?;
    let currency = Currency::from_code(&money.currency_code).ok_or(ConvertError::Currency)?;
    let amount = parse_micros(&money.amount)
        .map_err(|error| ConvertError::Amount { error, found: money.amount.clone() })?;
    Ok((amount, currency))
}

/// An amount to be added or, below zero, taken away, and its currency; not zero.
pub fn signed_micros(money: &Money) -> Result<(Micros, Currency), ConvertError> {
    let currency = Currency::from_code(&money.currency_code).ok_or(ConvertError::Currency)?;
    let amount = parse_signed_micros(&money.amount)
        .map_err(|error| ConvertError::Amount { error, found: money.amount.clone() })?;
    if amount == Micros::ZERO {
        return Err(ConvertError::NothingToDo);
    }
    Ok((amount, currency))
}

/// Whole seconds to be added or, below zero, taken away; not zero.
pub fn signed_seconds(duration: Duration, max: Seconds) -> Result<Seconds, ConvertError> {
    let Duration { seconds, nanos } = duration;
    let lawful = nanos == 0 && seconds != 0 && (-max.0..=max.0).contains(&seconds);
    if lawful { Ok(Seconds(seconds)) } else { Err(ConvertError::WholeSeconds(max)) }
}

/// A value of an enum, UNSPECIFIED allowed.
pub fn listed<E: TryFrom<i32>>(value: i32) -> Result<E, ConvertError> {
    E::try_from(value).map_err(|_| ConvertError::UnknownValue(value))
}

/// A value of an enum other than UNSPECIFIED.
pub fn stated<E: TryFrom<i32>>(value: i32) -> Result<E, ConvertError> {
    if value == 0 { Err(ConvertError::Absent) } else { listed(value) }
}

/// A Q.850 cause; 0 is none.
pub fn cause(value: u32) -> Result<Option<u8>, ConvertError> {
    match u8::try_from(value) {
        Ok(0) => Ok(None),
        Ok(cause) if cause <= 127 => Ok(Some(cause)),
        _ => Err(ConvertError::Cause),
    }
}

/// The number of a report; an absent one is newer than any before. Below 2^53, so that every ledger
/// compares it exactly (contract rule 9).
pub fn sequence(value: Option<u64>) -> Result<Option<i64>, ConvertError> {
    let exact = |value| i64::try_from(value).ok().filter(|value| *value < 1 << 53);
    value.map(|value| exact(value).ok_or(ConvertError::Sequence)).transpose()
}

/// How many entries a page has.
pub fn page_size(value: i32) -> Result<usize, ConvertError> {
    match usize::try_from(value) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
        Err(_) => Err(ConvertError::PageSize),
    }
}

/// Seconds on the wire; always set, zero too.
pub fn to_duration(seconds: Seconds) -> Option<Duration> {
    Some(Duration { seconds: seconds.0, nanos: 0 })
}

/// An instant on the wire.
pub fn to_timestamp(instant: Millis) -> Option<Timestamp> {
    // The rest of a division by 1000 fits.
    let nanos = i32::try_from(instant.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Some(Timestamp { seconds: instant.0.div_euclid(1000), nanos })
}

/// Money on the wire; always set, zero too.
pub fn to_money(amount: Micros, currency_code: &str) -> Option<Money> {
    Some(Money { currency_code: currency_code.to_owned(), amount: format_micros(amount) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::ids::{CallId, TenantId};
    use crate::charging::rating::MAX_USAGE;
    use crate::proto::v1::{CallOrigin, CallType};

    #[track_caller]
    fn check_duration(seconds: i64, nanos: i32, expected: Result<i64, ConvertError>) {
        let read = super::seconds(Some(&Duration { seconds, nanos }), Seconds(60));
        assert_eq!(read, expected.map(Seconds), "{seconds} s {nanos} ns");
    }

    #[test]
    fn durations_are_cut_to_whole_seconds_and_a_fraction_of_the_first_counts_whole() {
        check_duration(0, 0, Ok(0));
        check_duration(0, 1, Ok(1));
        check_duration(0, 999_999_999, Ok(1));
        check_duration(1, 0, Ok(1));
        check_duration(1, 999_999_999, Ok(1));
        check_duration(59, 999_999_999, Ok(59));
        check_duration(60, 0, Ok(60));
    }

    #[test]
    fn durations_out_of_range_say_why() {
        check_duration(60, 1, Err(ConvertError::DurationAbove(Seconds(60))));
        check_duration(i64::MAX, 0, Err(ConvertError::DurationAbove(Seconds(60))));
        check_duration(-1, 0, Err(ConvertError::NegativeDuration));
        check_duration(0, -1, Err(ConvertError::NegativeDuration));
        check_duration(i64::MIN, -999_999_999, Err(ConvertError::NegativeDuration));
        check_duration(1, -1, Err(ConvertError::NotADuration));
        check_duration(-1, 1, Err(ConvertError::NotADuration));
        check_duration(0, 1_000_000_000, Err(ConvertError::NotADuration));
        check_duration(0, i32::MIN, Err(ConvertError::NotADuration));
    }

    #[test]
    fn an_absent_duration_is_told_apart_from_zero() {
        assert_eq!(optional_seconds(None, MAX_USAGE), Ok(None));
        assert_eq!(
            optional_seconds(Some(&Duration::default()), MAX_USAGE),
            Ok(Some(Seconds::ZERO))
        );
        assert_eq!(seconds(None, MAX_USAGE), Err(ConvertError::Absent));
        let day = Duration { seconds: 86_400, nanos: 0 };
        assert_eq!(seconds(Some(&day), MAX_REQUESTED), Ok(Seconds(86_400)));
    }

    #[track_caller]
    fn check_time(seconds: i64, nanos: i32, expected: Result<i64, ConvertError>) {
        assert_eq!(millis(Some(&Timestamp { seconds, nanos })), expected.map(Millis));
    }

    #[test]
    fn instants_are_cut_to_milliseconds_within_their_years() {
        check_time(0, 0, Ok(0));
        check_time(1_800_000_000, 999_999_999, Ok(1_800_000_000_999));
        check_time(MAX_TIMESTAMP_SECONDS, 0, Ok(MAX_TIMESTAMP_SECONDS * 1000));
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (MAX_TIMESTAMP_SECONDS + 1, 0),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
        ] {
            check_time(seconds, nanos, Err(ConvertError::NotATime));
        }
        assert_eq!(optional_millis(None), Ok(None));
        assert_eq!(millis(None), Err(ConvertError::Absent));
    }

    #[test]
    fn instants_come_back_as_they_went() {
        for instant in [0, 1, 999, 1000, 1_800_000_000_123] {
            let timestamp = to_timestamp(Millis(instant));
            assert_eq!(millis(timestamp.as_ref()), Ok(Millis(instant)));
        }
    }

    #[track_caller]
    fn check_money(code: &str, amount: &str, expected: Result<i64, ConvertError>) {
        let money = Money { currency_code: code.to_owned(), amount: amount.to_owned() };
        assert_eq!(micros(Some(&money)).map(|(amount, _)| amount), expected.map(Micros));
    }

    #[test]
    fn money_needs_a_currency_and_a_plain_amount() {
        check_money("USD", "12.5", Ok(12_500_000));
        check_money("EUR", "0", Ok(0));
        for code in ["", "usd", "US", "XXXX", "$", "ZZZ"] {
            check_money(code, "1", Err(ConvertError::Currency));
        }
        let wrong = |error, found: &str| ConvertError::Amount { error, found: found.to_owned() };
        check_money("USD", "", Err(wrong(MoneyError::NotANumber, "")));
        check_money("USD", "NaN", Err(wrong(MoneyError::NotANumber, "NaN")));
        check_money("USD", "-1", Err(wrong(MoneyError::OutOfRange, "-1")));
        check_money("USD", "100000000.1", Err(wrong(MoneyError::OutOfRange, "100000000.1")));
        assert_eq!(micros(None), Err(ConvertError::Absent));
    }

    #[test]
    fn zero_is_set_on_the_wire() {
        assert_eq!(to_duration(Seconds::ZERO), Some(Duration::default()));
        let zero = Money { currency_code: "USD".to_owned(), amount: "0".to_owned() };
        assert_eq!(to_money(Micros::ZERO, "USD"), Some(zero));
    }

    #[test]
    fn texts_have_a_length_in_bytes_and_no_control_characters() {
        assert_eq!(text("", 4), Ok(""));
        assert_eq!(text("éé", 4), Ok("éé"));
        assert_eq!(text("ééa", 4), Err(ConvertError::TooLong(4)));
        assert_eq!(required_text("", 4), Err(ConvertError::Absent));
        assert_eq!(required_text("a", 4), Ok("a"));
        for control in ["\0", "a\n", "\r", "\t", "\u{7f}", "\u{85}", "\u{9f}"] {
            assert_eq!(text(control, 4), Err(ConvertError::ControlCharacter), "{control:?}");
        }
        let digits = "1".repeat(10_000);
        assert_eq!(text(&digits, MAX_NUMBER_BYTES), Err(ConvertError::TooLong(256)));
    }

    #[test]
    fn identifiers_are_checked_where_they_are_made() {
        assert!(CallId::new(&"x".repeat(128)).is_ok());
        assert!(CallId::new(&"x".repeat(129)).is_err());
        assert!(CallId::new("a\u{7f}").is_err());
        assert!(TenantId::new("contoso").is_ok());
        assert!(TenantId::new("-contoso").is_err());
    }

    #[test]
    fn labels_are_bounded_in_number_and_length() {
        let many = |count: usize| {
            (0..count).map(|i| (format!("key{i}"), "v".repeat(256))).collect::<BTreeMap<_, _>>()
        };
        assert!(labels(many(16)).is_ok());
        assert_eq!(labels(many(17)), Err(ConvertError::TooManyLabels));
        let one = |key: &str, value: &str| labels([(key.to_owned(), value.to_owned())].into());
        assert!(one(&"k".repeat(64), "").is_ok());
        assert_eq!(one("", "v"), Err(ConvertError::LabelKey));
        assert_eq!(one(&"k".repeat(65), "v"), Err(ConvertError::LabelKey));
        assert_eq!(one("k", &"v".repeat(257)), Err(ConvertError::TooLong(256)));
        assert_eq!(one("k\n", "v"), Err(ConvertError::ControlCharacter));
        assert_eq!(one("k", "v\0"), Err(ConvertError::ControlCharacter));
    }

    #[test]
    fn enum_values_that_are_not_listed_are_refused() {
        assert_eq!(stated(1), Ok(CallType::UserOutbound));
        assert_eq!(stated::<CallType>(0), Err(ConvertError::Absent));
        assert_eq!(listed(0), Ok(CallOrigin::Unspecified));
        for value in [99, -1, i32::MAX, i32::MIN] {
            assert_eq!(stated::<CallType>(value), Err(ConvertError::UnknownValue(value)));
        }
    }

    #[test]
    fn sequences_stay_exact() {
        assert_eq!(sequence(None), Ok(None));
        assert_eq!(sequence(Some(0)), Ok(Some(0)));
        assert_eq!(sequence(Some((1 << 53) - 1)), Ok(Some((1 << 53) - 1)));
        assert_eq!(sequence(Some(1 << 53)), Err(ConvertError::Sequence));
        assert_eq!(sequence(Some(u64::MAX)), Err(ConvertError::Sequence));
    }

    #[test]
    fn causes_and_page_sizes_have_their_ranges() {
        assert_eq!(cause(0), Ok(None));
        assert_eq!(cause(16), Ok(Some(16)));
        assert_eq!(cause(127), Ok(Some(127)));
        assert_eq!(cause(128), Err(ConvertError::Cause));
        assert_eq!(cause(u32::MAX), Err(ConvertError::Cause));
        assert_eq!(page_size(0), Ok(DEFAULT_PAGE));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(MAX_PAGE));
        assert_eq!(page_size(-1), Err(ConvertError::PageSize));
    }
}
