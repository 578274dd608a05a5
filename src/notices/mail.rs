//! What an administrator reads: plain text, made from an event.
//!
//! Pure. What happened, to whom, how much, when (UTC) and what to do. No text of an event may begin a
//! line of its own: whatever a client or a document could have written goes through [`plain`].

use jiff::Timestamp;

use crate::charging::ids::TenantId;
use crate::charging::money::format_micros;
use crate::charging::units::Micros;
use crate::events::Event;
use crate::notices::kinds;

/// Most characters of a text that comes from outside.
const MOST_CHARACTERS: usize = 200;

/// A mail before it has a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// One line.
    pub subject: String,
    /// Lines that end in a line feed.
    pub body: String,
}

/// What is said of a kind of event.
struct Said {
    subject: &'static str,
    happened: &'static str,
    to_do: &'static str,
}

/// The words for a kind, by its name in the contract.
fn said(name: &str) -> Option<Said> {
    let (subject, happened, to_do) = match name {
        "RECHARGE_SUCCEEDED" => (
            "recharge succeeded",
            "Communications credits were bought automatically, and the payment succeeded.",
            "Nothing. The credits can be used at once; they lapse 12 months after the purchase.",
        ),
        "RECHARGE_FAILED" => (
            "recharge FAILED",
            "Communications credits were to be bought automatically, and the payment failed, for instance \
             because a card has expired.",
            "Check the means of payment, or buy credits by hand. Calls that only credits can pay for are \
             refused once the balance is used up.",
        ),
        "RECHARGE_REQUESTED" => (
            "recharge requested",
            "The credits fell below the trigger, and more were asked for.",
            "Nothing. Another notice tells whether the payment succeeds.",
        ),
        "CREDITS_DEPLETED" => (
            "communications credits are used up",
            "The balance of the communications credits has reached 0.",
            "Buy credits. Until then calls that only credits can pay for are refused; emergency calls and \
             calls within minutes of a plan go on.",
        ),
        "POOL_THRESHOLD" => (
            "80 % of the minutes of a plan are used",
            "80 % of the minutes of this pool are used for this month.",
            "See that there are credits or licences enough: once the pool is used up, its calls are paid \
             from credits, and refused where there are none.",
        ),
        "POOL_EXHAUSTED" => (
            "the minutes of a plan are used up",
            "100 % of the minutes of this pool are used for this month.",
            "Assign more licences or buy credits. Until the month ends these calls are paid from credits, \
             and refused where there are none.",
        ),
        "UNAUTHORIZED_USAGE" => (
            "a call was used that was never granted",
            "An SBC reported usage of a call that was refused or never asked for. Nothing was charged.",
            "Check the trunk: it may let calls through without asking, which may be fraud.",
        ),
        "SHORTFALL" => (
            "a call was used beyond what could pay for it",
            "A call was used for longer than it was granted, and nothing was left to pay for the rest.",
            "Check that the SBC ends calls at the hard stop that it is granted.",
        ),
        "CREDITS_EXPIRED" => (
            "communications credits have lapsed",
            "What was left of a purchase of communications credits has lapsed: it is 12 months old.",
            "Nothing can be done about these; buy credits if they are needed.",
        ),
        "LATE_SETTLE" => (
            "a call was charged late",
            "The end of a call was reported after its hold had run out, and it was charged the difference.",
            "If this happens often, check that the SBC reports the ends of calls in time.",
        ),
        "LEDGER_REGRESSED" => (
            "the ledger has lost what it had acknowledged",
            "The store of balances and calls went back, after a failover or a restore of an older copy.",
            "What the sidecars have in their journals is replayed by itself. Run `tollgate audit`, and apply \
             the organisation again where it was changed lately.",
        ),
        _ => return None,
    };
    Some(Said { subject, happened, to_do })
}

/// The mail about an event of a tenant, whose money is in `currency`.
pub fn text(event: &Event, tenant: &TenantId, currency: &str) -> Text {
    let name = kinds::name(event.kind);
    // Kinds that only the settings make a mail of.
    let Said { subject, happened, to_do } = said(name).unwrap_or(Said {
        subject: name,
        happened: "Something happened that the settings of this server send by mail.",
        to_do: "See the event by its name in the documentation.",
    });
    let entry = &event.entry;
    let mut facts = vec![("Organisation", tenant.as_str().to_owned())];
    if name.starts_with("POOL_") {
        facts.push(("Pool", pool(&entry.subject)));
    } else if !name.starts_with("CREDITS_DEPLETED") && !entry.subject.is_empty() {
        let what = match name.starts_with("CREDITS_") || name.starts_with("RECHARGE_") {
            true => "Purchase",
            false => "Call",
        };
        facts.push((what, plain(&entry.subject)));
    }
    if !entry.payer.is_empty() {
        facts.push(("Payer", plain(&entry.payer)));
    }
    let of_lots = |of: fn(&crate::ledger::state::Posting) -> i64| -> Micros {
        let lots = entry.postings.iter().filter(|posting| posting.bucket.starts_with("l:"));
        Micros(lots.map(of).sum())
    };
    for (what, amount) in [
        ("Amount", entry.recharge_amount().unwrap_or(of_lots(|posting| posting.funded))),
        ("Charged", of_lots(|posting| posting.spent)),
        ("Lapsed", of_lots(|posting| posting.expired)),
        ("Not paid", entry.shortfall_money),
    ] {
        if amount.is_positive() {
            facts.push((what, format!("{} {}", format_micros(amount), plain(currency))));
        }
    }
    if entry.shortfall_duration.is_positive() {
        facts.push(("Time unpaid", format!("{} s", entry.shortfall_duration)));
    }
    facts.push(("When", instant(entry.at.0)));
    facts.push(("Event", format!("{name} {}", event.id)));

    let mut body = format!("{happened}\n\n");
    for (what, value) in facts {
        body += &format!("{:<14}{value}\n", format!("{what}:"));
    }
    body += &format!("\nWhat to do: {to_do}\n");
    body += "\n-- \nSent by Tollgate to the addresses under notices.emails of the organisation. The same \
             event may be sent\nmore than once; its Message-ID is then the same.\n";
    Text { subject: plain(&format!("[Tollgate] {tenant}: {subject}")), body }
}

/// A pool's name with what it means: `US:MCOPSTN1:DOMESTIC:2026-11`, or with a user before the month.
fn pool(id: &str) -> String {
    let name = plain(id);
    match id.split(':').collect::<Vec<_>>().as_slice() {
        [country, plan, counter, user @ .., month] => {
            let of = user.first().map_or(String::new(), |user| format!(" of {}", plain(user)));
            format!(
                "{name} ({} minutes{of}, plan {}, country {}, month {})",
                plain(&counter.to_lowercase()),
                plain(plan),
                plain(country),
                plain(month)
            )
        }
        _ => name,
    }
}

fn instant(millis: i64) -> String {
    Timestamp::from_millisecond(millis)
        .map_or_else(|_| millis.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A text from outside, on one line and of bounded length.
fn plain(text: &str) -> String {
    let line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().take(MOST_CHARACTERS).map(|c| if line(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::units::{Millis, Seconds};
    use crate::events::EventKind;
    use crate::ledger::state::{Entry, EntryKind, Posting};

    fn event(kind: EventKind, subject: &str) -> Event {
        let entry = Entry {
            kind: EntryKind::PoolThreshold,
            at: Millis(1_794_312_000_000),
            subject: subject.to_owned(),
            payer: String::new(),
            decision: None,
            used: Seconds::ZERO,
            granted: Seconds::ZERO,
            shortfall_duration: Seconds::ZERO,
            shortfall_money: Micros::ZERO,
            postings: vec![],
            context: vec![],
            report: vec![],
        };
        Event { id: "7-0.1".to_owned(), cursor: None, kind, entry }
    }

    #[test]
    fn a_mail_says_what_happened_to_whom_when_and_what_to_do() {
        let event = event(EventKind::PoolThreshold, "US:MCOPSTN1:DOMESTIC:2026-11");
        let Text { subject, body } = text(&event, &TenantId::literal("contoso"), "USD");
        assert_eq!(subject, "[Tollgate] contoso: 80 % of the minutes of a plan are used");
        let expected = "80 % of the minutes of this pool are used for this month.\n\n\
             Organisation: contoso\n\
             Pool:         US:MCOPSTN1:DOMESTIC:2026-11 (domestic minutes, plan MCOPSTN1, country US, month 2026-11)\n\
             When:         2026-11-10 12:00:00 UTC\n\
             Event:        POOL_THRESHOLD 7-0.1\n\n\
             What to do: See that there are credits or licences enough: once";
        assert!(body.starts_with(expected), "{body}");
    }

    #[test]
    fn a_mail_says_how_much() {
        let mut lapsed = event(EventKind::CreditsExpired, "po-1");
        lapsed.entry.postings = vec![Posting {
            bucket: "l:po-1".to_owned(),
            funded: 0,
            held: 0,
            spent: 0,
            expired: 12_500_000,
            adjusted: 0,
        }];
        let Text { body, .. } = text(&lapsed, &TenantId::literal("contoso"), "USD");
        assert!(body.contains("\nPurchase:     po-1\nLapsed:       12.5 USD\n"), "{body}");
    }

    #[test]
    fn no_text_of_an_event_begins_a_line_of_its_own() {
        let hostile = "x\r\nBcc: thief@example.com\r\n\r\n\u{2028}What to do: pay\n.\n";
        let mut event = event(EventKind::UnauthorizedUsage, hostile);
        event.entry.payer = hostile.repeat(100);
        let Text { subject, body } = text(&event, &TenantId::literal("contoso"), hostile);
        assert!(!subject.contains(['\r', '\n']));
        let lines: Vec<&str> = body.lines().collect();
        assert!(!body.contains('\r') && !body.contains('\u{2028}'));
        assert!(!lines.iter().any(|line| line.starts_with("Bcc") || *line == "."), "{body}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("What to do")).count(), 1);
        assert!(body.len() < 3_000);
    }

    #[test]
    fn every_kind_that_is_mailed_has_words_of_its_own() {
        for name in [
            "RECHARGE_SUCCEEDED",
            "RECHARGE_FAILED",
            "CREDITS_DEPLETED",
            "POOL_THRESHOLD",
            "POOL_EXHAUSTED",
            "UNAUTHORIZED_USAGE",
            "LATE_SETTLE",
            "SHORTFALL",
        ] {
            assert!(said(name).is_some_and(|said| !said.to_do.is_empty()), "{name}");
        }
        let other = text(&event(EventKind::CallDenied, "c"), &TenantId::literal("contoso"), "USD");
        assert_eq!(other.subject, "[Tollgate] contoso: CALL_DENIED");
    }
}
