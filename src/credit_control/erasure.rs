//! What is taken out of a record when its telephone numbers are erased. Pure.
//!
//! Numbers keep their country code, which prices and statistics need, and lose every other digit; texts
//! that may repeat one are cleared. What money, replays and the audit rest on is not touched: payer,
//! decision, class, country, tariff and fingerprint.

use serde::{Deserialize, Serialize};

use crate::charging::catalogue::CountryCode;
use crate::charging::entitlement::CallClass;
use crate::charging::number;
use crate::charging::units::Millis;
use crate::credit_control::answer::{CallContext, EndReport};
use crate::ledger::state::{Entry, EntryKind};

/// Digits at the end of a number by which it is looked for before it is read.
const TAIL: usize = 6;

/// Whose numbers are erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    Everybodys,
    /// Those of one telephone number, in whatever form it was presented or dialled.
    Of(Wanted),
}

/// One telephone number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Without the plus.
    digits: String,
    /// Countries in which it may have been dialled without its country code.
    homes: Vec<CountryCode>,
}

impl Wanted {
    /// An E.164 number, `+` and 7 to 15 digits, as it would be dialled in its own country, in that of the
    /// organisation and in the US. `None` for anything else.
    pub fn new(e164: &str, organisation: Option<CountryCode>) -> Option<Wanted> {
        let digits = e164.strip_prefix('+')?;
        let is_number = (TAIL + 1..=15).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_digit());
        let own = number::read(e164, CountryCode::US).ok().and_then(|number| number.country);
        let mut homes = vec![CountryCode::US];
        homes.extend(own);
        homes.extend(organisation);
        homes.sort();
        homes.dedup();
        is_number.then(|| Wanted { digits: digits.to_owned(), homes })
    }

    /// Whether a text is this number.
    pub fn is(&self, text: &str) -> bool {
        let user = text.split(['@', ';']).next().unwrap_or_default();
        let digits: String = user.chars().filter(char::is_ascii_digit).collect();
        if !digits.ends_with(&self.digits[self.digits.len() - TAIL..]) {
            return false;
        }
        let is_read = |home: &CountryCode| {
            number::read(user, *home).is_ok_and(|number| number.digits() == self.digits)
        };
        digits == self.digits || self.homes.iter().any(is_read)
    }

    /// Whether a text holds all of this number's digits in a row.
    pub fn is_in(&self, text: &str) -> bool {
        text.contains(&self.digits)
    }
}

impl Whose {
    fn is(&self, number: &str) -> bool {
        match self {
            Whose::Everybodys => !number.is_empty(),
            Whose::Of(wanted) => wanted.is(number),
        }
    }
}

/// What an erasure leaves behind it in the journal, in its entry's context. It does not say which number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureNote {
    /// Entries in which something was erased.
    pub entries: u64,
    /// Kept calls in which something was erased.
    pub calls: u64,
    /// Everybody's numbers before this instant; `None`: one number's.
    #[serde(default)]
    pub before: Option<Millis>,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: String,
    /// Who asked for it; empty: the retention of the organisation file.
    #[serde(default)]
    pub operator: String,
}

impl ErasureNote {
    /// As the journal keeps it.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Of an entry; `None` where it cannot be read.
    pub fn decode(bytes: &[u8]) -> Option<ErasureNote> {
        rmp_serde::from_slice(bytes).ok()
    }
}

/// Erases what a journal entry says; whether it said anything.
pub fn erase_entry(entry: &mut Entry, whose: &Whose) -> bool {
    if !entry.is_of_call() {
        return false;
    }
    let context = erased_context(&entry.context, whose);
    // What the client said at the end of the call goes with what it said at the beginning. What an operator
    // said of a correction is no report of an end: its key, reason and name stay.
    let cleared = match (whose, &context) {
        _ if entry.kind == EntryKind::Adjusted => None,
        (Whose::Of(_), None) => None,
        _ => erased_report(&entry.report),
    };
    let erased = context.is_some() || cleared.is_some();
    entry.context = context.unwrap_or_else(|| std::mem::take(&mut entry.context));
    entry.report = cleared.unwrap_or_else(|| std::mem::take(&mut entry.report));
    erased
}

/// The context of a call without the numbers; `None` where there is nothing to erase.
pub fn erased_context(bytes: &[u8], whose: &Whose) -> Option<Vec<u8>> {
    if bytes.is_empty() {
        return None;
    }
    let Some(mut context) = CallContext::decode(bytes) else {
        // Nobody can tell what it holds.
        return (*whose == Whose::Everybodys).then(Vec::new);
    };
    let before = context.clone();
    let emergency =
        context.classification.as_ref().is_some_and(|found| found.class == CallClass::Emergency);
    let e164 = context.classification.as_ref().map_or("", |found| &found.e164);
    let called = whose.is(&context.called_number) || whose.is(e164);
    let (calling, original) =
        (whose.is(&context.calling_number), whose.is(&context.original_called_number));
    if !(called || calling || original || *whose == Whose::Everybodys) {
        return None;
    }
    if calling {
        context.calling_number = erased(&context.calling_number);
    }
    // The number of an emergency service is nobody's.
    if original && !number::is_emergency_anywhere(&context.original_called_number) {
        context.original_called_number = erased(&context.original_called_number);
    }
    if called && !emergency {
        context.called_number = erased(&context.called_number);
        if let Some(found) = &mut context.classification {
            found.e164 = erased(&found.e164);
        }
    }
    context.sip_call_id.clear();
    context.labels.clear();
    context.detail = without_long_digits(&context.detail);
    for warning in &mut context.warnings {
        *warning = without_long_digits(warning);
    }
    (context != before).then(|| context.encode())
}

/// The report of an end without the client's texts; `None` where it has none.
pub(super) fn erased_report(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.is_empty() {
        return None;
    }
    match rmp_serde::from_slice::<EndReport>(bytes) {
        Ok(report) if report.labels.is_empty() => None,
        Ok(report) => Some(EndReport { labels: Default::default(), ..report }.encode()),
        Err(_) => Some(vec![]),
    }
}

/// A number with its country code, and asterisks for the rest; asterisks alone where it is none.
pub fn erased(number: &str) -> String {
    if number.contains('*') {
        return match number.trim_start_matches('+').trim_start_matches(|c: char| c.is_ascii_digit())
        {
            rest if rest.chars().all(|c| c == '*') => number.to_owned(),
            _ => "*".repeat(number.chars().count()),
        };
    }
    let read = number.starts_with('+').then(|| number::read(number, CountryCode::US));
    match read {
        Some(Ok(read)) => {
            let code = read.calling_code.to_string();
            format!("+{code}{}", "*".repeat(read.digits().len() - code.len()))
        }
        _ => "*".repeat(number.chars().count()),
    }
}

/// A sentence without the numbers in it: five digits in a row or more.
fn without_long_digits(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(first);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        kept += before;
        match end {
            0..5 => kept += &from[..end],
            _ => kept.extend(std::iter::repeat_n('*', end)),
        }
        rest = &from[end..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::decision::Decision;
    use crate::charging::entitlement::CallType;
    use crate::charging::units::{Micros, Seconds};
    use crate::credit_control::answer::AdjustmentReport;

    fn context(calling: &str, called: &str) -> CallContext {
        let bytes = rmp_serde::to_vec_named(&serde_json::json!({
            "decision_id": "d", "call_type": CallType::UserOutbound,
            "calling_number": calling, "called_number": called,
            "detail": "the number +4930123456 is blocked by rule 23",
            "sip_call_id": "4930123456@sbc", "labels": { "caller": "4930123456" },
        }));
        CallContext::decode(&bytes.expect("bytes")).expect("a context")
    }

    #[test]
    fn a_number_keeps_its_country_code() {
        for (number, expected) in [
            ("+4930123456", "+49********"),
            ("+14255550123", "+1**********"),
            ("030 123456", "**********"),
            ("anonymous", "*********"),
            ("", ""),
            ("+49********", "+49********"),
            ("+49*30123456", "************"),
        ] {
            assert_eq!(erased(number), expected, "{number}");
        }
    }

    #[test]
    fn a_number_is_found_in_every_form_in_which_it_is_dialled() {
        let german = CountryCode::parse("DE");
        let wanted = Wanted::new("+4930901820", german).expect("a number");
        for text in [
            "+4930901820",
            "4930901820",
            "030 901820",
            "030-90 18 20",
            "0114930901820",
            "+4930901820@sbc.example;user=phone",
        ] {
            assert!(wanted.is(text), "{text}");
        }
        for text in ["", "901820", "+4940901820", "+49309018201", "anonymous", "+49********"] {
            assert!(!wanted.is(text), "{text}");
        }
        for text in ["4930901820", "+49", "+493090182x", "+1234567890123456"] {
            assert_eq!(Wanted::new(text, None), None, "{text}");
        }
    }

    #[test]
    fn the_numbers_of_one_are_erased_and_those_of_others_stay() {
        let whose = Whose::Of(Wanted::new("+4930901820", None).expect("a number"));
        let bytes = context("+14255550123", "+4930901820").encode();
        let erased = erased_context(&bytes, &whose).expect("something to erase");
        let found = CallContext::decode(&erased).expect("a context");
        assert_eq!(found.calling_number, "+14255550123");
        assert_eq!(found.called_number, "+49********");
        assert_eq!((found.sip_call_id.as_str(), found.labels.len()), ("", 0));
        assert_eq!(found.detail, "the number +********** is blocked by rule 23");
        assert_eq!(found.decision_id, "d");
        assert_eq!(erased_context(&erased, &whose), None, "once is enough");
        let other = context("+14255550123", "+4930901821").encode();
        assert_eq!(erased_context(&other, &whose), None);
    }

    #[test]
    fn what_an_operator_said_of_a_correction_stays() {
        let report = AdjustmentReport {
            key: "ticket-4711".to_owned(),
            reason: "the SBC counted on".to_owned(),
            operator: "olivia".to_owned(),
            ..AdjustmentReport::default()
        };
        let entry = |decision| Entry {
            kind: EntryKind::Adjusted,
            at: Millis::ZERO,
            subject: "c".to_owned(),
            payer: String::new(),
            decision,
            used: Seconds::ZERO,
            granted: Seconds::ZERO,
            shortfall_duration: Seconds::ZERO,
            shortfall_money: Micros::ZERO,
            postings: vec![],
            context: context("+14255550123", "+4930901820").encode(),
            report: report.encode(),
        };
        let of_call = entry(Some(Decision::AllowedFree));
        for whose in
            [Whose::Everybodys, Whose::Of(Wanted::new("+4930901820", None).expect("a number"))]
        {
            let mut erased = of_call.clone();
            assert!(erase_entry(&mut erased, &whose));
            assert_eq!(AdjustmentReport::decode(&erased.report), report);
            let found = CallContext::decode(&erased.context).expect("a context");
            assert_eq!(found.called_number, "+49********");
            assert!(!erase_entry(&mut erased, &whose), "once is enough");
        }
        let mut of_balance = entry(None);
        assert!(!erase_entry(&mut of_balance, &Whose::Everybodys));
    }

    #[test]
    fn of_everybody_all_is_erased_and_what_cannot_be_read_too() {
        let whose = Whose::Everybodys;
        let bytes = context("alice", "+4930901820").encode();
        let erased = erased_context(&bytes, &whose).expect("something to erase");
        let found = CallContext::decode(&erased).expect("a context");
        assert_eq!((&*found.calling_number, &*found.called_number), ("*****", "+49********"));
        assert_eq!(erased_context(&erased, &whose), None);
        assert_eq!(erased_context(b"\xc1?", &whose), Some(vec![]));
        assert_eq!(erased_context(b"", &whose), None);
    }
}
