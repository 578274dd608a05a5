//! The ledgers, command by command: authorize from a pool, extend, settle.
//!
//! `cargo bench --bench ledgers`; as a test each runs once. Each command is awaited before the next: the
//! figure is the round trip, not the throughput. `call, 64 at a time` is: the time of a whole call (all three)
//! of 64 that go on at once, which in a file share their commits.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "server/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tollgate::charging::decision::Decision;
use tollgate::charging::ids::{CallId, PayerId, TenantId};
use tollgate::charging::month::{Month, parse_zone};
use tollgate::charging::profile::PayerProfile;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::ledger::file;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::redis::{RedisLedger, RedisSettings};
use tollgate::ledger::state::Terms;
use tollgate::ledger::{
    Authorize, Authorized, CallLimits, ClockOffset, End, Ended, Ending, Extend, Extended, Ledger,
    Offer, PayerUpdate, PoolOffer, Proposal, TenantRecord, Versions,
};
use tollgate::organisation;

const ORGANISATION: &str = "
tenants:
  - id: contoso
    currency: USD
    users:
      - { id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], numbers: [\"+14255550100\"] }
";

const FAMILY: &str = "US:MCOPSTN1:DOMESTIC";

/// A ledger with one tenant, and a pool that lasts.
struct Stage<L> {
    ledger: L,
    tenant: TenantId,
    payer: PayerId,
    month: Month,
    versions: Versions,
    serial: u64,
}

impl<L: Ledger> Stage<L> {
    async fn open(ledger: L) -> Stage<L> {
        let raw = organisation::read(ORGANISATION).unwrap();
        let document = organisation::check(&raw).unwrap().remove(0);
        let tenant = document.profile.id.clone();
        let month = Month::containing(
            Millis(Timestamp::now().as_millisecond()),
            &parse_zone("UTC").unwrap(),
        );
        let record = TenantRecord { profile: document.profile, deck: None };
        ledger.apply_tenant(&tenant, &record, None).await.unwrap();
        let profile: PayerProfile = document.payers[0].clone();
        let payer = profile.id.clone();
        let seats = vec![(FAMILY.to_owned(), Seconds(1_000_000_000_000))];
        let update = PayerUpdate { profile, seats: seats.into_iter().collect() };
        ledger.apply_payers(&tenant, &month, &[update]).await.unwrap();
        let versions = Versions {
            tenant: ledger.tenant(&tenant).await.unwrap().outcome.version,
            payer: ledger.payer(&tenant, &payer).await.unwrap().outcome.version,
        };
        Stage { ledger, tenant, payer, month, versions, serial: 0 }
    }

    fn name(&mut self) -> CallId {
        self.serial += 1;
        CallId::new(&format!("call-{}", self.serial)).unwrap()
    }

    async fn authorize(&self, call: &CallId) {
        let terms = Terms {
            reports_answer: false,
            free: false,
            counted: true,
            charge_granted_when_lost: false,
            ringing: Seconds(180),
            longest: Seconds::ZERO,
            grace: Seconds(60),
        };
        let pool = PoolOffer {
            family: FAMILY.to_owned(),
            closed_by: String::new(),
            increment: Seconds(60),
        };
        let offer = Offer {
            decision: Decision::Allowed,
            month: self.month.clone(),
            terms,
            requested: Seconds(60),
            pools: vec![pool],
            money: None,
            limits: CallLimits::default(),
            when_exhausted: Decision::PoolExhausted,
            when_spend_limited: Decision::PoolExhausted,
            when_velocity_limited: Decision::FraudSuspected,
        };
        let command = Authorize {
            tenant: self.tenant.clone(),
            call: call.clone(),
            fingerprint: "0123456789abcdef0123456789abcdef".to_owned(),
            payer: self.payer.clone(),
            trunk: "sbc-1".to_owned(),
            versions: self.versions,
            context: vec![7; 200],
            proposal: Proposal::Grant(offer),
            denied_retention: Seconds(600),
            ended_retention: Seconds(86_400),
        };
        let reply = self.ledger.authorize(&command).await.unwrap();
        assert!(matches!(reply.outcome, Authorized::Decided(_)), "{:?}", reply.outcome);
    }

    async fn extend(&self, call: &CallId) {
        let (tenant, call) = (self.tenant.clone(), call.clone());
        let (used, requested) = (Seconds(30), Seconds(60));
        let command = Extend { tenant, call, used, sequence: None, requested };
        let reply = self.ledger.extend(&command).await.unwrap();
        assert!(matches!(reply.outcome, Extended::Granted { .. }), "{:?}", reply.outcome);
    }

    async fn settle(&self, call: &CallId) {
        let command = End {
            tenant: self.tenant.clone(),
            call: call.clone(),
            how: Ending::Settle(Seconds(45)),
            report: vec![7; 50],
            ended_retention: Seconds(86_400),
            has_grant: false,
        };
        let reply = self.ledger.end(&command).await.unwrap();
        assert!(matches!(reply.outcome, Ended::Done { .. }), "{:?}", reply.outcome);
    }
}

fn commands<L: Ledger>(c: &mut Criterion, name: &str, runtime: &Runtime, ledger: L) {
    let mut stage = runtime.block_on(Stage::open(ledger));
    let mut group = c.benchmark_group(name);
    for timed in ["authorize", "extend", "settle"] {
        group.bench_function(timed, |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                runtime.block_on(async {
                    for _ in 0..times {
                        let call = stage.name();
                        let mut began = Instant::now();
                        stage.authorize(&call).await;
                        if timed == "extend" {
                            began = Instant::now();
                            stage.extend(&call).await;
                        }
                        if timed == "settle" {
                            began = Instant::now();
                            stage.settle(&call).await;
                        }
                        took += began.elapsed();
                    }
                });
                took
            });
        });
    }
    group.finish();
}

/// Calls that go on at once.
const AT_ONCE: usize = 64;

fn together<L: Ledger>(c: &mut Criterion, name: &str, runtime: &Runtime, ledger: L) {
    let stage = Arc::new(runtime.block_on(Stage::open(ledger)));
    let serial = Arc::new(AtomicU64::new(0));
    let mut group = c.benchmark_group(name);
    group.bench_function("call, 64 at a time", |b| {
        b.iter_custom(|times| {
            let left = Arc::new(AtomicU64::new(times));
            let began = Instant::now();
            runtime.block_on(async {
                let mut callers = JoinSet::new();
                for _ in 0..AT_ONCE {
                    let (stage, serial, left) = (stage.clone(), serial.clone(), left.clone());
                    let take = move || {
                        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                            n.checked_sub(1)
                        })
                    };
                    callers.spawn(async move {
                        while take().is_ok() {
                            let number = serial.fetch_add(1, Ordering::Relaxed);
                            let call = CallId::new(&format!("together-{number}")).unwrap();
                            stage.authorize(&call).await;
                            stage.extend(&call).await;
                            stage.settle(&call).await;
                        }
                    });
                }
                callers.join_all().await;
            });
            began.elapsed()
        });
    });
    group.finish();
}

fn ledgers(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    commands(c, "memory", &runtime, MemoryLedger::new(ClockOffset::default()));
    together(c, "memory", &runtime, MemoryLedger::new(ClockOffset::default()));
    // Where target/ is: that is a disk, /tmp need not be one.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kept = |name| file::open(&folder.path().join(name), ClockOffset::default()).unwrap();
    commands(c, "file", &runtime, kept("one"));
    together(c, "file", &runtime, kept("many"));
    let server = redis_server::RedisServer::start();
    let settings = RedisSettings {
        url: server.url(),
        response_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        probe_timeout: Duration::from_secs(2),
    };
    let ledger = runtime.block_on(RedisLedger::connect(&settings, ClockOffset::default()));
    commands(c, "redis", &runtime, ledger.unwrap());
}

criterion_group!(benches, ledgers);
criterion_main!(benches);
