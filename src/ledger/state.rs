//! What a ledger remembers: calls with their holds, buckets, counters and the journal.
//!
//! Both ledgers keep these values; the Redis one stores each as a MessagePack array in the order of
//! the fields here, which `redis/scripts/lib.lua` repeats as its table of positions.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::charging::decision::{Decision, Nuance};
use crate::charging::funding::{CreditSide, PoolSide, Reach};
use crate::charging::ids::{LotId, PoolId};
use crate::charging::profile::SpendVelocity;
use crate::charging::rating::Tariff;
use crate::charging::units::{MAX_EXACT, Micros, Millis, Seconds};
use crate::ledger::recharge::{Recharge, WalletStory};

/// Where a call stands (the columns of the contract's state table; "none" is absence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum CallState {
    /// Refused; the answer is kept for retries.
    Denied = 0,
    /// Authorized, not yet known to be answered.
    Ringing = 1,
    /// Answered; usage runs.
    Answered = 2,
    /// Charged.
    Settled = 3,
    /// Never answered; everything given back.
    Released = 4,
    /// Nobody said how it ended; the proven usage is charged.
    Expired = 5,
    /// Ended before it was authorized; a late authorize holds nothing.
    Ended = 6,
}

impl CallState {
    /// Whether the call holds funds and counts as concurrent.
    pub fn is_open(self) -> bool {
        matches!(self, CallState::Ringing | CallState::Answered)
    }
}

impl From<CallState> for u8 {
    fn from(state: CallState) -> u8 {
        state as u8
    }
}

impl TryFrom<u8> for CallState {
    type Error = String;
    fn try_from(code: u8) -> Result<Self, String> {
        use CallState::*;
        [Denied, Ringing, Answered, Settled, Released, Expired, Ended]
            .into_iter()
            .find(|state| *state as u8 == code)
            .ok_or_else(|| format!("expected a call state from 0 to 6, found {code}"))
    }
}

impl fmt::Display for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallState::Denied => "denied",
            CallState::Ringing => "ringing",
            CallState::Answered => "answered",
            CallState::Settled => "settled",
            CallState::Released => "released",
            CallState::Expired => "expired",
            CallState::Ended => "ended",
        })
    }
}

/// What a call agreed to at authorize, besides its price; frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The client will report the answer: the ringing expiry is separate (contract rule 6).
    pub reports_answer: bool,
    /// Nothing to pay: every target is covered, with no lines.
    pub free: bool,
    /// Whether the call counts as concurrent; emergency calls do not (D22).
    pub counted: bool,
    /// An answered call that was never settled is charged what was granted, not what was proven.
    pub charge_granted_when_lost: bool,
    /// How long the called party may ring.
    pub ringing: Seconds,
    /// What an expiry waits beyond the hard stop.
    pub grace: Seconds,
    /// Hard stop that no extension passes; zero where there is none.
    pub longest: Seconds,
}

/// A call's line on a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLine {
    /// The pool of the month in which the call was authorized (D3).
    pub pool: PoolId,
    /// Another counter that closes this one when it is used up (D11); empty where there is none.
    pub closed_by: String,
    /// Charging increment (D1).
    pub increment: Seconds,
    /// Seconds held.
    pub held: Seconds,
    /// Seconds charged.
    pub spent: Seconds,
}

/// A money line's part on one lot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LotLine {
    /// The lot.
    pub lot: LotId,
    /// Money held.
    pub held: Micros,
    /// Money charged.
    pub spent: Micros,
}

/// A call's line on the wallet: present where credits may pay, even while they hold nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyLine {
    /// Frozen at authorize (contract rule 10).
    pub tariff: Tariff,
    /// The payer's monthly spend limit; -1 where there is none.
    pub spend_limit: i64,
    /// Key of the month whose spend limit counts, such as `2026-11`.
    pub month: String,
    /// Parts by lot, in the order held; the month's overage comes last whenever it was held.
    pub lots: Vec<LotLine>,
    /// Whether the month's overage pays once every lot is used (rule 42).
    pub overage: bool,
    /// The tenant's spend velocity, where it has one.
    #[serde(with = "at_most_one")]
    pub velocity: Option<VelocityLine>,
}

/// A call's part in the tenant's spend velocity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VelocityLine {
    /// Most money that all calls may commit in a window.
    pub most: Micros,
    /// Length of a slot of `slots` in milliseconds: a twelfth of the window, rounded up.
    pub width: i64,
    /// What the call has committed, oldest first; what is older than the window is left out.
    pub slots: Vec<Slot>,
}

/// Money committed in one slot of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number: the store's clock divided by the slot's length.
    pub number: i64,
    /// Money.
    pub money: Micros,
}

/// Money that a tenant's calls have committed lately (spend velocity): held and not given back, and
/// charged beyond what was held.
///
/// The current slot and the [`VELOCITY_SLOTS`] before it are judged whole, so that the bound is never
/// exceeded in any window of the asked length; money counts for at most a twelfth longer than that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendRing {
    /// Length of a slot in milliseconds; 0 before the first.
    pub width: i64,
    /// Oldest first; what is older than the window is left out.
    pub slots: Vec<Slot>,
}

/// Slots that a window of spend velocity is divided into.
pub const VELOCITY_SLOTS: i64 = 12;

impl VelocityLine {
    /// Of a call that has committed nothing yet.
    pub fn new(velocity: &SpendVelocity) -> VelocityLine {
        let width = (velocity.per.0 * 1000 + VELOCITY_SLOTS - 1) / VELOCITY_SLOTS;
        VelocityLine { most: velocity.amount, width, slots: vec![] }
    }

    /// What `ring` leaves at `now` for this call and all others.
    pub fn left(&self, ring: &SpendRing, now: Millis) -> Micros {
        self.most.minus_or_zero(ring.seen_by(self, now).total())
    }
}

impl SpendRing {
    /// The ring as a call finds it at `now`. The first money of a call with slots of another length, since
    /// the setting has changed, moves all that still counts into one slot of that length, so that it counts
    /// longer, never shorter.
    pub fn seen_by(&self, line: &VelocityLine, now: Millis) -> SpendRing {
        let live = SpendRing { width: self.width, slots: self.live(now) };
        if self.width == line.width || !line.slots.is_empty() {
            return live;
        }
        let (number, money) = (now.0 / line.width, live.total());
        let slots = if money.is_positive() { vec![Slot { number, money }] } else { vec![] };
        SpendRing { width: line.width, slots }
    }

    /// All of it.
    pub fn total(&self) -> Micros {
        self.slots.iter().map(|slot| slot.money).sum()
    }

    /// Counts what a call commits at `now`.
    pub fn add(&mut self, line: &mut VelocityLine, now: Millis, money: Micros) {
        if line.width != self.width {
            line.width = self.width;
            line.slots.clear();
        }
        let number = self.current(now);
        for slots in [&mut self.slots, &mut line.slots] {
            match slots.last_mut() {
                Some(last) if last.number == number => last.money += money,
                _ => slots.push(Slot { number, money }),
            }
        }
        line.slots.retain(|slot| slot.number >= number - VELOCITY_SLOTS);
    }

    /// Takes back what a call held and did not use, from its newest slot down; what has left the window
    /// counts no more already, and what was counted in slots of another length counts on.
    pub fn give_back(&mut self, line: &mut VelocityLine, money: Micros) {
        if line.width != self.width {
            line.width = self.width;
            line.slots.clear();
        }
        let mut rest = money;
        for mine in line.slots.iter_mut().rev() {
            let back = rest.min(mine.money);
            mine.money -= back;
            rest -= back;
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == mine.number) {
                slot.money = slot.money.minus_or_zero(back);
            }
        }
    }

    /// The number of the slot that `now` counts in; a clock that is set back goes on with the last one.
    fn current(&self, now: Millis) -> i64 {
        (now.0 / self.width).max(self.slots.last().map_or(0, |last| last.number))
    }

    fn live(&self, now: Millis) -> Vec<Slot> {
        if self.width <= 0 {
            return vec![];
        }
        let oldest = self.current(now) - VELOCITY_SLOTS;
        self.slots.iter().copied().filter(|slot| slot.number >= oldest).collect()
    }
}

impl MoneyLine {
    /// Money held on all lots.
    pub fn held(&self) -> Micros {
        self.lots.iter().map(|lot| lot.held).sum()
    }

    /// Money charged on all lots.
    pub fn spent(&self) -> Micros {
        self.lots.iter().map(|lot| lot.spent).sum()
    }
}

/// One call leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Where it stands.
    pub state: CallState,
    /// Digest of the fields that change money (contract rule 3); empty for an ended-before-authorize.
    pub fingerprint: String,
    /// The decision that is repeated to retries; empty for an ended-before-authorize.
    #[serde(with = "decision_name")]
    pub decision: Option<Decision>,
    /// Detail of a refusal.
    pub nuance: u8,
    /// Who pays; empty for an ended-before-authorize.
    pub payer: String,
    /// The SBC trunk, for `EndCalls`; may be empty.
    pub trunk: String,
    /// What Rust wants back with the call; opaque to the ledger.
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
    /// When it was decided, or ended before that.
    pub authorized_at: Millis,
    /// When the answer was first reported or implied; zero while it was not.
    pub answered_at: Millis,
    /// When it was settled, released or expired; zero before.
    pub ended_at: Millis,
    /// When an open call expires; when any other is forgotten.
    pub deadline: Millis,
    /// Highest sequence seen; -1 before the first.
    pub sequence: i64,
    /// Proven usage since answer; once ended, the recorded usage, as corrected.
    pub used: Seconds,
    /// The usage that the settle itself named, so that its repeat is known; -1 before. A correction
    /// leaves it as it is: the repeat is answered with the corrected record.
    pub settle_used: i64,
    /// Hard stop since answer, cumulative.
    pub granted: Seconds,
    /// Usage at which the last grant began.
    pub granted_from: Seconds,
    /// Why the grant ends where it ends, as a number of [`reach_code`].
    pub reach: u8,
    /// Frozen terms.
    pub terms: Terms,
    /// Lines on pools, in funding order; present even while they hold nothing.
    pub pools: Vec<PoolLine>,
    /// The line on the wallet, at most one.
    #[serde(with = "at_most_one")]
    pub money: Option<MoneyLine>,
    /// Billed seconds that money paid for, once charged.
    pub money_duration: Seconds,
    /// Used seconds that nothing paid for, once charged.
    pub shortfall_duration: Seconds,
    /// Their price.
    pub shortfall_money: Micros,
    /// Usage that arrived without a grant: reported, never charged.
    pub parked: Seconds,
    /// Usage that its expiry charged as granted, beyond what is proven, until somebody reports what it was; zero
    /// where nothing is presumed.
    pub presumed: Seconds,
}

impl Call {
    /// A call of which nothing is known but where it stands since when.
    pub fn new(state: CallState, now: Millis) -> Call {
        Call {
            state,
            fingerprint: String::new(),
            decision: None,
            nuance: 0,
            payer: String::new(),
            trunk: String::new(),
            context: vec![],
            authorized_at: now,
            answered_at: Millis::ZERO,
            ended_at: Millis::ZERO,
            deadline: Millis::ZERO,
            sequence: -1,
            used: Seconds::ZERO,
            settle_used: -1,
            granted: Seconds::ZERO,
            granted_from: Seconds::ZERO,
            reach: 0,
            terms: Terms::default(),
            pools: vec![],
            money: None,
            money_duration: Seconds::ZERO,
            shortfall_duration: Seconds::ZERO,
            shortfall_money: Micros::ZERO,
            parked: Seconds::ZERO,
            presumed: Seconds::ZERO,
        }
    }

    /// The usage that an ended call is charged for.
    pub fn charged_usage(&self) -> Seconds {
        self.used.max(self.presumed)
    }

    /// Seconds charged to pools.
    pub fn pool_spent(&self) -> Seconds {
        self.pools.iter().map(|line| line.spent).sum()
    }

    /// Money charged.
    pub fn money_spent(&self) -> Micros {
        self.money.as_ref().map(MoneyLine::spent).unwrap_or_default()
    }

    /// Whether no more funds were to be had when the last grant was made.
    pub fn final_grant(&self) -> bool {
        use Reach::{Exhausted, SpendLimit, Velocity};
        matches!(reach_of(self.reach), Some(Exhausted | SpendLimit | Velocity))
    }
}

/// The stored number of a [`Reach`].
pub fn reach_code(reach: Reach) -> u8 {
    match reach {
        Reach::Full => 0,
        Reach::Shared => 1,
        Reach::Exhausted => 2,
        Reach::SpendLimit => 3,
        Reach::Velocity => 4,
    }
}

/// The [`Reach`] of a stored number.
pub fn reach_of(code: u8) -> Option<Reach> {
    [Reach::Full, Reach::Shared, Reach::Exhausted, Reach::SpendLimit, Reach::Velocity]
        .get(usize::from(code))
        .copied()
}

/// The stored number of a [`Nuance`].
pub fn nuance_code(nuance: Nuance) -> u8 {
    match nuance {
        Nuance::None => 0,
        Nuance::TooShort => 1,
        Nuance::OfTenant => 2,
    }
}

/// The [`Nuance`] of a stored number; unknown numbers say nothing more.
pub fn nuance_of(code: u8) -> Nuance {
    [Nuance::None, Nuance::TooShort, Nuance::OfTenant]
        .get(usize::from(code))
        .copied()
        .unwrap_or_default()
}

/// Something finite that is held and spent: a month's pool (seconds) or a lot (micro-units).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Pool: minutes of the assigned licences now. Lot: money bought.
    pub funded: i64,
    /// Sum of the corrections.
    pub adjusted: i64,
    /// Held by open calls.
    pub held: i64,
    /// Charged.
    pub spent: i64,
    /// Lots only: lapsed unused.
    pub expired: i64,
    /// Open calls that hold something here.
    pub holds: i64,
    /// First instant at which a call may be authorized on it.
    pub starts: Millis,
    /// First instant at which none may any more.
    pub ends: Millis,
    /// Pools only: the highest share of it, in percent, whose use has been told (D18): 0, 80 or 100.
    pub alerted: i64,
}

impl Bucket {
    /// What anybody may still take. A pool that shrank below what is held and spent has none until
    /// holds return (D9).
    pub fn available(&self) -> i64 {
        (self.funded + self.adjusted - self.held - self.spent - self.expired).max(0)
    }

    /// The highest share in percent whose use is worth telling: 0, 80 or 100, judged on what is spent
    /// (rule 66, D18).
    pub fn alert_due(&self) -> i64 {
        let size = self.funded + self.adjusted;
        match self.spent * 100 {
            spent if size <= 0 || spent < size * 80 => 0,
            spent if spent < size * 100 => 80,
            _ => 100,
        }
    }

    /// Whether all of it is spent (D11 judges a counter by that).
    pub fn is_used_up(&self) -> bool {
        self.spent >= self.funded + self.adjusted
    }
}

/// Most overage of one tenant in one month: a thousand million units of currency. Whoever reaches it falls
/// short; sums of it and of a full wallet are exact below 2^53 micro-units.
pub const MAX_OVERAGE: Micros = Micros(1_000_000_000_000_000);

impl Bucket {
    /// The overage of a month before anything is post-paid (rule 42): it is valid always, and `funded` is
    /// at any time what is held and spent, so that nothing is ever available in it.
    pub fn overage() -> Bucket {
        Bucket { starts: Millis::ZERO, ends: Millis(MAX_EXACT), ..Bucket::default() }
    }

    /// How much more of it there may be in the month.
    pub fn overage_left(&self) -> Micros {
        MAX_OVERAGE.minus_or_zero(Micros(self.funded))
    }
}

/// The order in which lots are drawn: live lots, soonest bought first (rule 48).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wallet {
    /// Open calls that hold money.
    pub holds: i64,
    /// Lots that may still be drawn.
    pub live: Vec<LotId>,
    /// How auto-recharge stands; none where it was never set up.
    #[serde(with = "at_most_one")]
    pub recharge: Option<Recharge>,
    /// What settled calls fell short of and no purchase has paid (D7), up to [`MAX_MONEY`]. Expired calls
    /// are not in it: their charge may still change.
    pub owed: Micros,
    /// Whether the next purchase pays it.
    pub deduct_shortfall: bool,
}

/// Most money that any sum of a wallet may come to: a thousand million units of currency. The ledgers add
/// up lots, holds and purchases of a tenant in numbers that are exact below 2^53 micro-units (nine times
/// as much), and a purchase that another one races past the check must not reach that.
pub const MAX_MONEY: Micros = Micros(1_000_000_000_000_000);

/// A lot as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// Key of its purchase.
    pub key: LotId,
    /// Its balance; `starts` is the purchase, `ends` the expiry.
    pub bucket: Bucket,
}

/// Counters of the tenant as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantAccount {
    /// Moves whenever anything changes that a sidecar may have cached about the tenant; 0: unknown.
    pub version: u64,
    /// No new calls, no extensions.
    pub suspended: bool,
    /// Open calls that count.
    pub open: i64,
    /// The second in which `calls_in_second` were authorized.
    pub second: i64,
    /// For the limit of calls per second.
    pub calls_in_second: i64,
    /// Decisions made, each of which has one journal entry.
    pub decisions: i64,
}

/// Counters of one payer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayerAccount {
    /// Moves with the payer's profile; 0: unknown.
    pub version: u64,
    /// No new calls, no extensions.
    pub blocked: bool,
    /// Open calls that count.
    pub open: i64,
    /// Month that the money below belongs to.
    pub month: String,
    /// Money held in that month.
    pub held: Micros,
    /// Money charged in that month.
    pub spent: Micros,
    /// Blocked apart from the profile, until that block is lifted (rule 91): no new calls, no extensions.
    pub barred: bool,
}

/// Who blocks a payer; each block is set and lifted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockedBy {
    /// `state: blocked` of what was applied; the next document that says otherwise lifts it.
    File,
    /// An operator or a fraud system; nothing that is applied lifts it.
    Operator,
}

impl BlockedBy {
    /// Its name in journal entries and cursors.
    pub fn name(self) -> &'static str {
        match self {
            BlockedBy::File => "file",
            BlockedBy::Operator => "operator",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<BlockedBy> {
        [BlockedBy::File, BlockedBy::Operator].into_iter().find(|by| by.name() == name)
    }
}

/// A block that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// When it was set, by the store's clock.
    pub since: Millis,
    /// Why; empty where the organisation file says no more than that.
    pub reason: String,
    /// Who set it; may be empty.
    pub operator: String,
}

/// Why somebody was blocked or unblocked, as the context of journal entries (JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockNote {
    /// May be empty.
    pub reason: String,
    /// May be empty.
    pub operator: String,
}

impl BlockNote {
    /// As it is kept.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of a journal entry; empty where there is none that can be read.
    pub fn decode(context: &[u8]) -> BlockNote {
        serde_json::from_slice(context).unwrap_or_default()
    }
}

/// What a journal entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A decision: granted.
    Authorized,
    /// A decision: refused.
    Refused,
    /// A call's hold grew.
    Extended,
    /// An expired call holds again.
    Reopened,
    /// A call was charged.
    Settled,
    /// A released or expired call was charged after all.
    SettledLate,
    /// A call was never answered.
    Released,
    /// A hold ran out; what was proven is charged.
    Expired,
    /// A hold ran out; what was granted is charged, since the tenant says so of a settle that is lost.
    ExpiredAsGranted,
    /// Usage without a grant; nothing is charged.
    Parked,
    /// A lot was bought.
    Purchased,
    /// A lot's unused rest lapsed.
    LotExpired,
    /// 80 % of a pool are spent; told once a month, and again after the pool has grown (D18).
    PoolThreshold,
    /// All of a pool is spent; likewise.
    PoolExhausted,
    /// Nothing is left or held in any lot (rule 51).
    CreditsDepleted,
    /// A balance or a settled call was corrected (D19); of a call where it has a decision.
    Adjusted,
    /// A payer may not call any more; by whom, as a name of [`BlockedBy`], is the subject.
    PayerBlocked,
    /// A block is lifted; likewise. Another one may still stand.
    PayerUnblocked,
    /// The balance is below the trigger: the payment system is asked for money (rule 49).
    RechargeRequested,
    /// A requested recharge was bought: the lot is in the wallet.
    RechargeSucceeded,
    /// A requested recharge was reported failed; the report is the reason.
    RechargeFailed,
    /// A new lot paid what earlier calls fell short of (D7).
    ShortfallCollected,
    /// Stands for older entries that are trimmed: its postings are their sum, its context is an
    /// [`Opening`].
    Opening,
    /// Telephone numbers were erased from older entries and kept calls; its context says which.
    NumbersErased,
    /// A call that the ledger had no memory of holds again, as its signed grant tells it: the record of a
    /// decision that was lost.
    Restored,
    /// The ledger has lost what it had acknowledged, and its epoch was raised; the report says which
    /// sidecar has found that, and by which numbers.
    LedgerRegressed,
}

impl EntryKind {
    /// Whether such an entry records a decision.
    pub fn is_decision(self) -> bool {
        matches!(self, EntryKind::Authorized | EntryKind::Refused | EntryKind::Restored)
    }
}

/// A change of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// `p:` and a [`PoolId`], or `l:` and a [`LotId`].
    pub bucket: String,
    /// Added to `funded`: by purchases, and by whatever moves overage.
    pub funded: i64,
    /// Added to `held`.
    pub held: i64,
    /// Added to `spent`.
    pub spent: i64,
    /// Added to `expired`.
    pub expired: i64,
    /// Added to `adjusted`.
    pub adjusted: i64,
}

/// One line of a tenant's journal: what happened, and which buckets it moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it tells.
    pub kind: EntryKind,
    /// By the store's clock.
    pub at: Millis,
    /// The call; the lot of purchases, recharges and lapses; the pool of its alerts; the bucket of a
    /// corrected balance, as postings name it; empty for the wallet's; of blocks a name of [`BlockedBy`].
    pub subject: String,
    /// Who pays; empty where nobody does.
    pub payer: String,
    /// Of authorized and refused entries.
    #[serde(with = "decision_name")]
    pub decision: Option<Decision>,
    /// Usage since answer known at this entry.
    pub used: Seconds,
    /// Hard stop in force.
    pub granted: Seconds,
    /// Used seconds that nothing paid for.
    pub shortfall_duration: Seconds,
    /// Their price.
    pub shortfall_money: Micros,
    /// What moved.
    pub postings: Vec<Posting>,
    /// What Rust said about the call, or about the purchase. Of recharges: the amount in micro-units, in
    /// decimal digits (no posting can tell it: a request moves nothing).
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
    /// What the client said about the end of the call, the operator about a correction, or why a recharge
    /// failed; empty elsewhere.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

impl Entry {
    /// The usage that a call is charged for by this end of it.
    pub fn charged_usage(&self) -> Seconds {
        match self.kind {
            EntryKind::ExpiredAsGranted => self.granted,
            _ => self.used,
        }
    }

    /// Whether it tells of a call, which its subject names, and not of a balance or a payer.
    pub fn is_of_call(&self) -> bool {
        use EntryKind::*;
        match self.kind {
            Authorized | Refused | Extended | Reopened | Settled | SettledLate | Released
            | Expired | ExpiredAsGranted | Parked | Restored => true,
            Adjusted => self.decision.is_some(),
            Purchased | LotExpired | PoolThreshold | PoolExhausted | CreditsDepleted
            | PayerBlocked | PayerUnblocked | RechargeRequested | RechargeSucceeded
            | RechargeFailed | ShortfallCollected | Opening | NumbersErased | LedgerRegressed => {
                false
            }
        }
    }

    /// The entry without what Rust said about the call, which may be erased from the journal.
    pub fn without_context(self) -> Entry {
        Entry { context: vec![], ..self }
    }
}

/// A correction as it is remembered, so that its key is applied once. It outlives the journal's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// Digest of what was asked for.
    pub fingerprint: String,
    /// Its entry in the journal, without its context: numbers are erased from there, not from here.
    pub entry: Entry,
}

/// Corrections as the audit knows them again once their entries are trimmed: how many there were, and a
/// digest of what they said, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrections {
    /// How many.
    pub count: i64,
    /// Sum of their SHA-256 digests, in four parts that wrap around.
    pub digest: [u64; 4],
}

impl Corrections {
    /// Counts one more; its context counts for nothing.
    pub fn add(&mut self, entry: &Entry) {
        // Named one by one, so that what is digested changes only on purpose: it is kept for years.
        let Entry {
            kind: _,
            at,
            subject,
            payer,
            decision,
            used,
            granted,
            shortfall_duration,
            shortfall_money,
            postings,
            context: _,
            report,
        } = entry;
        let mut digest = Sha256::new();
        let mut text = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        text(subject.as_bytes());
        text(payer.as_bytes());
        text(decision.map(Decision::name).unwrap_or_default().as_bytes());
        text(report);
        for Posting { bucket, funded, held, spent, expired, adjusted } in postings {
            text(bucket.as_bytes());
            for number in [funded, held, spent, expired, adjusted] {
                text(&number.to_be_bytes());
            }
        }
        for number in [at.0, used.0, granted.0, shortfall_duration.0, shortfall_money.0] {
            text(&number.to_be_bytes());
        }
        let bytes = digest.finalize();
        let parts = bytes
            .chunks_exact(8)
            .map(|part| part.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)));
        for (sum, part) in self.digest.iter_mut().zip(parts) {
            *sum = sum.wrapping_add(part);
        }
        self.count += 1;
    }

    /// Counts others too.
    pub fn join(&mut self, others: &Corrections) {
        self.count += others.count;
        for (sum, part) in self.digest.iter_mut().zip(others.digest) {
            *sum = sum.wrapping_add(part);
        }
    }
}

/// What an opening entry says besides its postings: what the audit counts in a journal, summed over the
/// entries that it stands for. Of several openings of one trimming the last has the counts; blocks are
/// shared among them, as postings are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Entries before this instant are no longer there, except those of calls that went on after it.
    pub until: Millis,
    /// Entries that were removed; an earlier opening counts as those that it stood for.
    #[serde(default)]
    pub entries: i64,
    /// Of them, decisions.
    #[serde(default)]
    pub decisions: i64,
    /// Calls with a shortfall.
    #[serde(default)]
    pub shortfalls: i64,
    /// Used seconds that nothing paid for.
    #[serde(default)]
    pub shortfall_duration: Seconds,
    /// Their price.
    #[serde(default)]
    pub shortfall_money: Micros,
    /// Calls with usage that nothing was granted for.
    #[serde(default)]
    pub parked_calls: i64,
    /// That usage.
    #[serde(default)]
    pub parked: Seconds,
    /// Money that the entries committed, whatever was given back later (spend velocity).
    #[serde(default)]
    pub committed: Micros,
    /// How auto-recharge stood at this opening and what was owed, calls included that stay; `None` where
    /// another opening says it.
    #[serde(default)]
    pub wallet: Option<WalletStory>,
    /// Corrections among them.
    #[serde(default)]
    pub corrections: Corrections,
    /// Blocks that stood after them.
    #[serde(default)]
    pub blocks: Vec<StandingBlock>,
}

/// A block that stood when its entry was trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingBlock {
    /// Who is blocked.
    pub payer: String,
    /// By whom, as a name of [`BlockedBy`].
    pub by: String,
    /// Since when, why and who set it.
    pub block: Block,
}

impl Opening {
    /// As an entry keeps it.
    pub fn encode(&self) -> Vec<u8> {
        // Only a writer that fails could make this fail.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Of an opening entry; `None` where it cannot be read.
    pub fn decode(bytes: &[u8]) -> Option<Opening> {
        rmp_serde::from_slice(bytes).ok()
    }
}

/// How far a tenant's journal was trimmed and erased, and who rewrites it now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Names who rewrites the journal; empty while nobody does.
    pub token: String,
    /// Until when that is believed of one who says nothing more.
    pub lease_ends: Millis,
    /// Entries before this instant were trimmed; zero: none.
    pub trimmed: Millis,
    /// Numbers in entries before this instant were erased; zero: none.
    pub erased: Millis,
    /// How often the journal was replaced, so that who reads it in parts knows when to begin anew.
    pub rewrites: i64,
}

/// How far a reader of the journal is, and who reads for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// Who has it: a name that no other process uses.
    pub owner: String,
    /// When the lease ends, by the store's clock; from then on anybody may take it.
    pub ends: Millis,
    /// It reads what was made at this instant or later.
    pub since: Millis,
    /// Of the last entry that is done with; empty where there is none yet.
    pub cursor: String,
}

impl Entry {
    /// The money that an entry about a recharge names; `None` for any other.
    pub fn recharge_amount(&self) -> Option<Micros> {
        use EntryKind::{RechargeFailed, RechargeRequested, RechargeSucceeded};
        let recharge = matches!(self.kind, RechargeRequested | RechargeSucceeded | RechargeFailed);
        let digits = std::str::from_utf8(&self.context).ok().filter(|_| recharge)?;
        digits.parse().ok().map(Micros)
    }
}

/// The pools of a call as the funding arithmetic sees them, given how to look a bucket up.
pub fn pool_sides(call: &Call, bucket: impl Fn(&str) -> Option<Bucket>) -> Vec<PoolSide> {
    call.pools
        .iter()
        .map(|line| {
            let found = bucket(line.pool.as_str()).unwrap_or_default();
            let closed = !line.closed_by.is_empty()
                && bucket(&line.closed_by).is_some_and(|other| other.is_used_up());
            PoolSide {
                taken: line.held + line.spent,
                available: Seconds(if closed { 0 } else { found.available() }),
                others: found.holds - i64::from(line.held.is_positive()),
                increment: line.increment,
            }
        })
        .collect()
}

/// What a call finds in its tenant's wallet.
#[derive(Clone, Debug)]
pub struct Funds<'a> {
    /// Money in lots that anybody may take now.
    pub credits: Micros,
    /// The overage of the call's month; as it would be opened where there is none yet.
    pub overage: Bucket,
    /// Open calls that hold money.
    pub holds: i64,
    /// What counts for the spend velocity.
    pub ring: &'a SpendRing,
    /// The store's clock.
    pub now: Millis,
}

/// The wallet of a call as the funding arithmetic sees it.
pub fn credit_side(money: &MoneyLine, funds: &Funds<'_>, payer: &PayerAccount) -> CreditSide {
    // Once a later month is counted, what the call's own month had left is not known any more.
    let limit = (money.spend_limit >= 0).then(|| match payer.month.cmp(&money.month) {
        Ordering::Less => Micros(money.spend_limit),
        Ordering::Equal => Micros(money.spend_limit).minus_or_zero(payer.held + payer.spent),
        Ordering::Greater => Micros::ZERO,
    });
    // Nobody has to share what is followed by overage.
    let (overage, others) = match money.overage {
        true => (funds.overage.overage_left(), 0),
        false => (Micros::ZERO, funds.holds - i64::from(money.held().is_positive())),
    };
    CreditSide {
        taken: money.held() + money.spent(),
        available: funds.credits + overage,
        others,
        limit,
        tariff: money.tariff,
        velocity: money.velocity.as_ref().map(|line| line.left(funds.ring, funds.now)),
    }
}

/// A decision by its name; an absent one is the empty text, since arrays of Lua hold no nil.
pub(crate) mod decision_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::charging::decision::Decision;

    pub fn serialize<S: Serializer>(value: &Option<Decision>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.map(Decision::name).unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Decision>, D::Error> {
        let name = <&str>::deserialize(from)?;
        if name.is_empty() {
            return Ok(None);
        }
        let found = Decision::parse(name);
        found.map(Some).ok_or_else(|| D::Error::custom(format!("unknown decision {name:?}")))
    }
}

/// An option as an array of nothing or one, since arrays of Lua hold no nil.
pub(crate) mod at_most_one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_slice().serialize(to)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(Vec::<T>::deserialize(from)?.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call has committed and not given back, by instant.
    type Commitments = Vec<(Millis, Micros)>;

    #[test]
    fn no_window_has_more_commitments_than_the_velocity_allows() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut full = 0;
        for round in 0..200 {
            let per = Seconds([1, 7, 60, 3_600][round % 4]);
            let velocity = SpendVelocity { amount: Micros(1_000), per };
            let mut ring = SpendRing::default();
            let mut calls: Vec<(VelocityLine, Commitments)> = vec![];
            let mut now = Millis(1_795_000_000_000);
            for _ in 0..300 {
                now = Millis(now.0 + random.i64(0..per.0 * 150));
                if calls.is_empty() || random.u8(..3) == 0 {
                    calls.push((VelocityLine::new(&velocity), vec![]));
                }
                let index = random.usize(..calls.len());
                let (line, committed) = &mut calls[index];
                ring = ring.seen_by(line, now);
                if random.bool() {
                    let most = line.left(&ring, now).0;
                    let money = Micros(random.i64(0..=most));
                    if money.is_positive() {
                        ring.add(line, now, money);
                        committed.push((now, money));
                    }
                } else {
                    let held: Micros = committed.iter().map(|part| part.1).sum();
                    let mut back = Micros(random.i64(0..=held.0));
                    ring.give_back(line, back);
                    for part in committed.iter_mut().rev() {
                        let taken = back.min(part.1);
                        part.1 -= taken;
                        back -= taken;
                    }
                }
                let since = Millis(now.0 - per.0 * 1000);
                let parts = calls.iter().flat_map(|(_, committed)| committed);
                let within: Micros = parts.filter(|part| part.0 >= since).map(|part| part.1).sum();
                assert!(within <= velocity.amount, "{within} in the last {per} s of {now}");
                assert!(ring.slots.iter().all(|slot| slot.money >= Micros::ZERO), "{ring:?}");
                assert!(ring.slots.len() <= 13, "{ring:?}");
                full += u32::from(within == velocity.amount);
            }
        }
        assert!(full > 50, "the bound was met {full} times");
    }
}
