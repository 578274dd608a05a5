//! Money at the edge: decimal text to integer micro-units and back.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::charging::units::Micros;

/// The largest amount of money anywhere in Tollgate: 100 million currency units.
///
/// Sixty times it is still exact in a double, which the arithmetic of increments needs.
pub const MAX_AMOUNT: Micros = Micros(100_000_000_000_000);

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a plain decimal number.
    #[error("expected a plain decimal number such as 12.5")]
    NotANumber,
    /// More than six decimals.
    #[error("expected at most 6 decimals")]
    TooFine,
    /// Negative, or above [`MAX_AMOUNT`].
    #[error("expected an amount from 0 to 100000000")]
    OutOfRange,
}

/// Reads a plain decimal string, exact to the micro-unit, from 0 to [`MAX_AMOUNT`].
pub fn parse_micros(text: &str) -> Result<Micros, MoneyError> {
    parse_signed_micros(text).and_then(|amount| match amount >= Micros::ZERO {
        true => Ok(amount),
        false => Err(MoneyError::OutOfRange),
    })
}

/// The same from -[`MAX_AMOUNT`] on, as corrections have it.
pub fn parse_signed_micros(text: &str) -> Result<Micros, MoneyError> {
    let plain = !text.is_empty()
        && text.len() <= 40
        && text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.bytes().skip(1).all(|b| b.is_ascii_digit() || b == b'.');
    if !plain {
        return Err(MoneyError::NotANumber);
    }
    let decimal = Decimal::from_str_exact(text).map_err(|_| MoneyError::NotANumber)?.normalize();
    if decimal.scale() > 6 {
        return Err(MoneyError::TooFine);
    }
    let micros = decimal
        .checked_mul(Decimal::from(1_000_000))
        .and_then(|micros| micros.to_i64())
        .ok_or(MoneyError::OutOfRange)?;
    if !(-MAX_AMOUNT.0..=MAX_AMOUNT.0).contains(&micros) {
        return Err(MoneyError::OutOfRange);
    }
    Ok(Micros(micros))
}

/// The shortest plain decimal string of an amount: "0", "12.5".
pub fn format_micros(amount: Micros) -> String {
    if amount == Micros::ZERO {
        return "0".to_owned();
    }
    Decimal::new(amount.0, 6).normalize().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<i64, MoneyError>) {
        assert_eq!(parse_micros(text), expected.map(Micros), "{text:?}");
    }

    #[test]
    fn decimal_text_becomes_micro_units_exactly_or_says_why_not() {
        check("0", Ok(0));
        check("12.5", Ok(12_500_000));
        check("0.000001", Ok(1));
        check("1.50000000000", Ok(1_500_000));
        check("0.0000001", Err(MoneyError::TooFine));
        check("-1", Err(MoneyError::OutOfRange));
        check("100000000", Ok(MAX_AMOUNT.0));
        check("79228162514264337593543950335", Err(MoneyError::OutOfRange));
        check("100000000.000001", Err(MoneyError::OutOfRange));
        for text in ["", " 1", "1 ", "NaN", "1e3", "+1", "1,5", ".5", "5.", "1.2.3", "0x10", "1_0"]
        {
            check(text, Err(MoneyError::NotANumber));
        }
    }

    #[test]
    fn a_correction_may_be_below_zero() {
        for (text, micros) in [("-5.00", -5_000_000), ("-0", 0), ("-100000000", -MAX_AMOUNT.0)] {
            assert_eq!(parse_signed_micros(text), Ok(Micros(micros)), "{text}");
        }
        assert_eq!(parse_signed_micros("-100000000.1"), Err(MoneyError::OutOfRange));
        assert_eq!(parse_signed_micros("--1"), Err(MoneyError::NotANumber));
        assert_eq!(format_micros(Micros(-5_250_000)), "-5.25");
    }

    #[test]
    fn amounts_print_without_trailing_zeros() {
        for (micros, text) in [(0, "0"), (250_000, "0.25"), (12_000_000, "12"), (1, "0.000001")] {
            assert_eq!(format_micros(Micros(micros)), text);
        }
    }
}
