//! The same random commands to both ledgers, at the same instants: every answer and everything that
//! is stored must be equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use fastrand::Rng;
use tollgate::charging::catalogue::{CountryCode, Licence};
use tollgate::charging::decision::{Decision, Nuance};
use tollgate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId, TenantId};
use tollgate::charging::month::Month;
use tollgate::charging::profile::{
    AutoRecharge, Billing, FailureHandling, NoticeTargets, OnLostSettle, OutboundPolicy, PayerKind,
    PayerProfile, PayerState, Purchase, RechargeOn, SpendVelocity, TenantLimits, TenantProfile,
    TenantState,
};
use tollgate::charging::rating::Tariff;
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::redis::RedisLedger;
use tollgate::ledger::state::{CallState, Terms};
use tollgate::ledger::{
    AdjustBalance, AdjustSettlement, Answer, Authorize, CallLimits, ClockOffset, Correction, End,
    Ending, Extend, Ledger, MoneyOffer, Offer, PayerUpdate, PoolOffer, Proposal, RechargeOutcome,
    ReportRecharge, Restore, TenantRecord, Versions,
};

use crate::support::lost_call;
use crate::support::redis::RedisServer;

const START: Millis = Millis(1_795_000_000_000);
const PAYERS: &[&str] = &["alice", "bob", "carol", "unknown"];
const FAMILIES: &[&str] = &["US:A:DOMESTIC", "US:A:INTERNATIONAL", "US:B:DOMESTIC"];
const RETENTION: &[i64] = &[0, 1, 30, 600];

fn profile(id: PayerId, state: PayerState, numbers: Vec<String>) -> PayerProfile {
    PayerProfile {
        id,
        kind: PayerKind::User,
        state,
        usage_location: CountryCode::parse("US").expect("a country"),
        licences: vec![Licence::PhoneSystem],
        numbers,
        user_policy: None,
        conference_policy: None,
        spend_limit: None,
        concurrent_calls: None,
        upn: "ünïcode".to_owned(),
        display_name: String::new(),
        object_id: String::new(),
    }
}

/// Both ledgers, one clock, and where the dice stand.
struct Pair {
    tenant: TenantId,
    clock: ClockOffset,
    now: Millis,
    memory: MemoryLedger,
    redis: RedisLedger,
    rng: Rng,
    seed: u64,
    step: usize,
    lots: usize,
    /// What has happened so far, in words.
    seen: BTreeSet<String>,
}

/// Sends one command to both and compares the answers.
macro_rules! both {
    ($pair:expr, $what:expr, |$ledger:ident| $call:expr) => {{
        let memory = {
            let $ledger = &$pair.memory;
            $call.await
        };
        let redis = {
            let $ledger = &$pair.redis;
            $call.await
        };
        $pair.check(&$what, &redis, &memory);
    }};
}

impl Pair {
    async fn new(server: &RedisServer, seed: u64) -> Pair {
        let clock = ClockOffset::default();
        clock.freeze_at(START);
        Pair {
            tenant: TenantId::new(&format!("lockstep-{seed}")).expect("a tenant id"),
            memory: MemoryLedger::new(clock.clone()),
            redis: server.ledger(&clock).await,
            clock,
            now: START,
            rng: Rng::with_seed(seed),
            seed,
            step: 0,
            lots: 0,
            seen: BTreeSet::new(),
        }
    }

    #[track_caller]
    fn check<T: PartialEq + Debug>(&self, command: &impl Debug, redis: &T, memory: &T) {
        let (seed, step) = (self.seed, self.step);
        assert!(
            redis == memory,
            "seed {seed} step {step}: {command:#?}\nredis: {redis:#?}\nmemory: {memory:#?}"
        );
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &'a [&'a T]) -> &'a T {
        all[self.rng.usize(..all.len())]
    }

    fn retention(&mut self) -> Seconds {
        Seconds(RETENTION[self.rng.usize(..RETENTION.len())])
    }

    fn call(&mut self) -> CallId {
        let n = self.rng.u32(..24);
        CallId::new(&format!("realm|{n}é")).expect("a call id")
    }

    /// The month of the clock, or now and then another.
    fn month(&mut self) -> Month {
        let mut index = (self.now.0 - START.0) / 3_600_000;
        if self.rng.u8(..20) == 0 {
            index += 1;
        }
        let starts = Millis(START.0 + index * 3_600_000);
        let ends = Millis(starts.0 + 3_600_000);
        Month { key: format!("2026-{:02}", index + 10), starts, ends }
    }

    fn offer(&mut self) -> Offer {
        let free = self.rng.u8(..8) == 0;
        let terms = Terms {
            reports_answer: self.rng.bool(),
            free,
            counted: self.rng.u8(..8) > 0,
            charge_granted_when_lost: self.rng.bool(),
            ringing: Seconds(self.rng.i64(1..60)),
            grace: Seconds(self.rng.i64(0..20)),
            longest: Seconds([0, 0, 0, 400][self.rng.usize(..4)]),
        };
        let mut families = FAMILIES.to_vec();
        self.rng.shuffle(&mut families);
        families.truncate(self.rng.usize(..3));
        let pools = families
            .iter()
            .map(|family| PoolOffer {
                family: (*family).to_owned(),
                closed_by: if self.rng.u8(..4) == 0 {
                    FAMILIES[0].to_owned()
                } else {
                    String::new()
                },
                increment: Seconds([60, 60, 6][self.rng.usize(..3)]),
            })
            .collect();
        let money = (self.rng.u8(..3) > 0).then(|| MoneyOffer {
            tariff: Tariff {
                rate_per_minute: Micros(self.rng.i64(0..2_000)),
                connection_fee: Micros([0, 50][self.rng.usize(..2)]),
                initial_increment: Seconds([60, 30, 1][self.rng.usize(..3)]),
                increment: Seconds([60, 6, 1][self.rng.usize(..3)]),
            },
            spend_limit: (self.rng.u8(..3) == 0).then(|| Micros(self.rng.i64(0..9_000))),
            overage: self.rng.u8(..4) == 0,
            velocity: (self.rng.u8(..4) == 0).then(|| SpendVelocity {
                amount: Micros(self.rng.i64(1..30_000)),
                per: Seconds([60, 60, 60, 300][self.rng.usize(..4)]),
            }),
        });
        let limit = |rng: &mut Rng, most| (rng.u8(..4) == 0).then(|| rng.u32(1..most));
        Offer {
            decision: if free { Decision::AllowedFree } else { Decision::Allowed },
            month: self.month(),
            terms,
            requested: Seconds(self.rng.i64(1..900)),
            pools,
            money,
            limits: CallLimits {
                payer_calls: limit(&mut self.rng, 5),
                tenant_calls: limit(&mut self.rng, 12),
                calls_per_second: limit(&mut self.rng, 4),
            },
            when_exhausted: Decision::InsufficientCredits,
            when_spend_limited: Decision::SpendLimitReached,
            when_velocity_limited: Decision::FraudSuspected,
        }
    }

    async fn versions(&mut self, payer: &PayerId) -> Versions {
        match self.rng.u8(..20) {
            0 => Versions { tenant: 1, payer: 1 },
            _ => self.current_versions(payer).await,
        }
    }

    async fn current_versions(&self, payer: &PayerId) -> Versions {
        let tenant = self.memory.tenant(&self.tenant).await.expect("memory").outcome.version;
        let payer = self.memory.payer(&self.tenant, payer).await.expect("memory").outcome.version;
        Versions { tenant, payer }
    }

    async fn authorize(&mut self) {
        let payer = PayerId::new(self.pick(PAYERS)).expect("a payer id");
        let versions = self.versions(&payer).await;
        let proposal = match self.rng.u8(..12) {
            0 => Proposal::Refuse(Decision::NumberInvalid, Nuance::TooShort),
            1 => Proposal::Record(self.offer()),
            _ => Proposal::Grant(self.offer()),
        };
        let command = Authorize {
            tenant: self.tenant.clone(),
            call: self.call(),
            fingerprint: ["f", "f", "f", "g"][self.rng.usize(..4)].to_owned(),
            payer,
            trunk: "sbc-1".to_owned(),
            versions,
            context: vec![0, 255, self.rng.u8(..)],
            proposal,
            denied_retention: self.retention(),
            ended_retention: self.retention(),
        };
        both!(self, command, |ledger| ledger.authorize(&command));
    }

    async fn extend(&mut self) {
        let command = Extend {
            tenant: self.tenant.clone(),
            call: self.call(),
            used: Seconds(self.rng.i64(0..700)),
            sequence: self.rng.bool().then(|| self.rng.i64(-1..6)),
            requested: Seconds(self.rng.i64(0..400)),
        };
        both!(self, command, |ledger| ledger.extend(&command));
    }

    async fn end(&mut self) {
        let how = match self.rng.u8(..8) {
            0 => Ending::Release,
            1 => Ending::Proven,
            2 => Ending::Settle(Seconds::ZERO),
            _ => Ending::Settle(Seconds(self.rng.i64(1..900))),
        };
        let command = End {
            tenant: self.tenant.clone(),
            call: self.call(),
            how,
            report: vec![254; self.rng.usize(..3)],
            ended_retention: self.retention(),
            has_grant: self.rng.bool(),
        };
        both!(self, command, |ledger| ledger.end(&command));
    }

    async fn restore(&mut self) {
        let offer = self.offer();
        let seconds = Seconds(self.rng.i64(0..900));
        let money = Micros(self.rng.i64(0..30_000));
        let mut granted = lost_call(&offer, self.now, seconds, money);
        granted.payer = self.pick(PAYERS).to_owned();
        granted.context = vec![0, 255, self.rng.u8(..)];
        granted.deadline = Millis(self.now.0 + self.rng.i64(-50_000..50_000));
        granted.reach = self.rng.u8(..5);
        granted.fingerprint = ["f", "", "g"][self.rng.usize(..3)].to_owned();
        if self.rng.bool() {
            granted.state = CallState::Answered;
            granted.answered_at = self.now;
            granted.used = Seconds(self.rng.i64(0..700));
        }
        let command = Restore {
            tenant: self.tenant.clone(),
            call: self.call(),
            until: Millis(self.now.0 + self.rng.i64(-1_000..9_000)),
            granted,
            month: offer.month,
            leases: (0..self.rng.usize(..4)).map(|_| self.call()).collect(),
        };
        both!(self, command, |ledger| ledger.restore(&command));
    }

    async fn purchase(&mut self) {
        let known = self.lots > 0 && self.rng.u8(..4) == 0;
        if !known {
            self.lots += 1;
        }
        let lot = if known { self.rng.usize(..self.lots) } else { self.lots - 1 };
        // The first letters are out of order, so that equal instants fall back on the bytes.
        let key = format!("{}-{lot}", ["b", "A", "é", "a"][lot % 4]);
        let purchased_at = Millis(self.now.0 - 1_000 * (lot % 3) as i64);
        let purchase = Purchase {
            key: LotId::new(&key).expect("a lot id"),
            amount: Micros([0, 500, 3_000, 20_000][self.rng.usize(..4)]),
            purchased_at,
            payment: BTreeMap::from([("agreement".to_owned(), "EA-77".to_owned())]),
        };
        let expires_at = Millis(self.now.0 + self.rng.i64(1..3_000_000));
        both!(self, purchase, |ledger| ledger.purchase(&self.tenant, &purchase, expires_at));
    }

    fn auto_recharge(&mut self) -> Option<AutoRecharge> {
        self.rng.bool().then(|| AutoRecharge {
            trigger: Micros(self.rng.i64(1..9_000)),
            amount: Micros(self.rng.i64(1..3_000)),
            daily_cap: self.rng.bool().then_some(Micros(9_000)),
            recharge_on: [RechargeOn::Spent, RechargeOn::Available][self.rng.usize(..2)],
        })
    }

    async fn report_recharge(&mut self) {
        let balance = self.memory.balance(&self.tenant).await.expect("memory").outcome;
        let last = balance.recharge.map_or(0, |recharge| recharge.requests);
        let outcome = match self.rng.bool() {
            true => RechargeOutcome::Succeeded {
                bought_at: self.now,
                expires_at: Millis(self.now.0 + self.rng.i64(1..3_000_000)),
            },
            false => RechargeOutcome::Failed("ünïcode".to_owned()),
        };
        let key = LotId::recharge((last + 1 - self.rng.i64(0..4)).max(0));
        let report = ReportRecharge { tenant: self.tenant.clone(), key, outcome };
        both!(self, report, |ledger| ledger.report_recharge(&report));
    }

    async fn apply_tenant(&mut self) {
        let state = match self.rng.u8(..6) {
            0 => TenantState::Suspended,
            _ => TenantState::Active,
        };
        let record = TenantRecord {
            profile: TenantProfile {
                id: self.tenant.clone(),
                currency: "USD".to_owned(),
                country: CountryCode::parse("US"),
                time_zone: "UTC".to_owned(),
                state,
                billing: Billing::Prepaid,
                overage: false,
                rate_deck: "default".to_owned(),
                outbound_policy: OutboundPolicy::default(),
                failure_handling: FailureHandling::default(),
                on_lost_settle: OnLostSettle::Proven,
                limits: TenantLimits::default(),
                spend_velocity: None,
                blocked_prefixes: vec![],
                auto_recharge: self.auto_recharge(),
                trunks: vec![],
                notices: NoticeTargets::default(),
                international_cap: Default::default(),
                allow_unlisted_destinations: false,
                pool_increments: Default::default(),
                deduct_shortfall: self.rng.bool(),
                retention: Default::default(),
            },
            deck: self.rng.bool().then(|| "v1".to_owned()),
        };
        let over = match self.rng.u8(..3) {
            0 => None,
            1 => Some(self.rng.u64(..3)),
            _ => Some(self.memory.tenant(&self.tenant).await.unwrap().outcome.version),
        };
        both!(self, record, |ledger| ledger.apply_tenant(&self.tenant, &record, over));
    }

    async fn apply_payers(&mut self) {
        let month = self.month();
        let mut updates = vec![];
        for _ in 0..self.rng.usize(1..4) {
            let id = PayerId::new(self.pick(&PAYERS[..3])).expect("a payer id");
            let state = match self.rng.u8(..6) {
                0 => PayerState::Blocked,
                1 => PayerState::Removed,
                _ => PayerState::Active,
            };
            let numbers = (0..self.rng.usize(..3)).map(|_| format!("+1425{}", self.rng.u8(..4)));
            let numbers: Vec<String> = numbers.collect();
            let seats = (0..self.rng.usize(..4)).map(|_| {
                let family = FAMILIES[self.rng.usize(..FAMILIES.len())].to_owned();
                (family, Seconds(self.rng.i64(0..40) * 30))
            });
            let seats: Vec<(String, Seconds)> = seats.collect();
            updates.push(PayerUpdate { profile: profile(id, state, numbers), seats });
        }
        both!(self, updates, |ledger| ledger.apply_payers(&self.tenant, &month, &updates));
    }

    async fn adjust(&mut self) {
        let key = AdjustmentId::new(&format!("é{}", self.rng.u32(..200))).expect("a key");
        let fingerprint = ["f", "f", "g"][self.rng.usize(..3)].to_owned();
        let (tenant, report) = (self.tenant.clone(), vec![255; self.rng.usize(..3)]);
        if self.rng.bool() {
            let call = self.call();
            let known = self.memory.call(&tenant, &call).await.expect("memory");
            let over = known.map_or(Default::default(), |call| (call.used, call.money_spent()));
            let used = Seconds(self.rng.i64(0..900));
            let command = AdjustSettlement { tenant, key, fingerprint, call, used, over, report };
            both!(self, command, |ledger| ledger.adjust_settlement(&command));
            return;
        }
        let lots = self.lots.max(1);
        let lot = self.rng.usize(..lots);
        let correction = if self.rng.bool() {
            Correction::Lot {
                lot: LotId::new(&format!("{}-{lot}", ["b", "A", "é", "a"][lot % 4]))
                    .expect("a lot"),
                amount: Micros(self.rng.i64(-3_000..3_000)),
                most: Micros([50_000, 1 << 50][self.rng.usize(..2)]),
            }
        } else {
            let month = self.month();
            Correction::Pool {
                pool: PoolId::of(self.pick(FAMILIES), &month.key),
                amount: Seconds(self.rng.i64(-600..900)),
                month,
                most: Seconds([2_000, 1 << 40][self.rng.usize(..2)]),
            }
        };
        let command = AdjustBalance { tenant, key, fingerprint, correction, report };
        both!(self, command, |ledger| ledger.adjust_balance(&command));
    }

    async fn turn(&mut self) {
        match self.rng.u8(..104) {
            100.. => self.adjust().await,
            0..36 => self.authorize().await,
            36..44 => {
                let command = Answer { tenant: self.tenant.clone(), call: self.call() };
                both!(self, command, |ledger| ledger.answer(&command));
            }
            44..48 => self.restore().await,
            48..60 => self.extend().await,
            60..76 => self.end().await,
            76..80 => self.purchase().await,
            80..82 => self.report_recharge().await,
            82..84 => self.apply_tenant().await,
            84..88 => self.apply_payers().await,
            88..92 => {
                let (most, retention) = (self.rng.u32(..5), self.retention());
                both!(self, (most, retention), |ledger| ledger.sweep(
                    &self.tenant,
                    most,
                    retention
                ));
            }
            92..95 => self.compare_reads().await,
            _ => {
                let by = match self.rng.u8(..8) {
                    0 => 0,
                    7 => self.rng.i64(0..2_000),
                    _ => self.rng.i64(0..60),
                };
                self.clock.advance(Seconds(by));
                self.now = self.now.after(Seconds(by));
            }
        }
    }

    async fn compare_reads(&mut self) {
        let (month, call) = (self.month(), self.call());
        let payer = PayerId::new(self.pick(PAYERS)).expect("a payer id");
        let families: Vec<String> = FAMILIES.iter().map(|family| (*family).to_owned()).collect();
        both!(self, "balance", |ledger| ledger.balance(&self.tenant));
        both!(self, "call", |ledger| ledger.call(&self.tenant, &call));
        both!(self, "position", |ledger| ledger.position(
            &self.tenant,
            &payer,
            &call,
            &month,
            &families
        ));
        let tenants =
            (self.memory.tenant(&self.tenant).await, self.redis.tenant(&self.tenant).await);
        let (memory, redis) = (tenants.0.expect("memory"), tenants.1.expect("redis"));
        self.check(&"version", &redis.outcome.version, &memory.outcome.version);
        self.check(&"record", &redis.outcome.record, &memory.outcome.record);
        self.check(&"numbers", &redis.outcome.numbers, &memory.outcome.numbers);
        let payers = (
            self.memory.payer(&self.tenant, &payer).await.expect("memory").outcome,
            self.redis.payer(&self.tenant, &payer).await.expect("redis").outcome,
        );
        self.check(&"payer version", &payers.1.version, &payers.0.version);
        self.check(&"payer profile", &payers.1.profile, &payers.0.profile);
    }

    async fn compare_all(&mut self) {
        self.compare_reads().await;
        both!(self, "snapshot", |ledger| ledger.snapshot(&self.tenant));
        let most = self.rng.usize(1..7);
        let mut cursors = (None, None);
        loop {
            let memory = self.memory.open_calls(&self.tenant, cursors.0.as_deref(), most).await;
            let redis = self.redis.open_calls(&self.tenant, cursors.1.as_deref(), most).await;
            self.check(&"open calls", &redis, &memory);
            cursors = (memory.expect("a page").next, redis.expect("a page").next);
            if cursors.0.is_none() {
                break;
            }
        }
        let mut cursors = (None, None);
        loop {
            let memory = self.memory.journal(&self.tenant, cursors.0.as_deref(), 300).await;
            let redis = self.redis.journal(&self.tenant, cursors.1.as_deref(), 300).await;
            let (memory, redis) = (memory.expect("a page"), redis.expect("a page"));
            self.check(&"journal", &redis.items, &memory.items);
            for entry in &memory.items {
                self.seen.insert(format!("{:?}", entry.kind));
                self.seen.extend(entry.decision.map(|decision| decision.to_string()));
                if entry.shortfall_money.is_positive() {
                    self.seen.insert("shortfall".to_owned());
                }
            }
            self.check(&"last page", &redis.next.is_none(), &memory.next.is_none());
            cursors = (memory.next, redis.next);
            if cursors.0.is_none() {
                break;
            }
        }
    }

    async fn play(&mut self, steps: usize) {
        self.apply_tenant().await;
        self.apply_payers().await;
        while self.step < steps {
            self.step += 1;
            self.turn().await;
            if self.step.is_multiple_of(400) {
                self.compare_all().await;
            }
        }
        self.compare_all().await;
    }
}

#[tokio::test]
async fn more_payers_and_lots_than_one_read_takes_are_equal_too() {
    let server = RedisServer::shared();
    let mut pair = Pair::new(&server, 0).await;
    pair.apply_tenant().await;
    let month =
        Month { key: "2026-10".to_owned(), starts: START, ends: START.after(Seconds(3_600)) };
    let payer = |n: usize| {
        let id = PayerId::new(&format!("user-{n}")).expect("a payer id");
        let seats =
            vec![(FAMILIES[n % 3].to_owned(), Seconds(60)), (format!("own-{n}"), Seconds(6))];
        PayerUpdate { profile: profile(id, PayerState::Active, vec![format!("+1{n}")]), seats }
    };
    let updates: Vec<PayerUpdate> = (0..1_100).map(payer).collect();
    both!(pair, "payers", |ledger| ledger.apply_payers(&pair.tenant, &month, &updates));
    both!(pair, "payers again", |ledger| ledger.apply_payers(&pair.tenant, &month, &updates));
    for n in 0..1_100 {
        let purchase = Purchase {
            key: LotId::new(&format!("po-{n}")).expect("a lot id"),
            amount: Micros(10),
            purchased_at: START,
            payment: BTreeMap::new(),
        };
        let expires_at = START.after(Seconds(600));
        both!(pair, purchase, |ledger| ledger.purchase(&pair.tenant, &purchase, expires_at));
    }
    pair.compare_all().await;
    // One call that draws on all lots but the last few, and is charged only part of it.
    let offer = Offer {
        month,
        terms: Terms { ringing: Seconds(60), counted: true, ..Terms::default() },
        requested: Seconds(10_950),
        pools: vec![],
        money: Some(MoneyOffer {
            tariff: Tariff {
                rate_per_minute: Micros(60),
                connection_fee: Micros(0),
                initial_increment: Seconds(1),
                increment: Seconds(1),
            },
            spend_limit: None,
            overage: false,
            velocity: None,
        }),
        limits: CallLimits::default(),
        ..pair.offer()
    };
    let payer = PayerId::new("user-7").expect("a payer id");
    let command = Authorize {
        tenant: pair.tenant.clone(),
        call: CallId::new("long").expect("a call id"),
        fingerprint: "f".to_owned(),
        versions: pair.current_versions(&payer).await,
        payer,
        trunk: String::new(),
        context: vec![],
        proposal: Proposal::Grant(offer),
        denied_retention: Seconds(600),
        ended_retention: Seconds(600),
    };
    both!(pair, command, |ledger| ledger.authorize(&command));
    let snapshot = pair.memory.snapshot(&pair.tenant).await.expect("memory").outcome;
    assert_eq!(snapshot.calls[0].1.money.as_ref().map(|money| money.lots.len()), Some(1_095));
    let end = End {
        tenant: pair.tenant.clone(),
        call: command.call.clone(),
        how: Ending::Settle(Seconds(10_005)),
        report: vec![],
        ended_retention: Seconds(600),
        has_grant: false,
    };
    both!(pair, end, |ledger| ledger.end(&end));
    pair.clock.advance(Seconds(700));
    both!(pair, "lapse", |ledger| ledger.sweep(&pair.tenant, 5, Seconds(600)));
    pair.compare_all().await;
}

#[tokio::test]
async fn both_ledgers_give_equal_answers_and_store_equal_values() {
    let server = RedisServer::shared();
    let mut seen = BTreeSet::new();
    for seed in 1..=6 {
        let mut pair = Pair::new(&server, seed).await;
        pair.play(2_000).await;
        seen.append(&mut pair.seen);
    }
    // The dice have been everywhere.
    let everywhere = [
        "Authorized Refused Extended Reopened Settled SettledLate Released Expired Parked Purchased",
        "LotExpired Adjusted shortfall ALLOWED ALLOWED_FREE KEY_CONFLICT CALL_ALREADY_ENDED RATE_LIMITED",
        "CONCURRENCY_LIMIT NUMBER_INVALID INSUFFICIENT_CREDITS SPEND_LIMIT_REACHED FRAUD_SUSPECTED",
        "CONCURRENCY_LIMIT NUMBER_INVALID INSUFFICIENT_CREDITS SPEND_LIMIT_REACHED",
        "RechargeRequested RechargeSucceeded RechargeFailed ShortfallCollected",
    ];
    for place in everywhere.iter().flat_map(|places| places.split(' ')) {
        assert!(seen.contains(place), "{place} was never reached, only {seen:?}");
    }
}
