//! From digits as dialled to an E.164 number with its country and type; and, before anything else,
//! whether it is an emergency number.
//!
//! The country of a North American number comes from the area-code table, which knows US, CA, PR and the
//! Caribbean apart, its type from libphonenumber's metadata where that knows the number; all others are read
//! by the metadata alone. **A number that the metadata does not hold
//! valid is accepted, with [`NumberType::Unknown`], when its length is possible, its calling code
//! names a country, and its E.164 form is read as the same number**: metadata lags numbering plans, and refusing a good number does more harm than
//! routing a bad one, which the network refuses. Letters are never mapped to digits.
//!
//! This module does not know who may call what, or at what price.

use std::fmt;
use std::sync::LazyLock;

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, ParseError, PhoneNumber, PhoneNumberType, Region,
    ValidationError,
};
use serde::{Deserialize, Serialize};

use crate::charging::catalogue::{self, CountryCode};

/// Longest text that [`read`] looks at.
const MAX_DIALLED: usize = 64;

/// Most digits that a dialled number may have: international prefix, carrier code and 15 digits.
const MAX_DIALLED_DIGITS: usize = 32;

/// Fewest national digits of a number that the metadata does not hold valid: anything shorter is more
/// likely a short code (directory enquiries, say) than a number.
const MIN_UNKNOWN_NATIONAL: usize = 7;

/// What kind of number it is, by libphonenumber's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NumberType {
    /// A fixed line.
    FixedLine,
    /// A mobile number.
    Mobile,
    /// One of the two; the plan does not tell (North America).
    FixedLineOrMobile,
    /// Free for the caller; universal ones (+800) too.
    TollFree,
    /// Dearer than a normal call.
    PremiumRate,
    /// The price is shared by caller and called.
    SharedCost,
    /// A number of an internet telephony service.
    Voip,
    /// A number that follows a person.
    PersonalNumber,
    /// A pager.
    Pager,
    /// A company number for several places (universal access number).
    Uan,
    /// A voicemail service.
    Voicemail,
    /// Of possible length, but in no range that the metadata knows.
    Unknown,
}

/// In plain words, for sentences.
impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NumberType::FixedLine => "fixed line",
            NumberType::Mobile => "mobile",
            NumberType::FixedLineOrMobile => "fixed line or mobile",
            NumberType::TollFree => "toll-free",
            NumberType::PremiumRate => "premium rate",
            NumberType::SharedCost => "shared cost",
            NumberType::Voip => "internet telephony",
            NumberType::PersonalNumber => "personal number",
            NumberType::Pager => "pager",
            NumberType::Uan => "universal access number",
            NumberType::Voicemail => "voicemail",
            NumberType::Unknown => "of unknown type",
        })
    }
}

/// Why a dialled text is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// More digits could make it a number (SIP 484).
    #[error("expected more digits")]
    TooShort,
    /// No digits added would make it a number (SIP 404).
    #[error("expected a telephone number, as dialled or in E.164")]
    Invalid,
}

/// A telephone number in E.164.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number {
    /// ASCII digits, the rest zero bytes.
    digits: [u8; 15],
    len: u8,
    /// The territory it belongs to; `None` for numbers of the world, such as +800. A toll-free or premium
    /// number of the North American plan takes the caller's country there, else US.
    pub country: Option<CountryCode>,
    /// What kind of number it is.
    pub number_type: NumberType,
    /// E.164 calling code, such as 1 or 44.
    pub calling_code: u16,
}

impl Number {
    /// The number with a leading plus: `+14255550100`.
    pub fn e164(&self) -> String {
        ["+", self.digits()].concat()
    }

    /// The number without the plus, at most 15 digits.
    pub fn digits(&self) -> &str {
        std::str::from_utf8(&self.digits[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Whether rule 23 applies to it: a premium-rate number, or one under a listed prefix.
    pub fn is_premium(&self) -> bool {
        self.number_type == NumberType::PremiumRate || catalogue::has_premium_prefix(self.digits())
    }

    /// `calling_code` and the national digits, unless more than 15 in all.
    fn new(calling_code: u16, national: &[u8]) -> Result<Self, NumberError> {
        let mut number = Self {
            digits: [0; 15],
            len: 0,
            country: None,
            number_type: NumberType::Unknown,
            calling_code,
        };
        let code = [calling_code / 100, calling_code / 10 % 10, calling_code % 10];
        let code = code.iter().skip_while(|&&digit| digit == 0).map(|&digit| b'0' + digit as u8);
        for digit in code.chain(national.iter().copied()) {
            let slot =
                number.digits.get_mut(usize::from(number.len)).ok_or(NumberError::Invalid)?;
            *slot = digit;
            number.len += 1;
        }
        Ok(number)
    }
}

/// Masked, because whatever is printed for debugging ends in a log.
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} {:?} {:?}", masked(self.digits()), self.country, self.number_type)
    }
}

/// Whether a call to `number` is free as toll-free of the payer's own numbering plan (D29): the plan is
/// the calling code, so every North American country shares 800, and no universal number (+800) counts.
/// Toll-free numbers under the area code of one North American country (+1 868 800 of Trinidad) are that
/// country's own.
pub fn toll_free_of_own_plan(number: &Number, payer_country: CountryCode) -> bool {
    let national = |digits: &str| {
        let area_code = digits.get(1..4).and_then(|code| code.parse::<usize>().ok());
        area_code.is_some_and(|code| matches!(AREA_CODES[code], AreaCode::Of(_)))
    };
    number.number_type == NumberType::TollFree
        && catalogue::country(payer_country)
            .is_some_and(|country| country.calling_code == number.calling_code)
        && (number.calling_code != 1
            || number.country == Some(payer_country)
            || !national(number.digits()))
}

/// Reads a number as dialled in `context`: national, with trunk or international prefix of that country,
/// `+`, `tel:` URI (a global `phone-context` counts, other parameters do not), or the user part of a
/// `sip:` URI. Visual separators are skipped; letters and everything else are invalid.
pub fn read(dialled: &str, context: CountryCode) -> Result<Number, NumberError> {
    let dialled = Dialled::collect(dialled)?;
    let digits = dialled.digits();
    let nanp = catalogue::country(context).is_some_and(|country| country.calling_code == 1);
    match (dialled.international, nanp) {
        (true, _) if digits.starts_with(b"1") => read_nanp(&digits[1..], context, nanp),
        (true, _) => read_by_metadata(&dialled, context, None),
        (false, true) => match digits {
            [b'0', b'1', b'1', b'1', national @ ..] => read_nanp(national, context, nanp),
            [b'0', b'1', b'1', international @ ..] => {
                read_by_metadata(&Dialled::international(international), context, None)
            }
            [b'1', national @ ..] if national.len() >= 10 => read_nanp(national, context, nanp),
            [b'1', ..] => Err(NumberError::TooShort),
            _ => read_nanp(digits, context, nanp),
        },
        (false, false) => {
            let region = region_of(context).ok_or(NumberError::Invalid)?;
            read_by_metadata(&dialled, context, Some(region))
        }
    }
}

/// Compiles what [`read`] compiles at the first number of the North American plan, which is that of some
/// twenty countries, so that no call waits for it.
///
/// Any other country has fewer patterns, compiled in 1.3 ms on average at its first number. All of
/// them together would take a third of a second and a hundred MiB, whether or not anybody ever calls there.
pub fn warm_up() {
    is_emergency_anywhere("112");
    for country in catalogue::countries().iter().filter(|country| country.calling_code == 1) {
        let _ = read_example(country.code);
    }
}

/// A number of that country, as the metadata gives one; `None` where it has none.
fn read_example(country: CountryCode) -> Option<Result<Number, NumberError>> {
    let example = PHONE_NUMBER_UTIL.get_example_number(region_of(country)?).ok()?;
    Some(read(&format!("+{}{}", example.country_code, example.national_number), country))
}

/// Digits of a dialled text, with a leading plus, so that it can be handed on as text.
struct Dialled {
    text: [u8; MAX_DIALLED_DIGITS + 1],
    len: usize,
    international: bool,
}

impl Dialled {
    fn collect(dialled: &str) -> Result<Self, NumberError> {
        if dialled.len() > MAX_DIALLED {
            return Err(NumberError::Invalid);
        }
        let mut kept = Self::international(b"");
        kept.international = false;
        let (number, parameters) = user_part(dialled);
        let is_local = !number.trim_start_matches([' ', '(']).starts_with('+');
        if let Some(context) = parameters.and_then(phone_context).filter(|_| is_local) {
            kept.push(context)?;
        }
        kept.push(number)?;
        if kept.len == 1 { Err(NumberError::TooShort) } else { Ok(kept) }
    }

    /// What follows an international prefix; at most [`MAX_DIALLED_DIGITS`] digits.
    fn international(digits: &[u8]) -> Self {
        let mut text = [b'+'; MAX_DIALLED_DIGITS + 1];
        let len = digits.len().min(MAX_DIALLED_DIGITS) + 1;
        text[1..len].copy_from_slice(&digits[..len - 1]);
        Self { text, len, international: true }
    }

    fn push(&mut self, number: &str) -> Result<(), NumberError> {
        for byte in number.bytes() {
            match byte {
                b'0'..=b'9' => {
                    *self.text.get_mut(self.len).ok_or(NumberError::Invalid)? = byte;
                    self.len += 1;
                }
                b'+' if self.len == 1 && !self.international => self.international = true,
                b'-' | b'.' | b'(' | b')' | b' ' => {}
                _ => return Err(NumberError::Invalid),
            }
        }
        Ok(())
    }

    fn digits(&self) -> &[u8] {
        &self.text[1..self.len]
    }

    fn text(&self) -> &str {
        let from = if self.international { 0 } else { 1 };
        std::str::from_utf8(&self.text[from..self.len]).unwrap_or_default()
    }
}

/// The number in a dialled text and, of a URI, its parameters: `tel:NUMBER;…`, `sip:NUMBER;…@host`.
fn user_part(dialled: &str) -> (&str, Option<&str>) {
    let scheme = |name: &str| {
        let head = dialled.get(..name.len())?;
        head.eq_ignore_ascii_case(name).then(|| &dialled[name.len()..])
    };
    let user = match (scheme("tel:"), scheme("sip:").or_else(|| scheme("sips:"))) {
        (Some(number), _) => number,
        (_, Some(address)) => address.split_once('@').map_or(address, |(user, _)| user),
        _ => return (dialled, None),
    };
    match user.split_once(';') {
        Some((number, parameters)) => (number, Some(parameters)),
        None => (user, None),
    }
}

/// The global number digits that a local `tel:` number hangs under (RFC 3966, 5.1.5).
fn phone_context(parameters: &str) -> Option<&str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.eq_ignore_ascii_case("phone-context") && value.starts_with('+')).then_some(value)
    })
}

/// What an area code of the North American plan stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AreaCode {
    Unassigned,
    TollFree,
    Premium,
    Of(CountryCode),
}

static AREA_CODES: LazyLock<[AreaCode; 1000]> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the table is part of the program; a test reads it")]
    parse_area_codes().expect("the table of area codes is well formed")
});

fn parse_area_codes() -> Result<[AreaCode; 1000], String> {
    let mut codes = [AreaCode::Unassigned; 1000];
    let rows: Vec<(usize, String)> = catalogue::rows(include_str!("data/nanp_area_codes.csv"))
        .map_err(|error| error.to_string())?;
    for (code, country) in rows {
        let slot = codes.get_mut(code).ok_or("expected three digits")?;
        *slot = AreaCode::Of(catalogue::table_code(&country)?);
    }
    // Rule 38; 900 is premium in the whole plan.
    for toll_free in [800, 833, 844, 855, 866, 877, 888] {
        codes[toll_free] = AreaCode::TollFree;
    }
    codes[900] = AreaCode::Premium;
    Ok(codes)
}

/// Ten digits of the North American plan: NXX NXX XXXX, N from 2 to 9, and what else the metadata knows
/// (toll-free numbers of the Dominican Republic have a 0 or 1 for the second N). Fictional numbers
/// (555-01xx) are numbers like any other.
fn read_nanp(national: &[u8], context: CountryCode, nanp: bool) -> Result<Number, NumberError> {
    if national.len() < 10 {
        return Err(NumberError::TooShort);
    }
    if national.len() > 10 || national[0] < b'2' {
        return Err(NumberError::Invalid);
    }
    let mut number = Number::new(1, national)?;
    let known = PhoneNumber {
        country_code: 1,
        national_number: national.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')),
        ..PhoneNumber::default()
    };
    let metadata = number_type(PHONE_NUMBER_UTIL.get_number_type(&known));
    if national[3] < b'2' && metadata == NumberType::Unknown {
        return Err(NumberError::Invalid);
    }
    let callers = if nanp { context } else { CountryCode::US };
    let area_code =
        national[..3].iter().fold(0, |code, digit| code * 10 + usize::from(digit - b'0'));
    (number.number_type, number.country) = match AREA_CODES[area_code] {
        AreaCode::Of(country) => match metadata {
            NumberType::Unknown => (NumberType::FixedLineOrMobile, Some(country)),
            known => (known, Some(country)),
        },
        AreaCode::TollFree => (NumberType::TollFree, Some(callers)),
        AreaCode::Premium => (NumberType::PremiumRate, Some(callers)),
        AreaCode::Unassigned => match metadata {
            NumberType::Unknown => return Err(NumberError::Invalid),
            valid => (valid, country_of(&known)),
        },
    };
    Ok(number)
}

/// A number of any plan, national in `region` or, without one, international.
fn read_by_metadata(
    dialled: &Dialled,
    context: CountryCode,
    region: Option<Region>,
) -> Result<Number, NumberError> {
    // The library slices the first three digits off unseen.
    if dialled.digits().len() < 4 {
        return Err(NumberError::TooShort);
    }
    let parsed = parse(dialled.text(), region)?;
    let mut national = [b'0'; 20];
    let national = national_digits(&parsed, &mut national)?;
    if parsed.country_code == 1 {
        return read_nanp(national, context, false);
    }
    let calling_code = u16::try_from(parsed.country_code).map_err(|_| NumberError::Invalid)?;
    let mut number = Number::new(calling_code, national)?;
    number.country = country_of(&parsed);
    number.number_type = number_type(PHONE_NUMBER_UTIL.get_number_type(&parsed));
    if number.number_type == NumberType::Unknown {
        match PHONE_NUMBER_UTIL.is_possible_number_with_reason(&parsed) {
            Ok(NumberLengthType::IsPossible) => {}
            Ok(NumberLengthType::IsPossibleLocalOnly) | Err(ValidationError::TooShort) => {
                return Err(NumberError::TooShort);
            }
            Err(_) => return Err(NumberError::Invalid),
        }
        if national.len() < MIN_UNKNOWN_NATIONAL {
            return Err(NumberError::TooShort);
        }
        let main = PHONE_NUMBER_UTIL.get_region_for_country_code(parsed.country_code);
        number.country = number.country.or_else(|| main.and_then(country_of_region));
        if number.country.is_none() || !reads_back(&number) {
            return Err(NumberError::Invalid);
        }
    }
    // Digits that nobody can send on, even where they are in a range: a trunk prefix dialled twice leaves a zero
    // behind the calling code, which whoever reads the number next drops. Elsewhere (Italy) it is part of the number.
    if national.first() == Some(&b'0') && !reads_back(&number) {
        return Err(NumberError::Invalid);
    }
    Ok(number)
}

/// Whether the number in E.164 is read as these very digits.
fn reads_back(number: &Number) -> bool {
    let mut buffer = [b'0'; 20];
    let national = parse(&number.e164(), None).and_then(|again| {
        let code = u16::try_from(again.country_code).map_err(|_| NumberError::Invalid)?;
        Number::new(code, national_digits(&again, &mut buffer)?)
    });
    national.is_ok_and(|again| again.digits() == number.digits())
}

fn parse(text: &str, region: Option<Region>) -> Result<PhoneNumber, NumberError> {
    PHONE_NUMBER_UTIL.parse(text, region).map_err(|error| match error {
        ParseError::TooShortAfterIdd | ParseError::TooShortNsn => NumberError::TooShort,
        _ => NumberError::Invalid,
    })
}

/// The national significant number, leading zeros included, written into `buffer` (of zeros).
fn national_digits<'a>(
    number: &PhoneNumber,
    buffer: &'a mut [u8; 20],
) -> Result<&'a [u8], NumberError> {
    let mut start = buffer.len();
    let mut rest = number.national_number;
    while rest > 0 {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let zeros = match number.italian_leading_zero {
        Some(true) => usize::try_from(number.number_of_leading_zeros.unwrap_or(1)).unwrap_or(1),
        _ => 0,
    };
    let start = start.checked_sub(zeros).ok_or(NumberError::Invalid)?;
    Ok(&buffer[start..])
}

/// The region whose dialling rules hold in a country; that of its calling code where the metadata does not
/// know it by name (AN, GS, PN and others).
fn region_of(country: CountryCode) -> Option<Region> {
    let region = Region::from_code(country.as_str()).ok()?;
    if PHONE_NUMBER_UTIL.get_country_code_for_region(region).is_some() {
        return Some(region);
    }
    let calling_code = catalogue::country(country)?.calling_code;
    PHONE_NUMBER_UTIL.get_region_for_country_code(i32::from(calling_code))
}

fn country_of(number: &PhoneNumber) -> Option<CountryCode> {
    PHONE_NUMBER_UTIL.get_region_for_number(number).and_then(country_of_region)
}

fn country_of_region(region: Region) -> Option<CountryCode> {
    CountryCode::parse(region.as_region_str().as_str())
}

fn number_type(found: PhoneNumberType) -> NumberType {
    match found {
        PhoneNumberType::FixedLine => NumberType::FixedLine,
        PhoneNumberType::Mobile => NumberType::Mobile,
        PhoneNumberType::FixedLineOrMobile => NumberType::FixedLineOrMobile,
        PhoneNumberType::TollFree => NumberType::TollFree,
        PhoneNumberType::PremiumRate => NumberType::PremiumRate,
        PhoneNumberType::SharedCost => NumberType::SharedCost,
        PhoneNumberType::VoIP => NumberType::Voip,
        PhoneNumberType::PersonalNumber => NumberType::PersonalNumber,
        PhoneNumberType::Pager => NumberType::Pager,
        PhoneNumberType::UAN => NumberType::Uan,
        PhoneNumberType::VoiceMail => NumberType::Voicemail,
        PhoneNumberType::Unknown => NumberType::Unknown,
    }
}

/// Whether `dialled` is, as a whole, an emergency number of `country` (rule 13 of the contract), or 112 or
/// 911, which are emergency numbers for everybody: people dial what they grew up with, no plan gives
/// these three digits to a subscriber, and an emergency call must never be refused. `sos` URNs always
/// are; a leading plus counts (`+112`), as do `tel:` and `sip:` URIs, the separators `-.()`, spaces and
/// tabs.
///
/// Runs first for every call, on whatever the network sends: never panics, never allocates, looks at a
/// few dozen bytes at most.
pub fn is_emergency(dialled: &str, country: Option<CountryCode>) -> bool {
    if is_sos_urn(dialled) {
        return true;
    }
    let Some(key) = short_key(dialled) else { return false };
    let of_country = country.and_then(|country| EMERGENCY.of.get(country.slot()));
    ANYWHERE_KNOWN.contains(&key) || of_country.is_some_and(|numbers| numbers.contains(&key))
}

/// Whether `dialled` is an emergency number of any territory.
pub fn is_emergency_anywhere(dialled: &str) -> bool {
    is_sos_urn(dialled)
        || short_key(dialled).is_some_and(|key| EMERGENCY.all.binary_search(&key).is_ok())
}

/// Keys of 112 and 911: what mobile networks know everywhere.
const ANYWHERE_KNOWN: [u32; 2] = [1_112, 1_911];

/// Longest emergency number of the table.
const MAX_EMERGENCY_DIGITS: usize = 6;

/// Emergency numbers as [`short_key`]s.
struct Emergency {
    /// By [`CountryCode::slot`].
    of: Vec<Vec<u32>>,
    /// Of all territories, in order.
    all: Vec<u32>,
}

static EMERGENCY: LazyLock<Emergency> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the table is part of the program; a test reads it")]
    parse_emergency().expect("the table of emergency numbers is well formed")
});

fn parse_emergency() -> Result<Emergency, String> {
    let mut table = Emergency { of: vec![Vec::new(); CountryCode::SLOTS], all: Vec::new() };
    let rows: Vec<(String, String)> = catalogue::rows(include_str!("data/emergency_numbers.csv"))
        .map_err(|error| error.to_string())?;
    for (country, numbers) in rows {
        let of = &mut table.of[catalogue::table_code(&country)?.slot()];
        for number in numbers.split(' ') {
            of.push(short_key(number).ok_or_else(|| format!("{country}: {number:?}"))?);
        }
        table.all.extend_from_slice(of);
    }
    table.all.extend(ANYWHERE_KNOWN);
    table.all.sort_unstable();
    table.all.dedup();
    Ok(table)
}

/// The digits of a short number with a 1 before them, so that 011 and 11 differ; `None` if there are
/// none, too many, or anything else than one number.
fn short_key(dialled: &str) -> Option<u32> {
    // One byte more than six digits, all separated, so that hostile lengths cost nothing.
    const LOOK_AT: usize = 4 * MAX_EMERGENCY_DIGITS;
    let bytes = after_blanks(dialled.as_bytes(), LOOK_AT);
    let scheme =
        |name: &[u8]| bytes.get(..name.len()).is_some_and(|b| b.eq_ignore_ascii_case(name));
    let (skip, uri) = if scheme(b"tel:") || scheme(b"sip:") {
        (4, true)
    } else if scheme(b"sips:") {
        (5, true)
    } else {
        (0, false)
    };
    let number = after_blanks(bytes.get(skip..)?, LOOK_AT);
    let number = number.strip_prefix(b"+").unwrap_or(number);
    let mut key = 1;
    for (i, byte) in number.iter().enumerate() {
        match byte {
            b'0'..=b'9' if key < 10_u32.pow(MAX_EMERGENCY_DIGITS as u32) => {
                key = key * 10 + u32::from(byte - b'0');
            }
            b'-' | b'.' | b'(' | b')' | b' ' | b'\t' if i < LOOK_AT => {}
            b';' | b'@' if uri => break,
            _ => return None,
        }
    }
    (key > 1).then_some(key)
}

/// What follows the blanks that `text` begins with, of which at most `most` are passed over.
fn after_blanks(text: &[u8], most: usize) -> &[u8] {
    let blanks = text.iter().take(most).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

/// `urn:service:sos` and its subtypes (RFC 5031).
fn is_sos_urn(dialled: &str) -> bool {
    const SOS: &[u8] = b"urn:service:sos";
    let bytes = dialled.as_bytes();
    bytes.get(..SOS.len()).is_some_and(|head| head.eq_ignore_ascii_case(SOS))
        && matches!(bytes.get(SOS.len()), None | Some(b'.'))
}

/// A number for logs: its last four characters are stars, what stands before them is kept, since the
/// country and area code explain a decision and the subscriber's digits identify a person.
///
/// Of a URI only the user part is shown; at most 24 characters, and none that a terminal would obey.
pub fn masked(number: &str) -> String {
    const SHOWN: usize = 24;
    const HIDDEN: usize = 4;
    let user = number.split(['@', ';']).next().unwrap_or_default();
    let length = user.chars().count();
    let mut masked = String::with_capacity(SHOWN);
    masked.extend(user.chars().enumerate().take(SHOWN).map(|(i, c)| match c {
        _ if i + HIDDEN >= length.min(SHOWN) => '*',
        c if c.is_ascii_graphic() || c == ' ' => c,
        _ => '?',
    }));
    masked
}

#[cfg(test)]
mod tests;
