//! What must be true, by what the SBCs and the operator sent and were told; nothing here asks the ledger
//! how it came to its figures.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{CallId, TenantId};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::credit_control::answer::{Answer, Charge, FundingSource, funding_charged};
use tollgate::ledger::EndResult;
use tollgate::ledger::state::{Call, CallState};

use crate::places::{DECKS, Place, Price};
use crate::world::{World, locked};

pub const FOREVER: Millis = Millis(i64::MAX / 4);

/// Seconds a month of one Domestic 120 licence.
pub const SEAT: i64 = 120 * 60;

/// Calls that dave may have at a time, and what he may spend a month.
pub const DAVES_CALLS: usize = 2;
pub const DAVES_LIMIT: i64 = 3_000_000;

/// A setting that the operator changes: which values it may have had in a span of time.
pub struct Setting<V> {
    spans: Vec<(Millis, Millis, V)>,
}

impl<V: Copy + PartialEq> Setting<V> {
    pub fn new(value: V) -> Self {
        Setting { spans: vec![(Millis::ZERO, FOREVER, value)] }
    }

    /// From here on it may have that value.
    pub fn begin(&mut self, now: Millis, value: V) {
        self.spans.push((now, FOREVER, value));
    }

    /// The last change is acknowledged: nothing else is in force any more.
    pub fn settle(&mut self, now: Millis) {
        let last = self.spans.len() - 1;
        for span in &mut self.spans[..last] {
            span.1 = span.1.min(now);
        }
    }

    pub fn may_be(&self, value: V, from: Millis, until: Millis) -> bool {
        let mut spans = self.spans.iter();
        spans.any(|span| span.2 == value && span.0 <= until && span.1 >= from)
    }

    pub fn last(&self) -> V {
        self.spans[self.spans.len() - 1].2
    }

    pub fn was_ever(&self, value: V) -> bool {
        self.spans.iter().any(|span| span.2 == value)
    }
}

/// How hal stands in the organisation file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    Unlicensed,
    Blocked,
    Removed,
}

/// Whether money may pay for a payer's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    Never,
    Always,
    Perhaps,
}

/// One call leg as its SBC knows it.
pub struct Facts {
    pub tenant: TenantId,
    pub call: CallId,
    pub payer: &'static str,
    pub place: Place,
    pub call_type: CallType,
    pub money: Money,
    pub first_sent: Millis,
    /// The decision that was told, and when.
    pub decided: Option<(Answer, Millis)>,
    /// Granted by a sidecar without the ledger: the record follows.
    pub local: bool,
    /// Highest grant and usage that were acknowledged, and the highest usage that was sent.
    pub granted: i64,
    /// How often the ledger had gone back when that grant was told.
    pub era: u64,
    pub acknowledged: i64,
    pub sent: i64,
    /// The hold lives until then at least; what the SBC did always was in time.
    pub held_until: Millis,
    pub in_time: bool,
    /// The end was sent, or the SBC has forgotten the call.
    pub ending: bool,
    /// The last end that was acknowledged, the usage that it named.
    pub ended: Option<(i64, Charge)>,
    pub corrected: Option<i64>,
}

/// A purchase or recharge: what was asked for, and what is known to have come of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bought {
    pub amount: i64,
    pub arrived: bool,
    /// When the lot ends, where it is known beforehand.
    pub ends: i64,
}

/// See the module.
pub struct Tally {
    pub calls: BTreeMap<String, Facts>,
    pub lots: BTreeMap<String, Bought>,
    pub recharges: BTreeMap<String, Bought>,
    /// What the corrections of a bucket may come to: those that were acknowledged, and perhaps others.
    pub adjusted: BTreeMap<String, BTreeSet<i64>>,
    pub suspended: Setting<bool>,
    pub barred: Setting<bool>,
    pub hal: Setting<Standing>,
    pub deck: Setting<usize>,
    /// Emergency calls by the sidecar that granted them and the decision; those of a sidecar that crashed
    /// are taken out, because their records may have waited in it.
    pub emergencies: BTreeMap<(u64, String), (TenantId, CallId)>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            calls: BTreeMap::new(),
            lots: BTreeMap::new(),
            recharges: BTreeMap::new(),
            adjusted: BTreeMap::new(),
            suspended: Setting::new(false),
            barred: Setting::new(false),
            hal: Setting::new(Standing::Active),
            deck: Setting::new(0),
            emergencies: BTreeMap::new(),
        }
    }
}

impl World {
    /// Does something with what is known of a call.
    pub fn facts<T>(&self, call: &CallId, look: impl FnOnce(&mut Facts) -> T) -> T {
        let mut tally = locked(&self.tally);
        look(tally.calls.get_mut(call.as_str()).unwrap())
    }

    /// Judges a decision that a sidecar made between two instants, whoever hears of it.
    pub fn judge_decision(&self, payer: &str, of_contoso: bool, answer: &Answer, from: Millis) {
        let until = self.now();
        // Between a loss and its replay a block may be lifted that was not.
        if answer.replayed || !of_contoso || self.may_be_torn() {
            return;
        }
        let tally = locked(&self.tally);
        let is_hal = payer == "hal";
        let wrong = match answer.decision {
            Decision::Allowed => {
                let may_call = tally.hal.may_be(Standing::Active, from, until)
                    && tally.barred.may_be(false, from, until);
                !tally.suspended.may_be(false, from, until) || (is_hal && !may_call)
            }
            Decision::TenantSuspended => !tally.suspended.may_be(true, from, until),
            Decision::PayerUnknown => !is_hal || !tally.hal.may_be(Standing::Removed, from, until),
            Decision::NotEntitled => {
                !is_hal || !tally.hal.may_be(Standing::Unlicensed, from, until)
            }
            Decision::FraudSuspected => {
                let blocked = tally.hal.may_be(Standing::Blocked, from, until)
                    || tally.barred.may_be(true, from, until);
                !(self.plan.velocity || is_hal && blocked)
            }
            _ => false,
        };
        drop(tally);
        if wrong {
            self.find(format!("{payer}: {:?} between {} and {}", answer.decision, from.0, until.0));
        }
    }

    /// An authorize, sent at `sent`, was answered and the SBC heard it.
    pub fn decided(&self, call: &CallId, answer: &Answer, sent: Millis) {
        let now = self.now();
        let mut wrong = vec![];
        let mut tally = locked(&self.tally);
        if answer.decision == Decision::Allowed && !answer.replayed {
            let facts = &tally.calls[call.as_str()];
            let (payer, tenant) = (facts.payer, facts.tenant.clone());
            let open = tally.calls.values().filter(|other| {
                other.payer == payer
                    && other.tenant == tenant
                    && other.call != *call
                    && !other.ending
                    && other.held_until > now
                    && other
                        .decided
                        .as_ref()
                        .is_some_and(|(a, at)| a.decision == Decision::Allowed && *at < sent)
            });
            let open = open.count();
            if payer == "dave" && open >= DAVES_CALLS && self.era() == 0 {
                wrong.push(format!("{call} is dave's call number {}", open + 1));
            }
        }
        let facts = tally.calls.get_mut(call.as_str()).unwrap();
        if let Some((first, _)) = &facts.decided
            && (first.decision, &first.decision_id) != (answer.decision, &answer.decision_id)
            && answer.decision != Decision::CallAlreadyEnded
            && !facts.local
        {
            wrong.push(format!("{call} was {:?}, now {:?}", first.decision, answer.decision));
        }
        if let Some(grant) = &answer.grant {
            facts.granted = facts.granted.max(grant.granted.0);
            facts.era = self.era();
            facts.held_until = Millis(sent.0 + grant.hold_timeout.0 * 1000);
        }
        facts.local |= answer.decision == Decision::AllowedFree;
        if facts.decided.is_none() {
            facts.decided = Some((answer.clone(), now));
        }
        let month = self.plan.month;
        let expected = match (facts.first_sent.0 >= month.at, now.0 >= month.at) {
            (false, false) => Some(month.before),
            (true, true) => Some(month.after),
            _ => None,
        };
        if let Some(expected) = expected {
            for line in &answer.funding {
                let of_month = matches!(line.source, FundingSource::Pool | FundingSource::Overage);
                if of_month && !line.bucket.ends_with(expected) {
                    wrong.push(format!("{call} in {expected} draws on {}", line.bucket));
                }
            }
        }
        drop(tally);
        wrong.into_iter().for_each(|what| self.find(what));
    }

    /// A message about a call is on its way, which may set the end of its hold anew.
    pub fn reporting(&self, call: &CallId, used: i64) {
        let now = self.now();
        self.facts(call, |facts| {
            facts.sent = facts.sent.max(used);
            facts.in_time &= now < facts.held_until;
            let left = (facts.granted - used).max(0) + crate::world::GRACE.0;
            facts.held_until = facts.held_until.min(Millis(now.0 + left * 1000));
        });
    }

    /// An extension or answer, sent at `sent`, was acknowledged.
    pub fn reported(&self, call: &CallId, used: i64, answer: &Answer, sent: Millis) {
        let Some(grant) = &answer.grant else { return };
        let (now, era) = (self.now(), self.era());
        let shrunk = self.facts(call, |facts| {
            facts.in_time &= now < facts.held_until;
            facts.acknowledged = facts.acknowledged.max(used);
            let is_less = grant.granted.0 < facts.granted;
            // A ledger that has lost an extension tells the grant of before until that is replayed.
            let shrunk = (is_less && facts.era == era).then_some(facts.granted);
            if !is_less {
                facts.era = era;
            }
            facts.granted = facts.granted.max(grant.granted.0);
            facts.held_until = Millis(sent.0 + grant.hold_timeout.0 * 1000);
            shrunk
        });
        if let Some(before) = shrunk {
            self.find(format!("{call} was granted {before} s, now {} s", grant.granted));
        }
    }

    /// An end was acknowledged.
    pub fn ended(&self, call: &CallId, used: i64, charge: &Charge) {
        let now = self.now();
        let mut wrong = vec![];
        self.facts(call, |facts| {
            let told = facts.decided.as_ref().map(|(answer, _)| answer.decision);
            if charge.result == EndResult::Parked && told == Some(Decision::Allowed) {
                wrong.push(format!("{call} was allowed, and its usage is parked"));
            }
            if charge.result == EndResult::Accepted {
                // What it is charged is told to nobody; that it is, is judged at the end.
                facts.in_time &= now < facts.held_until;
                if used == 0 {
                    facts.held_until = now;
                }
                facts.ended = Some((used, charge.clone()));
                return;
            }
            if charge.recorded_duration.0 < used && facts.corrected.is_none() {
                wrong.push(format!(
                    "{call}: {used} s settled, {} recorded",
                    charge.recorded_duration
                ));
            }
            if let Some((before, known)) = &facts.ended
                && facts.corrected.is_none()
                && *before == used
                && known.result == charge.result
                && figures(known) != figures(charge)
            {
                wrong.push(format!("{call} is settled again: {known:?}, then {charge:?}"));
            }
            facts.in_time &= now < facts.held_until;
            // By its reports too: one that tells of more than was granted has gone beyond it.
            let most = used.max(charge.recorded_duration.0);
            // Between a loss and its replay others may have taken what it held.
            let in_time = facts.in_time && self.era() == 0;
            let paid = in_time && told == Some(Decision::Allowed) && most <= facts.granted;
            if paid && facts.ended.is_none() && charge.shortfall_duration.is_positive() {
                wrong.push(format!("{call} kept to its grant and falls short: {charge:?}"));
            }
            if paid && facts.ended.is_none() && charge.recorded_duration.0 > facts.sent.max(used) {
                wrong.push(format!("{call} used {used} s, recorded {charge:?}"));
            }
            if charge.result == EndResult::Released {
                // What is used after that is charged, and may be above a limit: nothing holds it any more.
                facts.held_until = now;
            }
            facts.ended = Some((used, charge.clone()));
        });
        wrong.into_iter().for_each(|what| self.find(what));
    }
}

fn figures(charge: &Charge) -> (Seconds, Micros, Seconds, Micros, Seconds) {
    (
        charge.charged_duration,
        charge.charged_money,
        charge.shortfall_duration,
        charge.shortfall_money,
        charge.recorded_duration,
    )
}

/// What is judged when everything has ended, call by call; adds up what each bucket must have spent.
pub fn judge_call(
    facts: &Facts,
    found: Option<&Call>,
    tally: &Tally,
    (charges_granted, went_back): (bool, bool),
    spent: &mut BTreeMap<String, i64>,
) -> Result<(), String> {
    if facts.place == Place::Emergency {
        return Ok(());
    }
    let told = facts.decided.as_ref().map(|(answer, _)| answer.decision);
    let Some(call) = found else {
        // A refusal is forgotten soon; an end that was told is kept.
        return match &facts.ended {
            Some((used, _)) if *used > 0 => Err(format!("its end after {used} s is forgotten")),
            _ if told == Some(Decision::Allowed) => Err("it was allowed and is forgotten".into()),
            _ => Ok(()),
        };
    };
    if call.state.is_open() {
        return Err(format!("it is still {}", call.state));
    }
    if call.pools.iter().any(|line| line.held.is_positive())
        || call.money.as_ref().is_some_and(|money| money.held().is_positive())
    {
        return Err("it still holds something".into());
    }
    let settled = facts.ended.as_ref();
    if let Some((used, charge)) = settled
        && facts.corrected.is_none()
        && charge.result != EndResult::Parked
    {
        if charge.result == EndResult::Accepted {
            // One without usage closes the key of a call that is lost, which is not put back then.
            if told == Some(Decision::Allowed) && call.state == CallState::Ended && *used > 0 {
                return Err(format!("its end after {used} s was accepted and is parked"));
            }
        } else {
            judge_told(call, charge, *used, facts.local, went_back)?;
        }
    }
    if settled.is_some_and(|(_, charge)| charge.result == EndResult::Parked) && !facts.local {
        if call.pool_spent().is_positive() || call.money_spent().is_positive() {
            return Err("its usage is parked and charged".into());
        }
        return Ok(());
    }
    // More is presumed of a call only whose end nobody was told of, and as much as was granted.
    if call.presumed.is_positive() {
        let as_granted = call.presumed == call.granted && call.state == CallState::Expired;
        if !charges_granted || settled.is_some() || !as_granted {
            return Err(format!("{} s are presumed of {call:?}", call.presumed));
        }
    }
    // The usage is what was reported, no less and no more.
    let least = facts.acknowledged.max(settled.map_or(0, |(used, _)| *used));
    let most = facts.sent.max(1);
    let (least, most) = match facts.corrected {
        Some(used) => (used, used),
        None => (least, most),
    };
    let never_granted = matches!(call.state, CallState::Denied | CallState::Ended);
    if !never_granted && !(least..=most).contains(&call.used.0) {
        return Err(format!("{least} to {most} s were used, {} are recorded", call.used));
    }
    judge_price(facts, call, tally)?;
    for line in funding_charged(call) {
        match line.source {
            FundingSource::Free => {}
            FundingSource::Pool => {
                *spent.entry(line.bucket).or_default() += line.duration.0;
            }
            FundingSource::Credits | FundingSource::Overage if line.bucket.is_empty() => {}
            FundingSource::Credits | FundingSource::Overage => {
                *spent.entry(line.bucket).or_default() += line.money.0;
            }
        }
    }
    Ok(())
}

/// What the client was told last is what stands. Where the ledger went back others may have had the minutes
/// meanwhile, and money pays.
fn judge_told(
    call: &Call,
    charge: &Charge,
    used: i64,
    local: bool,
    went_back: bool,
) -> Result<(), String> {
    let stands = (call.pool_spent() + call.money_duration, call.money_spent(), call.used);
    let was_told = (charge.charged_duration, charge.charged_money, charge.recorded_duration);
    let is_right = if went_back { stands.2 == was_told.2 } else { stands == was_told };
    match is_right || local {
        true => Ok(()),
        false => Err(format!("told {was_told:?} of {used} s, it stands at {stands:?}")),
    }
}

/// What a usage costs by the price list: whole minutes of pools, then money, the fee once.
fn judge_price(facts: &Facts, call: &Call, tally: &Tally) -> Result<(), String> {
    let of_pools = call.pool_spent().0;
    let (money, short) = (call.money_spent().0, call.shortfall_money.0);
    let granted =
        matches!(call.state, CallState::Settled | CallState::Expired | CallState::Released)
            && !call.terms.free;
    if !granted || call.used.0 == 0 {
        return match of_pools + money + short + call.shortfall_duration.0 {
            0 => Ok(()),
            _ => Err(format!("nothing is due for {} s, found {call:?}", call.used)),
        };
    }
    let increment = if facts.payer == "eve" { 1 } else { 60 };
    let usage = call.charged_usage().0;
    let whole = (usage + increment - 1) / increment * increment;
    if of_pools > whole || of_pools % increment != 0 {
        return Err(format!("pools paid {of_pools} s of {usage} s"));
    }
    let rest = usage - of_pools;
    if rest <= 0 {
        return match money + short + call.shortfall_duration.0 {
            0 => Ok(()),
            _ => Err(format!("the pools paid all, and money {money}, short {short}")),
        };
    }
    let until = facts.decided.as_ref().map_or(FOREVER, |(_, at)| *at);
    let may_be_price = |price: &Price| price.of(rest) == money + short;
    let prices = facts.place.prices(facts.call_type);
    let priced = prices.is_some_and(|prices| {
        (0..DECKS).any(|deck| {
            tally.deck.may_be(deck, facts.first_sent, until) && may_be_price(&prices[deck])
        })
    });
    let unpaid = money == 0 && short == 0 && call.shortfall_duration.0 == rest;
    let right = match facts.money {
        Money::Never => unpaid,
        Money::Always => priced,
        Money::Perhaps => priced || unpaid,
    };
    match right {
        true => Ok(()),
        false => Err(format!(
            "{rest} s after the pools cost {money} and fall short of {short} ({} s) with {prices:?}",
            call.shortfall_duration
        )),
    }
}

impl Tally {
    /// What every lot must have been funded with.
    pub fn judge_lots(&self, found: &BTreeMap<&str, i64>) -> Result<(), String> {
        let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
        for (key, lot) in self.lots.iter().chain(&self.recharges).filter(|(_, lot)| lot.arrived) {
            expected.insert(key, lot.amount);
        }
        if *found != expected {
            return Err(format!("lots {found:?}, bought were {expected:?}"));
        }
        Ok(())
    }

    /// Licences for 120 minutes that the tenant has had at most.
    pub fn most_seats(&self) -> i64 {
        2 + i64::from(self.hal.was_ever(Standing::Active) || self.hal.was_ever(Standing::Blocked))
    }

    pub fn seats_now(&self) -> i64 {
        2 + i64::from(matches!(self.hal.last(), Standing::Active | Standing::Blocked))
    }
}
