//! Calls while the ledger is away, where the tenant says `continue_capped` (D20): granted out of a small
//! lease that this sidecar held while the ledger was there.
//!
//! A lease is a hold in the ledger like any other, of a call that nobody makes, so that two sidecars can
//! never lend the same minute, and that it ends by itself. It is taken for the pools and the wallet that
//! paid for calls here a short while ago, and renewed while they do. What is granted out of it is on this
//! sidecar's disk before it is answered, as a [`Restore`] that the journal brings to the ledger: there the
//! call takes its part out of the lease's hold at one instant, and is then a call like any other.
//!
//! Knows nothing of emergency and free calls: they need no lease, and never touch one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::charging::decision::{Decision, Nuance};
use crate::charging::funding::{CreditSide, PoolSide, Reach, reserve};
use crate::charging::ids::{CallId, LotId, PayerId, PoolId, TenantId};
use crate::charging::profile::{OnFailure, TenantProfile};
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::{Answer, CallContext, denial, explain, trunk};
use crate::credit_control::directory::Tenant;
use crate::credit_control::signed_grant::lasting;
use crate::credit_control::{
    AuthorizeRequest, CreditControl, ExtendRequest, fingerprint, on_failure,
};
use crate::journal::Journal;
use crate::journal::entry;
use crate::ledger::state::{Call, CallState, LotLine, MoneyLine, PoolLine, Terms, reach_code};
use crate::ledger::{
    Authorize, Authorized, CallLimits, End, Ending, Ledger, LedgerError, MoneyOffer, Offer,
    PoolOffer, Proposal, Restore, Versions,
};
use crate::metrics::{self, Command as Asked, Degraded};

/// What the record of a call is flagged with that was granted out of a lease.
pub const DEGRADED: &str = "DEGRADED";

/// Who pays for a lease as long as no call does. Nobody is set up by this name: it would leave the leases
/// without effect.
const HOLDER: &str = "tollgate.lease";

/// How long after its last call a pool or wallet is leased on.
const RECENTLY: Duration = Duration::from_secs(3600);

/// Most pools of a tenant that are leased, those used last.
const MOST_SOURCES: usize = 16;

/// Parts of the money of a lease: where less is to be had, so many fewer are held.
const MONEY_PARTS: i64 = 60;

/// How much longer than a lease is lent from it is held: what was granted out of it in its last minute is to
/// find it when the ledger is back.
const HELD_TIMES: i64 = 2;

/// Longest wait for a grant to be on the disk; a call is refused after it.
const DISK_TIMEOUT: Duration = Duration::from_millis(500);

/// Time between two looks for leases to be taken or given back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The window in which what is granted is counted.
const HOUR: Duration = Duration::from_secs(3600);

/// How much may be granted without the ledger, by this sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Longest call; 1 min to 1 h.
    pub call: Seconds,
    /// All calls of a tenant in an hour, and the size of the lease of each pool; zero turns leases off. 0 s to
    /// 24 h.
    pub per_hour: Seconds,
    /// Money of a tenant in an hour, and the size of its lease; 0 to 10,000 units.
    pub money_per_hour: Micros,
    /// How long a lease is lent from; it is renewed at half of it. 1 min to 1 h.
    pub lease: Seconds,
}

impl Settings {
    /// As documented.
    pub const DEFAULTS: Settings = Settings {
        call: Seconds(600),
        per_hour: Seconds(3600),
        money_per_hour: Micros(10_000_000),
        lease: Seconds(600),
    };
}

/// What is leased, and what was granted out of it. Clones of the use cases share it.
pub struct Leases {
    settings: Settings,
    /// Names the leases of this process, which knows of no others.
    process: String,
    tenants: Mutex<HashMap<TenantId, OfTenant>>,
    /// Calls that the ledger does not know yet, to be read without the lock.
    granted: AtomicUsize,
    /// A source without a lease was used, or all calls of a tenant are in the ledger.
    changed: Notify,
}

/// One tenant's.
#[derive(Default)]
struct OfTenant {
    sources: BTreeMap<Source, Leased>,
    /// What was granted in the last hour.
    log: VecDeque<(Instant, Seconds, Micros)>,
    calls: HashMap<CallId, Granted>,
    /// Number of the next lease.
    next: u64,
}

/// What may be leased.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A pool, without its month.
    Pool(String),
    /// The wallet.
    Money,
}

/// A source that calls have used here.
struct Leased {
    used: Instant,
    /// Of a pool: how it is offered.
    pool: Option<PoolOffer>,
    /// Of the wallet: whether overage may pay.
    overage: bool,
    lease: Option<Lease>,
    /// A lease that was asked for without an answer: asked for again by the same name.
    asked: Option<CallId>,
    /// Nothing was to be had, or the ledger is away: not before this instant.
    not_before: Option<Instant>,
}

/// A hold in the ledger that calls may be granted out of.
#[derive(Clone, Debug)]
struct Lease {
    id: CallId,
    taken: Instant,
    /// Of a pool: in which month.
    pool: Option<PoolId>,
    seconds: Seconds,
    money: Micros,
    /// Where the money lies, first.
    lot: Option<LotId>,
    /// Whether something was granted out of it.
    lent: bool,
}

/// A call that the ledger does not know yet.
struct Granted {
    restore: Arc<Restore>,
    /// As the client was last told.
    told: Call,
    /// Used up to which it may be extended.
    covered: Seconds,
    ended: bool,
}

/// A lease to be taken.
struct Wanted {
    tenant: TenantId,
    source: Source,
    id: CallId,
    pool: Option<PoolOffer>,
    overage: bool,
}

/// What became of a request for a grant.
enum Taken {
    /// Granted now.
    New(Arc<Restore>, Call),
    /// Granted before.
    Again(Arc<Restore>, Call),
    /// The key is another call's.
    Conflict,
    /// It was granted, and has ended.
    Ended,
    /// There is nothing to grant it out of.
    Nothing,
}

impl Leases {
    pub(super) fn new(settings: Settings, journal: Option<&Journal>) -> Leases {
        let leases = Leases {
            settings,
            process: uuid::Uuid::now_v7().simple().to_string(),
            tenants: Mutex::default(),
            granted: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        for todo in journal.map(Journal::todos).unwrap_or_default() {
            match &todo.command {
                entry::Command::Restore(restore) => leases.remember(restore),
                entry::Command::End { end, .. } => leases.ended(&end.tenant, &end.call),
                entry::Command::Record(_) => {}
            }
        }
        leases
    }

    /// Calls that were granted out of a lease and that the ledger does not know yet.
    pub fn calls(&self) -> usize {
        self.granted.load(Ordering::Acquire)
    }

    /// What this sidecar may still grant out of its leases of a tenant: plan time and money.
    pub fn left(&self, tenant: &TenantId) -> (Seconds, Micros) {
        let tenants = self.tenants();
        let leases = tenants.get(tenant).into_iter().flat_map(|of| of.sources.values());
        let leases = leases.filter_map(|source| source.lease.as_ref());
        leases.fold((Seconds::ZERO, Micros::ZERO), |(seconds, money), lease| {
            (seconds + lease.seconds, money + lease.money)
        })
    }

    fn is_on(&self) -> bool {
        self.settings.per_hour.is_positive()
    }

    /// A grant that an earlier process gave.
    fn remember(&self, restore: &Restore) {
        let told = restore.granted.clone();
        let covered = told.granted;
        let granted = Granted { restore: Arc::new(restore.clone()), told, covered, ended: false };
        let mut tenants = self.tenants();
        let of = tenants.entry(restore.tenant.clone()).or_default();
        if of.calls.insert(restore.call.clone(), granted).is_none() {
            self.granted.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The end of a call was accepted.
    pub(super) fn ended(&self, tenant: &TenantId, call: &CallId) {
        if self.calls() == 0 {
            return;
        }
        let mut tenants = self.tenants();
        if let Some(granted) = tenants.get_mut(tenant).and_then(|of| of.calls.get_mut(call)) {
            granted.ended = true;
        }
    }

    /// The ledger knows the call, or never will: what its leases have left may be given back.
    pub(super) fn forget(&self, tenant: &TenantId, call: &CallId) {
        let mut tenants = self.tenants();
        let Some(of) = tenants.get_mut(tenant) else { return };
        if of.calls.remove(call).is_some() {
            self.granted.fetch_sub(1, Ordering::AcqRel);
        }
        if of.calls.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Notes which sources have paid for a call just now.
    pub(super) fn used(&self, tenant: &TenantId, call: &Call, offer: &Offer, now: Instant) {
        if !self.is_on() || call.terms.free {
            return;
        }
        let mut tenants = self.tenants();
        let of = tenants.entry(tenant.clone()).or_default();
        let mut is_new = false;
        let mut note = |source: Source, pool: Option<&PoolOffer>, overage: bool| {
            let known = of.sources.entry(source).or_insert_with(|| {
                is_new = true;
                Leased {
                    used: now,
                    pool: None,
                    overage,
                    lease: None,
                    asked: None,
                    not_before: None,
                }
            });
            known.used = now;
            known.overage = overage;
            known.pool = pool.cloned();
        };
        for (line, pool) in call.pools.iter().zip(&offer.pools) {
            if line.held.is_positive() {
                note(Source::Pool(pool.family.clone()), Some(pool), false);
            }
        }
        let money = call.money.as_ref().filter(|money| money.held().is_positive());
        if let Some(money) = money
            && self.settings.money_per_hour.0 >= MONEY_PARTS
        {
            note(Source::Money, None, money.overage);
        }
        if is_new {
            self.changed.notify_one();
        }
    }

    /// Which leases to take now, and which to give back.
    fn due(&self, now: Instant) -> (Vec<Wanted>, Vec<(TenantId, CallId)>) {
        let (mut wanted, mut over) = (vec![], vec![]);
        let half = length(self.settings.lease) / 2;
        let mut tenants = self.tenants();
        for (tenant, of) in tenants.iter_mut() {
            // What a call was granted out of is held until the ledger knows the call.
            if !of.calls.is_empty() {
                continue;
            }
            let mut last: Vec<Instant> = of.sources.values().map(|source| source.used).collect();
            last.sort_unstable_by(|a, b| b.cmp(a));
            let least = last.get(MOST_SOURCES).copied();
            of.sources.retain(|_, source| {
                let idle = now.duration_since(source.used) > RECENTLY
                    || least.is_some_and(|least| source.used <= least);
                if idle {
                    over.extend(source.lease.take().map(|lease| (tenant.clone(), lease.id)));
                }
                !idle
            });
            for (source, leased) in &mut of.sources {
                let fresh = |lease: &Lease| !lease.lent && now.duration_since(lease.taken) < half;
                let waits = leased.not_before.is_some_and(|until| now < until);
                if leased.lease.as_ref().is_some_and(fresh) || waits {
                    continue;
                }
                let id = leased.asked.get_or_insert_with(|| {
                    of.next += 1;
                    CallId::lease(&self.process, of.next)
                });
                wanted.push(Wanted {
                    tenant: tenant.clone(),
                    source: source.clone(),
                    id: id.clone(),
                    pool: leased.pool.clone(),
                    overage: leased.overage,
                });
            }
        }
        tenants.retain(|_, of| {
            of.log.retain(|(at, ..)| now.duration_since(*at) < HOUR);
            !(of.sources.is_empty() && of.calls.is_empty() && of.log.is_empty())
        });
        (wanted, over)
    }

    /// A lease that was taken replaces the one before, which is to be given back unless something was granted
    /// out of it meanwhile: then it ends by itself. `None`: nothing was to be had.
    fn install(&self, wanted: &Wanted, lease: Option<Lease>, now: Instant) -> Option<CallId> {
        let mut tenants = self.tenants();
        let of = tenants.get_mut(&wanted.tenant)?;
        let unused = of.calls.is_empty();
        let source = of.sources.get_mut(&wanted.source)?;
        source.asked = None;
        source.not_before = match lease {
            Some(_) => None,
            None => Some(now + length(self.settings.lease) / 2),
        };
        let before = std::mem::replace(&mut source.lease, lease)?;
        unused.then_some(before.id)
    }

    /// The ledger has gone back: what it holds for these leases is not known. Nothing more is granted out of
    /// them; they are taken anew and given back.
    pub(super) fn doubt(&self, tenant: &TenantId) {
        let mut tenants = self.tenants();
        let sources = tenants.get_mut(tenant).into_iter().flat_map(|of| of.sources.values_mut());
        for lease in sources.filter_map(|source| source.lease.as_mut()) {
            (lease.seconds, lease.money, lease.lent) = (Seconds::ZERO, Micros::ZERO, true);
        }
    }

    fn put_off(&self, wanted: &Wanted, until: Instant) {
        let mut tenants = self.tenants();
        let of = tenants.get_mut(&wanted.tenant);
        if let Some(source) = of.and_then(|of| of.sources.get_mut(&wanted.source)) {
            source.not_before = Some(until);
        }
    }

    /// Everything that is leased and not lent, to be given back.
    fn take_all(&self) -> Vec<(TenantId, CallId)> {
        let mut all = vec![];
        for (tenant, of) in self.tenants().iter_mut() {
            if of.calls.is_empty() {
                let leases = of.sources.values_mut().filter_map(|source| source.lease.take());
                all.extend(leases.map(|lease| (tenant.clone(), lease.id)));
            }
        }
        all
    }

    /// What was granted to the call, where the ledger does not know it yet.
    fn again(&self, tenant: &TenantId, call: &CallId, fingerprint: &str) -> Option<Taken> {
        if self.calls() == 0 {
            return None;
        }
        let tenants = self.tenants();
        let granted = tenants.get(tenant)?.calls.get(call)?;
        Some(granted.again(fingerprint))
    }

    /// Grants a call out of the leases: holds the longest that it may have, and tells it what it asked for.
    fn grant(
        &self,
        command: &Authorize,
        offer: &Offer,
        context: &CallContext,
        (now, at): (Instant, Millis),
        until: Millis,
    ) -> Taken {
        let mut tenants = self.tenants();
        let Some(of) = tenants.get_mut(&command.tenant) else { return Taken::Nothing };
        if let Some(granted) = of.calls.get(&command.call) {
            return granted.again(&command.fingerprint);
        }
        let open = |payer: Option<&PayerId>| {
            let of_payer = |call: &&Granted| {
                !call.ended && payer.is_none_or(|payer| call.told.payer == payer.as_str())
            };
            u32::try_from(of.calls.values().filter(of_payer).count()).unwrap_or(u32::MAX)
        };
        let limits = &offer.limits;
        if limits.tenant_calls.is_some_and(|most| open(None) >= most)
            || limits.payer_calls.is_some_and(|most| open(Some(&command.payer)) >= most)
        {
            return Taken::Nothing;
        }
        of.log.retain(|(at, ..)| now.duration_since(*at) < HOUR);
        let (mut seconds_left, mut money_left) =
            (self.settings.per_hour, self.settings.money_per_hour);
        for (_, seconds, money) in &of.log {
            seconds_left = seconds_left.minus_or_zero(*seconds);
            money_left = money_left.minus_or_zero(*money);
        }
        let lent_for = length(self.settings.lease);
        let is_lent = |lease: &&Lease| now.duration_since(lease.taken) < lent_for;
        let pool_of = |pool: &PoolOffer| PoolId::of(&pool.family, &offer.month.key);
        let of_pool = |pool: &PoolOffer| {
            let source = of.sources.get(&Source::Pool(pool.family.clone()))?;
            let lease = source.lease.as_ref().filter(is_lent)?;
            (lease.pool.as_ref() == Some(&pool_of(pool))).then_some(lease)
        };
        let side = |pool: &PoolOffer| PoolSide {
            taken: Seconds::ZERO,
            available: of_pool(pool).map_or(Seconds::ZERO, |lease| lease.seconds),
            others: 0,
            increment: pool.increment,
        };
        let sides: Vec<PoolSide> = offer.pools.iter().map(side).collect();
        // What a payer with a spend limit has spent is known to the ledger alone.
        let money = offer.money.filter(|money| money.spend_limit.is_none());
        let wallet = of.sources.get(&Source::Money).and_then(|source| source.lease.as_ref());
        let wallet = wallet.filter(is_lent);
        let credits = money.zip(wallet).map(|(money, lease)| CreditSide {
            taken: Micros::ZERO,
            available: lease.money.min(money_left),
            others: 0,
            limit: None,
            tariff: money.tariff,
            velocity: None,
        });
        let target = self.settings.call.min(seconds_left);
        let reservation = reserve(target, &sides, credits.as_ref());
        let covered = reservation.covered.min(target);
        if !covered.is_positive() {
            return Taken::Nothing;
        }
        let mut leases = vec![];
        let mut call = Call::new(CallState::Ringing, at);
        call.fingerprint = command.fingerprint.clone();
        call.decision = Some(Decision::AllowedDegraded);
        call.payer = command.payer.as_str().to_owned();
        call.trunk = command.trunk.clone();
        let mut context = context.clone();
        context.flags.push(DEGRADED.to_owned());
        call.context = context.encode();
        // Nobody can report an answer to a ledger that is away.
        call.terms = Terms { reports_answer: false, ..offer.terms };
        call.granted = covered.min(offer.requested);
        call.reach = reach(call.granted, covered);
        call.deadline = at.after(call.terms.ringing + covered + call.terms.grace);
        for (pool, &held) in offer.pools.iter().zip(&reservation.pools) {
            let closed_by = match pool.closed_by.as_str() {
                "" => String::new(),
                family => crate::ledger::pool_id(family, &offer.month.key),
            };
            call.pools.push(PoolLine {
                pool: pool_of(pool),
                closed_by,
                increment: pool.increment,
                held,
                spent: Seconds::ZERO,
            });
            let source = of.sources.get_mut(&Source::Pool(pool.family.clone()));
            if let Some(lease) = source.and_then(|source| source.lease.as_mut())
                && held.is_positive()
            {
                lease.seconds -= held;
                lease.lent = true;
                leases.push(lease.id.clone());
            }
        }
        call.money = offer.money.map(|money| money.line(&offer.month.key));
        let wallet = of.sources.get_mut(&Source::Money).and_then(|source| source.lease.as_mut());
        if let (Some(line), Some(lease)) = (&mut call.money, wallet)
            && reservation.money.is_positive()
        {
            lease.money -= reservation.money;
            lease.lent = true;
            leases.push(lease.id.clone());
            // The ledger draws the sum in its own order.
            let lot = lease.lot.clone();
            line.lots.extend(lot.map(|lot| LotLine {
                lot,
                held: reservation.money,
                spent: Micros::ZERO,
            }));
        }
        of.log.push_back((now, covered, reservation.money));
        let restore = Arc::new(Restore {
            tenant: command.tenant.clone(),
            call: command.call.clone(),
            until,
            granted: call.clone(),
            month: offer.month.clone(),
            leases,
        });
        let granted =
            Granted { restore: restore.clone(), told: call.clone(), covered, ended: false };
        of.calls.insert(command.call.clone(), granted);
        self.granted.fetch_add(1, Ordering::AcqRel);
        Taken::New(restore, call)
    }

    /// The grant as far as an extension to `target` may lengthen it; `None` where it was granted elsewhere.
    fn extend(&self, request: &ExtendRequest, requested: Seconds) -> Option<(Call, bool)> {
        if self.calls() == 0 {
            return None;
        }
        let mut tenants = self.tenants();
        let granted = tenants.get_mut(&request.tenant)?.calls.get_mut(&request.call)?;
        let told = &mut granted.told;
        if !granted.ended {
            told.used = told.used.max(request.used);
            told.granted = told.granted.max((told.used + requested).min(granted.covered));
            told.granted_from = told.used.min(told.granted);
            told.reach = reach(told.granted, granted.covered);
        }
        Some((told.clone(), granted.ended))
    }

    fn told(&self, tenant: &TenantId, call: &CallId) -> Option<(Call, bool)> {
        if self.calls() == 0 {
            return None;
        }
        let tenants = self.tenants();
        let granted = tenants.get(tenant)?.calls.get(call)?;
        Some((granted.told.clone(), granted.ended))
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, OfTenant>> {
        // Nothing that is done under the lock leaves it half changed.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Granted {
    fn again(&self, fingerprint: &str) -> Taken {
        if self.ended {
            return Taken::Ended;
        }
        match self.restore.granted.fingerprint == fingerprint {
            true => Taken::Again(self.restore.clone(), self.told.clone()),
            false => Taken::Conflict,
        }
    }
}

fn reach(granted: Seconds, covered: Seconds) -> u8 {
    reach_code(if granted < covered { Reach::Full } else { Reach::Exhausted })
}

fn length(of: Seconds) -> Duration {
    Duration::from_secs(u64::try_from(of.0).unwrap_or_default())
}

impl<L: Ledger> CreditControl<L> {
    /// Leases, to be looked at.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The answer to a call that was granted out of a lease and that the ledger does not know yet.
    pub(super) async fn granted_before(&self, request: &AuthorizeRequest) -> Option<Answer> {
        let found = self.leases.again(&request.tenant, &request.call, &fingerprint(request))?;
        let tenant = self.directory.known(&request.tenant);
        self.degraded_answer(request, found, tenant.as_deref()).await
    }

    /// Grants a call without the ledger, where the tenant wants that and a lease can pay; `None` else.
    pub(super) async fn authorize_degraded(
        &self,
        request: &AuthorizeRequest,
        command: &Authorize,
        context: &CallContext,
        tenant: &Tenant,
    ) -> Option<Answer> {
        let Proposal::Grant(offer) = &command.proposal else { return None };
        if self.on_failure(request) != OnFailure::ContinueCapped || self.journal.is_none() {
            return None;
        }
        let at = self.now();
        // What has ended since then may be forgotten, and would be charged a second time.
        let until = at.after(lasting(self.settings.ended_retention));
        let taken = self.leases.grant(command, offer, context, (Instant::now(), at), until);
        self.degraded_answer(request, taken, Some(tenant)).await
    }

    /// Told once it is on the disk.
    async fn degraded_answer(
        &self,
        request: &AuthorizeRequest,
        taken: Taken,
        tenant: Option<&Tenant>,
    ) -> Option<Answer> {
        let profile = tenant.and_then(Tenant::profile);
        let refused = |decision: Decision| {
            let detail = explain(decision).to_owned();
            let denial = denial(decision, Nuance::None, detail, trunk(profile, &request.trunk));
            Some(Answer::refused(denial, None))
        };
        let (restore, call, replayed) = match taken {
            Taken::Nothing => return None,
            Taken::Conflict => return refused(Decision::KeyConflict),
            Taken::Ended => return refused(Decision::CallAlreadyEnded),
            Taken::New(restore, call) => (restore, call, false),
            Taken::Again(restore, call) => (restore, call, true),
        };
        let journal = self.journal.as_ref()?;
        let entry = entry::Command::Restore(Box::new(restore.as_ref().clone()));
        if !journal.holds(&entry) {
            // Of two that ask at once both wait for the disk; the ledger does it once.
            let known = || self.leases.told(&request.tenant, &request.call).is_some();
            if replayed && !known() {
                return None;
            }
            let kept = tokio::time::timeout(DISK_TIMEOUT, journal.keep(entry)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::warn!(?kept, "a call is not granted without the ledger");
                // It may be on the disk all the same: what it took of the lease is not lent again.
                self.leases.forget(&request.tenant, &request.call);
                return None;
            }
        }
        if !replayed {
            metrics::get().degraded(Degraded::Granted);
        }
        let answer = Answer::of(&call, profile, self.now(), replayed);
        Some(match tenant {
            Some(tenant) => {
                let key = (&request.tenant, &request.call);
                self.sign(answer, tenant, key, &call, self.now())
            }
            None => answer,
        })
    }

    /// The grant of a call that the ledger does not know yet, lengthened as far as it holds; `None` where the
    /// ledger is to be asked.
    pub(super) fn extend_degraded(
        &self,
        request: &ExtendRequest,
        requested: Seconds,
    ) -> Option<Answer> {
        let (call, ended) = self.leases.extend(request, requested)?;
        Some(self.standing(&request.tenant, &request.call, &call, ended))
    }

    /// The same of a call whose answer is reported.
    pub(super) fn answer_degraded(&self, tenant: &TenantId, call: &CallId) -> Option<Answer> {
        let (found, ended) = self.leases.told(tenant, call)?;
        Some(self.standing(tenant, call, &found, ended))
    }

    fn standing(&self, tenant: &TenantId, id: &CallId, call: &Call, ended: bool) -> Answer {
        let known = self.directory.known(tenant);
        let profile = known.as_ref().and_then(|tenant| tenant.profile());
        if ended {
            return super::ended_answer(call, profile);
        }
        let answer = Answer::of(call, profile, self.now(), false);
        match &known {
            Some(known) => self.sign(answer, known, (tenant, id), call, self.now()),
            None => answer,
        }
    }

    /// Notes what a call that was just granted draws on, where it could go on without the ledger.
    pub(super) fn note_sources(
        &self,
        request: &AuthorizeRequest,
        command: &Authorize,
        tenant: Option<&TenantProfile>,
        call: &Call,
    ) {
        let goes_on = |tenant: &TenantProfile| {
            on_failure(tenant, request.call_type) == OnFailure::ContinueCapped
        };
        if self.journal.is_some()
            && tenant.is_some_and(goes_on)
            && call.state == CallState::Ringing
            && let Proposal::Grant(offer) = &command.proposal
        {
            self.leases.used(&request.tenant, call, offer, Instant::now());
        }
    }

    /// Takes leases, renews them and gives them back, for ever. Without a journal there are none.
    pub async fn keep_leases(self: Arc<Self>) {
        if self.journal.is_none() || !self.leases.is_on() {
            return;
        }
        loop {
            let changed = self.leases.changed.notified();
            self.renew_leases().await;
            let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
        }
    }

    /// One round of it.
    pub async fn renew_leases(&self) {
        let (wanted, over) = self.leases.due(Instant::now());
        for (tenant, lease) in over {
            self.give_back(&tenant, lease).await;
        }
        // What is replayed comes first: a lease must not take what a lost call was granted.
        for wanted in wanted.into_iter().filter(|w| !self.marks.is_replaying(&w.tenant)) {
            match self.take_lease(&wanted).await {
                Ok(Some(before)) => self.give_back(&wanted.tenant, before).await,
                Ok(None) => {}
                // The others would wait as long: the next round asks again, for the same.
                Err(error) => {
                    tracing::debug!(%error, tenant = %wanted.tenant, "a lease is not taken");
                    self.leases.put_off(&wanted, Instant::now() + LOOK_EVERY);
                    return;
                }
            }
        }
    }

    /// Gives back what is leased and not lent: at the end of the process.
    pub async fn return_leases(&self) {
        for (tenant, lease) in self.leases.take_all() {
            self.give_back(&tenant, lease).await;
        }
    }

    /// Asks for a lease; the one that it replaces.
    async fn take_lease(&self, wanted: &Wanted) -> Result<Option<CallId>, LedgerError> {
        let deadline = Instant::now() + self.settings.ledger_timeout;
        let Some(tenant) = self.directory.known(&wanted.tenant) else { return Ok(None) };
        let Some(profile) = tenant.profile() else { return Ok(None) };
        let command = self.lease(wanted, &tenant, profile);
        let now = Instant::now();
        let reply =
            self.within(Asked::Authorize, deadline, self.ledger.authorize(&command)).await?;
        self.set_clock(reply.now);
        Ok(match reply.outcome {
            Authorized::Decided(call) | Authorized::Replayed(call) => {
                // One that was taken unseen is as old as it is, and ends so much sooner.
                let age = length(reply.now.seconds_since(call.authorized_at));
                let taken = now.checked_sub(age);
                let taken = taken.filter(|_| call.state == CallState::Ringing);
                let lease = taken.map(|taken| Lease {
                    id: wanted.id.clone(),
                    taken,
                    pool: call.pools.first().map(|line| line.pool.clone()),
                    seconds: call.pools.iter().map(|line| line.held).sum(),
                    money: call.money.as_ref().map_or(Micros::ZERO, MoneyLine::held),
                    lot: call
                        .money
                        .as_ref()
                        .and_then(|money| money.lots.first())
                        .map(|line| line.lot.clone()),
                    lent: false,
                });
                self.leases.install(wanted, lease, now)
            }
            Authorized::Stale => {
                let holder = PayerId::literal(HOLDER);
                let read =
                    self.directory.refresh(&self.ledger, &wanted.tenant, &holder, command.versions);
                self.within(Asked::Directory, deadline, read).await?;
                None
            }
            // The name is this process's own: it has expired before anybody knew.
            Authorized::Ended | Authorized::Conflict | Authorized::RateLimited => {
                self.leases.install(wanted, None, now)
            }
        })
    }

    fn lease(&self, wanted: &Wanted, tenant: &Tenant, profile: &TenantProfile) -> Authorize {
        let Settings { per_hour, money_per_hour, lease, .. } = self.leases.settings;
        let part = Micros(money_per_hour.0 / MONEY_PARTS);
        let minute = Seconds(60);
        let tariff = Tariff {
            rate_per_minute: part,
            connection_fee: Micros::ZERO,
            initial_increment: minute,
            increment: minute,
        };
        let money = MoneyOffer {
            tariff,
            spend_limit: None,
            overage: wanted.overage,
            velocity: profile.spend_velocity,
        };
        let is_pool = wanted.pool.is_some();
        let offer = Offer {
            decision: Decision::AllowedDegraded,
            month: tenant.month(self.now()).as_ref().clone(),
            terms: Terms {
                reports_answer: true,
                ringing: Seconds(lease.0 * HELD_TIMES),
                ..Terms::default()
            },
            requested: if is_pool { per_hour } else { Seconds(60 * MONEY_PARTS) },
            pools: wanted.pool.iter().cloned().collect(),
            money: (!is_pool).then_some(money),
            limits: CallLimits::default(),
            when_exhausted: Decision::PoolExhausted,
            when_spend_limited: Decision::PoolExhausted,
            when_velocity_limited: Decision::PoolExhausted,
        };
        Authorize {
            tenant: wanted.tenant.clone(),
            call: wanted.id.clone(),
            fingerprint: wanted.id.as_str().to_owned(),
            payer: PayerId::literal(HOLDER),
            trunk: String::new(),
            versions: Versions { tenant: tenant.view.version, payer: 0 },
            context: vec![],
            proposal: Proposal::Grant(offer),
            denied_retention: self.settings.denied_retention,
            ended_retention: self.settings.ended_retention,
        }
    }

    /// Where the ledger does not hear of it, the lease ends by itself.
    async fn give_back(&self, tenant: &TenantId, lease: CallId) {
        let command = End {
            tenant: tenant.clone(),
            call: lease,
            how: Ending::Release,
            report: vec![],
            ended_retention: self.settings.denied_retention,
            has_grant: false,
        };
        let deadline = Instant::now() + self.settings.ledger_timeout;
        if let Err(error) = self.within(Asked::End, deadline, self.ledger.end(&command)).await {
            tracing::debug!(%tenant, lease = %command.call, %error, "a lease ends by itself");
        }
    }
}
