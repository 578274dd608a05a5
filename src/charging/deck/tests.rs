use proptest::prelude::*;

use super::Direction::{Outbound, TollFreeInbound, TollInbound};
use super::*;

const NOW: Millis = Millis(1_795_000_000_000);

fn deck(rows: &[&str]) -> Result<Deck, DeckErrors> {
    let text = std::iter::once(HEADER.join(",").as_str())
        .chain(rows.iter().copied())
        .fold(String::new(), |text, line| text + line + "\n");
    Deck::parse(text.as_bytes())
}

fn at(instant: &str) -> Millis {
    read_instant(instant).unwrap_or_else(|| panic!("{instant} is an instant"))
}

#[track_caller]
fn check(deck: &Deck, direction: Direction, digits: &str, at: Millis, prefix: Option<&str>) {
    let found = deck.rate(direction, digits, at).map(|rate| rate.prefix);
    assert_eq!(found, prefix, "{direction} {digits}");
}

#[track_caller]
fn check_bad(rows: &[&str], expected: &[(u64, &str)]) {
    let errors = deck(rows).expect_err("a bad deck");
    let found: Vec<(u64, &str)> =
        errors.errors.iter().map(|e| (e.line, e.reason.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(errors.total, expected.len() as u64);
}

#[test]
fn the_longest_prefix_wins() {
    let deck = deck(&[
        "44,United Kingdom,0.01,0,60,60,USD,2020-01-01,,outbound",
        "447,United Kingdom mobile,0.03,0,60,60,USD,2020-01-01,,outbound",
        "447624,Isle of Man mobile,0.2,0,60,60,USD,2020-01-01,,outbound",
        "1,North America,0.02,0,60,60,USD,2020-01-01,,toll_free_inbound",
        "*,Elsewhere,0.3,0.1,60,60,USD,2020-01-01,,toll_free_inbound",
    ])
    .expect("a deck");
    check(&deck, Outbound, "442079460958", NOW, Some("44"));
    check(&deck, Outbound, "447700900123", NOW, Some("447"));
    check(&deck, Outbound, "447624412345", NOW, Some("447624"));
    check(&deck, Outbound, "44", NOW, Some("44"));
    check(&deck, Outbound, "4", NOW, None);
    check(&deck, Outbound, "", NOW, None);
    check(&deck, Outbound, "14255550100", NOW, None);
    check(&deck, TollFreeInbound, "14255550100", NOW, Some("1"));
    check(&deck, TollFreeInbound, "442079460958", NOW, Some("*"));
    check(&deck, TollFreeInbound, "anonymous", NOW, Some("*"));
    check(&deck, TollInbound, "14255550100", NOW, None);
    let rate = deck.default_rate(TollFreeInbound, NOW).expect("a default");
    assert_eq!((rate.destination, rate.prefix), ("Elsewhere", "*"));
    assert_eq!(rate.tariff.rate_per_minute, Micros(300_000));
    assert_eq!(rate.tariff.connection_fee, Micros(100_000));
    assert_eq!(deck.default_rate(Outbound, NOW), None);
    assert_eq!((deck.currency(), deck.len()), ("USD", 5));
}

#[test]
fn a_row_counts_only_in_force_and_a_shorter_prefix_answers_otherwise() {
    let deck = deck(&[
        "33,France,0.02,0,60,60,USD,2020-01-01,2026-07-01,outbound",
        "33,France,0.01,0,60,60,USD,2026-07-01,,outbound",
        "336,France mobile,0.05,0,60,60,USD,2026-01-01,2026-02-01T12:00:00+01:00,outbound",
    ])
    .expect("a deck");
    let price = |instant| {
        let rate = deck.rate(Outbound, "33612345678", at(instant));
        rate.map(|rate| (rate.prefix, rate.tariff.rate_per_minute.0))
    };
    assert_eq!(price("2019-12-31T23:59:59.999Z"), None);
    assert_eq!(price("2020-01-01"), Some(("33", 20_000)));
    assert_eq!(price("2026-01-01"), Some(("336", 50_000)));
    assert_eq!(price("2026-02-01T10:59:59.999Z"), Some(("336", 50_000)));
    assert_eq!(price("2026-02-01T11:00:00Z"), Some(("33", 20_000)));
    assert_eq!(price("2026-07-01"), Some(("33", 10_000)));
}

#[test]
fn the_dearest_row_of_a_country_is_found() {
    let deck = deck(&[
        "1,North America,0.02,0,60,60,USD,2020-01-01,,toll_free_inbound",
        "1876,Jamaica,0.4,0,60,60,USD,2020-01-01,,toll_free_inbound",
        "1900,Once dear,9,0,60,60,USD,2020-01-01,2021-01-01,toll_free_inbound",
        "44,United Kingdom,0.03,0,60,60,USD,2020-01-01,,toll_free_inbound",
        "447,United Kingdom mobile,0.03,0.01,60,60,USD,2020-01-01,,toll_free_inbound",
        "*,Elsewhere,5,0,60,60,USD,2020-01-01,,toll_free_inbound",
    ])
    .expect("a deck");
    let dearest = |country| deck.dearest(TollFreeInbound, country, NOW).map(|r| r.destination);
    assert_eq!(dearest("1"), Some("Jamaica"));
    assert_eq!(dearest("44"), Some("United Kingdom mobile"));
    assert_eq!(dearest("33"), None);
    assert_eq!(dearest(""), Some("Jamaica"));
    assert_eq!(deck.dearest(Outbound, "1", NOW), None);
}

#[test]
fn the_version_names_the_bytes() {
    let row = "44,United Kingdom,0.01,0,60,60,USD,2020-01-01,,outbound";
    let first = deck(&[row]).expect("a deck");
    assert_eq!(first.version(), deck(&[row]).expect("a deck").version());
    assert_ne!(first.version(), deck(&[&row.replace("0.01", "0.02")]).expect("a deck").version());
    assert_eq!(first.version().len(), 16);
    assert!(first.version().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
}

#[test]
fn quotes_and_windows_line_ends_are_fine() {
    let text = format!(
        "{}\r\n243,\"Congo, \"\"DR\"\"\",0.3,0,60,60,EUR,2020-01-01,,outbound\r\n\r\n",
        HEADER.join(",")
    );
    let deck = Deck::parse(text.as_bytes()).expect("a deck");
    assert_eq!(&*deck.rows()[0].destination, "Congo, \"DR\"");
    assert_eq!(deck.currency(), "EUR");
}

#[test]
fn every_bad_line_is_reported_with_all_that_is_wrong_with_it() {
    check_bad(
        &[
            "44,A,0.01,0,60,60,USD,2020-01-01,,outbound",
            "+44,A,0.01,0,60,60,USD,2020-01-01,,outbound",
            "1234567890123456,A,0.01,0,60,60,USD,2020-01-01,,outbound",
            ",A,0.01,0,60,60,USD,2020-01-01,,outbound",
            "45,A,NaN,-1,60,60,USD,2020-01-01,,outbound",
            "45,A,0.0000001,10000.000001,60,60,USD,2020-01-01,,outbound",
            "45,A,0.01,0,0,3601,USD,2020-01-01,,outbound",
            "45,A,0.01,0,+1,1.5,USD,2020-01-01,,outbound",
            "45,A,0.01,0,60,60,EUR,2020-01-01,,outbound",
            "45,A,0.01,0,60,60,usd,2020-01-01,,outbound",
            "45,A,0.01,0,60,60,USD,2020-02-30,1.1.2020,outbound",
            "45,A,0.01,0,60,60,USD,2020-01-01,2020-01-01,outbound",
            "45,A,0.01,0,60,60,USD,,,outbound",
            "45,A,0.01,0,60,60,USD,2020-01-01,,inbound",
            "45,A,0.01,0,60,60,USD,2020-01-01,outbound",
            "45,A\u{7},0.01,0,60,60,USD,2020-01-01,,outbound",
            "044,A,0.01,0,60,60,USD,2020-01-01,,outbound",
        ],
        &[
            (3, "prefix: expected 1 to 15 digits of E.164, the first 1 to 9, or *, found \"+44\""),
            (
                4,
                "prefix: expected 1 to 15 digits of E.164, the first 1 to 9, or *, found \"1234567890123456\"",
            ),
            (5, "prefix: expected 1 to 15 digits of E.164, the first 1 to 9, or *, found \"\""),
            (
                6,
                "rate_per_minute: expected a plain decimal number such as 12.5, found \"NaN\"; \
                 connection_fee: expected an amount from 0 to 10000, found \"-1\"",
            ),
            (
                7,
                "rate_per_minute: expected at most 6 decimals, found \"0.0000001\"; \
                 connection_fee: expected an amount from 0 to 10000, found \"10000.000001\"",
            ),
            (
                8,
                "initial_increment: expected whole seconds from 1 to 3600, found \"0\"; \
                 increment: expected whole seconds from 1 to 3600, found \"3601\"",
            ),
            (
                9,
                "initial_increment: expected whole seconds from 1 to 3600, found \"+1\"; \
                 increment: expected whole seconds from 1 to 3600, found \"1.5\"",
            ),
            (10, "currency: expected USD, as in line 2, found EUR"),
            (11, "currency: expected an ISO 4217 code, found \"usd\""),
            (
                12,
                "effective_from: expected YYYY-MM-DD or an RFC 3339 time, found \"2020-02-30\"; \
                 effective_to: expected YYYY-MM-DD or an RFC 3339 time, found \"1.1.2020\"",
            ),
            (13, "effective_to: expected a time after effective_from, found \"2020-01-01\""),
            (14, "effective_from: expected YYYY-MM-DD or an RFC 3339 time, found \"\""),
            (
                15,
                "direction: expected outbound, toll_free_inbound or toll_inbound, found \"inbound\"",
            ),
            (16, "expected 10 fields, got 9"),
            (17, "destination: expected at most 200 characters, none a control, found \"A\\u{7}\""),
            (18, "prefix: expected 1 to 15 digits of E.164, the first 1 to 9, or *, found \"044\""),
        ],
    );
}

#[test]
fn rows_of_one_prefix_must_not_be_in_force_together() {
    check_bad(
        &[
            "44,A,0.01,0,60,60,USD,2020-01-01,,outbound",
            "45,A,0.01,0,60,60,USD,2020-01-01,2021-01-01,outbound",
            "45,A,0.01,0,60,60,USD,2021-01-01,2022-01-01,outbound",
            "44,A,0.01,0,60,60,USD,2020-01-01,,toll_inbound",
            "44,A,0.01,0,60,60,USD,2026-01-01,,outbound",
            "44,A,0.01,0,60,60,USD,2020-06-01,2020-07-01,outbound",
            "45,A,0.01,0,60,60,USD,2020-12-31,2021-01-02,outbound",
        ],
        &[
            (4, "dates overlap line 8: outbound 45 has one row at a time"),
            (6, "dates overlap line 2: outbound 44 has one row at a time"),
            (7, "dates overlap line 2: outbound 44 has one row at a time"),
            (8, "dates overlap line 3: outbound 45 has one row at a time"),
        ],
    );
}

#[test]
fn what_is_no_deck_at_all_is_refused_in_words() {
    let header = HEADER.join(",");
    let swapped = header.replace("prefix,destination", "destination,prefix");
    let row = "44,A,0.01,0,60,60,USD,2020-01-01,,outbound";
    let expected = format!("expected the header {header}");
    for (text, line, reason) in [
        ("".to_owned(), 1, expected.as_str()),
        ("\n\n".to_owned(), 1, &expected),
        (swapped, 1, &expected),
        (header.replace("prefix", "Prefix"), 1, &expected),
        (format!("{header},notes\n{row},x"), 1, &expected),
        (row.to_owned(), 1, &expected),
        ("\u{0}".to_owned(), 1, &expected),
        (header.clone(), 1, "expected at least one row under the header"),
        (format!("{header}\n\"44,A\n{row}"), 2, "expected 10 fields, got 1"),
    ] {
        let errors = Deck::parse(text.as_bytes()).expect_err("no deck").errors;
        assert_eq!(errors, [LineError { line, reason: reason.to_owned() }], "{text:?}");
    }
    let mut bytes = format!("{header}\n{row}\n").into_bytes();
    bytes.extend(b"45,\xff\xfe,0.01,0,60,60,USD,2020-01-01,,outbound\n");
    let errors = Deck::parse(&bytes).expect_err("no deck").errors;
    assert_eq!(errors, [LineError { line: 3, reason: "expected UTF-8".to_owned() }]);
    assert!(Deck::parse(&vec![b'x'; MAX_BYTES + 1]).is_err());
}

#[test]
fn a_thousand_bad_lines_are_kept_and_the_rest_counted() {
    let rows = vec!["x"; 2_500];
    let errors = deck(&rows).expect_err("no deck");
    assert_eq!((errors.errors.len(), errors.total), (MAX_ERRORS, 2_500));
    assert_eq!(errors.errors[999].line, 1_001);
    assert!(errors.to_string().ends_with("2500 bad lines in all"));
}

#[test]
fn more_than_a_million_rows_are_refused() {
    let mut text = HEADER.join(",") + "\n";
    for i in 0..=MAX_ROWS {
        text += &format!("{},A,0,0,1,1,USD,2020-01-01,,outbound\n", 1_000_000 + i);
    }
    let errors = Deck::parse(text.as_bytes()).expect_err("too long").errors;
    let reason = "expected at most 1000000 rows".to_owned();
    assert_eq!(errors, [LineError { line: 1_000_002, reason }]);
}

#[test]
fn dates_are_iso_days_or_rfc_3339_times_and_nothing_else() {
    for (text, millis) in [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T00:00:01.2345Z", 1_234),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T16:00:00-08:00", 0),
    ] {
        assert_eq!(read_instant(text), Some(Millis(millis)), "{text}");
    }
    for text in [
        "19700101",
        "1970-1-1",
        "1970-01-01 ",
        "1970-13-01",
        "1970-01-01T00:00Z",
        "1970-01-01T00:00:00",
        "1970-01-01 00:00:00Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+0100",
        "1970-01-01T00:00:00Z[UTC]",
        "1970-01-01T25:00:00Z",
        "+001970-01-01",
        "１970-01-01",
        "today",
    ] {
        assert_eq!(read_instant(text), None, "{text}");
    }
}

#[test]
fn the_sample_deck_is_a_deck_and_prices_what_it_should() {
    let deck = Deck::parse(include_bytes!("../../../samples/sample-deck.csv")).expect("a deck");
    assert_eq!(deck.currency(), "USD");
    assert_eq!(deck.default_rate(Outbound, NOW), None, "unrated must stay possible");
    for direction in [TollFreeInbound, TollInbound] {
        let default = deck.default_rate(direction, NOW).expect("a default row");
        assert!(default.destination.starts_with("Sample default"));
    }
    for digits in ["14255550100", "442079460958", "447700900123", "33899123456", "870773111632"] {
        assert!(deck.rate(Outbound, digits, NOW).is_some(), "{digits}");
    }
    for digits in ["5371234567", "85021234567"] {
        check(&deck, Outbound, digits, NOW, None);
    }
    let price = |digits| deck.rate(TollFreeInbound, digits, NOW).map(|r| r.tariff.rate_per_minute);
    assert!(price("14255550100") < price("14165550100"));
    assert!(price("14165550100") < price("17875550100"));
}

/// What a deck is, without a trie: look at every row.
fn naive<'a>(deck: &'a Deck, direction: Direction, digits: &str, at: Millis) -> Option<&'a str> {
    deck.rows()
        .iter()
        .filter(|r| r.direction == direction && r.from <= at && at < r.to)
        .filter(|r| &*r.prefix == "*" || digits.starts_with(&*r.prefix))
        .max_by_key(|r| if &*r.prefix == "*" { 0 } else { r.prefix.len() })
        .map(|r| &*r.prefix)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_trie_finds_what_a_scan_of_all_rows_finds(
        rows in prop::collection::btree_map(
            ("[1-3]{1,4}|\\*", prop::sample::select(&Direction::ALL[..]), 0u32..3),
            prop::bool::ANY,
            1..60,
        ),
        numbers in prop::collection::vec("[1-4]{0,6}", 20),
    ) {
        let lines: Vec<String> = rows
            .iter()
            .map(|((prefix, direction, year), short)| {
                let to = if *short { format!("{}-07-01", 2020 + year) } else { format!("{}-01-01", 2021 + year) };
                format!("{prefix},A,0.01,0,60,60,USD,{}-01-01,{to},{direction}", 2020 + year)
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let deck = deck(&lines).expect("a deck");
        for digits in &numbers {
            for direction in Direction::ALL {
                for instant in ["2019-01-01", "2020-03-01", "2020-09-01", "2021-01-01", "2022-08-01"] {
                    let found = deck.rate(direction, digits, at(instant)).map(|r| r.prefix);
                    prop_assert_eq!(found, naive(&deck, direction, digits, at(instant)));
                }
            }
        }
    }

    #[test]
    fn whatever_bytes_come_parsing_does_not_panic(
        body in prop::collection::vec(any::<u8>(), 0..400),
        text in "[0-9,.*\\-\"\r\nA-Za-z:Z+]{0,400}",
    ) {
        let header = HEADER.join(",") + "\n";
        for body in [body.as_slice(), text.as_bytes()] {
            let _ = Deck::parse(body);
            let _ = Deck::parse(&[header.as_bytes(), body].concat());
        }
    }
}
