//! The audit: proves the contract's invariants on everything that a ledger holds of one tenant.
//!
//! Pure, and blind to how a ledger works: it judges a [`Snapshot`] by the contract alone, so that both
//! ledgers answer to the same judge. Each finding names the invariant by its number in the contract.
//!
//! What a snapshot cannot show: that a pool is the payer's own (5) and that the charge does not depend
//! on how it was chunked (8), which follows from 7. A pool that shrank below what is held and spent is
//! lawful (D9): its `pending_shrink` is the difference. Forgetting a call leaves no entry, so a journal
//! may tell several lives of one key, each after the end of the last. What was trimmed counts as its
//! opening entries say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::charging::decision::Decision;
use crate::charging::funding::{CreditSide, PoolSide, charge};
use crate::charging::ids::{CallId, LotId, TenantId};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::recharge::{Recharge, WalletStory};
use crate::ledger::state::{
    Block, BlockNote, BlockedBy, Bucket, Call, CallState, Corrections, Entry, EntryKind, MoneyLine,
    Opening, Posting, Slot, VELOCITY_SLOTS,
};
use crate::ledger::{Snapshot, lot_bucket, pool_bucket};

/// What the audit of one tenant found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose ledger.
    pub tenant: TenantId,
    /// Every violation; empty when all is well.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub checked: Counts,
    /// What the contract wants listed (invariant 18).
    pub listed: Listed,
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the invariant in the contract.
    pub invariant: u8,
    /// The bucket, call, payer or purchase at fault.
    pub key: String,
    /// What was expected, and what was found.
    pub detail: String,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pools and lots.
    pub buckets: usize,
    /// Calls that are not forgotten.
    pub calls: usize,
    /// Journal entries.
    pub entries: usize,
    /// Payers.
    pub payers: usize,
}

/// Usage that was not paid for, over the whole journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Calls with a shortfall.
    pub shortfalls: u64,
    /// Used seconds that nothing paid for.
    pub shortfall_duration: Seconds,
    /// Their price.
    pub shortfall_money: Micros,
    /// Calls with usage that nothing was granted for.
    pub parked_calls: u64,
    /// That usage.
    pub parked: Seconds,
    /// Corrections of balances and of settled calls.
    pub adjustments: u64,
}

/// Checks a snapshot taken at `now`; expiries may be late by `sweep_bound`.
pub fn audit(tenant: &TenantId, now: Millis, sweep_bound: Seconds, snapshot: &Snapshot) -> Report {
    let mut audit = Audit { snapshot, findings: vec![] };
    let story = audit.read_journal();
    audit.check_buckets(&story);
    audit.check_wallet();
    audit.check_recharge(&story);
    audit.check_payers();
    audit.check_velocity(now);
    audit.check_blocks();
    for (id, call) in &snapshot.calls {
        audit.check_call(id, call, story.lives.get(id.as_str()));
    }
    audit.check_open_lives(&story);
    audit.check_deadlines(now, sweep_bound);
    audit.check_decisions(&story);
    audit.check_adjustments(&story);
    Report {
        tenant: tenant.clone(),
        findings: audit.findings,
        checked: Counts {
            buckets: snapshot.pools.len() + snapshot.lots.len(),
            calls: snapshot.calls.len(),
            entries: snapshot.journal.len(),
            payers: snapshot.payers.len(),
        },
        listed: story.listed(),
    }
}

struct Audit<'a> {
    snapshot: &'a Snapshot,
    findings: Vec<Finding>,
}

/// What the journal tells, replayed from empty.
#[derive(Default)]
pub(super) struct Story {
    /// The running sums of every bucket.
    buckets: HashMap<String, Sums>,
    /// The last life of every call.
    pub(super) lives: HashMap<String, Life>,
    /// Of the lives before.
    pub(super) past: Listed,
    /// Decisions that trimmed entries recorded.
    trimmed_decisions: i64,
    /// Corrections that trimmed entries told of.
    trimmed_corrections: Corrections,
    /// Entries before this instant may be trimmed.
    trimmed_until: Millis,
    /// What moved the wallet beside calls.
    wallet: WalletStory,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) funded: i64,
    pub(super) held: i64,
    pub(super) spent: i64,
    pub(super) expired: i64,
    pub(super) adjusted: i64,
}

/// A call as the journal tells it, from a decision to its end.
#[derive(Default)]
pub(super) struct Life {
    /// Number of the entry with which it began, or that which it follows from.
    pub(super) begun: u64,
    phase: Phase,
    decision: Option<Decision>,
    used: Seconds,
    /// Charged beyond that, as granted, by the expiry that came last.
    presumed: Seconds,
    parked: Seconds,
    /// Usage parked before the record of the call arrived.
    overtaken: Seconds,
    shortfall_duration: Seconds,
    shortfall_money: Micros,
    buckets: BTreeMap<String, Sums>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Unknown,
    Denied,
    Open,
    Settled,
    Released,
    Expired,
    /// Ended before it was authorized.
    Ended,
}

impl Story {
    fn listed(&self) -> Listed {
        let mut listed = self.past;
        for life in self.lives.values() {
            listed.add(life);
        }
        listed
    }

    /// What the call of a correction fell short of before it, where the call is settled.
    fn short_before(&self, entry: &Entry) -> Option<Micros> {
        let is_correction = entry.kind == EntryKind::Adjusted && entry.is_of_call();
        let life = self.lives.get(&entry.subject).filter(|_| is_correction)?;
        (life.phase == Phase::Settled).then_some(life.shortfall_money)
    }

    /// Takes the next entry of a call, the journal's `number`th; what is unlawful about it.
    pub(super) fn tell(&mut self, number: u64, entry: &Entry) -> Vec<Finding> {
        use EntryKind as Kind;
        use Phase::*;
        let mut findings = vec![];
        if is_record_only(entry) {
            return findings;
        }
        let id = entry.subject.as_str();
        let mut find = |invariant, detail| {
            findings.push(Finding { invariant, key: id.to_owned(), detail });
        };
        let was = self.lives.get(id).map_or(Phase::Unknown, |life| life.phase);
        let over = was != Open;
        let next = match (entry.kind, was) {
            (Kind::Authorized | Kind::Restored, _) if over => Some(Open),
            (Kind::Refused, _) if !is_kept(entry) => {
                let lawful = over || entry.decision == Some(Decision::KeyConflict);
                lawful.then_some(was)
            }
            (Kind::Refused, _) if over => Some(Denied),
            (Kind::Extended, Open) => Some(Open),
            (Kind::Reopened, Expired) => Some(Open),
            (Kind::Settled, Open) | (Kind::SettledLate, Released | Expired) => Some(Settled),
            (Kind::Adjusted, Settled) => Some(Settled),
            (Kind::Released, Open) => Some(Released),
            (Kind::Expired | Kind::ExpiredAsGranted, Open) => Some(Expired),
            (Kind::Parked, Denied) if entry.decision.is_some() => Some(Denied),
            (Kind::Parked, _) if over => Some(Ended),
            _ => None,
        };
        let Some(next) = next else {
            let terminal = matches!(
                entry.kind,
                Kind::Settled
                    | Kind::SettledLate
                    | Kind::Released
                    | Kind::Expired
                    | Kind::ExpiredAsGranted
            );
            let second = terminal && over && was != Unknown;
            let invariant = if second || entry.kind == Kind::Adjusted { 6 } else { 11 };
            find(invariant, format!("{:?} follows {was:?}", entry.kind));
            return findings;
        };
        if entry.kind == Kind::Refused && !is_kept(entry) {
            return findings;
        }
        let another = match entry.kind {
            Kind::Authorized | Kind::Refused | Kind::Restored => true,
            Kind::Parked => {
                next != was || self.lives.get(id).is_some_and(|l| entry.used < l.parked)
            }
            _ => false,
        };
        if another {
            let mut life = Life { begun: number, decision: entry.decision, ..Life::default() };
            if let Some(past) = self.lives.get_mut(id)
                && entry.kind == Kind::Authorized
                && was == Ended
            {
                life.overtaken = std::mem::take(&mut past.parked);
                life.begun = past.begun;
            }
            self.begin(id, life);
        }
        let life = self.lives.entry(id.to_owned()).or_default();
        life.phase = next;
        if entry.kind == Kind::Parked {
            life.parked = entry.used;
            return findings;
        }
        // Only a correction lowers a usage (D19).
        if entry.used < life.used && entry.kind != Kind::Adjusted {
            find(10, format!("usage fell from {} to {}", life.used, entry.used));
        }
        life.used = entry.used;
        life.presumed = match entry.kind {
            Kind::ExpiredAsGranted => entry.granted,
            _ => Seconds::ZERO,
        };
        life.shortfall_duration = entry.shortfall_duration;
        life.shortfall_money = entry.shortfall_money;
        for posting in &entry.postings {
            life.buckets.entry(posting.bucket.clone()).or_default().add(posting);
        }
        if next == Settled && life.overtaken == entry.used {
            life.overtaken = Seconds::ZERO;
        }
        let held = life.buckets.values().find(|sums| sums.held != 0).map(|sums| sums.held);
        let charged = life.buckets.values().any(|sums| sums.spent != 0);
        if next != Open
            && let Some(held) = held
        {
            find(2, format!("{held} are held after {:?}", entry.kind));
        }
        if next == Released && charged {
            find(9, "a call that was never answered is charged".to_owned());
        }
        findings
    }

    /// Forgets a call of which nothing more can be told; what was not paid stays counted.
    pub(super) fn forget(&mut self, call: &str) {
        if let Some(life) = self.lives.remove(call) {
            self.past.add(&life);
        }
    }

    fn begin(&mut self, call: &str, life: Life) {
        if let Some(past) = self.lives.insert(call.to_owned(), life) {
            self.past.add(&past);
        }
    }
}

impl Life {
    /// Whether nothing more can be told of it but corrections.
    pub(super) fn is_final(&self) -> bool {
        self.phase == Phase::Settled
    }
}

impl Listed {
    /// Goes on from what was trimmed.
    fn open(&mut self, opening: &Opening) {
        self.shortfalls += u64::try_from(opening.shortfalls).unwrap_or_default();
        self.shortfall_duration += opening.shortfall_duration;
        self.shortfall_money += opening.shortfall_money;
        self.parked_calls += u64::try_from(opening.parked_calls).unwrap_or_default();
        self.parked += opening.parked;
        self.adjustments += u64::try_from(opening.corrections.count).unwrap_or_default();
    }

    pub(super) fn add(&mut self, life: &Life) {
        if life.shortfall_duration.is_positive() || life.shortfall_money.is_positive() {
            self.shortfalls += 1;
            self.shortfall_duration += life.shortfall_duration;
            self.shortfall_money += life.shortfall_money;
        }
        let parked = life.parked + life.overtaken;
        if parked.is_positive() {
            self.parked_calls += 1;
            self.parked += parked;
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, posting: &Posting) {
        // Named one by one, so that no field is forgotten here, by the audit or by what is trimmed.
        let Posting { bucket: _, funded, held, spent, expired, adjusted } = posting;
        self.funded += funded;
        self.held += held;
        self.spent += spent;
        self.expired += expired;
        self.adjusted += adjusted;
    }
}

impl<'a> Audit<'a> {
    fn find(&mut self, invariant: u8, key: &str, detail: String) {
        self.findings.push(Finding { invariant, key: key.to_owned(), detail });
    }

    fn expect<T: PartialEq + std::fmt::Display>(
        &mut self,
        invariant: u8,
        key: &str,
        what: &str,
        expected: T,
        found: T,
    ) {
        if expected != found {
            self.find(invariant, key, format!("expected {what} {expected}, found {found}"));
        }
    }

    // The journal.

    fn read_journal(&mut self) -> Story {
        let snapshot = self.snapshot;
        let known = buckets_by_name(snapshot);
        let mut story = Story::default();
        let mut purchases = BTreeSet::new();
        for (number, entry) in (0..).zip(&snapshot.journal) {
            story.past.adjustments += u64::from(entry.kind == EntryKind::Adjusted);
            let short = story.short_before(entry);
            match entry.kind {
                EntryKind::Opening => self.read_opening(&mut story, &mut purchases, entry),
                EntryKind::NumbersErased | EntryKind::LedgerRegressed => {}
                EntryKind::Purchased | EntryKind::RechargeSucceeded => {
                    if !purchases.insert(entry.subject.as_str()) {
                        let detail = "the purchase is applied more than once".to_owned();
                        self.find(16, &entry.subject, detail);
                        continue;
                    }
                }
                EntryKind::RechargeRequested
                | EntryKind::RechargeFailed
                | EntryKind::ShortfallCollected
                | EntryKind::LotExpired
                | EntryKind::PoolThreshold
                | EntryKind::PoolExhausted
                | EntryKind::CreditsDepleted
                | EntryKind::PayerBlocked
                | EntryKind::PayerUnblocked => {}
                EntryKind::Adjusted if !entry.is_of_call() => self.check_correction(entry),
                _ => {
                    for Finding { invariant, key, detail } in story.tell(number, entry) {
                        self.find(invariant, &key, detail);
                    }
                }
            }
            for (invariant, detail) in story.wallet.tell(entry, short) {
                self.find(invariant, &entry.subject, detail);
            }
            for posting in &entry.postings {
                story.buckets.entry(posting.bucket.clone()).or_default().add(posting);
                match known.get(&posting.bucket) {
                    Some(bucket) => self.check_validity(entry, posting, bucket),
                    None => {
                        let detail = format!("{} has a posting on no known bucket", entry.subject);
                        self.find(17, &posting.bucket, detail);
                    }
                }
            }
        }
        story
    }

    /// A correction of a balance moves `adjusted` of the bucket that it names, and nothing else.
    fn check_correction(&mut self, entry: &Entry) {
        let lawful = match entry.postings.as_slice() {
            [Posting { bucket, funded: 0, held: 0, spent: 0, expired: 0, .. }] => {
                *bucket == entry.subject
            }
            _ => false,
        };
        if !lawful {
            let detail = format!("a correction moves {:?}", entry.postings);
            self.find(1, &entry.subject, detail);
        }
    }

    /// What was trimmed: its postings count, a lot among them was bought, and its counts go on.
    fn read_opening(
        &mut self,
        story: &mut Story,
        purchases: &mut BTreeSet<&'a str>,
        entry: &'a Entry,
    ) {
        for posting in &entry.postings {
            if let Some(lot) = posting.bucket.strip_prefix("l:")
                && !is_overage(&posting.bucket)
                && !purchases.insert(lot)
            {
                self.find(16, lot, "the purchase is applied more than once".to_owned());
            }
        }
        match Opening::decode(&entry.context) {
            Some(opening) => {
                story.past.open(&opening);
                story.trimmed_decisions += opening.decisions;
                story.trimmed_corrections.join(&opening.corrections);
                story.trimmed_until = story.trimmed_until.max(opening.until);
                if let Some(wallet) = opening.wallet {
                    story.wallet = wallet;
                }
            }
            None => self.find(17, "journal", "an opening entry cannot be read".to_owned()),
        }
    }

    /// Nobody takes from a bucket before it starts or after it ends; but a call goes on with the pool
    /// of its month (D3), and what was held of a lot may settle later, its unused rest lapses (D17).
    fn check_validity(&mut self, entry: &Entry, posting: &Posting, bucket: &Bucket) {
        use EntryKind::*;
        let at = entry.at;
        if is_overage(&posting.bucket) && posting.funded != posting.held + posting.spent {
            let detail = format!("{:?} of {} moves overage in part", entry.kind, entry.subject);
            self.find(1, &posting.bucket, detail);
        }
        let is_lot = posting.bucket.starts_with("l:");
        let started = bucket.starts <= at;
        let ended = at >= bucket.ends;
        let lawful = match entry.kind {
            Purchased | RechargeSucceeded | Opening => true,
            ShortfallCollected => !ended,
            LotExpired => ended,
            Adjusted if posting.adjusted != 0 => !ended && (is_lot || started),
            // What a lapsed lot gets back has expired (D17).
            Adjusted | SettledLate | Reopened if is_lot && posting.spent < 0 => {
                posting.expired == if ended { -posting.spent } else { 0 }
            }
            Authorized => started && !ended,
            // What a lease gives back of a lot that has lapsed since.
            Extended if is_lot && posting.held < 0 => {
                posting.expired == if ended { -posting.held - posting.spent } else { 0 }
            }
            Extended | Reopened | Restored => started && !(is_lot && ended),
            _ if !is_lot => started,
            _ if posting.held < 0 => {
                let unused = -posting.held - posting.spent;
                posting.expired == if ended { unused } else { 0 }
            }
            _ => started && !ended,
        };
        if !lawful {
            let detail = format!(
                "{:?} of {} at {at} does not agree with its validity from {} to {}",
                entry.kind, entry.subject, bucket.starts, bucket.ends
            );
            self.find(4, &posting.bucket, detail);
        }
    }

    // Balances.

    fn check_buckets(&mut self, story: &Story) {
        let mut lines: HashMap<String, (i64, i64, i64)> = HashMap::new();
        for (_, call) in &self.snapshot.calls {
            for (bucket, held, spent) in lines_of(call) {
                let sum = lines.entry(bucket).or_default();
                sum.0 += held;
                sum.1 += i64::from(held > 0);
                sum.2 += spent;
            }
        }
        let buckets = buckets_by_name(self.snapshot);
        for (name, bucket) in &buckets {
            let replayed = story.buckets.get(name.as_str()).copied().unwrap_or_default();
            let (held, holds, spent) = lines.remove(name).unwrap_or_default();
            if self.check_equation(name, bucket) {
                let told = replayed.adjusted;
                self.expect(17, name, "the journal's corrections", told, bucket.adjusted);
            }
            if bucket.held != held {
                self.expect(2, name, "the open holds' sum", held, bucket.held);
            } else {
                self.expect(17, name, "the journal's sum of holds", replayed.held, bucket.held);
            }
            self.expect(2, name, "the number of holds", holds, bucket.holds);
            self.expect(3, name, "the journal's sum of charges", replayed.spent, bucket.spent);
            if spent > bucket.spent {
                self.find(3, name, format!("calls were charged {spent}, found {}", bucket.spent));
            }
            self.expect(17, name, "the journal's lapses", replayed.expired, bucket.expired);
            if name.starts_with("l:") {
                self.expect(17, name, "the journal's funding", replayed.funded, bucket.funded);
            }
        }
        for (name, (held, _, spent)) in lines {
            if held != 0 || spent != 0 {
                self.find(2, &name, "calls have lines on no known bucket".to_owned());
            }
        }
    }

    /// Invariant 1; whether it holds.
    fn check_equation(&mut self, name: &str, bucket: &Bucket) -> bool {
        let before = self.findings.len();
        let Bucket { funded, held, spent, expired, holds, .. } = *bucket;
        for (term, value) in [
            ("funded", funded),
            ("held", held),
            ("spent", spent),
            ("expired", expired),
            ("holds", holds),
        ] {
            if value < 0 {
                self.find(1, name, format!("{term} is {value}, below zero"));
            }
        }
        let rest = funded + bucket.adjusted - held - spent - expired;
        let is_pool = name.starts_with("p:");
        if is_pool && expired != 0 {
            self.find(1, name, format!("a pool never lapses, found {expired} expired"));
        } else if is_overage(name) && (rest != 0 || expired != 0) {
            let detail =
                format!("overage is funded by what it pays, found {rest} more, {expired} expired");
            self.find(1, name, detail);
        } else if !is_pool && rest < 0 {
            self.find(1, name, format!("available is {rest}, below zero"));
        }
        self.findings.len() == before
    }

    fn check_wallet(&mut self) {
        let snapshot = self.snapshot;
        let lots: HashMap<_, _> = snapshot.lots.iter().map(|lot| (&lot.key, lot)).collect();
        let wallet = &snapshot.wallet;
        let open = snapshot.calls.iter().filter_map(|(_, call)| call.money.as_ref());
        let holds = open.filter(|money| money.held().is_positive()).count();
        self.expect(2, "wallet", "holds", i64::try_from(holds).unwrap_or(i64::MAX), wallet.holds);
        let listed: BTreeSet<_> = wallet.live.iter().collect();
        if listed.len() != wallet.live.len() {
            self.find(17, "wallet", "a lot is listed twice".to_owned());
        }
        let order = |key| lots.get(key).map(|lot| (lot.bucket.starts, &lot.key));
        if !wallet.live.is_sorted_by_key(order) {
            self.find(17, "wallet", "lots are not in the order bought".to_owned());
        }
        for lot in &wallet.live {
            if !lots.contains_key(lot) {
                self.find(17, lot.as_str(), "the wallet lists an unknown lot".to_owned());
            }
        }
        for lot in &snapshot.lots {
            if lot.key.is_overage() {
                if listed.contains(&lot.key) {
                    self.find(17, lot.key.as_str(), "the wallet lists overage".to_owned());
                }
                continue;
            }
            let usable = lot.bucket.available() > 0 || lot.bucket.held > 0;
            let bought = lot.bucket.funded + lot.bucket.adjusted > 0;
            if usable != listed.contains(&lot.key) && (usable || bought) {
                let word = if usable { "misses a lot with money" } else { "lists an empty lot" };
                self.find(17, lot.key.as_str(), format!("the wallet {word}"));
            }
        }
    }

    /// What counts for the spend velocity is at least what the calls on record count for, and at most what
    /// the journal shows to have been committed. Calls that are forgotten, and slots that a new setting has
    /// moved together, leave no closer proof.
    fn check_velocity(&mut self, now: Millis) {
        let snapshot = self.snapshot;
        let ring = &snapshot.ring;
        let key = "spend velocity";
        if !ring.slots.is_sorted_by(|a, b| a.number < b.number) {
            self.find(17, key, "slots are not in order".to_owned());
        }
        let mut counted: HashMap<i64, Micros> = HashMap::new();
        for (id, call) in &snapshot.calls {
            let Some(line) = call.money.as_ref().and_then(|money| money.velocity.as_ref()) else {
                continue;
            };
            for slot in &line.slots {
                if slot.money < Micros::ZERO {
                    self.find(1, id.as_str(), format!("counts {} in a slot", slot.money));
                }
                if line.width == ring.width {
                    *counted.entry(slot.number).or_default() += slot.money;
                }
            }
        }
        for slot in &ring.slots {
            let least = counted.remove(&slot.number).unwrap_or_default();
            if slot.money < least.max(Micros::ZERO) {
                let (number, money) = (slot.number, slot.money);
                self.find(1, key, format!("slot {number} holds {money}, its calls count {least}"));
            }
        }
        // A call that only gave back has dropped what was too old then, and added nothing.
        let newest = |last: &Slot| last.number.max(now.0 / ring.width.max(1));
        let oldest = ring.slots.last().map_or(i64::MAX, |last| newest(last) - VELOCITY_SLOTS);
        // Settings that were changed and changed back have moved all older slots into the ring's first.
        let oldest = ring.slots.first().map_or(oldest, |first| first.number.max(oldest));
        if let Some((number, money)) =
            counted.into_iter().find(|&(number, money)| number >= oldest && money > Micros::ZERO)
        {
            self.find(17, key, format!("slot {number} is missing, its calls count {money}"));
        }
        let most: Micros = snapshot.journal.iter().map(committed).sum();
        if ring.total() > most {
            let total = ring.total();
            self.find(17, key, format!("{total} count, the journal commits {most}"));
        }
    }

    fn check_recharge(&mut self, story: &Story) {
        let snapshot = self.snapshot;
        let found = Recharge { terms: None, ..snapshot.wallet.recharge.unwrap_or_default() };
        let told = &story.wallet;
        if found != told.recharge {
            let detail = format!("expected {:?} from the journal, found {found:?}", told.recharge);
            self.find(17, "auto-recharge", detail);
        }
        let mut requests = told.requests.clone();
        for (key, request) in &snapshot.recharges {
            let expected = requests.remove(key.as_str());
            if expected != Some(*request) {
                let detail = format!("expected {expected:?} from the journal, found {request:?}");
                self.find(17, key.as_str(), detail);
            }
        }
        for key in requests.into_keys() {
            self.find(17, &key, "a request that is not answered is lost".to_owned());
        }
        self.expect(18, "wallet", "owed", told.owed, snapshot.wallet.owed);
    }

    fn check_payers(&mut self) {
        let snapshot = self.snapshot;
        let mut open: HashMap<&str, i64> = HashMap::new();
        let mut money: HashMap<(&str, &str), (Micros, Micros)> = HashMap::new();
        for (_, call) in &snapshot.calls {
            if call.state.is_open() && call.terms.counted {
                *open.entry(&call.payer).or_default() += 1;
            }
            if let Some(line) = &call.money {
                let sum = money.entry((&call.payer, &line.month)).or_default();
                *sum = (sum.0 + line.held(), sum.1 + line.spent());
            }
        }
        self.expect(13, "tenant", "open calls", open.values().sum(), snapshot.tenant.open);
        for (id, account) in &snapshot.payers {
            let id = id.as_str();
            let calls = open.remove(id).unwrap_or_default();
            self.expect(13, id, "open calls", calls, account.open);
            let (held, spent) = money.remove(&(id, &account.month)).unwrap_or_default();
            self.expect(2, id, "money held this month", held, account.held);
            if account.spent < spent {
                let detail = format!("calls of this month cost {spent}, found {}", account.spent);
                self.find(3, id, detail);
            }
        }
        for stranger in open.into_keys() {
            self.find(13, stranger, "open calls of a payer without an account".to_owned());
        }
    }

    /// The blocks that the journal tells of are those that stand, and their payers are stopped.
    fn check_blocks(&mut self) {
        let snapshot = self.snapshot;
        let mut told: BTreeMap<(String, String), Block> = BTreeMap::new();
        for entry in &snapshot.journal {
            for (payer, detail) in tell_blocks(&mut told, entry) {
                self.find(17, &payer, detail);
            }
        }
        let mut stopped: BTreeSet<(&str, BlockedBy)> = BTreeSet::new();
        for (payer, by, block) in &snapshot.blocks {
            let found = told.remove(&(payer.as_str().to_owned(), by.name().to_owned()));
            if found.as_ref() != Some(block) {
                let by = by.name();
                self.find(17, payer.as_str(), format!("the journal tells another block by {by}"));
            }
            stopped.insert((payer.as_str(), *by));
        }
        for ((payer, by), _) in told {
            self.find(17, &payer, format!("the block by {by} is not listed"));
        }
        for (id, account) in &snapshot.payers {
            for (by, found) in
                [(BlockedBy::File, account.blocked), (BlockedBy::Operator, account.barred)]
            {
                let expected = stopped.remove(&(id.as_str(), by));
                let what = format!("blocked by {}", by.name());
                self.expect(17, id.as_str(), &what, expected, found);
            }
        }
        for (payer, _) in stopped {
            self.find(17, payer, "a block of a payer without an account".to_owned());
        }
    }

    // Calls.

    fn check_call(&mut self, id: &CallId, call: &Call, life: Option<&Life>) {
        let key = id.as_str();
        let unknown = Life::default();
        let life = life.unwrap_or(&unknown);
        let told = match call.state {
            CallState::Denied => life.phase == Phase::Denied,
            CallState::Ringing | CallState::Answered => life.phase == Phase::Open,
            CallState::Settled => life.phase == Phase::Settled,
            CallState::Released => life.phase == Phase::Released,
            CallState::Expired => life.phase == Phase::Expired,
            CallState::Ended => life.phase != Phase::Open,
        };
        if !told {
            return self.find(11, key, format!("is {}, but {:?} last", call.state, life.phase));
        }
        if matches!(call.state, CallState::Ended | CallState::Denied) {
            let parked = if life.phase == Phase::Ended || call.state == CallState::Denied {
                life.parked
            } else {
                Seconds::ZERO
            };
            // An unjournalled end may have followed a forgotten one with parked usage.
            if call.parked != parked && (call.parked.is_positive() || call.decision.is_some()) {
                self.expect(18, key, "parked usage", parked, call.parked);
            }
        }
        if call.state == CallState::Ended {
            return;
        }
        if call.decision != life.decision {
            let detail = format!("decided {:?}, now {:?}", life.decision, call.decision);
            self.find(15, key, detail);
        }
        self.expect(18, key, "shortfall", life.shortfall_duration, call.shortfall_duration);
        self.expect(18, key, "shortfall of money", life.shortfall_money, call.shortfall_money);
        self.check_lines(key, call, life);
        if call.used < life.used {
            self.find(10, key, format!("usage fell from {} to {}", life.used, call.used));
        }
        let ended = matches!(call.state, CallState::Settled | CallState::Expired);
        if ended && call.used > life.used {
            self.expect(7, key, "the usage that was charged", life.used, call.used);
        }
        self.expect(7, key, "a usage presumed at its expiry", life.presumed, call.presumed);
        if ended && call.charged_usage().is_positive() {
            self.check_charge(key, call);
        } else if !call.state.is_open() && !is_uncharged(call) {
            self.find(9, key, "a call that was never answered is charged".to_owned());
        }
    }

    /// Overage pays only where it may, in the month of the call, after every lot (rules 42 and 43).
    fn check_overage(&mut self, key: &str, money: &MoneyLine) {
        for (i, line) in money.lots.iter().enumerate().filter(|(_, line)| line.lot.is_overage()) {
            let lawful = money.overage && line.lot.overage_month() == money.month;
            if !lawful || i + 1 != money.lots.len() {
                self.find(4, key, format!("{} may not pay, or not yet", line.lot));
            }
        }
    }

    fn check_lines(&mut self, key: &str, call: &Call, life: &Life) {
        if let Some(money) = &call.money {
            self.check_overage(key, money);
        }
        let mut told = life.buckets.clone();
        for (bucket, held, spent) in lines_of(call) {
            let sums = told.remove(&bucket).unwrap_or_default();
            let what = format!("on {bucket} a hold of");
            self.expect(2, key, &what, sums.held, held);
            let what = format!("on {bucket} a charge of");
            self.expect(3, key, &what, sums.spent, spent);
        }
        for (bucket, sums) in told {
            if sums.held != 0 || sums.spent != 0 {
                self.find(3, key, format!("has no line on {bucket}, which it moved"));
            }
        }
    }

    /// Invariant 7: what each source paid is what this usage costs it, no more and no less.
    fn check_charge(&mut self, key: &str, call: &Call) {
        if call.terms.free {
            if !is_uncharged(call) {
                self.find(7, key, "a free call is charged".to_owned());
            }
            return;
        }
        let pools: Vec<PoolSide> = call
            .pools
            .iter()
            .map(|line| PoolSide {
                taken: line.spent,
                available: Seconds::ZERO,
                others: 0,
                increment: line.increment,
            })
            .collect();
        let credits = call.money.as_ref().map(|money| CreditSide {
            taken: money.spent(),
            available: Micros::ZERO,
            others: 0,
            limit: None,
            tariff: money.tariff,
            velocity: None,
        });
        let due = charge(call.charged_usage(), &pools, credits.as_ref());
        let spent: Vec<Seconds> = call.pools.iter().map(|line| line.spent).collect();
        if due.pools != spent {
            self.find(7, key, format!("expected pools to pay {:?}, found {spent:?}", due.pools));
        }
        self.expect(7, key, "a charge of money", due.money, call.money_spent());
        self.expect(7, key, "paid by money, seconds", due.money_duration, call.money_duration);
        let (duration, money) = (due.shortfall_duration, due.shortfall_money);
        self.expect(7, key, "a shortfall of seconds", duration, call.shortfall_duration);
        self.expect(7, key, "a shortfall of money", money, call.shortfall_money);
    }

    fn check_open_lives(&mut self, story: &Story) {
        let known: BTreeSet<_> = self.snapshot.calls.iter().map(|(id, _)| id.as_str()).collect();
        let mut lost: Vec<_> = story
            .lives
            .iter()
            .filter(|(id, life)| life.phase == Phase::Open && !known.contains(id.as_str()))
            .map(|(id, _)| id.as_str())
            .collect();
        lost.sort_unstable();
        for id in lost {
            self.find(11, id, "an open call is forgotten".to_owned());
        }
    }

    fn check_deadlines(&mut self, now: Millis, sweep_bound: Seconds) {
        let snapshot = self.snapshot;
        let mut listed: HashMap<_, Vec<Millis>> = HashMap::new();
        for (id, at) in &snapshot.deadlines {
            listed.entry(id).or_default().push(*at);
        }
        for (id, call) in &snapshot.calls {
            let found = listed.remove(id).unwrap_or_default();
            let expected = if call.state.is_open() { vec![call.deadline] } else { vec![] };
            if found != expected {
                let detail = format!("expected deadlines {expected:?}, found {found:?}");
                self.find(12, id.as_str(), detail);
            } else if call.state.is_open() && call.deadline.after(sweep_bound) < now {
                self.find(12, id.as_str(), format!("should have expired at {}", call.deadline));
            }
        }
        for id in listed.into_keys() {
            self.find(12, id.as_str(), "a deadline of no known call".to_owned());
        }
        let bought = |lot: &str| {
            let bought = [EntryKind::Purchased, EntryKind::RechargeSucceeded];
            let purchase = |entry: &&Entry| bought.contains(&entry.kind) && entry.subject == lot;
            snapshot.journal.iter().find(purchase).map_or(Millis::ZERO, |entry| entry.at)
        };
        for lot in &snapshot.lots {
            if lot.bucket.available() == 0 || lot.bucket.ends.after(sweep_bound) >= now {
                continue;
            }
            // A lot may be bought when its year is over already.
            if bought(lot.key.as_str()).after(sweep_bound) < now {
                let detail = format!("should have lapsed at {}", lot.bucket.ends);
                self.find(12, lot.key.as_str(), detail);
            }
        }
    }

    fn check_decisions(&mut self, story: &Story) {
        let records = self.snapshot.journal.iter().filter(|entry| entry.kind.is_decision()).count();
        let records = i64::try_from(records).unwrap_or(i64::MAX) + story.trimmed_decisions;
        self.expect(14, "tenant", "records", records, self.snapshot.tenant.decisions);
    }

    /// Each correction in the journal is remembered under one key, and each that is remembered is there, or
    /// among those that the openings count.
    fn check_adjustments(&mut self, story: &Story) {
        fn place(entry: &Entry) -> (Millis, &str, &[u8], Seconds) {
            (entry.at, &entry.subject, &entry.report, entry.used)
        }
        let snapshot = self.snapshot;
        let mut told: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for entry in snapshot.journal.iter().filter(|entry| entry.kind == EntryKind::Adjusted) {
            told.entry(place(entry)).or_default().push(entry);
        }
        let mut trimmed = Corrections::default();
        for (key, known) in &snapshot.adjustments {
            let entries = told.get_mut(&place(&known.entry));
            // Numbers may be erased from the context in the journal, and none is remembered.
            let wanted = known.entry.clone().without_context();
            let is_it = |entry: &&Entry| (*entry).clone().without_context() == wanted;
            let found = entries.and_then(|entries| {
                let index = entries.iter().position(is_it)?;
                Some(entries.swap_remove(index))
            });
            if found.is_some() {
                continue;
            }
            if known.entry.at < story.trimmed_until {
                trimmed.add(&known.entry);
            } else {
                self.find(18, key.as_str(), "a correction that no entry tells of".to_owned());
            }
        }
        if trimmed != story.trimmed_corrections {
            let (expected, found) = (story.trimmed_corrections.count, trimmed.count);
            let detail = format!(
                "expected the {expected} corrections that are trimmed, found {found} or others"
            );
            self.find(18, "adjustments", detail);
        }
        for entry in told.into_values().flatten() {
            let detail =
                "a correction whose key is not remembered, or applied more than once".to_owned();
            self.find(16, &entry.subject, detail);
        }
    }
}

/// Takes the next entry of whatever kind for the blocks that stand, by payer and whose block it is; what is
/// unlawful about it, and of whom.
pub(super) fn tell_blocks(
    blocks: &mut BTreeMap<(String, String), Block>,
    entry: &Entry,
) -> Vec<(String, String)> {
    let unlawful = |(payer, by)| (payer, format!("{:?} by {by} changes nothing", entry.kind));
    let mut set = |key: (String, String), block: Option<Block>| {
        let sets = block.is_some();
        let stood = match block {
            Some(block) => blocks.insert(key.clone(), block),
            None => blocks.remove(&key),
        };
        (stood.is_some() == sets).then(|| unlawful(key))
    };
    let key = || (entry.payer.clone(), entry.subject.clone());
    match entry.kind {
        EntryKind::PayerBlocked => {
            let BlockNote { reason, operator } = BlockNote::decode(&entry.context);
            let block = Block { since: entry.at, reason, operator };
            set(key(), Some(block)).into_iter().collect()
        }
        EntryKind::PayerUnblocked => set(key(), None).into_iter().collect(),
        EntryKind::Opening => {
            let stood = Opening::decode(&entry.context).unwrap_or_default().blocks.into_iter();
            stood.filter_map(|stood| set((stood.payer, stood.by), Some(stood.block))).collect()
        }
        _ => vec![],
    }
}

/// The record of a call granted without the ledger, under a key that another call has.
fn is_record_only(entry: &Entry) -> bool {
    entry.kind == EntryKind::Authorized && !entry.granted.is_positive()
}

/// Whether a refusal is the stored answer of its key; some leave the call of the key as it is.
fn is_kept(entry: &Entry) -> bool {
    !matches!(
        entry.decision,
        Some(Decision::KeyConflict | Decision::CallAlreadyEnded | Decision::RateLimited)
    )
}

fn is_uncharged(call: &Call) -> bool {
    call.pool_spent() == Seconds::ZERO
        && call.money_spent() == Micros::ZERO
        && call.money_duration == Seconds::ZERO
        && call.shortfall_duration == Seconds::ZERO
        && call.shortfall_money == Micros::ZERO
}

fn buckets_by_name(snapshot: &Snapshot) -> BTreeMap<String, Bucket> {
    let pools = snapshot.pools.iter().map(|(id, bucket)| (pool_bucket(id.as_str()), *bucket));
    let lots = snapshot.lots.iter().map(|lot| (lot_bucket(lot.key.as_str()), lot.bucket));
    pools.chain(lots).collect()
}

/// The money that an entry commits, or that those did which an opening stands for.
pub(super) fn committed(entry: &Entry) -> Micros {
    if entry.kind == EntryKind::Opening {
        return Opening::decode(&entry.context).unwrap_or_default().committed;
    }
    let money = entry.postings.iter().filter(|posting| posting.bucket.starts_with("l:"));
    Micros(money.map(|posting| posting.held + posting.spent).sum()).max(Micros::ZERO)
}

pub(super) fn is_overage(bucket: &str) -> bool {
    bucket.strip_prefix("l:").is_some_and(|lot| LotId::new(lot).is_ok_and(|lot| lot.is_overage()))
}

/// The lines of a call by bucket: held, spent.
fn lines_of(call: &Call) -> impl Iterator<Item = (String, i64, i64)> {
    let pools =
        call.pools.iter().map(|line| (pool_bucket(line.pool.as_str()), line.held.0, line.spent.0));
    let lots = call.money.iter().flat_map(|money| &money.lots);
    let lots = lots.map(|line| (lot_bucket(line.lot.as_str()), line.held.0, line.spent.0));
    pools.chain(lots)
}
