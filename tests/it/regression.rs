//! A ledger that went back: it is found, told once, and what was acknowledged is replayed from the journals.
//! Under load: [`crate::faults`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Commands, cmd};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::administration::{Administration, Amount, Authority, ErasureOf};
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{AdjustmentId, LotId, TenantId};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::credit_control::answer::EndReport;
use tollgate::credit_control::replay::{MOST_PASSES, Replays, Tally};
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, ExtendRequest, Settings,
};
use tollgate::journal::{self, Journal};
use tollgate::ledger::audit::audit;
use tollgate::ledger::marks::Mark;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::redis::RedisLedger;
use tollgate::ledger::state::{BlockNote, CallState, EntryKind};
use tollgate::ledger::{ClockOffset, EndResult, Ending, Ledger, LedgerError, Snapshot};
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
async fn a_sidecar_whose_name_is_lost_raises_no_alarm() {
    let (redis, files) = (RedisServer::started(), Files::default());
    let journal = files.path("journal");
    let mut sidecar = on(&redis.url(), &journal);
    sidecar.set_up(&tenants(&["contoso"]));
    let name = std::path::Path::new(&journal).join("SIDECAR");
    for (round, lost) in [None, Some("nonsense"), None].into_iter().enumerate() {
        let mut calls = sidecar.calls().await;
        let call = format!("call-{round}");
        calls.authorize_call(authorize(&call, "carol", "+12065550100")).await.unwrap();
        calls.settle_call(settle(&call, 60)).await.unwrap();
        assert!(sidecar.stop().success());
        match lost {
            Some(text) => std::fs::write(&name, text).unwrap(),
            None => std::fs::remove_file(&name).unwrap(),
        }
        sidecar = on(&redis.url(), &journal);
    }
    // What it is acknowledged from here on is missed where it is lost.
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("kept", "carol", "+12065550100")).await.unwrap();
    assert_eq!(told(&sidecar).await, [""; 0]);
    keep(&redis);
    calls.settle_call(settle("kept", 60)).await.unwrap();
    assert!(sidecar.stop().success());
    roll_back(&redis);
    let sidecar = on(&redis.url(), &journal);
    wait_until_replayed(&redis.client());
    assert_eq!(told(&sidecar).await.len(), 1);
    assert_charged(&sidecar, "contoso", 4).await;
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
    /// Nothing is left of it.
    fn purge(desk: &Desk<Self>);
}

impl Rewound for MemoryLedger {
    type Kept = tollgate::ledger::memory::Earlier;

    fn keep(desk: &Desk<Self>) -> Self::Kept {
        desk.ledger.keep(&desk.tenant)
    }

    fn roll_back(desk: &Desk<Self>, kept: &Self::Kept) {
        desk.ledger.roll_back(&desk.tenant, kept);
    }

    fn purge(desk: &Desk<Self>) {
        let nothing = desk.ledger.keep(&TenantId::new("nobody").unwrap());
        desk.ledger.roll_back(&desk.tenant, &nothing);
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

    fn purge(desk: &Desk<Self>) {
        let mut connection = RedisServer::shared().client().get_connection().unwrap();
        cmd("DEL").arg(desk.keys()).exec(&mut connection).unwrap();
    }
}

struct Desk<L: Ledger> {
    ledger: Arc<L>,
    control: Arc<CreditControl<L>>,
    administration: Administration<L>,
    tenant: TenantId,
    document: String,
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
        let replays = tokio::spawn(control.clone().replay_losses());
        let tenant = TenantId::new(&name).unwrap();
        let desk = Desk {
            ledger,
            control,
            administration,
            tenant,
            document: text,
            replays,
            _folder: folder,
            _server: server,
        };
        desk.apply().await;
        desk
    }

    async fn apply(&self) {
        let document = organisation::read(&self.document).unwrap();
        self.administration.apply(&organisation::check(&document).unwrap()).await.unwrap();
    }

    /// Nothing is replayed from here on but by [`Desk::pass`].
    async fn stop_replays(&mut self) {
        self.replays.abort();
        let _ = (&mut self.replays).await;
    }

    /// Replays once, so much later than all pauses that it is time to.
    async fn pass(&self, replays: &mut Replays, number: u32) -> Tally {
        let now = Instant::now() + number * Duration::from_secs(3600);
        self.control.replay_due(replays, now).await
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

    async fn extend(&self, call: &str, used: i64, requested: i64) {
        let request = ExtendRequest {
            tenant: self.tenant.clone(),
            call: call_id(call),
            used: Seconds(used),
            sequence: Some(1),
            requested: Some(Seconds(requested)),
            token: String::new(),
        };
        self.control.extend(&request, Instant::now() + PATIENCE).await.unwrap();
    }

    /// Calls in every state, money, a correction and a block.
    async fn work(&self) {
        let deadline = Instant::now() + PATIENCE;
        for (call, who) in [("ringing", "carol"), ("open", "alice"), ("ended", "carol")] {
            assert!(self.authorize(call, who).await, "{call}");
        }
        assert!(self.authorize("rang", "carol").await && !self.authorize("denied", "dave").await);
        self.control.report_answer(&self.tenant, &call_id("open"), deadline).await.unwrap();
        self.extend("open", 200, 600).await;
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
            assert!(Instant::now() < until);
            if marks.losses().is_empty() {
                // It may have ended between the two.
                assert_eq!(self.ledger.lost(&self.tenant).await.unwrap(), None);
            }
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

/// A settle that names less than was proven is charged what was proven, also where that proof is lost with it.
async fn an_end_that_named_too_little_charges_what_was_proven_again<L: Rewound>(desk: &Desk<L>) {
    assert!(desk.authorize("less", "carol").await);
    let ringing = L::keep(desk);
    desk.extend("less", 130, 60).await;
    assert_eq!(desk.settle("less", 47).await, EndResult::Settled);
    let expected = essence(&desk.snapshot().await);
    L::roll_back(desk, &ringing);
    desk.replayed().await;
    assert_eq!(essence(&desk.snapshot().await), expected);
    assert_eq!(desk.settle("less", 47).await, EndResult::Settled);
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

/// Purged on purpose, or of a Redis that lost all: who of the two nobody knows.
async fn a_tenant_that_is_gone_is_told_of_once_and_replayed_when_it_is_back<L: Rewound>(
    mut desk: Desk<L>,
) {
    desk.stop_replays().await;
    assert!(desk.authorize("ended", "carol").await);
    assert_eq!(desk.settle("ended", 125).await, EndResult::Settled);
    let expected = essence(&desk.snapshot().await);
    L::purge(&desk);
    assert!(desk.ledger.lost(&desk.tenant).await.unwrap().is_some());
    let (said, mut replays) = (Said::default(), Replays::default());
    let listening = tracing::subscriber::set_default(said.listener());
    for number in 0..5 {
        assert_eq!(desk.pass(&mut replays, number).await, Tally::default());
    }
    drop(listening);
    assert_eq!(said.lines("waits to be replayed").len(), 1, "{:?}", said.lines(""));
    desk.apply().await;
    // With what the document bought.
    let done = Tally { calls: 1, others: 1, missed: 0 };
    assert_eq!(desk.pass(&mut replays, 5).await, done);
    assert_eq!(desk.ledger.lost(&desk.tenant).await, Ok(None));
    assert_eq!(essence(&desk.snapshot().await), expected);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn listener(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let said = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || said.clone()).finish()
    }

    fn lines(&self, with: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

/// Decided anew by a sidecar that knew of no loss, and refused.
async fn a_call_that_was_refused_since_the_loss_is_charged_as_it_was<L: Rewound>(
    mut desk: Desk<L>,
) {
    desk.stop_replays().await;
    let empty = L::keep(&desk);
    for call in ["settled", "open", "refused"] {
        assert!(desk.authorize(call, "carol").await);
    }
    assert_eq!(desk.settle("settled", 125).await, EndResult::Settled);
    L::roll_back(&desk, &empty);
    let note = BlockNote { reason: "fraud".to_owned(), operator: "op".to_owned() };
    let (tenant, carol) = (&desk.tenant, payer("carol"));
    desk.administration.set_block(tenant, &carol, true, note.clone()).await.unwrap();
    for call in ["settled", "open", "refused"] {
        assert!(!desk.authorize(call, "carol").await);
    }
    // One that was talked on although it was refused: who talked is known from that alone.
    let parked = tollgate::ledger::End {
        tenant: tenant.clone(),
        call: call_id("refused"),
        how: Ending::Settle(Seconds(61)),
        report: vec![],
        ended_retention: ENDED_RETENTION,
        has_grant: false,
    };
    desk.ledger.end(&parked).await.unwrap();
    let mut replays = Replays::default();
    let done = desk.pass(&mut replays, 0).await;
    assert_eq!((done.calls, done.missed), (2, 1), "{done:?}");
    for call in ["settled", "open"] {
        let found = desk.ledger.call(tenant, &call_id(call)).await.unwrap().unwrap();
        let expected = match call {
            "settled" => (CallState::Settled, Micros(350_000)),
            _ => (CallState::Ringing, Micros::ZERO),
        };
        assert_eq!((found.state, found.money_spent()), expected, "{call}");
    }
    assert_eq!(desk.settle("open", 60).await, EndResult::Settled);
    assert_eq!(desk.settle("settled", 125).await, EndResult::Settled);
    let spent: i64 = desk.snapshot().await.lots.iter().map(|lot| lot.bucket.spent).sum();
    assert_eq!(spent, 350_000 + 150_000);
}

/// From the copy that the ledger went back to, and from the journal.
async fn erased_numbers_do_not_come_back_with_an_older_ledger<L: Rewound>(desk: &Desk<L>) {
    const DIGITS: &[u8] = b"2065550100";
    let holds = |bytes: &[u8]| bytes.windows(DIGITS.len()).any(|part| part == DIGITS);
    let holding = |snapshot: &Snapshot| {
        let calls = snapshot.calls.iter().filter(|(_, call)| holds(&call.context)).count();
        let entries = snapshot.journal.iter().filter(|entry| holds(&entry.context)).count();
        (calls, entries)
    };
    let empty = L::keep(desk);
    assert!(desk.authorize("ended", "carol").await && desk.authorize("open", "carol").await);
    assert!(!desk.authorize("denied", "dave").await);
    assert_eq!(desk.settle("ended", 125).await, EndResult::Settled);
    let numbers = L::keep(desk);
    let (calls, entries) = holding(&desk.snapshot().await);
    assert!(calls == 3 && entries >= 3, "{calls} {entries}");
    let number = ErasureOf::Number("+12065550100".to_owned());
    desk.administration.erase(&desk.tenant, &number, "her request", "dpo").await.unwrap();
    let expected = essence(&desk.snapshot().await);
    assert_eq!(holding(&desk.snapshot().await), (0, 0));
    for kept in [&numbers, &empty, &numbers] {
        // Nothing else is lost with the first.
        L::roll_back(desk, kept);
        desk.replayed().await;
        let after = desk.snapshot().await;
        assert_eq!(holding(&after), (0, 0));
        assert_eq!(essence(&after), expected);
    }
    // One that begins before the erasure is replayed is erased, too.
    assert!(desk.authorize("later", "carol").await);
    L::roll_back(desk, &numbers);
    desk.replayed().await;
    let after = desk.snapshot().await;
    assert_eq!(after.calls.iter().filter(|(_, call)| holds(&call.context)).count(), 0);
}

/// A name of a run that began at an instant.
fn run_of(begun: Millis) -> String {
    let millis = u64::try_from(begun.0).unwrap();
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid();
    format!("run.{}", uuid.simple())
}

async fn names_of_runs_that_ended_long_ago_are_forgotten<L: Rewound>(desk: &Desk<L>) {
    let (marks, tenant) = (desk.ledger.marks(), &desk.tenant);
    let journal = marks.sidecar();
    let known = marks.known(tenant);
    let (old, new) = (run_of(Millis(1_000_000)), run_of(Millis(3_000_000)));
    for name in [&old, &new] {
        marks.adopt(name, []);
        assert!(desk.authorize(name, "carol").await);
    }
    assert_eq!(desk.ledger.forget_runs(tenant, Millis(2_000_000)).await, Ok(1));
    assert_eq!(desk.ledger.forget_runs(tenant, Millis(2_000_000)).await, Ok(0));
    // The others are counted as before.
    for (name, known) in [(new, Mark { epoch: 0, sequence: 1 }), (journal.to_string(), known)] {
        marks.adopt(&name, [(tenant.clone(), known)]);
        assert_eq!(desk.ledger.lost(tenant).await, Ok(None), "{name}");
    }
    assert_eq!(regressions(&desk.snapshot().await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_redis_refuses_is_missed_in_the_end_and_the_rest_is_there_at_once() {
    let mut desk = redis_ledger().await;
    desk.stop_replays().await;
    let empty = RedisLedger::keep(&desk);
    for call in ["good", "bad", "better"] {
        assert!(desk.authorize(call, "carol").await);
        assert_eq!(desk.settle(call, 125).await, EndResult::Settled);
    }
    let authority = Authority {
        key: AdjustmentId::new("a-1").unwrap(),
        reason: "wrong clock".to_owned(),
        operator: "op".to_owned(),
    };
    let (tenant, bad) = (desk.tenant.clone(), call_id("bad"));
    let corrected = desk.administration.adjust_settlement(&tenant, &bad, Seconds(61), &authority);
    corrected.await.unwrap();
    RedisLedger::roll_back(&desk, &empty);
    let mut connection = RedisServer::shared().client().get_connection().unwrap();
    let calls = format!("tg:{{{tenant}}}:calls");
    let _: i64 = connection.hset(&calls, "bad", b"\xc1").unwrap();
    assert!(desk.ledger.lost(&tenant).await.unwrap().is_some());
    let mut replays = Replays::default();
    for number in 1..MOST_PASSES {
        assert_eq!(desk.pass(&mut replays, number).await, Tally::default(), "{number}");
        for call in ["good", "better"] {
            let found = desk.ledger.call(&tenant, &call_id(call)).await.unwrap().unwrap();
            assert_eq!(found.state, CallState::Settled, "{call}");
        }
        // It waits before it tries again.
        assert_eq!(desk.pass(&mut replays, number).await, Tally::default(), "{number}");
    }
    assert!(desk.ledger.lost(&tenant).await.unwrap().is_some());
    let done = desk.pass(&mut replays, MOST_PASSES).await;
    assert_eq!(done, Tally { calls: 2, others: 0, missed: 2 });
    assert_eq!(desk.ledger.lost(&tenant).await, Ok(None));
    let _: i64 = connection.hdel(&calls, "bad").unwrap();
    desk.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balances_that_redis_cannot_read_are_no_reason_to_give_up_a_call() {
    let mut desk = redis_ledger().await;
    desk.stop_replays().await;
    let empty = RedisLedger::keep(&desk);
    assert!(desk.authorize("call", "carol").await);
    assert_eq!(desk.settle("call", 125).await, EndResult::Settled);
    let expected = essence(&desk.snapshot().await);
    RedisLedger::roll_back(&desk, &empty);
    assert!(desk.ledger.lost(&desk.tenant).await.unwrap().is_some());
    let mut connection = RedisServer::shared().client().get_connection().unwrap();
    let lots = format!("tg:{{{}}}:lots", desk.tenant);
    let wallet: Vec<u8> = connection.hget(&lots, "w").unwrap();
    let _: i64 = connection.hset(&lots, "w", b"\xc1").unwrap();
    let mut replays = Replays::default();
    for number in 1..2 * MOST_PASSES {
        assert_eq!(desk.pass(&mut replays, number).await, Tally::default(), "{number}");
    }
    let _: i64 = connection.hset(&lots, "w", wallet).unwrap();
    let done = desk.pass(&mut replays, 2 * MOST_PASSES).await;
    assert_eq!(done, Tally { calls: 1, ..Tally::default() });
    assert_eq!(essence(&desk.snapshot().await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_redis_does_not_say_what_is_missing_a_command_is_undecided() {
    let mut desk = redis_ledger().await;
    desk.stop_replays().await;
    let (marks, tenant) = (desk.ledger.marks(), desk.tenant.clone());
    let known = marks.known(&tenant);
    // Another thread of this sidecar has found a loss, whose answer is on its way.
    let mut connection = RedisServer::shared().client().get_connection().unwrap();
    let (key, sidecar) = (format!("tg:{{{tenant}}}:sequence"), marks.sidecar());
    let raised = (known.epoch + 1) * (1 << 40) + known.sequence;
    let missing = format!("l:{sidecar}");
    let fields = [("e", (known.epoch + 1).to_string()), (&missing, "nonsense".to_owned())];
    let _: () = connection.hset_multiple(&key, &fields).unwrap();
    let _: i64 = connection.hset(&key, format!("s:{sidecar}"), raised).unwrap();
    let purchase = tollgate::charging::profile::Purchase {
        key: LotId::new("po-2").unwrap(),
        amount: Micros(5),
        purchased_at: NOON,
        payment: Default::default(),
    };
    let buy = || desk.ledger.purchase(&tenant, &purchase, NOON.after(Seconds(86_400)));
    let undecided = buy().await;
    assert!(matches!(undecided, Err(LedgerError::Indeterminate(_))), "{undecided:?}");
    let _: i64 = connection.hset(&key, &missing, "0:1").unwrap();
    // It was carried out: a repeat says so, and the loss is known by now.
    assert_eq!(buy().await.unwrap().outcome, tollgate::ledger::Purchased::Replayed);
    assert_eq!(marks.losses().len(), 1);
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
            async fn an_end_that_named_too_little_charges_what_was_proven_again() {
                super::an_end_that_named_too_little_charges_what_was_proven_again(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_correction_before_its_call_is_there_again() {
                super::a_correction_before_its_call_is_there_again(&make().await).await;
            }

            #[tokio::test]
            async fn a_tenant_that_is_gone_is_told_of_once_and_replayed_when_it_is_back() {
                let desk = make().await;
                super::a_tenant_that_is_gone_is_told_of_once_and_replayed_when_it_is_back(desk).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_call_that_was_refused_since_the_loss_is_charged_as_it_was() {
                super::a_call_that_was_refused_since_the_loss_is_charged_as_it_was(make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn erased_numbers_do_not_come_back_with_an_older_ledger() {
                super::erased_numbers_do_not_come_back_with_an_older_ledger(&make().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn names_of_runs_that_ended_long_ago_are_forgotten() {
                super::names_of_runs_that_ended_long_ago_are_forgotten(&make().await).await;
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
