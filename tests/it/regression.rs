//! A ledger that went back: it is found, told once, and what was acknowledged is replayed from the journals.
//! Under load: [`crate::faults`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Commands, cmd};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::administration::{Administration, Amount, Authority};
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{AdjustmentId, LotId, TenantId};
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::EndReport;
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, ExtendRequest, Settings,
};
use tollgate::journal::{self, Journal};
use tollgate::ledger::audit::audit;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::redis::RedisLedger;
use tollgate::ledger::state::{BlockNote, CallState, EntryKind};
use tollgate::ledger::{ClockOffset, EndResult, Ending, Ledger, Snapshot};
use tollgate::organisation;
use tollgate::proto::v1::{EventType, SettleResult, WatchEventsRequest};

use crate::server::DECK;
use crate::support::messages::{authorize, settle};
use crate::support::process::{Files, PATIENCE, Sidecar, wait_until};
use crate::support::redis::RedisServer;
use crate::support::traffic::{assert_charged, tenants};
use crate::support::{ENDED_RETENTION, NEVER_OVERDUE, NOON, call_id, payer};

// The running program.

fn on(ledger: &str, journal: &str) -> Sidecar {
    Sidecar::ready(&["--ledger", ledger, "--ledger-timeout", "1s", "--journal", journal])
}

pub fn keep(redis: &RedisServer) {
    cmd("SAVE").exec(&mut redis.client().get_connection().unwrap()).unwrap();
}

/// Starts Redis again with what was kept: everything since is lost.
pub fn roll_back(redis: &RedisServer) {
    redis.kill();
    redis.start();
}

/// How far each sidecar was told the ledger has come, and what it misses.
pub fn sequences(client: &redis::Client) -> Vec<String> {
    let found: redis::RedisResult<Vec<String>> =
        client.get_connection().and_then(|mut c| c.hkeys("tg:{contoso}:sequence"));
    found.unwrap_or_default()
}

#[track_caller]
fn wait_until_replayed(client: &redis::Client) {
    let done = |fields: &Vec<String>| {
        fields.iter().any(|f| f == "e") && !fields.iter().any(|field| field.starts_with("l:"))
    };
    wait_until("replayed", || sequences(client), done);
}

pub async fn told(sidecar: &Sidecar) -> Vec<String> {
    let request = WatchEventsRequest {
        tenant_id: "contoso".to_owned(),
        until_now: true,
        ..WatchEventsRequest::default()
    };
    let mut stream = sidecar.account().await.watch_events(request).await.unwrap().into_inner();
    let mut told = vec![];
    while let Some(message) = stream.message().await.unwrap() {
        let event = message.event.unwrap();
        if event.r#type() == EventType::LedgerRegressed {
            told.push(event.reason);
        }
    }
    told
}

#[tokio::test]
async fn a_sidecar_that_was_started_since_the_loss_replays_it_from_its_journal() {
    let (redis, files) = (RedisServer::started(), Files::default());
    let journal = files.path("journal");
    let mut sidecar = on(&redis.url(), &journal);
    sidecar.set_up(&tenants(&["contoso"]));
    keep(&redis);
    let mut calls = sidecar.calls().await;
    for call in ["ended", "open"] {
        calls.authorize_call(authorize(call, "carol", "+12065550100")).await.unwrap();
    }
    calls.settle_call(settle("ended", 60)).await.unwrap();
    assert!(sidecar.stop().success());
    roll_back(&redis);

    // Nobody asks for anything: it looks by itself.
    let sidecar = on(&redis.url(), &journal);
    wait_until_replayed(&redis.client());
    let mut calls = sidecar.calls().await;
    for (call, replayed) in [("ended", true), ("open", false)] {
        let charge = calls.settle_call(settle(call, 60)).await.unwrap().into_inner();
        assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, replayed), "{call}");
    }
    assert_charged(&sidecar, "contoso", 2).await;
    let told = told(&sidecar).await;
    assert!(told.len() == 1 && told[0].contains("replayed from its journal"), "{told:?}");
}

#[tokio::test]
async fn a_sidecar_without_a_journal_says_what_it_cannot_replay() {
    let redis = RedisServer::started();
    let sidecar = Sidecar::ready(&["--ledger", &redis.url(), "--ledger-timeout", "1s"]);
    sidecar.set_up(&tenants(&["contoso"]));
    keep(&redis);
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("call", "carol", "+12065550100")).await.unwrap();
    roll_back(&redis);
    wait_until("found", || sidecar.log(), |log| log.contains("the ledger went back"));
    wait_until("audited", || sidecar.client(&["audit"]), |audit| audit.status.success());
    let told = told(&sidecar).await;
    assert!(told.len() == 1 && told[0].contains("cannot be replayed"), "{told:?}");
}

// The use cases by a stopped clock, on both ledgers.

/// Takes a tenant's ledger back to where it was.
trait Rewound: Ledger + Sized {
    type Kept;
    fn keep(desk: &Desk<Self>) -> Self::Kept;
    fn roll_back(desk: &Desk<Self>, kept: &Self::Kept);
}

impl Rewound for MemoryLedger {
    type Kept = tollgate::ledger::memory::Earlier;

    fn keep(desk: &Desk<Self>) -> Self::Kept {
        desk.ledger.keep(&desk.tenant)
    }

    fn roll_back(desk: &Desk<Self>, kept: &Self::Kept) {
        desk.ledger.roll_back(&desk.tenant, kept);
    }
}

impl Rewound for RedisLedger {
    type Kept = Vec<(String, Vec<u8>)>;

    fn keep(desk: &Desk<Self>) -> Self::Kept {
        let mut connection = RedisServer::shared().client().get_connection().unwrap();
        let dump = |key: String| {
            let bytes: Vec<u8> = cmd("DUMP").arg(&key).query(&mut connection).unwrap();
            (key, bytes)
        };
        desk.keys().into_iter().map(dump).collect()
    }

    fn roll_back(desk: &Desk<Self>, kept: &Self::Kept) {
        let mut commands = redis::pipe();
        commands.atomic().cmd("DEL").arg(desk.keys());
        for (key, bytes) in kept {
            commands.cmd("RESTORE").arg(key).arg(0).arg(bytes);
        }
        let mut connection = RedisServer::shared().client().get_connection().unwrap();
        commands.exec(&mut connection).unwrap();
    }
}

struct Desk<L: Ledger> {
    ledger: Arc<L>,
    control: Arc<CreditControl<L>>,
    administration: Administration<L>,
    tenant: TenantId,
    replays: JoinHandle<()>,
    _folder: TempDir,
    _server: Arc<RedisServer>,
}

impl<L: Ledger> Drop for Desk<L> {
    fn drop(&mut self) {
        self.replays.abort();
    }
}

impl<L: Ledger> Desk<L> {
    async fn open(ledger: L, server: Arc<RedisServer>) -> Desk<L> {
        static DESKS: AtomicU32 = AtomicU32::new(0);
        let number = DESKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("regressed-{}-{number}", std::process::id());
        let (ledger, folder) = (Arc::new(ledger), tempfile::tempdir().unwrap());
        let settings = journal::Settings {
            folder: folder.path().join("journal"),
            keep: PATIENCE,
            most_bytes: 16 << 20,
        };
        let journal = Arc::new(Journal::open(&settings).unwrap());
        let settings = Settings {
            default_grant: Seconds(300),
            max_grant: Seconds(4 * 3600),
            ringing_timeout: Seconds(180),
            grace: Seconds(60),
            denied_retention: Seconds(600),
            ended_retention: ENDED_RETENTION,
            ledger_timeout: PATIENCE,
            emergency_country: None,
            token_keys: None,
            degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
        };
        let control = CreditControl::with_journal(ledger.clone(), settings, Some(journal));
        let control = Arc::new(control);
        let administration = Administration::new(control.clone(), Seconds(10));
        administration.activate_deck(&name, DECK.as_bytes()).await.unwrap();
        let text = format!(
            "tenants: [{{ id: {name}, currency: USD, country: US, rate_deck: {name}, \
             credits: [{{ key: po-1, amount: \"10\", purchased_at: 2026-11-01T00:00:00Z }}], users: [\
             {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }}, \
             {{ id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1] }}, \
             {{ id: dave, usage_location: US }}] }}]"
        );
        let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
        administration.apply(&document).await.unwrap();
        let replays = tokio::spawn(control.clone().replay_losses());
        let tenant = TenantId::new(&name).unwrap();
        Desk { ledger, control, administration, tenant, replays, _folder: folder, _server: server }
    }

    fn keys(&self) -> Vec<String> {
        let mut connection = RedisServer::shared().client().get_connection().unwrap();
        connection.keys(format!("tg:{{{}}}:*", self.tenant)).unwrap()
    }

    async fn authorize(&self, call: &str, who: &str) -> bool {
        let request = AuthorizeRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            call_type: CallType::UserOutbound,
            payer: payer(who),
            calling_number: String::new(),
            called_number: "+12065550100".to_owned(),
            original_called_number: String::new(),
            requested: Some(Seconds(300)),
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: String::new(),
            reports_answer: true,
            labels: Default::default(),
        };
        self.control.authorize(&request, Instant::now() + PATIENCE).await.grant.is_some()
    }

    async fn settle(&self, call: &str, used: i64) -> EndResult {
        let request = EndRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            how: Ending::Settle(Seconds(used)),
            report: EndReport::default(),
            token: String::new(),
        };
        self.control.end(request, Instant::now() + PATIENCE).await.unwrap().result
    }

    /// Calls in every state, money, a correction and a block.
    async fn work(&self) {
        let deadline = Instant::now() + PATIENCE;
        for (call, who) in [("ringing", "carol"), ("open", "alice"), ("ended", "carol")] {
            assert!(self.authorize(call, who).await, "{call}");
        }
        assert!(self.authorize("rang", "carol").await && !self.authorize("denied", "dave").await);
        self.control.report_answer(&self.tenant, &call_id("open"), deadline).await.unwrap();
        let request = ExtendRequest {
            tenant: self.tenant.clone(),
            call: call_id("open"),
            used: Seconds(200),
            sequence: Some(1),
            requested: Some(Seconds(600)),
            token: String::new(),
        };
        self.control.extend(&request, deadline).await.unwrap();
        let bought = self.administration.purchase(
            &self.tenant,
            LotId::new("po-2").unwrap(),
            Micros(5_000_000),
            "USD",
            None,
            Default::default(),
        );
        bought.await.unwrap();
        assert_eq!(self.settle("ended", 125).await, EndResult::Settled);
        assert_eq!(self.settle("rang", 0).await, EndResult::Released);
        let authority = |key: &str| Authority {
            key: AdjustmentId::new(key).unwrap(),
            reason: "wrong clock".to_owned(),
            operator: "op".to_owned(),
        };
        let (first, second) = (authority("a-1"), authority("a-2"));
        let ended = call_id("ended");
        let corrected =
            self.administration.adjust_settlement(&self.tenant, &ended, Seconds(61), &first);
        corrected.await.unwrap();
        let amount = Amount::Money(Micros(1_000_000), "USD".to_owned());
        let given = self.administration.adjust_balance(&self.tenant, "po-2", &amount, &second);
        given.await.unwrap();
        let note = BlockNote { reason: "fraud".to_owned(), operator: "op".to_owned() };
        self.administration.set_block(&self.tenant, &payer("alice"), true, note).await.unwrap();
    }

    async fn snapshot(&self) -> Snapshot {
        let reply = self.ledger.snapshot(&self.tenant).await.unwrap();
        let report = audit(&self.tenant, reply.now, NEVER_OVERDUE, &reply.outcome);
        assert_eq!(report.findings, []);
        reply.outcome
    }

    async fn replayed(&self) {
        let marks = self.ledger.marks();
        let until = Instant::now() + PATIENCE;
        while self.ledger.lost(&self.tenant).await.unwrap().is_some() {
            assert!(Instant::now() < until && !marks.losses().is_empty());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What does not say how a snapshot came about.
fn essence(snapshot: &Snapshot) -> Vec<String> {
    let mut essence: Vec<String> = snapshot
        .calls
        .iter()
        .map(|(id, call)| {
            let money = call.money.as_ref().map(|money| (money.held(), money.spent()));
            format!(
                "{id}: {:?} {:?} used {} of {} pools {:?} money {money:?}",
                call.state, call.decision, call.used, call.granted, call.pools
            )
        })
        .collect();
    essence.extend(snapshot.lots.iter().map(|lot| format!("{lot:?}")));
    essence.extend(snapshot.pools.iter().map(|pool| format!("{pool:?}")));
    essence.extend(snapshot.adjustments.iter().map(|(key, _)| format!("{key}")));
    essence.extend(snapshot.blocks.iter().map(|(payer, by, _)| format!("{payer} {by:?}")));
    essence.push(format!("{} decisions", snapshot.tenant.decisions));
    essence
}

fn regressions(snapshot: &Snapshot) -> usize {
    snapshot.journal.iter().filter(|entry| entry.kind == EntryKind::LedgerRegressed).count()
}

/// However often the ledger goes back, and to wherever.
async fn all_that_was_acknowledged_is_there_again<L: Rewound>(desk: &Desk<L>) {
    let empty = L::keep(desk);
    desk.work().await;
    let expected = essence(&desk.snapshot().await);
    for _ in 0..2 {
        L::roll_back(desk, &empty);
        desk.replayed().await;
        let after = desk.snapshot().await;
        assert_eq!(essence(&after), expected);
        // The one before was lost with the rest.
        assert_eq!(regressions(&after), 1);
    }
    // Later, and with something in between.
    let half = L::keep(desk);
    assert!(desk.authorize("later", "carol").await);
    let expected = essence(&desk.snapshot().await);
    L::roll_back(desk, &half);
    assert!(desk.authorize("new", "carol").await);
    desk.replayed().await;
    let after = desk.snapshot().await;
    assert_eq!(regressions(&after), 2);
    assert!(
        after
            .calls
            .iter()
            .any(|(id, call)| *id == call_id("later") && call.state == CallState::Ringing)
    );
    assert_eq!(desk.settle("new", 0).await, EndResult::Released);
    assert!(essence(&after).len() == expected.len() + 1);
}

/// A settle of a call that the ledger has lost, and that nobody has replayed yet, is not parked.
async fn the_end_of_a_lost_call_waits_for_it<L: Rewound>(desk: &Desk<L>) {
    let empty = L::keep(desk);
    assert!(desk.authorize("lost", "carol").await);
    L::roll_back(desk, &empty);
    let result = desk.settle("lost", 60).await;
    assert!(matches!(result, EndResult::Accepted | EndResult::Settled), "{result:?}");
    desk.replayed().await;
    let drain = tokio::spawn(desk.control.clone().drain());
    let journal = desk.control.journal().unwrap();
    assert!(journal.drained(None, PATIENCE).await);
    drain.abort();
    let call = desk.ledger.call(&desk.tenant, &call_id("lost")).await.unwrap().unwrap();
    assert_eq!((call.state, call.money_spent()), (CallState::Settled, Micros(150_000)));
    desk.snapshot().await;
}

/// A settle that was carried out without anybody's hearing of it, and that the client has repeated.
async fn what_a_repeat_was_told_is_there_again<L: Rewound>(desk: &Desk<L>) {
    let empty = L::keep(desk);
    assert!(desk.authorize("repeated", "carol").await);
    let unheard = tollgate::ledger::End {
        tenant: desk.tenant.clone(),
        call: call_id("repeated"),
        how: Ending::Settle(Seconds(125)),
        report: vec![],
        ended_retention: ENDED_RETENTION,
        has_grant: false,
    };
    desk.ledger.end(&unheard).await.unwrap();
    assert_eq!(desk.settle("repeated", 125).await, EndResult::Settled);
    let expected = essence(&desk.snapshot().await);
    L::roll_back(desk, &empty);
    desk.replayed().await;
    assert_eq!(essence(&desk.snapshot().await), expected);
}

/// Nothing is lost but the sequences, and a call was forgotten meanwhile: it is not charged again.
async fn a_forgotten_call_is_not_charged_again<L: Rewound>(desk: &Desk<L>, clock: &ClockOffset) {
    assert!(desk.authorize("forgotten", "carol").await);
    assert_eq!(desk.settle("forgotten", 125).await, EndResult::Settled);
    clock.advance(ENDED_RETENTION + Seconds(60));
    desk.ledger.sweep(&desk.tenant, 10, ENDED_RETENTION).await.unwrap();
    assert_eq!(desk.ledger.call(&desk.tenant, &call_id("forgotten")).await, Ok(None));
    assert!(desk.authorize("now", "carol").await);
    let expected = essence(&desk.snapshot().await);
    // Another name of the sidecar, of which the ledger has counted nothing.
    let marks = desk.ledger.marks();
    let known = marks.known(&desk.tenant);
    marks.adopt(&"0".repeat(32), [(desk.tenant.clone(), known)]);
    desk.replayed().await;
    assert_eq!(essence(&desk.snapshot().await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_call_is_not_charged_again_on_both() {
    let (clock, server) = (stopped(), RedisServer::shared());
    let desk = Desk::open(MemoryLedger::new(clock.clone()), server.clone()).await;
    a_forgotten_call_is_not_charged_again(&desk, &clock).await;
    let clock = stopped();
    let desk = Desk::open(server.ledger(&clock).await, server).await;
    a_forgotten_call_is_not_charged_again(&desk, &clock).await;
}

/// A correction whose call stands behind it in the journal.
async fn a_correction_before_its_call_is_there_again<L: Rewound>(desk: &Desk<L>) {
    let empty = L::keep(desk);
    let corrected = call_id("corrected");
    assert!(desk.authorize("corrected", "carol").await);
    let unheard = tollgate::ledger::End {
        tenant: desk.tenant.clone(),
        call: corrected.clone(),
        how: Ending::Settle(Seconds(125)),
        report: vec![],
        ended_retention: ENDED_RETENTION,
        has_grant: false,
    };
    desk.ledger.end(&unheard).await.unwrap();
    let authority = Authority {
        key: AdjustmentId::new("a-1").unwrap(),
        reason: "wrong clock".to_owned(),
        operator: "op".to_owned(),
    };
    let (tenant, used) = (&desk.tenant, Seconds(61));
    let done = desk.administration.adjust_settlement(tenant, &corrected, used, &authority);
    done.await.unwrap();
    desk.settle("corrected", 125).await;
    let expected = essence(&desk.snapshot().await);
    L::roll_back(desk, &empty);
    desk.replayed().await;
    assert_eq!(essence(&desk.snapshot().await), expected);
}

/// A call whose answer is lost, and that has expired as one that only rang before that was found.
async fn an_answered_call_that_expired_ringing_holds_again<L: Rewound>(
    desk: &Desk<L>,
    clock: &ClockOffset,
) {
    let (answered, deadline) = (call_id("answered"), Instant::now() + PATIENCE);
    assert!(desk.authorize("answered", "carol").await);
    let ringing = L::keep(desk);
    desk.control.report_answer(&desk.tenant, &answered, deadline).await.unwrap();
    L::roll_back(desk, &ringing);
    clock.advance(Seconds(200));
    let swept = desk.ledger.sweep(&desk.tenant, 10, ENDED_RETENTION).await.unwrap();
    assert_eq!(swept.outcome.expired, 1);
    desk.replayed().await;
    let call = desk.ledger.call(&desk.tenant, &answered).await.unwrap().unwrap();
    assert_eq!(call.state, CallState::Answered);
    assert!(call.money.is_some_and(|money| money.held().is_positive()));
    desk.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_call_that_expired_ringing_holds_again_on_both() {
    let (clock, server) = (stopped(), RedisServer::shared());
    let desk = Desk::open(MemoryLedger::new(clock.clone()), server.clone()).await;
    an_answered_call_that_expired_ringing_holds_again(&desk, &clock).await;
    let clock = stopped();
    let desk = Desk::open(server.ledger(&clock).await, server).await;
    an_answered_call_that_expired_ringing_holds_again(&desk, &clock).await;
}

/// Of which only one other is rolled back.
async fn nothing_is_found_where_nothing_is_lost<L: Rewound>(desk: &Desk<L>, other: &Desk<L>) {
    let kept = L::keep(other);
    desk.work().await;
    other.work().await;
    L::roll_back(other, &kept);
    other.replayed().await;
    for number in 0..50 {
        let call = format!("many-{number}");
        desk.authorize(&call, "carol").await;
        desk.settle(&call, 0).await;
        assert_eq!(desk.ledger.lost(&desk.tenant).await, Ok(None));
    }
    assert_eq!(regressions(&desk.snapshot().await), 0);
    assert_eq!(regressions(&other.snapshot().await), 1);
}

async fn memory() -> Desk<MemoryLedger> {
    Desk::open(MemoryLedger::new(stopped()), RedisServer::shared()).await
}

async fn redis_ledger() -> Desk<RedisLedger> {
    let server = RedisServer::shared();
    Desk::open(server.ledger(&stopped()).await, server).await
}

fn stopped() -> ClockOffset {
    let clock = ClockOffset::default();
    clock.freeze_at(NOON);
    clock
}

macro_rules! on_both {
    ($($name:ident, $make:ident;)*) => {
        $(mod $name {
            use super::$make as make;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn all_that_was_acknowledged_is_there_again() {
                super::all_that_was_acknowledged_is_there_again(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_end_of_a_lost_call_waits_for_it() {
                super::the_end_of_a_lost_call_waits_for_it(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_a_repeat_was_told_is_there_again() {
                super::what_a_repeat_was_told_is_there_again(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_correction_before_its_call_is_there_again() {
                super::a_correction_before_its_call_is_there_again(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nothing_is_found_where_nothing_is_lost() {
                let (desk, other) = (make().await, make().await);
                super::nothing_is_found_where_nothing_is_lost(&desk, &other).await;
            }
        })*
    };
}

on_both! {
    on_memory, memory;
    on_redis, redis_ledger;
}
