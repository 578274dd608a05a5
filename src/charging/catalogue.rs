//! What the service sells where: countries, licences, minutes of the plans, destination lists.
//!
//! All facts are rows of `data/*.csv`, parsed once; this module only answers questions about them. It
//! does not know who holds which licence (that is [`crate::charging::entitlement`]) or what a call costs.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::charging::units::Seconds;

/// The tables give minutes; everything else counts seconds.
const SECONDS_PER_MINUTE: i64 = 60;

/// A country or territory: ISO 3166-1 alpha-2, and AC, AN, TA, XK, which have numbers of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// The United States.
    pub const US: Self = Self::literal("US");

    /// Reads two upper-case letters that are the code of a known territory.
    pub fn parse(text: &str) -> Option<Self> {
        let &[a @ b'A'..=b'Z', b @ b'A'..=b'Z'] = text.as_bytes() else { return None };
        let code = Self([a, b]);
        country(code).map(|_| code)
    }

    /// A code known when the program is written; anything but two upper-case letters does not compile
    /// in a constant. Whether the code is assigned is not checked: use [`CountryCode::parse`] for input.
    pub const fn literal(text: &str) -> Self {
        let bytes = text.as_bytes();
        assert!(bytes.len() == 2 && bytes[0].is_ascii_uppercase() && bytes[1].is_ascii_uppercase());
        Self([bytes[0], bytes[1]])
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Position in a table of all two-letter codes, below [`CountryCode::SLOTS`].
    pub(crate) fn slot(self) -> usize {
        usize::from(self.0[0] - b'A') * 26 + usize::from(self.0[1] - b'A')
    }

    /// How many two-letter codes there can be.
    pub(crate) const SLOTS: usize = 26 * 26;
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a country.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an ISO 3166-1 alpha-2 country code such as US")]
pub struct CountryError;

impl std::str::FromStr for CountryCode {
    type Err = CountryError;
    fn from_str(text: &str) -> Result<Self, CountryError> {
        Self::parse(text).ok_or(CountryError)
    }
}

impl Serialize for CountryCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText("a country code", Self::parse))
    }
}

/// Reads a value that travels as text: what is expected, and how it is read.
struct FromText<T>(&'static str, fn(&str) -> Option<T>);

impl<T> serde::de::Visitor<'_> for FromText<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// What the service knows about one country or territory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Country {
    /// Its code.
    pub code: CountryCode,
    /// Its name in the service's own documents.
    pub name: String,
    /// E.164 calling code, 0 for a territory without numbers.
    pub calling_code: u16,
    /// Whether international and pay-as-you-go users may call it (rule 22; D27 for territories).
    pub outbound_listed: bool,
    /// What a payer whose usage location it is may call at premium prices (rule 23).
    pub premium: PremiumPolicy,
    /// Whether Communications Credits can be set up there (rule 55).
    pub credits: bool,
    /// Who sells calling plans there.
    pub calling_plans: CallingPlans,
    /// Minutes per user and month of the plan Domestic 120.
    pub domestic_120: Option<Seconds>,
    /// Minutes per user and month of the plan Domestic 240.
    pub domestic_240: Option<Seconds>,
    /// Minutes per user and month of the standard Domestic plan.
    pub domestic_standard: Option<Seconds>,
    /// Domestic counter of the Domestic and International plan, per user and month.
    pub international_domestic: Option<Seconds>,
    /// International counter of the Domestic and International plan, per user and month.
    pub international: Option<Seconds>,
    /// The zone in which a pay-as-you-go licence of this country is valid (rule 13).
    pub payg_zone: Option<PaygZone>,
    /// The country whose pool its users share: its own, except PR, which shares the US pool (rule 6).
    pub pool_group: CountryCode,
    /// Countries with the same group are domestic to each other for minutes (rules 18-20).
    pub minutes_group: CountryCode,
    /// Countries with the same group are one for the outbound policy Domestic (rule 21, D12).
    pub policy_group: CountryCode,
    /// Whether dial-outs there use the conference pool (rules 57, 60).
    pub zone_a: bool,
    /// Last digits of the outside number that exports of organisations there mask (rule 86).
    pub masked_digits: u8,
    /// Whose destination-list entry it takes, for territories outside the country table (D27).
    pub parent: Option<CountryCode>,
}

impl Country {
    /// Whether the service itself sells calling plans there (a partner's carry no minutes, rule 80).
    pub fn sells_calling_plans(&self) -> bool {
        self.calling_plans == CallingPlans::Sold
    }

    /// Whether a payer of this country may call a premium number, and what may pay (rule 23, D21).
    /// `digits` is the number in E.164 without the plus.
    pub fn premium_rule(&self, digits: &str) -> PremiumRule {
        match self.premium {
            PremiumPolicy::Refused => PremiumRule::Refused,
            PremiumPolicy::Allowed => PremiumRule::Normal,
            PremiumPolicy::CreditsOnly => PremiumRule::CreditsOnly,
            PremiumPolicy::ByPrefix => DATA
                .premium_prefixes
                .iter()
                .filter(|row| row.country == self.code && digits.starts_with(&row.prefix))
                .max_by_key(|row| row.prefix.len())
                .map_or(PremiumRule::Refused, |row| row.rule),
        }
    }
}

/// Who sells calling plans in a country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallingPlans {
    /// Nobody.
    No,
    /// The service.
    Sold,
    /// Only a partner: no minutes and no records here (rule 80).
    Partner,
}

/// What a payer may call at premium prices, by the payer's country (rule 23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PremiumPolicy {
    /// No premium number (the default, D21).
    Refused,
    /// Premium numbers are numbers like any other.
    Allowed,
    /// Every premium number, but only money pays.
    CreditsOnly,
    /// Only some prefixes: see [`Country::premium_rule`].
    ByPrefix,
}

/// Whether one premium number may be called, and what may pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PremiumRule {
    /// It may not.
    Refused,
    /// Funded like any other call.
    Normal,
    /// Never from minutes.
    CreditsOnly,
}

/// Where a pay-as-you-go licence is valid (rule 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaygZone {
    /// US, PR, CA, GB: `MCOPSTN_PAYG_1`.
    One,
    /// Twenty-seven countries: `MCOPSTN_PAYG_2`.
    Two,
    /// A zone of its own (Mexico).
    Own,
}

/// The entry of a country or territory; `None` for a code that is not assigned.
pub fn country(code: CountryCode) -> Option<&'static Country> {
    DATA.countries.get(usize::from(DATA.slots[code.slot()]))
}

/// All countries and territories, by code.
pub fn countries() -> &'static [Country] {
    &DATA.countries
}

/// Whether minutes count a call as domestic (rules 18-20): US, CA and PR are domestic to each other.
pub fn is_domestic_for_minutes(from: CountryCode, to: CountryCode) -> bool {
    same(from, to, |country| country.minutes_group)
}

/// Whether the outbound policy Domestic lets a call through (rule 21, D12): US and PR are one country,
/// US and CA are not.
pub fn is_domestic_for_policy(from: CountryCode, to: CountryCode) -> bool {
    same(from, to, |country| country.policy_group)
}

/// Whether a number, in E.164 without the plus, lies under a prefix that counts as premium whatever its
/// type, such as the shared-cost numbers of GB (rule 23).
pub(crate) fn has_premium_prefix(digits: &str) -> bool {
    DATA.premium_prefixes.iter().any(|row| digits.starts_with(&row.prefix))
}

fn same(from: CountryCode, to: CountryCode, group: fn(&Country) -> CountryCode) -> bool {
    from == to || country(from).map(group).is_some_and(|from| country(to).map(group) == Some(from))
}

macro_rules! licences {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A licence that an organisation assigns to a user or resource account.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Licence {
            $($(#[$doc])* $name,)*
        }

        impl Licence {
            /// Every licence, in the order of the catalogue (which D10 uses).
            pub const ALL: &[Licence] = &[$(Licence::$name,)*];

            /// The licence of a code, such as `MCOPSTN1`.
            pub fn parse(code: &str) -> Option<Licence> {
                match code {
                    $($code => Some(Licence::$name),)*
                    _ => None,
                }
            }

            /// Its code, such as `MCOPSTN1`.
            pub fn code(self) -> &'static str {
                match self {
                    $(Licence::$name => $code,)*
                }
            }
        }
    };
}

licences! {
    /// Phone System, without which no calling plan can be used (rule 75).
    PhoneSystem = "MCOEV",
    /// Domestic, the standard plan.
    Domestic = "MCOPSTN1",
    /// Domestic and International: two counters (rule 9).
    DomesticAndInternational = "MCOPSTN2",
    /// Domestic 120.
    Domestic120 = "MCOPSTN5",
    /// Domestic 240.
    Domestic240 = "MCOPSTN6",
    /// Domestic 120 per user, not pooled (rule 7).
    Domestic120PerUser = "MCOPSTN8",
    /// International only, beside a Domestic plan (rule 14).
    International = "MCOPSTN9",
    /// Pay-as-you-go, zone 1 (rule 13).
    PayAsYouGo1 = "MCOPSTN_PAYG_1",
    /// Pay-as-you-go, zone 2 (rule 13).
    PayAsYouGo2 = "MCOPSTN_PAYG_2",
    /// Communications Credits, which opens the tenant's wallet to the holder (rule 33).
    CommunicationsCredits = "MCOPSTNPP",
    /// Audio Conferencing, a subscription (rule 57).
    AudioConferencing = "MCOMEETADD",
    /// Extended dial-out to the US and Canada (rule 65).
    ExtendedDialOut = "MCOMEETADD_DIALOUT_US",
    /// Audio Conferencing, pay-per-minute (rule 63).
    ConferencingPerMinute = "MCOMEETACPEA",
    /// Resource account of an auto attendant or call queue.
    ResourceAccount = "MCOEV_VIRTUALUSER",
}

impl Licence {
    /// Minutes that one assigned licence adds to its pool each month in a usage location; `None` where
    /// the plan is not sold there, or has no minutes of its own.
    pub fn plan_minutes(self, usage_location: CountryCode) -> Option<PlanMinutes> {
        let country = country(usage_location)?;
        let (domestic, international) = match self {
            Licence::Domestic => (country.domestic_standard?, None),
            Licence::DomesticAndInternational => {
                (country.international_domestic?, Some(country.international?))
            }
            Licence::Domestic120 | Licence::Domestic120PerUser => (country.domestic_120?, None),
            Licence::International => (Seconds::ZERO, Some(country.international?)),
            Licence::Domestic240 => (country.domestic_240?, None),
            _ => return None,
        };
        Some(PlanMinutes { domestic, international })
    }
}

impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl Serialize for Licence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Licence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText("a licence code", Self::parse))
    }
}

/// What one licence adds to a pool each month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanMinutes {
    /// The domestic counter.
    pub domestic: Seconds,
    /// The international counter, of plans that have one.
    pub international: Option<Seconds>,
}

/// The tables of `data/` in memory.
struct Data {
    countries: Vec<Country>,
    /// Index into `countries` by [`CountryCode::slot`]; `u16::MAX` for codes that are not assigned.
    slots: [u16; CountryCode::SLOTS],
    premium_prefixes: Vec<PremiumPrefix>,
}

struct PremiumPrefix {
    country: CountryCode,
    prefix: String,
    rule: PremiumRule,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the tables are part of the program; a test reads them")]
    parse_data().expect("the tables of the catalogue are well formed")
});

#[derive(Deserialize)]
struct CountryRow {
    iso2: String,
    name: String,
    e164_cc: u16,
    calling_plan: String,
    dom_plan_120_min: Option<i64>,
    dom_plan_240_min: Option<i64>,
    dom_plan_standard_min: Option<i64>,
    dom_intl_plan_domestic_min: Option<i64>,
    dom_intl_plan_intl_min: Option<i64>,
    payg_zone: String,
    premium_outbound: String,
    communications_credits: String,
    in_196_outbound_list: String,
    ac_dial_out_zone: String,
    cdr_obfuscated_digits: Option<u8>,
}

#[derive(Deserialize)]
struct TerritoryRow {
    iso2: String,
    name: String,
    e164_cc: Option<u16>,
    parent: String,
}

#[derive(Deserialize)]
struct GroupRow {
    iso2: String,
    pool: String,
    minutes: String,
    policy: String,
}

#[derive(Deserialize)]
struct PremiumRow {
    iso2: String,
    prefix: String,
    rule: String,
}

/// The rows of a table of `data/`, whose comment lines start with `#`.
pub(crate) fn rows<T: for<'de> Deserialize<'de>>(table: &str) -> Result<Vec<T>, csv::Error> {
    csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(table.as_bytes())
        .deserialize()
        .collect()
}

/// A code out of a table, by its letters alone: the tables are what makes a code assigned.
pub(crate) fn table_code(text: &str) -> Result<CountryCode, String> {
    match text.as_bytes() {
        &[a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => Ok(CountryCode([a, b])),
        _ => Err(format!("expected a country code, got {text:?}")),
    }
}

fn parse_data() -> Result<Data, String> {
    let mut countries = Vec::new();
    for row in table::<CountryRow>(include_str!("data/countries.csv"))? {
        countries.push(parse_country(row)?);
    }
    for row in table::<TerritoryRow>(include_str!("data/territories.csv"))? {
        let parent = match row.parent.as_str() {
            "" => None,
            parent => Some(table_code(parent)?),
        };
        let mut territory = bare_country(table_code(&row.iso2)?, row.name);
        territory.calling_code = row.e164_cc.unwrap_or(0);
        territory.parent = parent;
        territory.outbound_listed =
            countries.iter().any(|c: &Country| Some(c.code) == parent && c.outbound_listed);
        countries.push(territory);
    }
    for row in table::<GroupRow>(include_str!("data/country_groups.csv"))? {
        let code = table_code(&row.iso2)?;
        let country = countries.iter_mut().find(|c| c.code == code);
        let country = country.ok_or_else(|| format!("{code} has a group but no entry"))?;
        country.pool_group = table_code(&row.pool)?;
        country.minutes_group = table_code(&row.minutes)?;
        country.policy_group = table_code(&row.policy)?;
    }
    countries.sort_by_key(|country| country.code);

    let mut slots = [u16::MAX; CountryCode::SLOTS];
    for (i, country) in countries.iter().enumerate() {
        let slot = &mut slots[country.code.slot()];
        if *slot != u16::MAX {
            return Err(format!("{} has two entries", country.code));
        }
        *slot = u16::try_from(i).map_err(|_| "too many countries")?;
    }
    let mut premium_prefixes = Vec::new();
    for row in table::<PremiumRow>(include_str!("data/premium_prefixes.csv"))? {
        let rule = match row.rule.as_str() {
            "credits" => PremiumRule::CreditsOnly,
            "refused" => PremiumRule::Refused,
            other => return Err(format!("expected credits or refused, got {other:?}")),
        };
        let country = table_code(&row.iso2)?;
        premium_prefixes.push(PremiumPrefix { country, prefix: row.prefix, rule });
    }
    Ok(Data { countries, slots, premium_prefixes })
}

fn table<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Vec<T>, String> {
    rows(text).map_err(|error| error.to_string())
}

/// A place of which nothing is documented: no plans, not listed, premium numbers refused.
fn bare_country(code: CountryCode, name: String) -> Country {
    Country {
        code,
        name,
        calling_code: 0,
        outbound_listed: false,
        premium: PremiumPolicy::Refused,
        credits: true,
        calling_plans: CallingPlans::No,
        domestic_120: None,
        domestic_240: None,
        domestic_standard: None,
        international_domestic: None,
        international: None,
        payg_zone: None,
        pool_group: code,
        minutes_group: code,
        policy_group: code,
        zone_a: false,
        masked_digits: 0,
        parent: None,
    }
}

fn parse_country(row: CountryRow) -> Result<Country, String> {
    let seconds = |minutes: Option<i64>| minutes.map(|m| Seconds(m * SECONDS_PER_MINUTE));
    let unknown = |column: &str, value: &str| Err(format!("{}: {column} is {value:?}", row.iso2));
    Ok(Country {
        calling_code: row.e164_cc,
        outbound_listed: row.in_196_outbound_list == "y",
        premium: match row.premium_outbound.as_str() {
            "" | "n" => PremiumPolicy::Refused,
            "y" => PremiumPolicy::Allowed,
            "y-credits" => PremiumPolicy::CreditsOnly,
            "partial" => PremiumPolicy::ByPrefix,
            other => return unknown("premium_outbound", other),
        },
        credits: row.communications_credits != "n",
        calling_plans: match row.calling_plan.as_str() {
            "" | "n" => CallingPlans::No,
            "y" => CallingPlans::Sold,
            "partner" => CallingPlans::Partner,
            other => return unknown("calling_plan", other),
        },
        domestic_120: seconds(row.dom_plan_120_min),
        domestic_240: seconds(row.dom_plan_240_min),
        domestic_standard: seconds(row.dom_plan_standard_min),
        international_domestic: seconds(row.dom_intl_plan_domestic_min),
        international: seconds(row.dom_intl_plan_intl_min),
        payg_zone: match row.payg_zone.as_str() {
            "" => None,
            "1" => Some(PaygZone::One),
            "2" => Some(PaygZone::Two),
            "own" => Some(PaygZone::Own),
            other => return unknown("payg_zone", other),
        },
        zone_a: row.ac_dial_out_zone == "A",
        masked_digits: row.cdr_obfuscated_digits.unwrap_or(0),
        ..bare_country(table_code(&row.iso2)?, row.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> CountryCode {
        CountryCode::parse(text).unwrap_or_else(|| panic!("{text} is assigned"))
    }

    fn entry(text: &str) -> &'static Country {
        country(code(text)).expect("every assigned code has an entry")
    }

    #[track_caller]
    fn check_minutes(licence: &str, location: &str, expected: Option<(i64, Option<i64>)>) {
        let minutes = Licence::parse(licence).expect("a licence").plan_minutes(code(location));
        let expected = expected.map(|(domestic, international)| PlanMinutes {
            domestic: Seconds(domestic * 60),
            international: international.map(|m| Seconds(m * 60)),
        });
        assert_eq!(minutes, expected, "{licence} in {location}");
    }

    #[test]
    fn every_row_of_every_table_is_read() {
        let data = parse_data().expect("tables");
        assert_eq!(data.countries.len(), 253);
        assert_eq!(data.premium_prefixes.len(), 9);
        let listed = data.countries.iter().filter(|c| c.outbound_listed && c.parent.is_none());
        assert_eq!(listed.count(), 198, "the list of rule 22 has 198 entries");
        assert_eq!(data.countries.iter().filter(|c| c.zone_a).count(), 44, "rule 57");
        let zone = |zone| data.countries.iter().filter(|c| c.payg_zone == Some(zone)).count();
        assert_eq!((zone(PaygZone::One), zone(PaygZone::Two), zone(PaygZone::Own)), (4, 27, 1));
    }

    #[test]
    fn a_country_code_is_two_capital_letters_of_an_assigned_territory() {
        for text in ["US", "NO", "GG", "XK", "AC", "AN", "SX", "AQ", "KP", "UM"] {
            assert_eq!(code(text).as_str(), text);
        }
        for text in ["", "U", "us", "USA", "ZZ", "QZ", "U ", "001", "É", "\u{0}\u{0}"] {
            assert_eq!(CountryCode::parse(text), None, "{text:?}");
        }
        for country in countries() {
            assert_eq!(code(country.code.as_str()), country.code);
            for group in [country.pool_group, country.minutes_group, country.policy_group] {
                assert_eq!(code(group.as_str()), group);
            }
        }
    }

    #[test]
    fn codes_travel_as_text_and_unknown_ones_are_refused() {
        let json = serde_json::to_string(&(code("NO"), Licence::Domestic)).expect("json");
        assert_eq!(json, r#"["NO","MCOPSTN1"]"#);
        let back: (CountryCode, Licence) = serde_json::from_str(&json).expect("json");
        assert_eq!(back, (code("NO"), Licence::Domestic));
        assert!(serde_json::from_str::<CountryCode>(r#""ZZ""#).is_err());
        assert!(serde_json::from_str::<Licence>(r#""MCOPSTN3""#).is_err());
        let packed = rmp_serde::to_vec(&code("US")).expect("packed");
        assert_eq!(rmp_serde::from_slice::<CountryCode>(&packed).expect("unpacked"), code("US"));
    }

    #[test]
    fn every_licence_reads_back_from_its_code() {
        for &licence in Licence::ALL {
            assert_eq!(Licence::parse(licence.code()), Some(licence));
        }
        assert_eq!(Licence::ALL.len(), 14);
        assert_eq!(Licence::parse("mcoev"), None);
    }

    #[test]
    fn the_standard_plan_has_3000_minutes_in_us_pr_ca_gb_and_1200_elsewhere() {
        for location in ["US", "PR", "CA", "GB"] {
            check_minutes("MCOPSTN1", location, Some((3000, None)));
            check_minutes("MCOPSTN2", location, Some((3000, Some(600))));
        }
        for location in ["FR", "DE", "MX", "ZA", "LV"] {
            check_minutes("MCOPSTN1", location, Some((1200, None)));
            check_minutes("MCOPSTN2", location, Some((1200, Some(600))));
        }
        for location in ["JP", "AU", "ZW", "GG", "KP"] {
            check_minutes("MCOPSTN1", location, None);
            check_minutes("MCOPSTN2", location, None);
        }
    }

    #[test]
    fn the_small_plans_have_the_minutes_of_their_names_and_do_not_exist_in_mexico() {
        check_minutes("MCOPSTN5", "FR", Some((120, None)));
        check_minutes("MCOPSTN6", "FR", Some((240, None)));
        check_minutes("MCOPSTN5", "US", Some((120, None)));
        check_minutes("MCOPSTN5", "MX", None);
        check_minutes("MCOPSTN6", "MX", None);
        for licence in ["MCOEV", "MCOPSTNPP", "MCOPSTN_PAYG_1", "MCOMEETADD"] {
            check_minutes(licence, "US", None);
        }
    }

    #[test]
    fn us_ca_and_pr_are_domestic_to_each_other_for_minutes() {
        for from in ["US", "CA", "PR"] {
            for to in ["US", "CA", "PR"] {
                assert!(is_domestic_for_minutes(code(from), code(to)), "{from} to {to}");
            }
            for to in ["JM", "DO", "VI", "GU", "MX"] {
                assert!(!is_domestic_for_minutes(code(from), code(to)), "{from} to {to}");
            }
        }
        assert!(is_domestic_for_minutes(code("FR"), code("FR")));
        assert!(!is_domestic_for_minutes(code("GB"), code("GG")));
    }

    #[test]
    fn the_policy_domestic_joins_us_and_pr_but_not_us_and_ca() {
        assert!(is_domestic_for_policy(code("US"), code("PR")));
        assert!(is_domestic_for_policy(code("PR"), code("US")));
        assert!(!is_domestic_for_policy(code("US"), code("CA")));
        assert!(!is_domestic_for_policy(code("CA"), code("PR")));
        assert!(is_domestic_for_policy(code("CA"), code("CA")));
    }

    #[test]
    fn us_and_pr_share_a_pool_and_everyone_else_has_their_own() {
        assert_eq!(entry("PR").pool_group, code("US"));
        assert_eq!(entry("CA").pool_group, code("CA"));
        assert_eq!(entry("GB").pool_group, code("GB"));
    }

    #[test]
    fn the_outbound_list_holds_zimbabwe_and_not_tunisia_cook_islands_cuba_or_north_korea() {
        for text in ["ZW", "US", "FR", "PR", "AN"] {
            assert!(entry(text).outbound_listed, "{text}");
        }
        for text in ["TN", "CK", "CU", "KP", "FK", "XK"] {
            assert!(!entry(text).outbound_listed, "{text}");
        }
    }

    #[test]
    fn a_territory_takes_the_list_entry_of_its_parent_and_nothing_else() {
        for text in ["GG", "JE", "IM", "AX", "SJ", "BL", "MF", "CW", "SX", "BQ", "EH", "CX"] {
            let territory = entry(text);
            assert!(territory.outbound_listed, "{text}");
            assert!(!territory.zone_a && !territory.sells_calling_plans(), "{text}");
            assert!(!is_domestic_for_minutes(territory.parent.expect("a parent"), territory.code));
        }
    }

    #[test]
    fn premium_numbers_depend_on_the_payers_country() {
        use PremiumRule::*;
        for (country, digits, rule) in [
            ("FR", "33899123456", CreditsOnly),
            ("AT", "43900123456", Normal),
            ("US", "19005550100", Refused),
            ("GB", "448431234567", CreditsOnly),
            ("GB", "448441234567", CreditsOnly),
            ("GB", "448451234567", CreditsOnly),
            ("GB", "448701234567", CreditsOnly),
            ("GB", "448711234567", CreditsOnly),
            ("GB", "448721234567", CreditsOnly),
            ("GB", "448421234567", Refused),
            ("GB", "449012345678", Refused),
            ("GB", "33899123456", Refused),
            ("JM", "19005550100", Refused),
        ] {
            assert_eq!(entry(country).premium_rule(digits), rule, "{country} to {digits}");
        }
    }

    #[test]
    fn credits_cannot_be_set_up_in_eleven_countries() {
        let without: Vec<&str> =
            countries().iter().filter(|c| !c.credits).map(|c| c.code.as_str()).collect();
        assert_eq!(without, ["BH", "CN", "IN", "KR", "KZ", "MK", "NI", "PK", "RU", "TW", "UA"]);
    }

    #[test]
    fn exports_mask_four_digits_in_france_and_three_in_germany() {
        assert_eq!(entry("FR").masked_digits, 4);
        assert_eq!(entry("DE").masked_digits, 3);
        assert_eq!(entry("US").masked_digits, 0);
        assert!(entry("JP").calling_plans == CallingPlans::Partner);
    }
}
