//! Calls while the ledger is away, out of a lease: as many as were leased, each charged once, and nobody
//! overspends.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::{Answer, CallContext, Charge, EndReport};
use tollgate::credit_control::leases::{self, DEGRADED};
use tollgate::credit_control::replay::Replays;
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, ExtendRequest, Settings, UseCaseError,
};
use tollgate::journal::{self, Journal};
use tollgate::ledger::audit::audit;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::{Call, CallState};
use tollgate::ledger::{ClockOffset, EndResult, Ending, Ledger};
use tollgate::organisation;
use tollgate::proto::v1::{
    Decision as Told, GetBalanceRequest, ListDecisionsRequest, ListOpenCallsRequest, Money,
    SettleResult,
};

use crate::server::{DECK, organisation};
use crate::support::messages::{authorize, release, settle, usd};
use crate::support::process::{Files, PATIENCE, Sidecar, wait_until};
use crate::support::redis::RedisServer;
use crate::support::watched::Watched;
use crate::support::{NEVER_OVERDUE, call_id, payer};

/// The usual organisation, going on without the ledger.
fn capped() -> String {
    let handling = "country: US\n    failure_handling: { user_outbound: continue_capped }\n";
    organisation().replace("country: US\n", handling)
}

const SEATTLE: &str = "+12065550100";

// The use cases, on a ledger that is held.

/// Some sidecars on one ledger.
struct Town {
    ledger: Arc<Watched>,
    clock: ClockOffset,
    desks: Vec<Desk>,
}

struct Desk {
    control: Arc<CreditControl<Watched>>,
    journal: Option<Arc<Journal>>,
    folder: TempDir,
}

fn settings(degraded: leases::Settings) -> Settings {
    Settings {
        default_grant: Seconds(300),
        max_grant: Seconds(4 * 3600),
        ringing_timeout: Seconds(180),
        grace: Seconds(60),
        denied_retention: Seconds(600),
        ended_retention: Seconds(86_400),
        ledger_timeout: Duration::from_millis(50),
        emergency_country: None,
        token_keys: None,
        degraded,
    }
}

fn open(folder: &TempDir) -> Arc<Journal> {
    let settings = journal::Settings {
        folder: folder.path().join("journal"),
        keep: PATIENCE,
        most_bytes: 1 << 20,
    };
    Arc::new(Journal::open(&settings).unwrap())
}

impl Desk {
    fn on(ledger: &Arc<Watched>, degraded: leases::Settings, journal: bool) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal.then(|| open(&folder));
        let control =
            CreditControl::with_journal(ledger.clone(), settings(degraded), journal.clone());
        Desk { control: Arc::new(control), journal, folder }
    }

    async fn authorize(&self, payer_id: &str, call: &str) -> Answer {
        let request = AuthorizeRequest {
            tenant: tenant(),
            call: call_id(call),
            call_type: CallType::UserOutbound,
            payer: payer(payer_id),
            calling_number: String::new(),
            called_number: SEATTLE.to_owned(),
            original_called_number: String::new(),
            requested: None,
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: String::new(),
            reports_answer: true,
            labels: Default::default(),
        };
        self.control.authorize(&request, Instant::now() + PATIENCE).await
    }

    /// A call through the ledger, so that what paid for it is leased.
    async fn lease(&self, payer_id: &str) {
        let name = format!("before-{payer_id}-{}", uuid_of(self));
        let answer = self.authorize(payer_id, &name).await;
        assert_eq!(answer.decision, Decision::Allowed, "{answer:?}");
        assert_eq!(self.end(&name, Ending::Release).await.unwrap().result, EndResult::Released);
        self.control.renew_leases().await;
    }

    async fn granted(&self, payer_id: &str, call: &str) -> Answer {
        let answer = self.authorize(payer_id, call).await;
        assert_eq!(answer.decision, Decision::AllowedDegraded, "{call}: {answer:?}");
        answer
    }

    async fn refused(&self, payer_id: &str, call: &str) {
        let answer = self.authorize(payer_id, call).await;
        assert_eq!(answer.decision, Decision::LedgerUnavailable, "{call}: {answer:?}");
    }

    async fn extend(&self, call: &str, used: i64) -> Answer {
        let request = ExtendRequest {
            tenant: tenant(),
            call: call_id(call),
            used: Seconds(used),
            sequence: None,
            requested: None,
            token: String::new(),
        };
        self.control.extend(&request, Instant::now() + PATIENCE).await.unwrap()
    }

    async fn end(&self, call: &str, how: Ending) -> Result<Charge, UseCaseError> {
        let (report, token) = (EndReport::default(), String::new());
        let request = EndRequest { tenant: tenant(), call: call_id(call), how, report, token };
        self.control.end(request, Instant::now() + PATIENCE).await
    }

    async fn accepted(&self, call: &str, how: Ending) {
        assert_eq!(self.end(call, how).await.unwrap().result, EndResult::Accepted);
    }

    /// Brings what the journal holds to the ledger.
    async fn drain(&self) {
        let drain = tokio::spawn(self.control.clone().drain());
        assert!(self.journal.as_ref().unwrap().drained(None, PATIENCE).await);
        drain.abort();
    }
}

fn uuid_of(desk: &Desk) -> usize {
    std::ptr::from_ref(&*desk.control).addr()
}

impl Town {
    async fn open(document: &str, degraded: leases::Settings, desks: usize) -> Town {
        let clock = ClockOffset::default();
        let inner = MemoryLedger::new(clock.clone());
        let ledger = Arc::new(Watched { inner, ..Watched::default() });
        let desks: Vec<Desk> = (0..desks).map(|_| Desk::on(&ledger, degraded, true)).collect();
        let administration = Administration::new(desks[0].control.clone(), Seconds(10));
        administration.activate_deck("default", DECK.as_bytes()).await.unwrap();
        let document = organisation::check(&organisation::read(document).unwrap()).unwrap();
        administration.apply(&document).await.unwrap();
        Town { ledger, clock, desks }
    }

    fn hang(&self, hangs: bool) {
        *self.ledger.hangs.lock().unwrap() = hangs;
    }

    async fn call(&self, call: &str) -> Call {
        self.ledger.inner.call(&tenant(), &call_id(call)).await.unwrap().unwrap()
    }

    /// Money held and spent, and seconds of pools held and spent; the audit is clean.
    async fn moved(&self) -> (i64, i64, i64, i64) {
        let reply = self.ledger.inner.snapshot(&tenant()).await.unwrap();
        let found = reply.outcome;
        let report = audit(&tenant(), reply.now, NEVER_OVERDUE, &found);
        assert_eq!(report.findings, []);
        assert_eq!((report.listed.shortfalls, report.listed.parked_calls), (0, 0));
        let sum = |of: fn(&tollgate::ledger::state::Bucket) -> i64| {
            let lots = found.lots.iter().map(|lot| of(&lot.bucket)).sum::<i64>();
            let pools = found.pools.iter().map(|(_, pool)| of(pool)).sum::<i64>();
            (lots, pools)
        };
        let (held, spent) = (sum(|bucket| bucket.held), sum(|bucket| bucket.spent));
        (held.0, spent.0, held.1, spent.1)
    }
}

fn tenant() -> TenantId {
    TenantId::new("contoso").unwrap()
}

#[tokio::test]
async fn calls_go_on_until_the_hour_is_used_up_and_are_settled_when_the_ledger_is_back() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    desk.lease("carol").await;
    let (held, ..) = town.moved().await;
    assert!((9_000_000..=10_000_000).contains(&held), "{held}");
    town.hang(true);
    // Six times ten minutes, whatever they asked for.
    for n in 1..=6 {
        let answer = desk.granted("carol", &format!("c{n}")).await;
        let grant = answer.grant.unwrap();
        assert_eq!((grant.granted, grant.final_grant), (Seconds(300), false));
    }
    desk.refused("carol", "c7").await;
    let again = desk.authorize("carol", "c1").await;
    assert_eq!((again.decision, again.replayed), (Decision::AllowedDegraded, true));
    // The first is extended up to the cap of a call, and talks nine minutes.
    for (used, granted, last) in [(200, 500, false), (500, 600, true), (600, 600, true)] {
        let grant = desk.extend("c1", used).await.grant.unwrap();
        assert_eq!((grant.granted, grant.final_grant), (Seconds(granted), last));
    }
    let answered = Instant::now() + PATIENCE;
    let answer = desk.control.report_answer(&tenant(), &call_id("c2"), answered).await.unwrap();
    assert_eq!(answer.grant.unwrap().granted, Seconds(300));
    desk.accepted("c1", Ending::Settle(Seconds(540))).await;
    desk.accepted("c2", Ending::Release).await;
    assert_eq!(desk.authorize("carol", "c1").await.decision, Decision::CallAlreadyEnded);
    assert_eq!(desk.control.leases().calls(), 6);

    town.hang(false);
    // Nothing has brought it to the ledger yet: it is answered as before.
    assert_eq!(desk.authorize("carol", "c3").await.decision, Decision::AllowedDegraded);
    desk.drain().await;
    assert_eq!(desk.control.leases().calls(), 0);
    let settled = town.call("c1").await;
    assert_eq!((settled.state, settled.money_spent()), (CallState::Settled, Micros(950_000)));
    assert_eq!(settled.decision, Some(Decision::AllowedDegraded));
    assert_eq!(CallContext::decode(&settled.context).unwrap().flags, [DEGRADED]);
    assert_eq!(town.call("c2").await.state, CallState::Released);
    let (held, spent, ..) = town.moved().await;
    assert_eq!(spent, 950_000);
    assert!(held > 4 * 1_050_000, "{held}: the lease still holds its rest");
    // A call that goes on is one like any other.
    let grant = desk.extend("c3", 550).await.grant.unwrap();
    assert!(grant.granted > Seconds(600) && !grant.final_grant, "{grant:?}");
    for call in ["c3", "c4", "c5", "c6"] {
        let charge = desk.end(call, Ending::Settle(Seconds(60))).await.unwrap();
        assert_eq!(charge.result, EndResult::Settled, "{call}");
    }
    // What was granted out of is given back, for another.
    desk.control.renew_leases().await;
    desk.control.return_leases().await;
    // 550 s were proven of c3.
    assert_eq!(town.moved().await, (0, 950_000 + 1_050_000 + 3 * 150_000, 0, 0));
}

#[tokio::test]
async fn a_lease_pays_for_what_paid_before_and_for_nothing_else() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    desk.lease("alice").await;
    // Carol is known, and nothing is leased that could pay for her.
    desk.authorize("carol", "known").await;
    town.hang(true);
    desk.granted("alice", "a").await;
    desk.refused("carol", "c").await;
    // Never heard of.
    desk.refused("dave", "d").await;
    desk.accepted("a", Ending::Settle(Seconds(61))).await;
    town.hang(false);
    desk.drain().await;
    desk.control.return_leases().await;
    let (.., spent) = town.moved().await;
    assert_eq!(spent, 120);
}

#[tokio::test]
async fn without_a_journal_or_where_it_is_switched_off_nothing_is_leased() {
    let off = leases::Settings { per_hour: Seconds::ZERO, ..leases::Settings::DEFAULTS };
    for (degraded, journal) in [(off, true), (leases::Settings::DEFAULTS, false)] {
        let mut town = Town::open(&capped(), degraded, 1).await;
        town.desks[0] = Desk::on(&town.ledger, degraded, journal);
        let desk = &town.desks[0];
        desk.lease("carol").await;
        assert_eq!(town.moved().await, (0, 0, 0, 0));
        town.hang(true);
        desk.refused("carol", "c").await;
    }
}

#[tokio::test]
async fn a_lease_that_nobody_gives_back_comes_back_by_itself() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    town.desks[0].lease("carol").await;
    town.desks[0].lease("alice").await;
    let (money, _, seconds, _) = town.moved().await;
    assert!(money > 0 && seconds == 3600, "{money} {seconds}");
    town.clock.advance(Seconds(1200));
    let swept = town.ledger.sweep(&tenant(), 10, Seconds(60)).await.unwrap().outcome;
    assert_eq!((swept.expired, town.moved().await), (2, (0, 0, 0, 0)));
}

#[tokio::test]
async fn sidecars_with_leases_on_one_wallet_never_spend_it_twice() {
    let four = leases::Settings { money_per_hour: Micros(4_000_000), ..leases::Settings::DEFAULTS };
    let town = Town::open(&capped(), four, 3).await;
    for desk in &town.desks {
        desk.lease("carol").await;
    }
    town.hang(true);
    let mut granted = 0;
    for (d, desk) in town.desks.iter().enumerate() {
        for n in 0..8 {
            let call = format!("c-{d}-{n}");
            let answer = desk.authorize("carol", &call).await;
            if answer.decision == Decision::AllowedDegraded {
                // Each talks to the end of what it may.
                let whole = desk.extend(&call, 1).await.grant.unwrap().granted;
                let whole = desk.extend(&call, whole.0).await.grant.unwrap().granted;
                desk.accepted(&call, Ending::Settle(whole)).await;
                granted += 1;
            }
        }
    }
    assert!(granted >= 6, "{granted}");
    town.hang(false);
    // Somebody else comes first, and takes all that is left.
    let other = town.desks[0].authorize("carol", "other").await;
    for desk in &town.desks {
        desk.drain().await;
    }
    if other.grant.is_some() {
        town.desks[0].end("other", Ending::Release).await.unwrap();
    }
    for desk in &town.desks {
        desk.control.return_leases().await;
    }
    // No shortfall, and the audit is clean.
    let (held, spent, ..) = town.moved().await;
    assert!(held == 0 && spent <= 10_000_000, "{held} {spent}");
}

#[tokio::test]
async fn a_sidecar_that_starts_again_brings_what_it_granted_before_it_died() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    desk.lease("carol").await;
    town.hang(true);
    desk.granted("carol", "ended").await;
    desk.granted("carol", "goes on").await;
    desk.accepted("ended", Ending::Settle(Seconds(60))).await;
    desk.journal.as_ref().unwrap().close();
    let again = open(&desk.folder);
    let degraded = leases::Settings::DEFAULTS;
    let control =
        CreditControl::with_journal(town.ledger.clone(), settings(degraded), Some(again.clone()));
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk { control: Arc::new(control), journal: Some(again), folder };
    assert_eq!(desk.control.leases().calls(), 2);
    // It knows nobody yet, but its own grants.
    desk.refused("carol", "new").await;
    assert_eq!(desk.extend("goes on", 100).await.grant.unwrap().granted, Seconds(300));
    desk.accepted("goes on", Ending::Settle(Seconds(200))).await;
    town.hang(false);
    desk.drain().await;
    assert_eq!(town.call("ended").await.money_spent(), Micros(150_000));
    assert_eq!(town.call("goes on").await.money_spent(), Micros(450_000));
    // The lease of the one before ends by itself.
    town.clock.advance(Seconds(1200));
    town.ledger.sweep(&tenant(), 10, Seconds(60)).await.unwrap();
    assert_eq!(town.moved().await, (0, 600_000, 0, 0));
}

// Leases and a ledger that went back.

impl Town {
    /// Carol talks in two calls out of a lease of all that there is, while the ledger is away: one was settled, which is
    /// brought to it, one is open. What has moved then.
    async fn talked_while_away(&self) -> (i64, i64, i64, i64) {
        let desk = &self.desks[0];
        self.hang(true);
        for call in ["settled", "open"] {
            desk.granted("carol", call).await;
        }
        desk.accepted("settled", Ending::Settle(Seconds(540))).await;
        self.hang(false);
        desk.drain().await;
        self.moved().await
    }

    /// Replays what the first sidecar was acknowledged.
    async fn replay(&self) {
        let (control, mut replays) = (&self.desks[0].control, Replays::default());
        assert!(self.ledger.inner.lost(&tenant()).await.unwrap().is_some());
        let done = control.replay_due(&mut replays, Instant::now()).await;
        assert_eq!((done.missed, self.ledger.inner.lost(&tenant()).await), (0, Ok(None)));
    }
}

#[tokio::test]
async fn a_lost_grant_takes_its_part_of_the_lease_that_stands_there_again() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    desk.lease("carol").await;
    // All of the wallet is leased.
    let before = town.ledger.inner.keep(&tenant());
    let expected = town.talked_while_away().await;
    assert_eq!(expected.1, 950_000);
    for _ in 0..2 {
        town.ledger.inner.roll_back(&tenant(), &before);
        town.replay().await;
        // The lease lends what was charged, no longer what might have been.
        let (held, spent, ..) = town.moved().await;
        assert_eq!((held, spent), (expected.0 + 100_000, expected.1));
    }
    assert_eq!(
        desk.end("open", Ending::Settle(Seconds(60))).await.unwrap().result,
        EndResult::Settled
    );
    desk.control.renew_leases().await;
    desk.control.return_leases().await;
    assert_eq!(town.moved().await, (0, 950_000 + 150_000, 0, 0));
}

#[tokio::test]
async fn a_lost_grant_whose_key_was_refused_meanwhile_is_charged_as_it_was_granted() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    desk.lease("carol").await;
    let before = town.ledger.inner.keep(&tenant());
    let expected = town.talked_while_away().await;
    town.ledger.inner.roll_back(&tenant(), &before);
    // All is leased: nobody else has anything.
    let folder = tempfile::tempdir().unwrap();
    let other = CreditControl::new(town.ledger.clone(), settings(leases::Settings::DEFAULTS));
    let other = Desk { control: Arc::new(other), journal: None, folder };
    for call in ["settled", "open"] {
        let answer = other.authorize("carol", call).await;
        assert!(answer.grant.is_none(), "{answer:?}");
    }
    town.replay().await;
    let (held, spent, ..) = town.moved().await;
    assert_eq!((held, spent), (expected.0 + 100_000, expected.1));
    assert_eq!(town.call("settled").await.state, CallState::Settled);
    assert_eq!(
        desk.end("open", Ending::Settle(Seconds(60))).await.unwrap().result,
        EndResult::Settled
    );
    desk.control.renew_leases().await;
    desk.control.return_leases().await;
    assert_eq!(town.moved().await, (0, 950_000 + 150_000, 0, 0));
}

#[tokio::test]
async fn a_lease_that_is_lost_pays_for_what_was_lent_and_is_not_lent_on() {
    let town = Town::open(&capped(), leases::Settings::DEFAULTS, 1).await;
    let desk = &town.desks[0];
    let before = town.ledger.inner.keep(&tenant());
    desk.lease("carol").await;
    town.hang(true);
    desk.granted("carol", "lent").await;
    desk.accepted("lent", Ending::Settle(Seconds(540))).await;
    // Another redis takes over, which has not heard of the lease.
    town.ledger.inner.roll_back(&tenant(), &before);
    town.hang(false);
    town.replay().await;
    town.hang(true);
    desk.refused("carol", "lent on").await;
    town.hang(false);
    desk.drain().await;
    assert_eq!(town.call("lent").await.money_spent(), Micros(950_000));
    let (held, spent, ..) = town.moved().await;
    assert_eq!((held, spent), (0, 950_000));
    // It is taken anew, out of what is there.
    desk.control.renew_leases().await;
    assert!(town.moved().await.0 > 8_000_000);
    town.hang(true);
    desk.granted("carol", "lent again").await;
    desk.accepted("lent again", Ending::Release).await;
    town.hang(false);
    desk.drain().await;
    desk.control.renew_leases().await;
    desk.control.return_leases().await;
    assert_eq!(town.moved().await, (0, 950_000, 0, 0));
}

// The running program.

fn sidecar(redis: &RedisServer, journal: &str) -> Sidecar {
    let flags = ["--ledger-timeout", "250ms", "--shutdown-grace", "0s", "--journal", journal];
    Sidecar::start(&[&["--ledger", &redis.url()], &flags[..]].concat())
}

/// Waits until it may grant out of a lease.
fn wait_for_lease(redis: &RedisServer) {
    let leases = || -> Vec<String> {
        let Ok(mut connection) = redis.client().get_connection() else { return vec![] };
        ::redis::cmd("HKEYS").arg("tg:{contoso}:calls").query(&mut connection).unwrap_or_default()
    };
    wait_until("a lease", leases, |ids| ids.iter().any(|id| id.starts_with("lease:")));
}

async fn spent(sidecar: &Sidecar) -> Option<Money> {
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let balance = sidecar.account().await.get_balance(request).await.unwrap().into_inner();
    balance.credits.unwrap().spent
}

/// Away by `away`, back by `back`; the sidecar is killed in between or not.
async fn goes_on_and_is_charged_once(
    redis: RedisServer,
    away: impl Fn(&RedisServer),
    back: impl Fn(&RedisServer),
    killed: bool,
) {
    let files = Files::default();
    let journal = files.path("journal");
    let mut sidecar = sidecar(&redis, &journal);
    sidecar.wait_until_ready();
    sidecar.set_up(&capped());
    let mut calls = sidecar.calls().await;
    let patience = Instant::now() + PATIENCE;
    while calls.authorize_call(authorize("b", "carol", SEATTLE)).await.unwrap().get_ref().decision()
        != Told::Allowed
    {
        assert!(Instant::now() < patience);
    }
    calls.release_call(release("b")).await.unwrap();
    wait_for_lease(&redis);
    // Nobody calls on a lease.
    let mut account = sidecar.account().await;
    let (tenant_id, page_size) = ("contoso".to_owned(), 50);
    let request = ListOpenCallsRequest { tenant_id, page_size, ..Default::default() };
    let open = account.list_open_calls(request).await.unwrap().into_inner();
    assert!(open.calls.is_empty(), "{open:?}");
    let (tenant_id, page_size) = ("contoso".to_owned(), 50);
    let request = ListDecisionsRequest { tenant_id, page_size, ..Default::default() };
    let decided = account.list_decisions(request).await.unwrap().into_inner();
    assert_eq!(decided.decisions.len(), 1, "{decided:?}");
    let reserved = calls.authorize_call(authorize("lease:a/1", "carol", SEATTLE)).await;
    assert_eq!(reserved.unwrap_err().code(), tonic::Code::InvalidArgument);
    let help = calls.authorize_call(authorize("lease:a/1", "carol", "911")).await.unwrap();
    assert_eq!(help.get_ref().decision(), Told::AllowedEmergency);

    away(&redis);
    let mut granted = vec![];
    for n in 0..4 {
        let call = format!("c{n}");
        let answer = calls.authorize_call(authorize(&call, "carol", SEATTLE)).await.unwrap();
        if answer.get_ref().decision() == Told::AllowedDegraded {
            granted.push(call);
        }
    }
    assert_eq!(granted.len(), 4, "{granted:?}");
    let settled = calls.settle_call(settle("c0", 61)).await.unwrap();
    assert_eq!(settled.get_ref().result(), SettleResult::Accepted);
    if killed {
        sidecar.kill();
        sidecar = self::sidecar(&redis, &journal);
        wait_until("alive", || sidecar.readyz(), |answer| answer.is_some());
        calls = sidecar.calls().await;
    }
    for call in &granted[1..] {
        let settled = calls.settle_call(settle(call, 61)).await.unwrap();
        assert_eq!(settled.get_ref().result(), SettleResult::Accepted, "{call}");
    }
    back(&redis);
    sidecar.wait_until_ready();
    let patience = Instant::now() + PATIENCE;
    for call in &granted {
        loop {
            match calls.settle_call(settle(call, 61)).await {
                Ok(answer) if answer.get_ref().result() == SettleResult::Settled => break,
                other => assert!(Instant::now() < patience, "{call}: {other:?}"),
            }
        }
    }
    // Four times two minutes and the fee.
    assert_eq!(spent(&sidecar).await, usd("1"));
    sidecar.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn while_redis_hangs_calls_go_on_out_of_a_lease_and_are_charged_once() {
    let redis = RedisServer::started();
    let (stop, go) = (|r: &RedisServer| r.signal("STOP"), |r: &RedisServer| r.signal("CONT"));
    goes_on_and_is_charged_once(redis, stop, go, false).await;
}

#[tokio::test]
async fn a_sidecar_killed_while_redis_is_dead_brings_its_grants_when_both_are_back() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    goes_on_and_is_charged_once(redis, RedisServer::kill, RedisServer::start, true).await;
}
