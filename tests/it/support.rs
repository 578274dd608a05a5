//! What the tests share: a stage on which one ledger plays one tenant by a stopped clock.

pub mod in_file;
pub mod messages;
pub mod process;
pub mod redis;
pub mod redis_group;
pub mod traffic;
pub mod watched;

use std::any::Any;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};

use tollgate::charging::decision::{Decision, Nuance};
use tollgate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, PoolId, TenantId};
use tollgate::charging::month::{Month, parse_zone, twelve_months_after};
use tollgate::charging::profile::{
    AutoRecharge, Billing, FailureHandling, NoticeTargets, OnLostSettle, OutboundPolicy, PayerKind,
    PayerProfile, PayerState, Purchase, TenantLimits, TenantProfile, TenantState,
};
use tollgate::charging::rating::Tariff;
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::audit::{Report, audit};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::redis::RedisLedger;
use tollgate::ledger::state::{
    Bucket, Call, CallState, Entry, EntryKind, LotLine, MoneyLine, PoolLine, Terms,
};
use tollgate::ledger::{
    AdjustBalance, AdjustSettlement, Adjusted, Answer, Answered, Applied, Authorize, Authorized,
    CallLimits, ClockOffset, Correction, End, EndResult, Ended, Ending, Extend, Extended, Ledger,
    MoneyOffer, Offer, PayerUpdate, PoolOffer, Proposal, Purchased, RechargeOutcome,
    RechargeReported, ReportRecharge, Restore, Restored, Snapshot, Swept, TenantRecord, Versions,
    pool_id,
};

/// Makes one test per case and ledger: `memory::name`, and so on. A new ledger is one line here and a
/// constructor of the same name below.
#[macro_export]
macro_rules! on_every_ledger {
    ($($case:ident)*) => {
        $crate::on_one_ledger!(memory: $($case)*);
        $crate::on_a_file!($($case)*);
        $crate::on_one_ledger!(redis: $($case)*);
    };
}

/// See [`on_every_ledger`].
#[macro_export]
macro_rules! on_one_ledger {
    ($ledger:ident: $($case:ident)*) => {
        mod $ledger {
            $(
                #[tokio::test]
                async fn $case() {
                    let stage = $crate::support::Stage::open($crate::support::$ledger).await;
                    super::$case(&stage).await;
                    stage.assert_audit_clean().await;
                }
            )*
        }
    };
}

/// See [`on_every_ledger`]. After each case the file must hold everything.
#[macro_export]
macro_rules! on_a_file {
    ($($case:ident)*) => {
        mod file {
            $(
                #[tokio::test]
                async fn $case() {
                    let stage = $crate::support::Stage::open($crate::support::file).await;
                    super::$case(&stage).await;
                    stage.assert_audit_clean().await;
                    $crate::support::in_file::assert_kept(stage).await;
                }
            )*
        }
    };
}

/// The embedded ledger.
pub async fn memory(clock: ClockOffset) -> Opened<MemoryLedger> {
    Opened { ledger: MemoryLedger::new(clock), keep: Box::new(()) }
}

/// The embedded ledger in a file of its own.
pub async fn file(clock: ClockOffset) -> Opened<MemoryLedger> {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = in_file::open(&folder, clock);
    Opened { ledger, keep: Box::new(folder) }
}

/// The Redis ledger, on the server that all tests share.
pub async fn redis(clock: ClockOffset) -> Opened<RedisLedger> {
    let server = redis::RedisServer::shared();
    Opened { ledger: server.ledger(&clock).await, keep: Box::new(server) }
}

/// A ledger, and what must live as long, such as its server.
pub struct Opened<L> {
    pub ledger: L,
    pub keep: Box<dyn Any + Send + Sync>,
}

/// 2026-11-10T12:00:00Z: where every stage's clock stands at first.
pub const NOON: Millis = Millis(1_794_312_000_000);

/// Longer than any test: nothing is overdue by it.
pub const NEVER_OVERDUE: Seconds = Seconds(1_000_000_000);

pub const MINUTE: Seconds = Seconds(60);
pub const DAY: Seconds = Seconds(86_400);
/// One unit of currency.
pub const UNIT: i64 = 1_000_000;

/// How long ended calls are kept here.
pub const ENDED_RETENTION: Seconds = Seconds(86_400);
/// How long refusals are kept here.
pub const DENIED_RETENTION: Seconds = Seconds(600);

pub const DOMESTIC: &str = "US:MCOPSTN2:DOMESTIC";
pub const INTERNATIONAL: &str = "US:MCOPSTN2:INTERNATIONAL";

/// One ledger, one fresh tenant, one stopped clock.
pub struct Stage<L> {
    pub ledger: L,
    pub clock: ClockOffset,
    pub tenant: TenantId,
    keep: Box<dyn Any + Send + Sync>,
}

/// Whether an entry tells of balances, not of a call or a lot.
pub fn is_alert(kind: EntryKind) -> bool {
    use EntryKind::{CreditsDepleted, PoolExhausted, PoolThreshold, RechargeRequested};
    matches!(kind, PoolThreshold | PoolExhausted | CreditsDepleted | RechargeRequested)
}

pub fn payer(name: &str) -> PayerId {
    PayerId::new(name).unwrap()
}

pub fn call_id(name: &str) -> CallId {
    CallId::new(name).unwrap()
}

pub fn month_at(instant: Millis) -> Month {
    Month::containing(instant, &parse_zone("UTC").unwrap())
}

/// 0.10 per minute, a fee of 0.05, 60/60.
pub fn tariff() -> Tariff {
    Tariff {
        rate_per_minute: Micros(100_000),
        connection_fee: Micros(50_000),
        initial_increment: MINUTE,
        increment: MINUTE,
    }
}

pub fn credits() -> MoneyOffer {
    MoneyOffer { tariff: tariff(), spend_limit: None, overage: false, velocity: None }
}

pub fn tenant_record(tenant: &TenantId, state: TenantState) -> TenantRecord {
    let profile = TenantProfile {
        id: tenant.clone(),
        currency: "USD".to_owned(),
        country: None,
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
        auto_recharge: None,
        trunks: vec![],
        notices: NoticeTargets::default(),
        international_cap: Default::default(),
        allow_unlisted_destinations: false,
        pool_increments: Default::default(),
        deduct_shortfall: false,
        retention: Default::default(),
    };
    TenantRecord { profile, deck: None }
}

pub fn payer_profile(name: &str, state: PayerState) -> PayerProfile {
    PayerProfile {
        id: payer(name),
        kind: PayerKind::User,
        state,
        usage_location: tollgate::charging::catalogue::CountryCode::parse("US").unwrap(),
        licences: vec![],
        numbers: vec![],
        user_policy: None,
        conference_policy: None,
        spend_limit: None,
        concurrent_calls: None,
        upn: String::new(),
        display_name: String::new(),
        object_id: String::new(),
    }
}

/// A call as a signed grant may tell it: of each pool of the offer it held so much, and of the wallet.
pub fn lost_call(offer: &Offer, at: Millis, seconds: Seconds, money: Micros) -> Call {
    let mut call = Call::new(CallState::Ringing, at);
    call.decision = Some(offer.decision);
    call.fingerprint = "f".to_owned();
    call.payer = "alice".to_owned();
    call.terms = offer.terms;
    call.granted = offer.requested;
    call.pools = offer
        .pools
        .iter()
        .map(|pool| PoolLine {
            pool: PoolId::of(&pool.family, &offer.month.key),
            closed_by: match pool.closed_by.as_str() {
                "" => String::new(),
                family => pool_id(family, &offer.month.key),
            },
            increment: pool.increment,
            held: seconds.round_down(pool.increment),
            spent: Seconds::ZERO,
        })
        .collect();
    call.money = offer.money.map(|offered| {
        let lot = LotId::new("lost").unwrap();
        let lots = vec![LotLine { lot, held: money, spent: Micros::ZERO }];
        MoneyLine { lots, ..offered.line(&offer.month.key) }
    });
    call
}

/// An authorize in the making.
#[derive(Clone, Debug)]
pub struct Request {
    pub payer: String,
    pub fingerprint: String,
    pub trunk: String,
    pub versions: Option<Versions>,
    pub month: Option<Month>,
    pub refuse: Option<Decision>,
    pub record: bool,
    pub offer: Offer,
}

/// A call of alice that asks for five minutes and has no source yet.
pub fn request() -> Request {
    Request {
        payer: "alice".to_owned(),
        fingerprint: "same".to_owned(),
        trunk: "sbc-1".to_owned(),
        versions: None,
        month: None,
        refuse: None,
        record: false,
        offer: Offer {
            decision: Decision::Allowed,
            month: month_at(NOON),
            terms: Terms {
                reports_answer: true,
                free: false,
                counted: true,
                charge_granted_when_lost: false,
                ringing: MINUTE,
                grace: Seconds(30),
                longest: Seconds::ZERO,
            },
            requested: Seconds(300),
            pools: vec![],
            money: None,
            limits: CallLimits::default(),
            when_exhausted: Decision::PoolExhausted,
            when_spend_limited: Decision::SpendLimitReached,
            when_velocity_limited: Decision::FraudSuspected,
        },
    }
}

impl Request {
    pub fn of(mut self, payer: &str) -> Self {
        self.payer = payer.to_owned();
        self
    }

    pub fn pool(mut self, family: &str) -> Self {
        let (family, closed_by) = (family.to_owned(), String::new());
        self.offer.pools.push(PoolOffer { family, closed_by, increment: MINUTE });
        self
    }

    pub fn closed_by(mut self, family: &str) -> Self {
        self.offer.pools.last_mut().unwrap().closed_by = family.to_owned();
        self
    }

    pub fn money(mut self, money: MoneyOffer) -> Self {
        self.offer.money = Some(money);
        self
    }

    pub fn lasting(mut self, requested: i64) -> Self {
        self.offer.requested = Seconds(requested);
        self
    }

    pub fn free(mut self) -> Self {
        self.offer.terms.free = true;
        self.offer.decision = Decision::AllowedFree;
        self
    }

    /// An emergency call whose record reaches the ledger afterwards.
    pub fn emergency(mut self) -> Self {
        self.offer.decision = Decision::AllowedEmergency;
        self.offer.terms.free = true;
        self.offer.terms.counted = false;
        self.record = true;
        self
    }

    pub fn limits(mut self, limits: CallLimits) -> Self {
        self.offer.limits = limits;
        self
    }

    pub fn other_payload(mut self) -> Self {
        self.fingerprint = "other".to_owned();
        self
    }

    pub fn refused(mut self, decision: Decision) -> Self {
        self.refuse = Some(decision);
        self
    }

    pub fn terms(mut self, change: impl FnOnce(&mut Terms)) -> Self {
        change(&mut self.offer.terms);
        self
    }
}

static TENANTS: AtomicU32 = AtomicU32::new(0);

impl<L: Ledger> Stage<L> {
    /// A stage with the payers alice and bob, no pools and no credits.
    pub async fn open<F: Future<Output = Opened<L>>>(
        ledger: impl FnOnce(ClockOffset) -> F,
    ) -> Stage<L> {
        let clock = ClockOffset::default();
        clock.freeze_at(NOON);
        let Opened { ledger, keep } = ledger(clock.clone()).await;
        let number = TENANTS.fetch_add(1, Ordering::Relaxed);
        let tenant = TenantId::new(&format!("t{}-{number}", std::process::id())).unwrap();
        let stage = Stage { ledger, clock, tenant, keep };
        stage.set_tenant(TenantState::Active).await;
        for name in ["alice", "bob"] {
            stage.set_payer(name, PayerState::Active, &[]).await;
        }
        stage
    }

    pub fn now(&self) -> Millis {
        self.clock.reading().at(Millis::ZERO)
    }

    pub fn pass(&self, seconds: i64) {
        self.clock.advance(Seconds(seconds));
    }

    pub fn month(&self) -> Month {
        month_at(self.now())
    }

    /// To the first instant of the next month.
    pub fn pass_to_next_month(&self) {
        self.clock.freeze_at(self.month().ends);
    }

    // Provisioning.

    pub async fn set_tenant(&self, state: TenantState) -> bool {
        let record = tenant_record(&self.tenant, state);
        let applied = self.ledger.apply_tenant(&self.tenant, &record, None).await.unwrap().outcome;
        applied == Applied::Changed(1)
    }

    pub async fn set_payer(&self, name: &str, state: PayerState, seats: &[(&str, i64)]) {
        let seats = seats.iter().map(|(family, s)| ((*family).to_owned(), Seconds(*s))).collect();
        let update = PayerUpdate { profile: payer_profile(name, state), seats };
        let applied = self.ledger.apply_payers(&self.tenant, &self.month(), &[update]).await;
        assert!(matches!(applied.unwrap().outcome, Applied::Changed(_)));
    }

    /// A pool of that many seconds a month.
    pub async fn set_pool(&self, family: &str, seconds: i64) {
        let holder = format!("holder-of-{}", family.replace(':', "-"));
        self.set_payer(&holder, PayerState::Active, &[(family, seconds)]).await;
    }

    pub async fn buy(&self, key: &str, micros: i64) -> Purchased {
        self.buy_at(key, micros, self.now()).await
    }

    pub async fn buy_at(&self, key: &str, micros: i64, at: Millis) -> Purchased {
        let purchase = Purchase {
            key: LotId::new(key).unwrap(),
            amount: Micros(micros),
            purchased_at: at,
            payment: [("agreement".to_owned(), "EA-77".to_owned())].into(),
        };
        let expires_at = twelve_months_after(at);
        self.ledger.purchase(&self.tenant, &purchase, expires_at).await.unwrap().outcome
    }

    /// The tenant with auto-recharge, and whether purchases pay what calls fell short of.
    pub async fn set_recharge(&self, recharge: Option<AutoRecharge>, deduct_shortfall: bool) {
        let mut record = tenant_record(&self.tenant, TenantState::Active);
        record.profile.auto_recharge = recharge;
        record.profile.deduct_shortfall = deduct_shortfall;
        self.ledger.apply_tenant(&self.tenant, &record, None).await.unwrap();
    }

    /// Reports what became of a recharge: it has succeeded, or failed and why.
    pub async fn report(&self, key: &str, outcome: Result<(), &str>) -> RechargeReported {
        let outcome = match outcome {
            Ok(()) => RechargeOutcome::Succeeded {
                bought_at: self.now(),
                expires_at: twelve_months_after(self.now()),
            },
            Err(reason) => RechargeOutcome::Failed(reason.to_owned()),
        };
        let key = LotId::new(key).unwrap();
        let report = ReportRecharge { tenant: self.tenant.clone(), key, outcome };
        self.ledger.report_recharge(&report).await.unwrap().outcome
    }

    // Calls.

    pub async fn versions(&self, payer: &PayerId) -> Versions {
        Versions {
            tenant: self.ledger.tenant(&self.tenant).await.unwrap().outcome.version,
            payer: self.ledger.payer(&self.tenant, payer).await.unwrap().outcome.version,
        }
    }

    pub async fn command(&self, call: &str, request: Request) -> Authorize {
        let payer = payer(&request.payer);
        let versions = match request.versions {
            Some(versions) => versions,
            None => self.versions(&payer).await,
        };
        let mut offer = request.offer;
        offer.month = request.month.unwrap_or_else(|| self.month());
        let proposal = match request.refuse {
            Some(decision) => Proposal::Refuse(decision, Nuance::None),
            None if request.record => Proposal::Record(offer),
            None => Proposal::Grant(offer),
        };
        Authorize {
            tenant: self.tenant.clone(),
            call: call_id(call),
            fingerprint: request.fingerprint,
            payer,
            trunk: request.trunk,
            versions,
            context: b"why".to_vec(),
            proposal,
            denied_retention: DENIED_RETENTION,
            ended_retention: ENDED_RETENTION,
        }
    }

    pub async fn authorize(&self, call: &str, request: Request) -> Authorized {
        let command = self.command(call, request).await;
        let reply = self.ledger.authorize(&command).await.unwrap();
        assert_eq!(reply.now, self.now());
        reply.outcome
    }

    /// Authorizes a call that must be granted.
    #[track_caller]
    pub fn grant(&self, call: &str, request: Request) -> impl Future<Output = Call> {
        let caller = std::panic::Location::caller();
        async move {
            match self.authorize(call, request).await {
                Authorized::Decided(call) if call.state == CallState::Ringing => call,
                other => panic!("{caller}: expected a grant, found {other:?}"),
            }
        }
    }

    /// Authorizes a call that must be refused, and why.
    #[track_caller]
    pub fn refusal(&self, call: &str, request: Request) -> impl Future<Output = Decision> {
        let caller = std::panic::Location::caller();
        async move {
            match self.authorize(call, request).await {
                Authorized::Decided(call) if call.state == CallState::Denied => {
                    call.decision.unwrap()
                }
                other => panic!("{caller}: expected a refusal, found {other:?}"),
            }
        }
    }

    pub async fn answer(&self, call: &str) -> Answered {
        let command = Answer { tenant: self.tenant.clone(), call: call_id(call) };
        self.ledger.answer(&command).await.unwrap().outcome
    }

    pub async fn extend(
        &self,
        call: &str,
        used: i64,
        sequence: Option<i64>,
        requested: i64,
    ) -> Extended {
        let command = Extend {
            tenant: self.tenant.clone(),
            call: call_id(call),
            used: Seconds(used),
            sequence,
            requested: Seconds(requested),
        };
        self.ledger.extend(&command).await.unwrap().outcome
    }

    /// Extends a call that must stay granted.
    #[track_caller]
    pub fn extended(&self, call: &str, used: i64, requested: i64) -> impl Future<Output = Call> {
        let caller = std::panic::Location::caller();
        async move {
            match self.extend(call, used, None, requested).await {
                Extended::Granted { call, replayed: false } => call,
                other => panic!("{caller}: expected a grant, found {other:?}"),
            }
        }
    }

    pub async fn end(&self, call: &str, how: Ending) -> Ended {
        let command = End {
            tenant: self.tenant.clone(),
            call: call_id(call),
            how,
            report: b"bye".to_vec(),
            ended_retention: ENDED_RETENTION,
            has_grant: false,
        };
        self.ledger.end(&command).await.unwrap().outcome
    }

    /// Puts a call back as it was granted, for a day from now.
    pub async fn restore(&self, call: &str, granted: &Call) -> Restored {
        self.restore_until(call, granted, self.now().after(DAY)).await
    }

    pub async fn restore_until(&self, call: &str, granted: &Call, until: Millis) -> Restored {
        let command = Restore {
            tenant: self.tenant.clone(),
            call: call_id(call),
            until,
            granted: granted.clone(),
            month: self.month(),
            leases: vec![],
        };
        self.ledger.restore(&command).await.unwrap().outcome
    }

    /// Brings a call that was granted out of leases.
    pub async fn restore_from(&self, call: &str, granted: &Call, leases: &[&str]) -> Restored {
        let command = Restore {
            tenant: self.tenant.clone(),
            call: call_id(call),
            until: self.now().after(DAY),
            granted: granted.clone(),
            month: self.month(),
            leases: leases.iter().map(|lease| call_id(lease)).collect(),
        };
        self.ledger.restore(&command).await.unwrap().outcome
    }

    pub async fn settle(&self, call: &str, used: i64) -> Ended {
        self.end(call, Ending::Settle(Seconds(used))).await
    }

    pub async fn release(&self, call: &str) -> Ended {
        self.end(call, Ending::Release).await
    }

    /// Ends a call that must end with this result, now for the first time.
    #[track_caller]
    pub fn ended(&self, call: &str, how: Ending, as_: EndResult) -> impl Future<Output = Call> {
        let caller = std::panic::Location::caller();
        async move {
            match self.end(call, how).await {
                Ended::Done { result, call, replayed: false } if result == as_ => call,
                other => panic!("{caller}: expected {as_:?}, found {other:?}"),
            }
        }
    }

    #[track_caller]
    pub fn settled(&self, call: &str, used: i64) -> impl Future<Output = Call> {
        self.ended(call, Ending::Settle(Seconds(used)), EndResult::Settled)
    }

    #[track_caller]
    pub fn released(&self, call: &str) -> impl Future<Output = Call> {
        self.ended(call, Ending::Release, EndResult::Released)
    }

    /// Adds so much to a lot, under a key of that correction.
    pub async fn adjust_lot(&self, key: &str, lot: &str, micros: i64) -> Adjusted {
        let correction = Correction::Lot {
            lot: LotId::new(lot).unwrap(),
            amount: Micros(micros),
            most: Micros(1_000 * UNIT),
        };
        self.adjust(key, &format!("{lot} {micros}"), correction).await
    }

    /// Adds so much to this month's pool, or that of another month.
    pub async fn adjust_pool(&self, key: &str, family: &str, seconds: i64) -> Adjusted {
        self.adjust_pool_of(key, family, &self.month().key, seconds).await
    }

    pub async fn adjust_pool_of(
        &self,
        key: &str,
        family: &str,
        month: &str,
        seconds: i64,
    ) -> Adjusted {
        let correction = Correction::Pool {
            pool: PoolId::of(family, month),
            amount: Seconds(seconds),
            month: self.month(),
            most: Seconds(1_000_000),
        };
        self.adjust(key, &format!("{family} {month} {seconds}"), correction).await
    }

    pub async fn adjust(&self, key: &str, fingerprint: &str, correction: Correction) -> Adjusted {
        let command = AdjustBalance {
            tenant: self.tenant.clone(),
            key: AdjustmentId::new(key).unwrap(),
            fingerprint: fingerprint.to_owned(),
            correction,
            report: key.as_bytes().to_vec(),
        };
        self.ledger.adjust_balance(&command).await.unwrap().outcome
    }

    /// Corrects a call as it stands.
    pub async fn adjust_call(&self, key: &str, call: &str, used: i64) -> Adjusted {
        let known = self.call(call).await;
        let over = known.map_or(Default::default(), |call| (call.used, call.money_spent()));
        let command = AdjustSettlement {
            tenant: self.tenant.clone(),
            key: AdjustmentId::new(key).unwrap(),
            fingerprint: format!("{call} {used}"),
            call: call_id(call),
            used: Seconds(used),
            over,
            report: key.as_bytes().to_vec(),
        };
        self.ledger.adjust_settlement(&command).await.unwrap().outcome
    }

    /// Corrects a call that must be corrected; the call after it.
    #[track_caller]
    pub fn adjusted(&self, key: &str, call: &str, used: i64) -> impl Future<Output = Call> {
        let caller = std::panic::Location::caller();
        async move {
            match self.adjust_call(key, call, used).await {
                Adjusted::Applied(entry) if entry.used == Seconds(used) => {
                    self.call(call).await.unwrap()
                }
                other => panic!("{caller}: expected a correction, found {other:?}"),
            }
        }
    }

    pub async fn sweep(&self) -> Swept {
        self.ledger.sweep(&self.tenant, 1000, ENDED_RETENTION).await.unwrap().outcome
    }

    // Looking.

    pub async fn call(&self, call: &str) -> Option<Call> {
        self.ledger.call(&self.tenant, &call_id(call)).await.unwrap()
    }

    pub async fn snapshot(&self) -> Snapshot {
        self.ledger.snapshot(&self.tenant).await.unwrap().outcome
    }

    /// The pool of that family in the month in which the stage's clock stands.
    /// The journal without the alerts, which come after what caused them.
    pub async fn of_calls(&self) -> Vec<Entry> {
        let mut journal = self.snapshot().await.journal;
        journal.retain(|entry| !is_alert(entry.kind));
        journal
    }

    pub async fn pool(&self, family: &str) -> Bucket {
        self.pool_of(family, &self.month().key).await
    }

    pub async fn pool_of(&self, family: &str, month: &str) -> Bucket {
        let balance = self.ledger.balance(&self.tenant).await.unwrap().outcome;
        let mut pools = balance.pools.into_iter();
        let found = pools.find(|(id, _)| id.family() == family && id.month() == month);
        found.unwrap_or_else(|| panic!("no pool {family} in {month}")).1
    }

    pub async fn lot(&self, key: &str) -> Bucket {
        let balance = self.ledger.balance(&self.tenant).await.unwrap().outcome;
        balance.lots.into_iter().find(|lot| lot.key.as_str() == key).unwrap().bucket
    }

    pub async fn audit(&self) -> Report {
        audit(&self.tenant, self.now(), NEVER_OVERDUE, &self.snapshot().await)
    }

    pub async fn assert_audit_clean(&self) {
        let report = self.audit().await;
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}
