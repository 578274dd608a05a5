//! Commands dealt at random, few enough of everything that they meet in every state.

use fastrand::Rng;
use tollgate::charging::decision::{Decision, Nuance};
use tollgate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId, TenantId};
use tollgate::charging::month::{Month, parse_zone, twelve_months_after};
use tollgate::charging::profile::{
    AutoRecharge, PayerState, Purchase, RechargeOn, SpendVelocity, TenantState,
};
use tollgate::charging::rating::{MAX_RATE, MAX_USAGE, Tariff};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::rewriting::{Plan, RewriteError, Rewritten, rewrite};
use tollgate::ledger::state::{
    Block, BlockNote, BlockedBy, Call, CallState, Entry, Reader, Terms, Upkeep,
};
use tollgate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    Balance, BlockSet, CallLimits, Correction, End, Ended, Ending, Extend, Extended, Ledger,
    MoneyOffer, MoveReader, Moved, Offer, Page, PayerUpdate, PoolOffer, Position, Proposal,
    Purchased, RechargeOutcome, RechargeReported, Reply, ReportRecharge, Restore, Restored,
    SetBlock, Swept, TakeReader, Taken, TenantRecord, Versions,
};

use crate::support::{call_id, lost_call, month_at, payer, payer_profile, tenant_record};

#[derive(Clone, Debug)]
pub enum Command {
    Authorize(Authorize),
    Answer(Answer),
    Extend(Extend),
    End(End),
    Sweep(TenantId, u32, Seconds),
    ApplyTenant(TenantId, TenantRecord),
    ApplyPayers(TenantId, Month, Vec<PayerUpdate>),
    Purchase(TenantId, Purchase, Millis),
    AdjustBalance(AdjustBalance),
    AdjustSettlement(AdjustSettlement),
    ReportRecharge(ReportRecharge),
    Look(TenantId, PayerId, CallId, Month),
    TakeReader(TakeReader),
    MoveReader(MoveReader),
    /// Trims what is older than an instant, and erases one context in three where it says so.
    Rewrite(TenantId, Option<Millis>, bool),
    SetBlock(SetBlock),
    Restore(Box<Restore>),
    /// Both clocks are moved by so much.
    Pass(Seconds),
}

impl Command {
    /// Whether others of its tenant that come at the same time are carried out in the same run.
    pub fn travels_with_others(&self) -> bool {
        use Command::*;
        matches!(self, Authorize(_) | Answer(_) | Extend(_) | End(_))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Authorized(Reply<Authorized>),
    Answered(Reply<Answered>),
    Extended(Reply<Extended>),
    Ended(Reply<Ended>),
    Swept(Reply<Swept>),
    AppliedTenant(Reply<Applied>),
    AppliedPayers(Reply<Applied>),
    Purchased(Reply<Purchased>),
    AdjustedBalance(Reply<Adjusted>),
    AdjustedSettlement(Reply<Adjusted>, Option<Call>),
    BlockSet(Reply<BlockSet>),
    RechargeReported(Reply<RechargeReported>),
    Looked(Box<Looked>),
    TakenReader(Reply<Taken>),
    MovedReader(Reply<Moved>),
    Rewritten(Result<Rewritten, RewriteError>, Reply<Upkeep>),
    Restored(Reply<Restored>),
    Passed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    position: Reply<Position>,
    balance: Reply<Balance>,
    call: Option<Call>,
    open: (Vec<(CallId, Call)>, bool),
    journal: (Vec<Entry>, bool),
    tenant: (u64, Option<TenantRecord>, usize),
    payer: (u64, bool),
    blocks: Page<(PayerId, BlockedBy, Block)>,
    record: Option<TenantRecord>,
    readers: Reply<Vec<(String, Reader)>>,
}

const FAMILIES: [&str; 3] = ["US:A:DOMESTIC", "US:A:INTERNATIONAL", "US:B:DOMESTIC"];

pub async fn play<L: Ledger>(ledger: &L, command: &Command) -> Outcome {
    match command {
        Command::Authorize(c) => Outcome::Authorized(ledger.authorize(c).await.unwrap()),
        Command::Answer(c) => Outcome::Answered(ledger.answer(c).await.unwrap()),
        Command::Extend(c) => Outcome::Extended(ledger.extend(c).await.unwrap()),
        Command::End(c) => Outcome::Ended(ledger.end(c).await.unwrap()),
        Command::Sweep(tenant, most, keep) => {
            Outcome::Swept(ledger.sweep(tenant, *most, *keep).await.unwrap())
        }
        Command::ApplyTenant(tenant, record) => {
            Outcome::AppliedTenant(ledger.apply_tenant(tenant, record, None).await.unwrap())
        }
        Command::ApplyPayers(tenant, month, updates) => {
            Outcome::AppliedPayers(ledger.apply_payers(tenant, month, updates).await.unwrap())
        }
        Command::Purchase(tenant, purchase, expires_at) => {
            Outcome::Purchased(ledger.purchase(tenant, purchase, *expires_at).await.unwrap())
        }
        Command::AdjustBalance(c) => {
            Outcome::AdjustedBalance(ledger.adjust_balance(c).await.unwrap())
        }
        Command::AdjustSettlement(c) => {
            let adjusted = ledger.adjust_settlement(c).await.unwrap();
            Outcome::AdjustedSettlement(adjusted, ledger.call(&c.tenant, &c.call).await.unwrap())
        }
        Command::SetBlock(c) => Outcome::BlockSet(ledger.set_block(c).await.unwrap()),
        Command::ReportRecharge(report) => {
            Outcome::RechargeReported(ledger.report_recharge(report).await.unwrap())
        }
        Command::Look(tenant, payer, call, month) => {
            let families = FAMILIES.map(str::to_owned);
            let position = ledger.position(tenant, payer, call, month, &families).await.unwrap();
            let open = ledger.open_calls(tenant, None, 3).await.unwrap();
            let journal = ledger.journal(tenant, None, 3).await.unwrap();
            let view = ledger.tenant(tenant).await.unwrap().outcome;
            let found = ledger.payer(tenant, payer).await.unwrap().outcome;
            Outcome::Looked(Box::new(Looked {
                position,
                balance: ledger.balance(tenant).await.unwrap(),
                call: ledger.call(tenant, call).await.unwrap(),
                open: (open.items, open.next.is_some()),
                journal: (journal.items, journal.next.is_some()),
                tenant: (view.version, view.record, view.numbers.len()),
                record: ledger.record(tenant).await.unwrap().outcome,
                readers: ledger.readers(tenant).await.unwrap(),
                payer: (found.version, found.barred),
                blocks: ledger.blocks(tenant, None, 2).await.unwrap(),
            }))
        }
        Command::TakeReader(c) => Outcome::TakenReader(ledger.take_reader(c).await.unwrap()),
        Command::MoveReader(c) => Outcome::MovedReader(ledger.move_reader(c).await.unwrap()),
        Command::Rewrite(tenant, trim, erases) => {
            let plan = Plan {
                token: "model".to_owned(),
                trim: *trim,
                erase: |entry: &mut Entry| *erases && erase(entry),
                erase_within: None,
                note: |erased: u64| erased.to_string().into_bytes(),
                always: false,
            };
            if *erases {
                erase_calls(ledger, tenant).await;
            }
            let rewritten = rewrite(ledger, tenant, plan).await;
            Outcome::Rewritten(rewritten, ledger.upkeep(tenant).await.unwrap())
        }
        Command::Restore(c) => Outcome::Restored(ledger.restore(c).await.unwrap()),
        Command::Pass(_) => Outcome::Passed,
    }
}

/// What nobody may say any more: contexts that begin with a byte divisible by three.
fn erase(entry: &mut Entry) -> bool {
    let erased = entry.is_of_call() && erased(&entry.context);
    if erased {
        entry.context = b"\xff*".to_vec();
    }
    erased
}

fn erased(context: &[u8]) -> bool {
    context.first().is_some_and(|first| first % 3 == 0 && *first != 0xff)
}

async fn erase_calls<L: Ledger>(ledger: &L, tenant: &TenantId) {
    let mut cursor = None;
    loop {
        let page = ledger.calls(tenant, cursor.as_deref(), 3).await.unwrap();
        for (id, call) in page.items {
            if erased(&call.context) {
                let replaced = ledger.replace_context(tenant, &id, &call.context, b"\xff*").await;
                assert_eq!(replaced, Ok(true));
                let again = ledger.replace_context(tenant, &id, &call.context, b"no").await;
                assert_eq!(again, Ok(false));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return;
        }
    }
}

/// Deals the commands of one seed.
pub struct Dealer {
    random: Rng,
    tenants: Vec<TenantId>,
    dealt: usize,
    /// Of a hold, and of what is kept of a call.
    shortest: Seconds,
}

impl Dealer {
    pub fn new(seed: u64, tenants: Vec<TenantId>) -> Self {
        Dealer { random: Rng::with_seed(seed), tenants, dealt: 0, shortest: Seconds::ZERO }
    }

    /// For commands that come at once: what a command makes due at its own instant is seen by the next run, not by what
    /// is behind it in its own. No setting makes a hold or what is kept so short.
    pub fn for_many_at_once(self) -> Self {
        Dealer { shortest: Seconds(1), ..self }
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.usize(0..of.len())].clone()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    /// The next command; what a sidecar would have cached is read from `ledger`.
    pub async fn deal<L: Ledger>(&mut self, now: Millis, ledger: &L) -> Command {
        self.dealt += 1;
        let tenant = self.tenant();
        // At first everything is set up, so that most of the run has something to spend.
        let lot = if self.dealt < 60 { self.random.u32(90..100) } else { self.random.u32(0..100) };
        match lot {
            0..30 => self.authorize(tenant, now, ledger).await,
            30..36 => Command::Answer(Answer { tenant, call: self.call() }),
            36..38 => self.restore(tenant, now),
            38..57 => self.extend(tenant),
            57..70 => self.end(tenant),
            70..72 => self.adjust_balance(tenant, now),
            72..74 => self.adjust_settlement(tenant, ledger).await,
            74..84 => Command::Pass(self.time()),
            84..88 => {
                let (most, keep) = (self.one(&[0, 1, 3, 100]), self.ended_retention());
                Command::Sweep(tenant, most, keep)
            }
            // Rarely, so that the rest of the run stays as it is.
            88 if self.chance(50) => self.reader(tenant, now),
            88 => self.rewrite(tenant, now),
            89 => {
                let (payer, call) = (self.payer(), self.call());
                Command::Look(tenant, payer, call, month_at(now))
            }
            90..92 => {
                let state = self.one(&[
                    TenantState::Active,
                    TenantState::Active,
                    TenantState::Active,
                    TenantState::Active,
                    TenantState::Active,
                    TenantState::Active,
                    TenantState::Suspended,
                    TenantState::Removed,
                ]);
                let mut record = tenant_record(&tenant, state);
                record.deck = self.one(&[None, Some("v1".to_owned())]);
                record.profile.auto_recharge = self.auto_recharge();
                record.profile.deduct_shortfall = self.random.bool();
                Command::ApplyTenant(tenant, record)
            }
            92..95 => self.payers(tenant, now),
            95..96 => self.set_block(tenant),
            _ if self.chance(40) => self.report(tenant, now, ledger).await,
            _ => self.purchase(tenant, now),
        }
    }

    /// At times everything that there is, mostly what is some minutes or hours old.
    fn rewrite(&mut self, tenant: TenantId, now: Millis) -> Command {
        let age = self.one(&[-1, 0, 60, 1_000, 10_000, 100_000]);
        let trim = self.chance(80).then(|| now.after(Seconds(-age)));
        let erases = self.chance(40);
        Command::Rewrite(tenant, trim, erases)
    }

    fn auto_recharge(&mut self) -> Option<AutoRecharge> {
        let amount = self.one(&[1, 200_000, 3_000_000, 100_000_000_000_000]);
        self.chance(70).then(|| AutoRecharge {
            trigger: Micros(self.one(&[1, 150_000, 5_000_000, 5_000_000, 100_000_000_000_000])),
            amount: Micros(amount),
            daily_cap: self.one(&[None, Some(amount), Some(2 * amount + 5)]).map(Micros),
            recharge_on: self.one(&[RechargeOn::Spent, RechargeOn::Available]),
        })
    }

    /// Mostly about one of the last few requests.
    async fn report<L: Ledger>(&mut self, tenant: TenantId, now: Millis, ledger: &L) -> Command {
        let balance = ledger.balance(&tenant).await.unwrap().outcome;
        let last = balance.recharge.map_or(0, |recharge| recharge.requests);
        let number = (last - self.one(&[-1, 0, 0, 0, 1, 2, 5])).max(0);
        let any = LotId::new("po-1").unwrap();
        let key = if self.chance(3) { any } else { LotId::recharge(number) };
        let outcome = match self.random.bool() {
            true => {
                RechargeOutcome::Succeeded { bought_at: now, expires_at: twelve_months_after(now) }
            }
            false => RechargeOutcome::Failed(self.one(&["", "card expired", "é"]).to_owned()),
        };
        Command::ReportRecharge(ReportRecharge { tenant, key, outcome })
    }

    fn tenant(&mut self) -> TenantId {
        if self.chance(80) { self.tenants[0].clone() } else { self.tenants[1].clone() }
    }

    fn call(&mut self) -> CallId {
        call_id(&format!("c{}", self.random.u32(0..8)))
    }

    fn payer(&mut self) -> PayerId {
        payer(self.one(&["alice", "bob", "carol"]))
    }

    fn time(&mut self) -> Seconds {
        let most = self.one(&[2, 2, 10, 10, 60, 60, 400, 400, 4_000, 90_000]);
        let rare = if self.chance(1) { 30_000_000 } else { most };
        Seconds(self.random.i64(0..rare))
    }

    /// Mostly the month of the moment; at times that of another zone, or one that is not yet.
    fn month(&mut self, now: Millis) -> Month {
        match self.random.u32(0..30) {
            0 => month_at(month_at(now).ends),
            1..4 => Month::containing(now, &parse_zone("Pacific/Auckland").unwrap()),
            _ => month_at(now),
        }
    }

    fn used(&mut self) -> Seconds {
        let any = self.random.i64(0..1_000);
        let rare = if self.chance(3) { MAX_USAGE.0 } else { 130 };
        Seconds(self.one(&[0, 0, 1, 30, 59, 60, 61, 100, 300, any, any, rare]))
    }

    fn ended_retention(&mut self) -> Seconds {
        Seconds(self.one(&[0, 10, 100, 100, 1_000])).max(self.shortest)
    }

    fn reader(&mut self, tenant: TenantId, now: Millis) -> Command {
        let reader = self.one(&["webhook", "mail"]).to_owned();
        let owner = self.one(&["one", "other"]).to_owned();
        let lease = Seconds(self.one(&[0, 1, 30, 400]));
        if self.random.bool() {
            return Command::TakeReader(TakeReader { tenant, reader, owner, lease, since: now });
        }
        let cursor = format!("{}-0", self.random.u32(0..9));
        Command::MoveReader(MoveReader { tenant, reader, owner, cursor, lease })
    }

    async fn authorize<L: Ledger>(&mut self, tenant: TenantId, now: Millis, ledger: &L) -> Command {
        let kind = self.random.u32(0..100);
        let mut payer_id = self.payer();
        if kind < 20 && self.chance(30) {
            payer_id = payer(self.one(&["nobody", "carol"]));
        }
        let mut versions = Versions {
            tenant: ledger.tenant(&tenant).await.unwrap().outcome.version,
            payer: ledger.payer(&tenant, &payer_id).await.unwrap().outcome.version,
        };
        // Nobody offers anything to a payer that is not known.
        let kind = if versions.payer == 0 { kind % 20 } else { kind };
        match self.random.u32(0..40) {
            0 => versions.tenant += 1,
            1 => versions.payer += 1,
            _ => {}
        }
        let month = self.month(now);
        let refusals = [Decision::NotEntitled, Decision::PayerUnknown, Decision::PolicyDenied];
        let proposal = match kind {
            0..8 => {
                Proposal::Refuse(self.one(&refusals), self.one(&[Nuance::None, Nuance::TooShort]))
            }
            8..20 => {
                let mut offer = self.offer(month);
                offer.terms.free = true;
                offer.decision = self.one(&[Decision::AllowedEmergency, Decision::AllowedFree]);
                offer.terms.counted = offer.decision == Decision::AllowedFree;
                offer.pools.clear();
                offer.money = None;
                Proposal::Record(offer)
            }
            _ => Proposal::Grant(self.offer(month)),
        };
        Command::Authorize(Authorize {
            tenant,
            call: self.call(),
            fingerprint: if self.chance(85) { "f".to_owned() } else { "g".to_owned() },
            payer: payer_id,
            trunk: self.one(&["", "sbc-1"]).to_owned(),
            versions,
            context: vec![self.random.u8(..); self.random.usize(0..3)],
            proposal,
            denied_retention: Seconds(self.one(&[5, 600])),
            ended_retention: self.ended_retention(),
        })
    }

    fn offer(&mut self, month: Month) -> Offer {
        let free = self.chance(12);
        let mut pools = vec![];
        let mut families = FAMILIES.to_vec();
        self.random.shuffle(&mut families);
        for family in families.into_iter().take(if free { 0 } else { self.random.usize(0..3) }) {
            let closed_by = if self.chance(25) { self.one(&FAMILIES) } else { "" };
            pools.push(PoolOffer {
                family: family.to_owned(),
                closed_by: closed_by.to_owned(),
                increment: Seconds(self.one(&[60, 60, 60, 60, 1, 6, 90])),
            });
        }
        let pays = !free && self.chance(65);
        let money = pays.then(|| MoneyOffer {
            tariff: self.tariff(),
            spend_limit: self
                .one(&[None, None, Some(0), Some(300_000), Some(3_000_000)])
                .map(Micros),
            overage: self.chance(25),
            velocity: self.velocity(),
        });
        let most = |random: &mut Dealer| random.chance(8).then(|| random.random.u32(0..5));
        Offer {
            decision: if free { Decision::AllowedFree } else { Decision::Allowed },
            month,
            terms: Terms {
                reports_answer: self.random.bool(),
                free,
                counted: self.chance(90),
                charge_granted_when_lost: self.chance(20),
                ringing: Seconds(self.one(&[0, 10, 60])).max(self.shortest),
                grace: Seconds(self.one(&[0, 30])).max(self.shortest),
                longest: Seconds(self.one(&[0, 0, 0, 600])),
            },
            requested: Seconds(self.one(&[1, 30, 60, 61, 300, 300, 3_600, 14_400])),
            pools,
            money,
            limits: CallLimits {
                payer_calls: most(self),
                tenant_calls: most(self),
                calls_per_second: most(self),
            },
            when_exhausted: self.one(&[Decision::PoolExhausted, Decision::InsufficientCredits]),
            when_spend_limited: Decision::SpendLimitReached,
            when_velocity_limited: Decision::FraudSuspected,
        }
    }

    /// Mostly of one length, so that its slots fill up; at times the setting has just changed.
    fn velocity(&mut self) -> Option<SpendVelocity> {
        let amount = Micros(self.one(&[100_000, 1_000_000, 5_000_000, 50_000_000]));
        let per = Seconds(self.one(&[600, 600, 600, 600, 3_600, 1]));
        self.chance(30).then_some(SpendVelocity { amount, per })
    }

    fn tariff(&mut self) -> Tariff {
        let (rate, fee, initial, increment) = self.one(&[
            (100_000, 50_000, 60, 60),
            (100_000, 50_000, 60, 60),
            (100_000, 0, 60, 60),
            (333_333, 0, 30, 6),
            (0, 70_000, 60, 60),
            (0, 0, 60, 60),
            (7, 1, 1, 1),
            (59, 3, 13, 7),
            (MAX_RATE.0, MAX_RATE.0, 3_600, 3_600),
        ]);
        Tariff {
            rate_per_minute: Micros(rate),
            connection_fee: Micros(fee),
            initial_increment: Seconds(initial),
            increment: Seconds(increment),
        }
    }

    fn extend(&mut self, tenant: TenantId) -> Command {
        let sequence = self.random.i64(-1..9);
        Command::Extend(Extend {
            tenant,
            call: self.call(),
            used: self.used(),
            sequence: self.chance(60).then_some(sequence),
            requested: Seconds(self.one(&[1, 60, 300, 300, 3_600, 86_400])),
        })
    }

    fn end(&mut self, tenant: TenantId) -> Command {
        let used = self.used();
        let settle = Ending::Settle(used);
        Command::End(End {
            tenant,
            call: self.call(),
            how: self.one(&[settle, settle, settle, Ending::Release, Ending::Proven]),
            report: vec![self.random.u8(..); self.random.usize(0..3)],
            ended_retention: self.ended_retention(),
            has_grant: self.chance(20),
        })
    }

    /// Mostly of a call that nobody knows, as after a loss of memory.
    fn restore(&mut self, tenant: TenantId, now: Millis) -> Command {
        let month = self.month(now);
        let offer = self.offer(month.clone());
        let seconds = Seconds(self.one(&[0, 60, 300, 3_600, 14_400]));
        let money = Micros(self.one(&[0, 150_000, 550_000, 90_000_000]));
        let ago = now.0 - 1_000 * self.one(&[0, 30, 4_000]);
        let mut granted = lost_call(&offer, Millis(ago), seconds, money);
        granted.payer = self.payer().as_str().to_owned();
        granted.context = vec![self.random.u8(..); self.random.usize(0..3)];
        granted.deadline = now.after(Seconds(self.one(&[-100, 0, 50, 4_000])));
        if self.random.bool() {
            granted.state = CallState::Answered;
            granted.answered_at = Millis(ago);
            granted.used = self.used();
            granted.granted_from = granted.used;
            granted.sequence = self.random.i64(-1..9);
        }
        let until = now.after(Seconds(self.one(&[0, 1, 100, 100, 100])));
        let call = self.call();
        let leases: Vec<_> = (0..self.random.usize(0..4)).map(|_| self.call()).collect();
        // At times what is refused to the call that a lease pays for.
        if !leases.is_empty() && self.chance(30) {
            granted.fingerprint = self.one(&["f", "g"]).to_owned();
        }
        Command::Restore(Box::new(Restore { tenant, call, until, granted, month, leases }))
    }

    fn payers(&mut self, tenant: TenantId, now: Millis) -> Command {
        let mut updates = vec![];
        for _ in 0..self.random.usize(1..3) {
            let name = self.one(&["alice", "bob", "carol"]);
            let state = self.one(&[
                PayerState::Active,
                PayerState::Active,
                PayerState::Active,
                PayerState::Active,
                PayerState::Blocked,
                PayerState::Removed,
            ]);
            let mut profile = payer_profile(name, state);
            profile.numbers = self.one(&[vec![], vec![format!("+1425555{}", name.len())]]);
            let mut seats = vec![];
            for family in FAMILIES {
                if self.chance(60) {
                    let size = self.one(&[0, 60, 90, 300, 1_000, 5_000, 100_000]);
                    seats.push((family.to_owned(), Seconds(size)));
                }
            }
            updates.push(PayerUpdate { profile, seats });
        }
        let month = self.month(now);
        Command::ApplyPayers(tenant, month, updates)
    }

    fn adjustment(&mut self) -> (AdjustmentId, String, Vec<u8>) {
        let key = AdjustmentId::new(&format!("adj-{}", self.random.u32(0..400))).unwrap();
        let fingerprint = if self.chance(85) { "f" } else { "g" };
        (key, fingerprint.to_owned(), vec![self.random.u8(..); self.random.usize(0..3)])
    }

    fn adjust_balance(&mut self, tenant: TenantId, now: Millis) -> Command {
        let (key, fingerprint, report) = self.adjustment();
        let any = self.random.i64(-400..400);
        let correction = if self.random.bool() {
            let amount = self.one(&[-3_000_000, -150_000, -1, 1, 150_000, 700_000, 9_000_000]);
            Correction::Lot {
                lot: match self.chance(3) {
                    true => LotId::overage(&month_at(now).key),
                    false => self.key(now),
                },
                amount: Micros(self.one(&[amount, amount, amount, any, 100_000_000_000_000])),
                most: Micros(self.one(&[1_000_000_000_000_000, 20_000_000])),
            }
        } else {
            let month = self.month(now);
            let old = month_at(Millis(month.starts.0 - 1));
            let of = if self.chance(90) { &month } else { &old };
            let family = self.one(&["US:C:CONFERENCE", FAMILIES[0], FAMILIES[1], FAMILIES[2]]);
            Correction::Pool {
                pool: PoolId::of(family, &of.key),
                amount: Seconds(self.one(&[any, any, any, -60, 60, 5_000])),
                most: Seconds(self.one(&[1_000_000_000_000, 1_000_000_000_000, 5_000])),
                month,
            }
        };
        Command::AdjustBalance(AdjustBalance { tenant, key, fingerprint, correction, report })
    }

    async fn adjust_settlement<L: Ledger>(&mut self, tenant: TenantId, ledger: &L) -> Command {
        let (key, fingerprint, report) = self.adjustment();
        let (mut call, mut used) = (self.call(), self.used());
        for _ in 0..8 {
            let known = ledger.call(&tenant, &call).await.unwrap();
            if known.is_some_and(|known| known.state == CallState::Settled) || self.chance(5) {
                break;
            }
            call = self.call();
        }
        let known = ledger.call(&tenant, &call).await.unwrap();
        let mut over = known.map_or(Default::default(), |known| (known.used, known.money_spent()));
        match self.random.u32(0..20) {
            0 => over.0 += Seconds(1),
            1 => over.1 += Micros(1),
            2 => used = over.0,
            _ => {}
        }
        Command::AdjustSettlement(AdjustSettlement {
            tenant,
            key,
            fingerprint,
            call,
            used,
            over,
            report,
        })
    }

    fn key(&mut self, now: Millis) -> LotId {
        match self.random.u32(0..300) {
            0 => LotId::overage(&month_at(now).key),
            number => LotId::new(&format!("po-{number}")).unwrap(),
        }
    }

    fn set_block(&mut self, tenant: TenantId) -> Command {
        let payer = payer(self.one(&["alice", "bob", "carol", "nobody"]));
        let text = |of: &str| of.to_owned();
        Command::SetBlock(SetBlock {
            tenant,
            payer,
            // Mostly lifted again, so that most of the run has somebody who may call.
            blocked: self.chance(40),
            note: BlockNote {
                reason: text(self.one(&["", "premium calls", "\"Zürich\" \\ 1"])),
                operator: text(self.one(&["", "olga"])),
            },
        })
    }

    fn purchase(&mut self, tenant: TenantId, now: Millis) -> Command {
        let days = self.one(&[-400, -364, -364, -1, 0, 0, 0, 1]);
        let purchased_at = now.after(Seconds(days * 86_400));
        // Rarely: it is never used up, and what happens when nothing is left is to be met, too.
        let rich = if self.chance(1) { 100_000_000_000_000 } else { 1_000_000 };
        let amount = self.one(&[0, 1, 150_000, 250_000, 700_000, 3_000_000, rich]);
        let purchase = Purchase {
            key: self.key(now),
            amount: Micros(amount),
            purchased_at,
            payment: [("agreement".to_owned(), "EA-77".to_owned())].into(),
        };
        Command::Purchase(tenant, purchase, twelve_months_after(purchased_at))
    }
}
