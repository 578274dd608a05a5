//! The calendar month in a tenant's time zone (D2), and the year that credits last (D17).
//!
//! Time zones come from the database inside the program, never from the machine: replicas must agree on
//! where a month ends. This module does not know what time it is.

use std::sync::LazyLock;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan, Zoned};
use serde::{Deserialize, Serialize};

use crate::charging::units::Millis;

/// Instants are held within 0001-01-02 and 9998-12-30, so that a month or year more always exists.
const EARLIEST: Millis = Millis(-62_135_510_400_000);
const LATEST: Millis = Millis(253_370_678_400_000);

/// One calendar month of one time zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Month {
    /// Year and month, such as `2026-11`.
    pub key: String,
    /// Its first instant.
    pub starts: Millis,
    /// The first instant of the next month.
    pub ends: Millis,
}

impl Month {
    /// The month that an instant falls in, by the wall clocks of `zone`.
    pub fn containing(at: Millis, zone: &TimeZone) -> Month {
        let date = zoned(at, zone).date();
        let key = format!("{:04}-{:02}", date.year(), date.month());
        let next = date.last_of_month().saturating_add(1.day());
        Month { key, starts: midnight(date.first_of_month(), zone), ends: midnight(next, zone) }
    }

    /// Whether an instant falls in it.
    pub fn contains(&self, at: Millis) -> bool {
        (self.starts..self.ends).contains(&at)
    }
}

/// The zone of an IANA name such as `America/Los_Angeles`; offsets and POSIX rules are not names.
pub fn parse_zone(name: &str) -> Option<TimeZone> {
    static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    ZONES.get(name).ok().filter(|zone| !zone.is_unknown())
}

/// The same time of day 12 calendar months later, in UTC; 28 February after a 29 February (D17).
pub fn twelve_months_after(at: Millis) -> Millis {
    let later = zoned(at, &TimeZone::UTC).saturating_add(12.months());
    Millis(later.timestamp().as_millisecond())
}

fn zoned(at: Millis, zone: &TimeZone) -> Zoned {
    let at = at.max(EARLIEST).min(LATEST);
    Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// The first instant of a day: after a midnight that clocks skip, or the first of two.
fn midnight(date: Date, zone: &TimeZone) -> Millis {
    let first = date.to_zoned(zone.clone()).map(|midnight| midnight.timestamp());
    Millis(first.unwrap_or(Timestamp::UNIX_EPOCH).as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> TimeZone {
        parse_zone(name).unwrap_or_else(|| panic!("{name} is a zone"))
    }

    fn at(instant: &str) -> Millis {
        let timestamp: Timestamp = instant.parse().expect("an instant");
        Millis(timestamp.as_millisecond())
    }

    #[track_caller]
    fn check(name: &str, instant: &str, key: &str, starts: &str, ends: &str) {
        let expected = Month { key: key.to_owned(), starts: at(starts), ends: at(ends) };
        let month = Month::containing(at(instant), &zone(name));
        assert_eq!(month, expected, "{instant} in {name}");
        assert!(month.contains(at(instant)) && !month.contains(month.ends));
    }

    #[test]
    fn a_month_in_utc_runs_from_midnight_to_midnight() {
        let (november, december) = ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z");
        check("UTC", "2026-11-21T07:40:00Z", "2026-11", november, december);
        check("UTC", november, "2026-11", november, december);
        check("UTC", "2026-11-30T23:59:59.999Z", "2026-11", november, december);
    }

    #[test]
    fn december_ends_in_the_next_year() {
        check(
            "UTC",
            "2026-12-31T23:59:59Z",
            "2026-12",
            "2026-12-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
    }

    #[test]
    fn february_has_29_days_in_leap_years_only() {
        check(
            "UTC",
            "2028-02-29T12:00:00Z",
            "2028-02",
            "2028-02-01T00:00:00Z",
            "2028-03-01T00:00:00Z",
        );
        let length = |instant| {
            let month = Month::containing(at(instant), &TimeZone::UTC);
            (month.ends.0 - month.starts.0) / 86_400_000
        };
        assert_eq!(length("2024-02-10T00:00:00Z"), 29);
        assert_eq!(length("2027-02-10T00:00:00Z"), 28);
        assert_eq!(length("2100-02-10T00:00:00Z"), 28);
    }

    #[test]
    fn a_month_starts_and_ends_by_the_wall_clocks_of_the_zone() {
        // Los Angeles leaves daylight saving time on 1 November 2026, Auckland enters it in September.
        let zone = "America/Los_Angeles";
        check(
            zone,
            "2026-11-01T06:59:59Z",
            "2026-10",
            "2026-10-01T07:00:00Z",
            "2026-11-01T07:00:00Z",
        );
        check(
            zone,
            "2026-11-01T07:00:00Z",
            "2026-11",
            "2026-11-01T07:00:00Z",
            "2026-12-01T08:00:00Z",
        );
        check(
            zone,
            "2026-03-15T00:00:00Z",
            "2026-03",
            "2026-03-01T08:00:00Z",
            "2026-04-01T07:00:00Z",
        );
        let zone = "Asia/Kolkata";
        check(
            zone,
            "2026-10-31T18:30:00Z",
            "2026-11",
            "2026-10-31T18:30:00Z",
            "2026-11-30T18:30:00Z",
        );
        let zone = "Pacific/Auckland";
        check(
            zone,
            "2026-09-30T10:59:59Z",
            "2026-09",
            "2026-08-31T12:00:00Z",
            "2026-09-30T11:00:00Z",
        );
    }

    #[test]
    fn a_month_whose_first_midnight_comes_twice_starts_at_the_first() {
        // In Havana, 1 November 2026 goes from 00:59:59 back to 00:00.
        let (starts, ends) = ("2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z");
        check("America/Havana", "2026-11-01T04:30:00Z", "2026-11", starts, ends);
        check("America/Havana", "2026-11-01T05:30:00Z", "2026-11", starts, ends);
    }

    #[test]
    fn a_month_whose_first_midnight_is_skipped_starts_after_the_gap() {
        // In Amman, 1 April 2011 went from 00:00 to 01:00.
        let (starts, ends) = ("2011-03-31T22:00:00Z", "2011-04-30T21:00:00Z");
        check("Asia/Amman", starts, "2011-04", starts, ends);
        check("Asia/Amman", "2011-03-31T21:59:59Z", "2011-03", "2011-02-28T22:00:00Z", starts);
    }

    #[test]
    fn only_iana_names_are_zones() {
        for name in ["UTC", "Etc/UTC", "America/Los_Angeles", "Asia/Kolkata", "Europe/Kyiv"] {
            assert!(parse_zone(name).is_some(), "{name}");
        }
        for name in
            ["", "Mars/Olympus", "+01:00", "EST5EDT,M3.2.0,M11.1.0", "Etc/Unknown", "../UTC"]
        {
            assert!(parse_zone(name).is_none(), "{name}");
        }
    }

    #[test]
    fn twelve_months_after_a_29_february_is_a_28_february() {
        for (from, to) in [
            ("2026-01-10T00:00:00Z", "2027-01-10T00:00:00Z"),
            ("2028-02-29T12:34:56.789Z", "2029-02-28T12:34:56.789Z"),
            ("2027-02-28T00:00:00Z", "2028-02-28T00:00:00Z"),
            ("2027-12-31T23:59:59.999Z", "2028-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(twelve_months_after(at(from)), at(to), "{from}");
        }
    }

    #[test]
    fn instants_beyond_the_calendar_do_no_harm() {
        for instant in [Millis(i64::MIN), Millis(i64::MAX)] {
            for name in ["UTC", "Pacific/Kiritimati", "Pacific/Niue"] {
                let month = Month::containing(instant, &zone(name));
                assert!(month.starts < month.ends);
            }
            twelve_months_after(instant);
        }
        assert_eq!(Month::containing(Millis(i64::MAX), &TimeZone::UTC).key, "9998-12");
        assert_eq!(Month::containing(Millis(i64::MIN), &TimeZone::UTC).key, "0001-01");
    }

    proptest! {
        #[test]
        fn months_follow_each_other_without_gap_or_overlap(
            secs in -2_000_000_000i64..8_000_000_000,
            name in prop::sample::select(vec![
                "UTC", "America/Los_Angeles", "America/Havana", "Asia/Kolkata", "Asia/Amman",
                "Pacific/Auckland", "Pacific/Apia", "America/Sao_Paulo", "Europe/London",
            ]),
        ) {
            let zone = zone(name);
            let instant = Millis(secs * 1000);
            let month = Month::containing(instant, &zone);
            prop_assert!(month.contains(instant), "{month:?}");
            prop_assert_eq!(Month::containing(month.ends, &zone).starts, month.ends);
            prop_assert_eq!(&Month::containing(month.starts, &zone), &month);
        }
    }
}
