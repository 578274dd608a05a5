//! Single values of the document: text in, checked value or what was expected out.

use iso_currency::Currency;
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use url::Url;

use crate::charging::catalogue::{CountryCode, Licence};
use crate::charging::decision::Decision;
use crate::charging::ids::IdError;
use crate::charging::money::parse_micros;
use crate::charging::plans::has_minutes;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::duration;

/// The longest name or note, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The longest mail address, in bytes (RFC 5321).
const MAX_EMAIL_BYTES: usize = 254;

/// The longest URL of a webhook, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// The largest limit that counts something.
const MAX_COUNT: u32 = 1_000_000_000;

/// The longest span of a velocity limit.
const MAX_SPAN: Seconds = Seconds(31 * 86_400);

/// The longest time for which records are kept that are not kept for ever.
const MAX_RETENTION_DAYS: i64 = 3_660;

/// One of a list of words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("expected one of {}", words.join(", "))
        })
    }
}

/// `true` or `false`, as words.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    word(&[("true", true), ("false", false)])(text)
}

/// An identifier, by its own constructor.
pub(super) fn id<T>(
    new: impl Fn(&str) -> Result<T, IdError>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| new(text).map_err(|error| error.to_string())
}

/// The name of a deck: like an identifier.
pub(super) fn deck_name(text: &str) -> Result<String, String> {
    id(crate::charging::ids::TenantId::new)(text).map(String::from)
}

/// A name or a note for people.
pub(super) fn text(text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(format!("expected at most {MAX_TEXT_BYTES} bytes without control characters"));
    }
    Ok(text.to_owned())
}

/// A mail address, without a name.
pub(super) fn email(text: &str) -> Result<String, String> {
    let address = text.parse::<lettre::Address>().ok().filter(|_| text.len() <= MAX_EMAIL_BYTES);
    address
        .map(|address| address.to_string())
        .ok_or_else(|| "expected a mail address such as ops@contoso.example".to_owned())
}

/// Where a webhook is sent to. Whether http and private addresses are, the server's settings say.
pub(super) fn webhook(text: &str) -> Result<String, String> {
    webhook_url(text).map(|_| text.to_owned()).ok_or_else(|| {
        format!(
            "expected a URL of https:// with a host, without user, password or fragment, of at most \
             {MAX_URL_BYTES} bytes"
        )
    })
}

fn webhook_url(text: &str) -> Option<Url> {
    if text.len() > MAX_URL_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "https" | "http") && url.has_host() && plain).then_some(url)
}

/// ISO 4217.
pub(super) fn currency(text: &str) -> Result<String, String> {
    match Currency::from_code(text) {
        Some(currency) => Ok(currency.code().to_owned()),
        None => Err("expected an ISO 4217 currency code such as EUR".to_owned()),
    }
}

/// ISO 3166-1 alpha-2.
pub(super) fn country(text: &str) -> Result<CountryCode, String> {
    CountryCode::parse(text)
        .ok_or_else(|| "expected an ISO 3166-1 alpha-2 country code such as US".to_owned())
}

/// A name of the IANA time zone database that is built in, in its official spelling.
pub(super) fn time_zone(text: &str) -> Result<String, String> {
    TimeZoneDatabase::bundled()
        .get(text)
        .ok()
        .and_then(|zone| zone.iana_name().map(str::to_owned))
        .ok_or_else(|| "expected an IANA time zone such as Europe/Paris".to_owned())
}

/// A licence by its code.
pub(super) fn licence(text: &str) -> Result<Licence, String> {
    Licence::parse(text).ok_or_else(|| {
        let codes: Vec<&str> = Licence::ALL.iter().map(|licence| licence.code()).collect();
        format!("expected a licence code, one of {}", codes.join(", "))
    })
}

/// A licence with minutes by its code.
pub(super) fn plan_with_minutes(text: &str) -> Result<Licence, String> {
    let plans = || Licence::ALL.iter().copied().filter(|licence| has_minutes(*licence));
    plans().find(|plan| plan.code() == text).ok_or_else(|| {
        let codes: Vec<&str> = plans().map(|plan| plan.code()).collect();
        format!("expected a plan with minutes, one of {}", codes.join(", "))
    })
}

/// A refusal by its name; a grant has no response to change.
pub(super) fn refusal(text: &str) -> Result<Decision, String> {
    let refusals = || Decision::ALL.iter().copied().filter(|decision| !decision.allowed());
    refusals().find(|decision| decision.name() == text).ok_or_else(|| {
        let names: Vec<&str> = refusals().map(Decision::name).collect();
        format!("expected a refusal, one of {}", names.join(", "))
    })
}

/// Money, zero too.
pub(super) fn amount(text: &str) -> Result<Micros, String> {
    parse_micros(text).map_err(|error| error.to_string())
}

/// Money, more than zero.
pub(super) fn positive_amount(text: &str) -> Result<Micros, String> {
    match amount(text)? {
        amount if amount.is_positive() => Ok(amount),
        _ => Err("expected an amount above 0".to_owned()),
    }
}

/// A whole number of things.
pub(super) fn count(text: &str) -> Result<u32, String> {
    whole(text, 1, MAX_COUNT)
}

/// A SIP status that refuses: 503 would mark the route dead upstream.
pub(super) fn sip_status(text: &str) -> Result<u16, String> {
    match whole(text, 400, 699) {
        Ok(status) if status != 503 => u16::try_from(status).map_err(|error| error.to_string()),
        _ => Err("expected a SIP status from 400 to 699 other than 503".to_owned()),
    }
}

/// A Q.850 cause value.
pub(super) fn q850_cause(text: &str) -> Result<u8, String> {
    let cause = whole(text, 1, 127)?;
    u8::try_from(cause).map_err(|error| error.to_string())
}

fn whole(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits_only
        .then(|| text.parse::<u32>().ok())
        .flatten()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

/// A length of time in whole seconds.
pub(super) fn span(text: &str) -> Result<Seconds, String> {
    duration::parse(text)
        .filter(|length| length.subsec_nanos() == 0)
        .and_then(|length| i64::try_from(length.as_secs()).ok())
        .map(Seconds)
        .filter(|&length| length.is_positive() && length <= MAX_SPAN)
        .ok_or_else(|| "expected a length of time from 1s to 31d such as 1h or 1h30m".to_owned())
}

/// How long numbers are kept in records.
pub(super) fn numbers_kept(text: &str) -> Result<Seconds, String> {
    days(text, 1)
}

/// How long records are kept.
pub(super) fn records_kept(text: &str) -> Result<Seconds, String> {
    days(text, 31)
}

fn days(text: &str, least: i64) -> Result<Seconds, String> {
    duration::parse(text)
        .filter(|length| length.subsec_nanos() == 0)
        .and_then(|length| i64::try_from(length.as_secs()).ok())
        .map(Seconds)
        .filter(|length| (least..=MAX_RETENTION_DAYS).contains(&(length.0 / 86_400)))
        .ok_or_else(|| {
            format!("expected a length of time from {least}d to {MAX_RETENTION_DAYS}d such as 90d")
        })
}

/// In what lengths of time minutes are charged (D1): such that a pool, which has whole minutes, can be used
/// to its last second, by which its counter is judged.
pub(super) fn pool_increment(text: &str) -> Result<Seconds, String> {
    let increment = span(text).ok().filter(|length| 60 % length.0 == 0);
    increment.ok_or_else(|| "expected a whole part of a minute from 1s to 1m such as 6s".to_owned())
}

/// RFC 3339, from 1970.
pub(super) fn instant(text: &str) -> Result<Millis, String> {
    text.parse::<Timestamp>()
        .ok()
        .map(|instant| Millis(instant.as_millisecond()))
        .filter(|&instant| instant >= Millis::ZERO)
        .ok_or_else(|| {
            "expected an RFC 3339 date and time from 1970 such as 2026-01-10T00:00:00Z".to_owned()
        })
}

/// E.164 with its `+`.
pub(super) fn telephone_number(text: &str) -> Result<String, String> {
    match plus_digits(text) {
        Some(digits) if digits.len() >= 3 => Ok(text.to_owned()),
        _ => Err("expected an E.164 number, + and 3 to 15 digits, such as +14255550100".to_owned()),
    }
}

/// The beginning of E.164 numbers; its digits.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    plus_digits(text)
        .map(str::to_owned)
        .ok_or_else(|| "expected a prefix of E.164 numbers, + and 1 to 15 digits".to_owned())
}

/// No country code begins with 0.
fn plus_digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('+')?;
    let well_formed = (1..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then_some(digits)
}
