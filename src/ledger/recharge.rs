//! Auto-recharge (rules 49 to 51, D16): when a wallet asks to be refilled, and how its requests stand.
//!
//! Stored values and their rules, pure; `redis/scripts/lib.lua` has the same rules, and the audit replays
//! the journal by them. A request is made where the balance is strictly below the trigger, no other is in
//! flight, no failure is being waited out, and the day's cap allows it. So there is one to a crossing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::charging::ids::LotId;
use crate::charging::profile::{Billing, RechargeOn, TenantProfile, TenantState};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::state::{Bucket, Entry, EntryKind, MAX_MONEY, at_most_one};

/// Length of a day of UTC, in milliseconds.
const DAY: i64 = 86_400_000;

/// What is waited after a first failure; each further one doubles it.
const FIRST_WAIT: Seconds = Seconds(15 * 60);

/// The longest wait.
const LONGEST_WAIT: Seconds = Seconds(24 * 60 * 60);

/// What an auto-recharge is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RechargeTerms {
    /// A balance below it asks.
    pub trigger: Micros,
    /// How much is asked for.
    pub amount: Micros,
    /// Most that is asked for in a day of UTC, less what failed; -1 where there is no cap.
    pub daily_cap: i64,
    /// Whether available money alone is judged, not what is held too.
    pub on_available: bool,
}

impl RechargeTerms {
    /// Those of a tenant: none where nothing is to be asked for. Post-paid tenants buy no credits (rule
    /// 43), and nobody pays for calls that a suspended or removed one cannot make.
    pub fn of(tenant: &TenantProfile) -> Option<RechargeTerms> {
        let recharge = tenant.auto_recharge?;
        let asks = tenant.billing == Billing::Prepaid && tenant.state == TenantState::Active;
        asks.then_some(RechargeTerms {
            trigger: recharge.trigger,
            amount: recharge.amount,
            daily_cap: recharge.daily_cap.map_or(-1, |cap| cap.0),
            on_available: recharge.recharge_on == RechargeOn::Available,
        })
    }

    /// What the live lots count for.
    pub fn balance<'a>(&self, now: Millis, live: impl Iterator<Item = &'a Bucket>) -> Micros {
        unspent(now, live, !self.on_available)
    }
}

/// Money of the live lots as a balance shows it: available, and what is held if that counts.
pub fn unspent<'a>(now: Millis, live: impl Iterator<Item = &'a Bucket>, with_held: bool) -> Micros {
    let counted = |lot: &Bucket| {
        let available = if now < lot.ends { lot.available() } else { 0 };
        available + if with_held { lot.held } else { 0 }
    };
    Micros(live.map(counted).sum())
}

/// How a tenant's auto-recharge stands. It is there from the first setting on, and stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recharge {
    /// What is asked for by; none: nothing is asked for any more.
    #[serde(with = "at_most_one")]
    pub terms: Option<RechargeTerms>,
    /// Requests so far; the number of the last.
    pub requests: i64,
    /// Whether the last one waits for its answer.
    pub in_flight: bool,
    /// Failures since the last success.
    pub failures: i64,
    /// No request before this instant; zero where no failure is waited out.
    pub not_before: Millis,
    /// The day of UTC, counted from 1970, that `requested` belongs to.
    pub day: i64,
    /// Asked for on that day, less what failed.
    pub requested: Micros,
}

/// A request that is in flight or failed, under `r:` and its key; its success makes the lot of that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RechargeRequest {
    /// How much was asked for.
    pub amount: Micros,
    /// When.
    pub requested_at: Millis,
    /// Whether it was reported failed.
    pub failed: bool,
}

impl Recharge {
    /// The key of the last request.
    pub fn last(&self) -> LotId {
        LotId::recharge(self.requests)
    }

    /// Asked for on the day of `now`, less what failed. A clock that is set back opens no day again.
    pub fn requested_today(&self, now: Millis) -> Micros {
        if day_of(now) > self.day { Micros::ZERO } else { self.requested }
    }

    /// What may be asked for now if the balance is low enough.
    pub fn may_ask(&self, now: Millis) -> Option<RechargeTerms> {
        let terms = self.terms?;
        let requested = self.requested_today(now) + terms.amount;
        let capped = terms.daily_cap >= 0 && requested.0 > terms.daily_cap;
        (!self.in_flight && now >= self.not_before && !capped).then_some(terms)
    }

    /// Makes the next request, whose key is [`Recharge::last`] then.
    pub fn ask(&mut self, now: Millis, amount: Micros) -> RechargeRequest {
        self.requested = (self.requested_today(now) + amount).min(MAX_MONEY);
        self.day = self.day.max(day_of(now));
        self.requests += 1;
        self.in_flight = true;
        RechargeRequest { amount, requested_at: now, failed: false }
    }

    /// The request in flight has failed: its part of the day is given back, and there is a wait.
    pub fn fail(&mut self, now: Millis, request: &RechargeRequest) {
        self.in_flight = false;
        self.failures += 1;
        self.not_before = now.after(wait_after(self.failures));
        if day_of(request.requested_at) == self.day {
            self.requested = self.requested.minus_or_zero(request.amount);
        }
    }

    /// A request has succeeded, be it one that was reported failed: that counts for its day again.
    pub fn succeed(&mut self, request: &RechargeRequest) {
        if !request.failed {
            self.in_flight = false;
        } else if day_of(request.requested_at) == self.day {
            self.requested = (self.requested + request.amount).min(MAX_MONEY);
        }
        self.failures = 0;
        self.not_before = Millis::ZERO;
    }
}

/// What a journal tells of a wallet beside its lots, replayed by the rules above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletStory {
    /// Auto-recharge, without its terms.
    pub recharge: Recharge,
    /// Recharges that are in flight or failed.
    pub requests: BTreeMap<String, RechargeRequest>,
    /// What settled calls fell short of and no lot has paid.
    pub owed: Micros,
}

impl WalletStory {
    /// Takes the next entry, of whatever kind; what is unlawful about it, by the contract's numbers.
    /// `short` is what its call fell short of before, where it is settled.
    pub fn tell(&mut self, entry: &Entry, short: Option<Micros>) -> Vec<(u8, String)> {
        use EntryKind::{
            Adjusted, RechargeFailed, RechargeRequested, RechargeSucceeded, Settled, SettledLate,
            ShortfallCollected,
        };
        match entry.kind {
            Settled | SettledLate => {
                self.owed = (self.owed + entry.shortfall_money).min(MAX_MONEY);
                vec![]
            }
            Adjusted => {
                let more = short.map_or(Micros::ZERO, |short| entry.shortfall_money - short);
                self.owed = (self.owed + more).clamp(Micros::ZERO, MAX_MONEY);
                vec![]
            }
            ShortfallCollected => {
                self.owed -= Micros(entry.postings.iter().map(|posting| posting.spent).sum());
                vec![]
            }
            RechargeRequested | RechargeSucceeded | RechargeFailed => self.tell_recharge(entry),
            _ => vec![],
        }
    }

    fn tell_recharge(&mut self, entry: &Entry) -> Vec<(u8, String)> {
        let mut findings = vec![];
        let key = entry.subject.as_str();
        let Some(amount) = entry.recharge_amount() else {
            return vec![(17, format!("{:?} names no amount", entry.kind))];
        };
        let recharge = &mut self.recharge;
        match (entry.kind, self.requests.get_mut(key)) {
            (EntryKind::RechargeRequested, None) => {
                if recharge.in_flight {
                    findings.push((17, "is asked for while another is in flight".to_owned()));
                } else if entry.at < recharge.not_before {
                    findings.push((17, "is asked for before the wait is over".to_owned()));
                }
                let request = recharge.ask(entry.at, amount);
                self.requests.insert(key.to_owned(), request);
                let next = recharge.last();
                if next.as_str() != key {
                    findings.push((16, format!("expected the key of the next recharge, {next}")));
                }
            }
            (EntryKind::RechargeFailed, Some(request)) if !request.failed => {
                recharge.fail(entry.at, request);
                request.failed = true;
            }
            (EntryKind::RechargeSucceeded, Some(request)) if request.amount == amount => {
                recharge.succeed(request);
                self.requests.remove(key);
            }
            (kind, known) => {
                findings.push((16, format!("{kind:?} of {amount} follows {known:?}")));
            }
        }
        findings
    }
}

fn day_of(at: Millis) -> i64 {
    at.0.div_euclid(DAY)
}

fn wait_after(failures: i64) -> Seconds {
    match failures {
        ..1 => Seconds::ZERO,
        1..8 => Seconds(FIRST_WAIT.0 << (failures - 1)).min(LONGEST_WAIT),
        _ => LONGEST_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_begins_with_a_quarter_of_an_hour_and_doubles_to_a_day() {
        let waits: Vec<i64> = (1..10).map(|n| wait_after(n).0 / 60).collect();
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440]);
        assert_eq!(wait_after(i64::MAX), LONGEST_WAIT);
    }

    #[test]
    fn a_clock_that_is_set_back_opens_no_day_again() {
        let noon = Millis(10 * DAY + DAY / 2);
        let mut recharge = Recharge::default();
        recharge.ask(noon, Micros(5));
        assert_eq!(recharge.requested_today(Millis(9 * DAY)), Micros(5));
        recharge.ask(Millis(9 * DAY), Micros(7));
        assert_eq!((recharge.day, recharge.requested), (10, Micros(12)));
        assert_eq!(recharge.requested_today(Millis(11 * DAY)), Micros::ZERO);
    }
}
