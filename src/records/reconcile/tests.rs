//! Small files beside small days.

use super::*;
use crate::records::cdr::CdrReader;

const START: i64 = 1_794_312_000_000; // 2026-11-10T12:00:00Z

fn settings() -> Settings {
    Settings { tolerance: Millis(2000), charge_tolerance: Micros::ZERO, from: None, to: None }
}

fn ours(call_id: &'static str, seconds: i64, charge: i64) -> OurRecord<'static> {
    OurRecord {
        call_id,
        sip_call_id: "",
        called: "+33123456789",
        start: Millis(START),
        duration: Seconds(seconds),
        charge: Micros(charge),
        currency: Currency::parse("USD"),
        refused: false,
    }
}

fn compared(settings: Settings, theirs: &str, records: &[OurRecord<'_>]) -> Report {
    let header = "call_id,sip_call_id,called,start,duration,charge,currency\n";
    let text = format!("{header}{theirs}");
    let mut reader = CdrReader::new(text.as_bytes(), b',', &[]).expect("a header");
    let mut reconciliation = Reconciliation::new(settings);
    while let Some(call) = reader.next_call() {
        reconciliation.add_theirs(call.expect("a call"));
    }
    records.iter().for_each(|record| reconciliation.add_ours(record));
    reconciliation.finish()
}

/// The differences as `KIND call line`.
fn told(report: &Report) -> Vec<String> {
    let line = |of: &Difference| of.line.map_or("-".to_owned(), |line| line.to_string());
    let differences = report.differences.iter();
    differences.map(|of| format!("{} {} {}", of.kind.word(), of.call_id, line(of))).collect()
}

#[track_caller]
fn check(theirs: &str, records: &[OurRecord<'_>], expected: &[&str]) -> Report {
    let report = compared(settings(), theirs, records);
    assert_eq!(told(&report), expected, "{theirs}");
    report
}

#[test]
fn equal_calls_are_no_difference() {
    let report = check(
        "a,,+33123456789,1794312000,61,0.25,USD\nb,,,1794312060,30,,\n",
        &[ours("a", 61, 250_000), ours("b", 30, 100_000)],
        &[],
    );
    let totals = &report.totals;
    assert_eq!((totals.matched, totals.ours.calls, totals.theirs.calls), (2, 2, 2));
    assert_eq!((totals.ours.duration, totals.theirs.duration), (Seconds(91), Seconds(91)));
    let usd = totals.money[&Currency::parse("USD")];
    assert_eq!((usd.ours, usd.theirs), (Micros(350_000), Micros(250_000)));
}

#[test]
fn what_only_one_side_has_is_told_apart_from_what_was_refused() {
    let report = check(
        "x,,+44207946000,1794312000,600,,\nr,,+33123456789,1794312000,10,,\nz,,+331,1794312001,0,,\n",
        &[ours("a", 61, 0), OurRecord { refused: true, ..ours("r", 0, 0) }],
        &["ONLY_IN_THEIRS x 2", "REFUSED_BUT_CARRIED r 3", "ONLY_IN_OURS a -"],
    );
    assert_eq!((report.totals.matched, report.totals.unanswered), (0, 1));
    assert_eq!(report.differences[0].theirs.map(|side| side.duration), Some(Seconds(600)));
    assert_eq!((report.totals.ours.calls, report.totals.theirs.calls), (1, 3));
}

#[test]
fn a_refused_call_that_nobody_carried_is_no_difference() {
    let refused = OurRecord { refused: true, ..ours("r", 0, 0) };
    check("r,,,1794312000,0,,\na,,,1794312000,5,,\n", &[refused, ours("a", 5, 0)], &[]);
    check("a,,,1794312000,5,,\n", &[refused, ours("a", 5, 0)], &[]);
}

#[test]
fn durations_and_charges_are_compared_with_a_tolerance() {
    let lines = "a,,,1794312000,63,0.25,\nb,,,1794312000,64,0.26,\n";
    let records = [ours("a", 61, 250_000), ours("b", 61, 250_000)];
    let report = check(lines, &records, &["DURATION_DIFFERS b 3", "CHARGE_DIFFERS b 3"]);
    let difference = &report.differences[0];
    assert_eq!(difference.ours.map(|side| side.duration), Some(Seconds(61)));
    assert_eq!(difference.theirs.map(|side| side.duration), Some(Seconds(64)));
    let loose =
        Settings { tolerance: Millis(3000), charge_tolerance: Micros(10_000), ..settings() };
    assert_eq!(told(&compared(loose, lines, &records)), [""; 0]);
}

#[test]
fn another_currency_is_another_charge() {
    let report =
        check("a,,,1794312000,61,0.25,EUR\n", &[ours("a", 61, 250_000)], &["CHARGE_DIFFERS a 2"]);
    let currencies: Vec<_> =
        report.totals.money.keys().flatten().map(Currency::to_string).collect();
    assert_eq!(currencies, ["EUR", "USD"]);
}

#[test]
fn late_charges_and_corrections_of_a_call_are_summed() {
    let late = OurRecord { start: Millis(START + 1000), ..ours("a", 60, 100_000) };
    let corrected = ours("a", 0, -50_000);
    let records = [ours("a", 1, 150_000), late, corrected];
    check("a,,,1794312000,61,0.2,USD\n", &records, &[]);
    // The same where the call is found by its number.
    check(",,+33123456789,1794312000,61,0.2,USD\n", &records, &[]);
}

#[test]
fn what_was_corrected_to_nothing_is_missed_by_nobody() {
    check(
        "x,,+442079460000,1794312000,0,,\n",
        &[ours("a", 61, 250_000), ours("a", -61, -250_000), ours("before", -30, 0)],
        &[],
    );
}

#[test]
fn a_call_that_was_tried_again_after_a_refusal_was_granted() {
    let refused = OurRecord { refused: true, start: Millis(START - 60_000), ..ours("a", 0, 0) };
    for records in [[refused, ours("a", 61, 0)], [ours("a", 61, 0), refused]] {
        check("a,,,1794312000,61,,\n", &records, &[]);
        check(",,0033123456789,1794312000,61,,\n", &records, &[]);
    }
}

#[test]
fn calls_without_a_common_call_id_are_matched_by_sip_call_id() {
    let leg = |call_id, called, start: i64| OurRecord {
        sip_call_id: "s@h",
        called,
        start: Millis(START + start),
        ..ours(call_id, 61, 0)
    };
    // A hairpin: two legs of one Call-ID, told apart by number, else by start.
    check(
        "theirs-1,s@h,+33123456780,1794312000,61,,\ntheirs-2,s@h,+33123456781,1794312000,61,,\n",
        &[leg("a|2", "+33123456781", 0), leg("a|1", "+33123456780", 0)],
        &[],
    );
    let report = check(
        ",s@h,,1794312100,50,,\n,s@h,,1794312000,61,,\n",
        &[leg("a|2", "+33123456781", 100_000), leg("a|1", "+33123456780", 0)],
        &["DURATION_DIFFERS a|2 2"],
    );
    assert_eq!(report.totals.matched, 2);
}

#[test]
fn calls_without_any_common_id_are_matched_by_number_and_start() {
    let at =
        |call_id, millis: i64| OurRecord { start: Millis(START + millis), ..ours(call_id, 61, 0) };
    for number in
        ["+33123456789", "33123456789", "0033123456789", "0123456789", "+33 1 23 45 67 89"]
    {
        check(&format!(",,{number},1794312001,61,,\n"), &[at("a", 0)], &[]);
    }
    check(
        ",,+33123456788,1794312000,61,,\n",
        &[at("a", 0)],
        &["ONLY_IN_THEIRS  2", "ONLY_IN_OURS a -"],
    );
    // The nearest, whatever the order; nothing further off than the tolerance.
    check(
        ",,0123456789,1794312002,61,,\n,,0123456789,1794312000,50,,\n",
        &[at("b", 2000), at("a", 0)],
        &["DURATION_DIFFERS a 3"],
    );
    let report = check(",,0123456789,1794312003,61,,\n", &[at("a", 0)], &["ONLY_IN_THEIRS  2"]);
    assert_eq!(report.totals.ours.calls, 0, "ours started before the first of theirs");
    // Masked by the organisation's country, and an emergency number.
    let masked = OurRecord { called: "+3312345****", ..at("m", 0) };
    let emergency = OurRecord { called: "112", ..at("e", 0) };
    check(",,0123456789,1794312000,61,,\n,,112,1794312000,61,,\n", &[masked, emergency], &[]);
}

#[test]
fn lines_that_are_there_twice_are_told() {
    check(
        "a,,,1794312000,61,,\na,,,1794312000,61,,\na,,,1794312500,61,,\n",
        &[ours("a", 61, 0)],
        &["DUPLICATE_IN_THEIRS a 3", "DUPLICATE_IN_THEIRS a 4"],
    );
    let sip = OurRecord { sip_call_id: "s@h", ..ours("a", 61, 0) };
    let report = check(
        ",s@h,0123456789,1794312000,61,,\n,s@h,0123456789,1794312001,61,,\n",
        &[sip],
        &["DUPLICATE_IN_THEIRS  3"],
    );
    assert_eq!(report.differences[0].first_line, Some(2));
    assert_eq!((report.totals.theirs.calls, report.totals.matched), (2, 1));
    // Two calls to one number at one instant are two calls.
    check(
        ",,0123456789,1794312000,61,,\n,,0123456789,1794312000,30,,\n,,0123456789,1794312000,61,,\n",
        &[ours("a", 61, 0), ours("b", 30, 0)],
        &["DUPLICATE_IN_THEIRS  4"],
    );
}

#[test]
fn only_calls_of_the_window_are_told_but_their_neighbours_are_matched() {
    let (from, to) = (Some(Millis(START)), Some(Millis(START + 60_000)));
    let settings = Settings { from, to, ..settings() };
    let at =
        |call_id, millis: i64| OurRecord { start: Millis(START + millis), ..ours(call_id, 61, 0) };
    let report = compared(
        settings,
        // Far before, just before, within, just after, far after.
        ",,+331000000,1794311000,9,,\na,,,1794311999,61,,\nb,,,1794312059,61,,\nc,,,1794312061,9,,\n,,+331000000,1794313000,9,,\n",
        &[at("early", -1), at("a", 0), at("b", 60_000), at("late", 60_000), at("in", 1)],
    );
    assert_eq!(told(&report), ["ONLY_IN_OURS in -"]);
    assert_eq!((report.totals.outside, report.totals.matched), (3, 2));
}

#[test]
fn nothing_on_both_sides_is_equal() {
    assert_eq!(compared(settings(), "", &[]), Report::default());
}
