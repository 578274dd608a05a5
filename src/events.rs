//! Events: what a tenant's journal tells those who follow it.
//!
//! Pure: an entry of the journal becomes the events that it means, in order. An event's id never changes,
//! so that a reader who is sent one twice knows it; its cursor is where reading goes on, and moves past an
//! entry only with the entry's last event, so that nothing is missed.

use crate::charging::decision::Decision;
use crate::charging::ids::names_lease;
use crate::ledger::state::{Entry, EntryKind};

/// What an event tells, by the contract's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A call was charged.
    CallSettled,
    /// A call was refused.
    CallDenied,
    /// A hold ran out; what was proven is charged.
    CallExpired,
    /// A released or expired call was charged after all.
    LateSettle,
    /// Nothing is left or held in any lot.
    CreditsDepleted,
    /// A lot's unused rest lapsed.
    CreditsExpired,
    /// 80 % of a pool are spent.
    PoolThreshold,
    /// All of a pool is spent.
    PoolExhausted,
    /// Usage that nothing paid for.
    Shortfall,
    /// Usage that was never granted.
    UnauthorizedUsage,
    /// An emergency call was let through.
    EmergencyCall,
    /// The balance is below the trigger: the payment system is asked for money.
    RechargeRequested,
    /// A requested recharge is in the wallet.
    RechargeSucceeded,
    /// A requested recharge was reported failed.
    RechargeFailed,
    /// The ledger has lost what it had acknowledged.
    LedgerRegressed,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique within the tenant: the entry's cursor and the place within it.
    pub id: String,
    /// Where reading goes on after this event; `None`: at the beginning.
    pub cursor: Option<String>,
    /// What it tells.
    pub kind: EventKind,
    /// The entry that it is read from.
    pub entry: Entry,
}

/// The events of the entry at `cursor`, which follows the one at `before`.
pub fn events_of(before: Option<&str>, cursor: &str, entry: &Entry) -> Vec<Event> {
    let kinds = kinds(entry);
    let last = kinds.len();
    kinds
        .into_iter()
        .enumerate()
        .map(|(i, kind)| Event {
            id: format!("{cursor}.{}", i + 1),
            cursor: match i + 1 == last {
                true => Some(cursor.to_owned()),
                false => before.map(str::to_owned),
            },
            kind,
            entry: entry.clone(),
        })
        .collect()
}

fn kinds(entry: &Entry) -> Vec<EventKind> {
    let mut kinds = vec![];
    // Nobody calls on a lease.
    if names_lease(&entry.subject) {
        return kinds;
    }
    kinds.extend(match entry.kind {
        EntryKind::Settled => Some(EventKind::CallSettled),
        EntryKind::SettledLate => Some(EventKind::LateSettle),
        EntryKind::Refused => Some(EventKind::CallDenied),
        EntryKind::Expired | EntryKind::ExpiredAsGranted => Some(EventKind::CallExpired),
        EntryKind::Parked => Some(EventKind::UnauthorizedUsage),
        EntryKind::LotExpired => Some(EventKind::CreditsExpired),
        EntryKind::PoolThreshold => Some(EventKind::PoolThreshold),
        EntryKind::PoolExhausted => Some(EventKind::PoolExhausted),
        EntryKind::CreditsDepleted => Some(EventKind::CreditsDepleted),
        EntryKind::RechargeRequested => Some(EventKind::RechargeRequested),
        EntryKind::RechargeSucceeded => Some(EventKind::RechargeSucceeded),
        EntryKind::RechargeFailed => Some(EventKind::RechargeFailed),
        EntryKind::LedgerRegressed => Some(EventKind::LedgerRegressed),
        EntryKind::Authorized if entry.decision == Some(Decision::AllowedEmergency) => {
            Some(EventKind::EmergencyCall)
        }
        EntryKind::Authorized
        | EntryKind::Extended
        | EntryKind::Reopened
        | EntryKind::Released
        | EntryKind::Purchased
        | EntryKind::Adjusted
        | EntryKind::PayerBlocked
        | EntryKind::PayerUnblocked
        | EntryKind::ShortfallCollected
        | EntryKind::Opening
        | EntryKind::NumbersErased
        | EntryKind::Restored => None,
    });
    let charged = matches!(
        entry.kind,
        EntryKind::Settled
            | EntryKind::SettledLate
            | EntryKind::Expired
            | EntryKind::ExpiredAsGranted
    );
    if charged && (entry.shortfall_duration.is_positive() || entry.shortfall_money.is_positive()) {
        kinds.push(EventKind::Shortfall);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::units::{Micros, Millis, Seconds};

    fn entry(kind: EntryKind) -> Entry {
        Entry {
            kind,
            at: Millis(7),
            subject: "c".to_owned(),
            payer: String::new(),
            decision: None,
            used: Seconds::ZERO,
            granted: Seconds::ZERO,
            shortfall_duration: Seconds::ZERO,
            shortfall_money: Micros::ZERO,
            postings: vec![],
            context: vec![],
            report: vec![],
        }
    }

    #[test]
    fn a_reader_who_stops_between_two_events_of_an_entry_gets_both_again() {
        let short = Entry { shortfall_duration: Seconds(3), ..entry(EntryKind::Settled) };
        let events = events_of(Some("1-0"), "2-0", &short);
        let told: Vec<_> =
            events.iter().map(|e| (e.id.as_str(), e.cursor.as_deref(), e.kind)).collect();
        let expected = [
            ("2-0.1", Some("1-0"), EventKind::CallSettled),
            ("2-0.2", Some("2-0"), EventKind::Shortfall),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_only_moves_holds_is_no_event_but_an_emergency_is() {
        for kind in [EntryKind::Authorized, EntryKind::Extended, EntryKind::Released] {
            assert_eq!(events_of(None, "1", &entry(kind)), []);
        }
        let emergency =
            Entry { decision: Some(Decision::AllowedEmergency), ..entry(EntryKind::Authorized) };
        assert_eq!(events_of(None, "1", &emergency)[0].kind, EventKind::EmergencyCall);
    }
}
