//! Notices as their receivers get them: webhooks at an HTTP server of the test's, mails at a real SMTP
//! server in a process of its own.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tollgate::charging::decision::{Decision, Nuance};
use tollgate::charging::ids::TenantId;
use tollgate::charging::profile::{NoticeTargets, TenantState};
use tollgate::charging::units::Seconds;
use tollgate::grpc::account::event_json;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::{
    Authorize, Authorized, ClockOffset, Ledger, Proposal, TakeReader, Taken, Versions,
};
use tollgate::notices::kinds::Kinds;
use tollgate::notices::webhook::Secrets;
use tollgate::notices::{Notices, Settings, WebhookSettings};

use crate::server::{Server, bought_today, config};
use crate::stock_client::tool;
use crate::support::messages::{authorize, settle};
use crate::support::process::{Files, PATIENCE, Sidecar};
use crate::support::redis::RedisServer;
use crate::support::{NOON, call_id, payer, tenant_record};

// An HTTP server that receives webhooks.

const KEY: [u8; 32] = [7; 32];
const OLD_KEY: [u8; 32] = [9; 32];

/// What a receiver does with the next webhooks; takes them when nothing is left.
enum Answer {
    Status(u16),
    Never,
}

#[derive(Clone, Debug)]
struct Webhook {
    id: String,
    signatures: Vec<String>,
    signed: String,
    status: u16,
    event: Value,
}

#[derive(Clone, Default)]
struct Inbox {
    got: Arc<Mutex<Vec<Webhook>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

struct Receiver {
    inbox: Inbox,
    port: u16,
    serving: JoinHandle<()>,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Receiver {
        Receiver::on(0, answers).await
    }

    async fn on(port: u16, answers: impl IntoIterator<Item = Answer>) -> Receiver {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inbox = Inbox::default();
        inbox.answers.lock().unwrap().extend(answers);
        let routes = Router::new().fallback(take).with_state(inbox.clone());
        let serving = tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
        Receiver { inbox, port, serving }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    fn got(&self) -> Vec<Webhook> {
        self.inbox.got.lock().unwrap().clone()
    }

    /// Those that it took.
    fn taken(&self) -> Vec<Webhook> {
        self.got().into_iter().filter(|webhook| webhook.status == 204).collect()
    }

    fn calls(&self) -> Vec<String> {
        self.taken().iter().map(|webhook| text(&webhook.event, "callId")).collect()
    }

    async fn until(&self, what: &str, right: impl Fn(&Receiver) -> bool) {
        until(what, || right(self)).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: String) -> StatusCode {
    let answer = inbox.answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(204));
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let status = if let Answer::Status(status) = answer { status } else { 0 };
    assert_eq!(header("content-type"), "application/json");
    inbox.got.lock().unwrap().push(Webhook {
        signed: format!("{id}.{timestamp}.{body}"),
        id,
        signatures: header("webhook-signature").split(' ').map(str::to_owned).collect(),
        status,
        event: serde_json::from_str(&body).unwrap(),
    });
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap(),
        Answer::Never => pending().await,
    }
}

/// HMAC by its definition (RFC 2104), apart from the library that signs.
fn signature(key: &[u8], signed: &str) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(signed);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    let digest = outer.chain_update(inner.finalize()).finalize();
    format!("v1,{}", STANDARD.encode(digest))
}

fn secret(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

async fn until(what: &str, right: impl Fn() -> bool) {
    let looking = async {
        while !right() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.unwrap_or_else(|_| panic!("not {what} after {PATIENCE:?}"));
}

// An SMTP server that keeps mails.

struct Relay {
    child: Child,
    port: u16,
}

impl Relay {
    fn start(mails: &TempDir, port: u16) -> Relay {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notices/relay.py");
        let mut child = Command::new(tool("python3"))
            .arg(script)
            .arg(mails.path())
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("aiosmtpd serves: run `make tools`");
        Relay { child, port }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The mails so far, in the order in which they came: headers, by lower-case names, and text.
fn mails(directory: &TempDir) -> Vec<(BTreeMap<String, String>, String)> {
    let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).collect();
    files.sort();
    let read = |path: PathBuf| {
        let mail = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
        let (head, body) = mail.split_once("\n\n").unwrap();
        let head = head.replace("\n ", " ");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        (head.lines().map(header).collect(), body.to_owned())
    };
    files.into_iter().map(read).collect()
}

fn recipients(directory: &TempDir) -> Vec<String> {
    mails(directory).iter().map(|(head, _)| head["x-rcptto"].clone()).collect()
}

// A ledger and what sends its notices.

fn settings(webhook_url: Option<String>) -> Settings {
    Settings {
        webhooks: Some(WebhookSettings {
            url: webhook_url,
            secrets: Secrets::parse(&secret(&KEY)).unwrap(),
            kinds: Kinds::parse("all", Kinds::NONE).unwrap(),
            private: true,
        }),
        mails: None,
        also: vec![],
        timeout: Duration::from_secs(5),
        interval: Duration::from_millis(10),
        lease: Seconds(30),
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(40),
        keep: Seconds(3600),
    }
}

/// Sends notices until it is dropped, as a process that is killed.
struct Sending(JoinHandle<()>);

impl Sending {
    fn start<L: Ledger>(ledger: &Arc<L>, settings: Settings) -> Sending {
        let notices = Notices::new(ledger.clone(), settings, event_json).unwrap();
        Sending(tokio::spawn(notices.run(pending())))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn frozen() -> ClockOffset {
    let clock = ClockOffset::default();
    clock.freeze_at(NOON);
    clock
}

async fn set_up<L: Ledger>(ledger: &L, name: &str, webhook: Option<String>) -> TenantId {
    let tenant = TenantId::new(name).unwrap();
    let mut record = tenant_record(&tenant, TenantState::Active);
    record.profile.notices = NoticeTargets { emails: vec![], webhook };
    ledger.apply_tenant(&tenant, &record, None).await.unwrap();
    tenant
}

/// A refusal: one entry of the journal, one event.
async fn refuse<L: Ledger>(ledger: &L, tenant: &TenantId, call: &str) {
    let version = ledger.tenant(tenant).await.unwrap().outcome.version;
    let command = Authorize {
        tenant: tenant.clone(),
        call: call_id(call),
        fingerprint: String::new(),
        payer: payer("nobody"),
        trunk: String::new(),
        versions: Versions { tenant: version, payer: 0 },
        context: vec![],
        proposal: Proposal::Refuse(Decision::PayerUnknown, Nuance::None),
        denied_retention: Seconds(600),
        ended_retention: Seconds(600),
    };
    let decided = ledger.authorize(&command).await.unwrap().outcome;
    assert!(matches!(decided, Authorized::Decided(_)), "{decided:?}");
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("c-{n}")).collect()
}

async fn refuse_each<L: Ledger>(ledger: &L, tenant: &TenantId, calls: &[String]) {
    for call in calls {
        refuse(ledger, tenant, call).await;
    }
}

#[tokio::test]
async fn a_webhook_is_signed_and_sent_again_until_it_is_taken() {
    let receiver = Receiver::start([Answer::Status(500), Answer::Status(429)]).await;
    let mut config = config();
    config.notices_webhook_url = Some(receiver.url());
    let secrets = format!("{},{}", secret(&KEY), secret(&OLD_KEY));
    config.notices_webhook_secrets = Some(Secrets::parse(&secrets).unwrap());
    config.notices_webhook_events =
        Kinds::parse("CALL_DENIED,UNAUTHORIZED_USAGE,SHORTFALL", Kinds::NONE).unwrap();
    config.notices_interval = Duration::from_millis(10);
    config.notices_retry_first = Duration::from_millis(10);
    config.notices_retry_longest = Duration::from_millis(20);
    let server = Server::start_with(config).await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("paid", "alice", "+12065550100")).await.unwrap();
    calls.settle_call(settle("paid", 61)).await.unwrap();
    calls.authorize_call(authorize("refused", "nobody", "+12065550100")).await.unwrap();
    calls.settle_call(settle("refused", 30)).await.unwrap();

    receiver.until("told of both", |receiver| receiver.taken().len() == 2).await;
    let got = receiver.got();
    let of = |webhook: &Webhook| (text(&webhook.event, "type"), webhook.status);
    let denied = "EVENT_TYPE_CALL_DENIED".to_owned();
    let expected = [
        (denied.clone(), 500),
        (denied.clone(), 429),
        (denied, 204),
        ("EVENT_TYPE_UNAUTHORIZED_USAGE".to_owned(), 204),
    ];
    assert_eq!(got.iter().map(of).collect::<Vec<_>>(), expected);
    // The same event is known by its id, another has another.
    assert!(got[0].id == got[1].id && got[1].id == got[2].id && got[2].id != got[3].id);
    for webhook in &got {
        let expected = [signature(&KEY, &webhook.signed), signature(&OLD_KEY, &webhook.signed)];
        assert_eq!(webhook.signatures, expected);
        assert_eq!(text(&webhook.event, "tenantId"), "contoso");
    }
    // The body is the event of WatchEvents: cursor and all.
    let event = &got[3].event;
    assert_eq!(event["usedDuration"], "30s");
    assert_eq!(text(event, "eventId"), format!("{}.1", text(event, "cursor")));
    server.running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_is_down_loses_nothing_and_holds_up_nobody_else() {
    let ledger = Arc::new(MemoryLedger::new(frozen()));
    let down = Receiver::start([]).await;
    let (port, url) = (down.port, down.url());
    drop(down);
    let live = Receiver::start([]).await;
    let never = Receiver::start((0..1000).map(|_| Answer::Never)).await;
    let _sending = Sending::start(&ledger, settings(None));
    let unlucky = set_up(&*ledger, "unlucky", Some(url)).await;
    let stuck = set_up(&*ledger, "stuck", Some(never.url())).await;
    let lucky = set_up(&*ledger, "lucky", Some(live.url())).await;
    let all = names(0, 300);
    for tenant in [&unlucky, &stuck, &lucky] {
        refuse_each(&*ledger, tenant, &all[..200]).await;
    }
    live.until("told of all", |live| live.calls() == all[..200]).await;
    never.until("tried", |never| !never.got().is_empty()).await;

    let up = Receiver::on(port, [Answer::Status(503)]).await;
    refuse_each(&*ledger, &unlucky, &all[200..]).await;
    up.until("told of all, in order, once", |up| up.calls() == all).await;
    let tenants: Vec<String> = up.got().iter().map(|got| text(&got.event, "tenantId")).collect();
    assert!(tenants.iter().all(|tenant| tenant == "unlucky"), "each tenant has its own receiver");
    assert!(live.got().len() == 200 && never.got().len() < 10);
}

#[tokio::test]
async fn another_sidecar_goes_on_where_one_that_is_killed_has_stopped() {
    let server = RedisServer::shared();
    let clock = frozen();
    let one = Arc::new(server.ledger(&clock).await);
    let other = Arc::new(server.ledger(&clock).await);
    // Takes four, and never answers the fifth.
    let mut answers: Vec<Answer> = (0..4).map(|_| Answer::Status(204)).collect();
    answers.push(Answer::Never);
    let receiver = Receiver::start(answers).await;
    let tenant = set_up(&*one, "taken-over", Some(receiver.url())).await;
    let patient = Settings { timeout: PATIENCE * 2, ..settings(None) };
    let first = Sending::start(&one, patient.clone());
    let second = Sending::start(&other, patient.clone());
    // Both look; one has the reader.
    let reader = async || {
        let all: BTreeMap<String, Vec<u8>> = redis::cmd("HGETALL")
            .arg("tg:{taken-over}:readers")
            .query_async(&mut server.client().get_multiplexed_async_connection().await.unwrap())
            .await
            .unwrap();
        all
    };
    until_async("somebody reads", async || !reader().await.is_empty()).await;
    refuse_each(&*one, &tenant, &names(0, 10)).await;
    receiver.until("stuck at the fifth", |receiver| receiver.got().len() == 5).await;
    // Which of the two has it is chance: both are killed, and a third one comes.
    drop(first);
    drop(second);
    let third = Sending::start(&other, patient);
    let before = reader().await;
    // Nobody can have it within the lease.
    let command = TakeReader {
        tenant: tenant.clone(),
        reader: "webhook".to_owned(),
        owner: "somebody".to_owned(),
        lease: Seconds(30),
        since: NOON,
    };
    clock.advance(Seconds(29));
    let taken = one.take_reader(&command).await.unwrap().outcome;
    assert!(matches!(taken, Taken::Busy(_)), "{taken:?}");
    assert_eq!(reader().await, before);
    clock.advance(Seconds(1));
    receiver.until("told of the rest", |receiver| receiver.calls() == names(0, 10)).await;
    let got = receiver.got();
    assert_eq!(got.len(), 11, "only what was not taken is sent again");
    assert_eq!(got[4].id, got[5].id);
    drop(third);
}

#[tokio::test]
async fn of_two_sidecars_one_sends_and_a_stop_hands_over_at_once() {
    // Its own: who sends looks at every tenant.
    let server = RedisServer::started();
    let clock = frozen();
    let receiver = Receiver::start([]).await;
    let ledger = Arc::new(server.ledger(&clock).await);
    let tenant = set_up(&*ledger, "handed-over", Some(receiver.url())).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopping = async {
        let _ = stopped.await;
    };
    let first = Notices::new(ledger.clone(), settings(None), event_json).unwrap();
    let first = tokio::spawn(first.run(stopping));
    refuse_each(&*ledger, &tenant, &names(0, 1)).await;
    // Whether the first call is told depends on which came first, the reader or it.
    let mut told = 1;
    while receiver.got().is_empty() {
        refuse_each(&*ledger, &tenant, &names(told, told + 1)).await;
        told += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = Arc::new(server.ledger(&clock).await);
    let _second = Sending::start(&other, settings(None));
    refuse_each(&*ledger, &tenant, &names(told, told + 20)).await;
    let last = format!("c-{}", told + 19);
    receiver.until("told", |receiver| receiver.calls().contains(&last)).await;
    stop.send(()).unwrap();
    first.await.unwrap();
    // The clock stands still: no lease runs out.
    refuse_each(&*ledger, &tenant, &names(told + 20, told + 40)).await;
    let last = format!("c-{}", told + 39);
    receiver.until("told by the second", |receiver| receiver.calls().contains(&last)).await;
    let mut calls = receiver.calls();
    let first_told: usize = calls[0][2..].parse().unwrap();
    let expected = names(first_told, told + 40);
    // The one that was told when the stop came may not have been noted any more.
    assert!(calls.len() <= expected.len() + 1, "{calls:?}");
    calls.dedup();
    assert_eq!(calls, expected, "each in order");
}

#[tokio::test]
async fn what_a_receiver_has_refused_for_too_long_is_given_up() {
    let clock = frozen();
    let ledger = Arc::new(MemoryLedger::new(clock.clone()));
    let receiver = Receiver::start((0..3).map(|_| Answer::Status(410))).await;
    let _sending = Sending::start(&ledger, settings(Some(receiver.url())));
    let tenant = set_up(&*ledger, "contoso", None).await;
    refuse_each(&*ledger, &tenant, &names(0, 1)).await;
    // Refused, kept, and taken in the end, well within its limit.
    receiver.until("taken", |receiver| receiver.calls() == names(0, 1)).await;
    assert_eq!(receiver.got().len(), 4);
    receiver.inbox.answers.lock().unwrap().extend((0..10_000).map(|_| Answer::Status(500)));
    refuse_each(&*ledger, &tenant, &names(1, 3)).await;
    receiver.until("tried", |receiver| receiver.got().len() > 6).await;
    clock.advance(Seconds(3601));
    refuse_each(&*ledger, &tenant, &names(3, 4)).await;
    let tried = |receiver: &Receiver| receiver.got().last().map(|got| text(&got.event, "callId"));
    receiver.until("the old given up", |r| tried(r).as_deref() == Some("c-3")).await;
    receiver.inbox.answers.lock().unwrap().clear();
    receiver.until("the new taken", |receiver| receiver.taken().len() == 2).await;
    assert_eq!(receiver.calls(), ["c-0", "c-3"]);
}

#[tokio::test]
async fn what_happened_before_anybody_was_to_be_told_is_not_told() {
    let clock = frozen();
    let ledger = Arc::new(MemoryLedger::new(clock.clone()));
    let receiver = Receiver::start([]).await;
    let tenant = set_up(&*ledger, "contoso", None).await;
    refuse_each(&*ledger, &tenant, &names(0, 2)).await;
    clock.advance(Seconds(1));
    let sending = Sending::start(&ledger, settings(Some(receiver.url())));
    let late = set_up(&*ledger, "late", None).await;
    refuse_each(&*ledger, &late, &names(2, 4)).await;
    receiver.until("told", |receiver| receiver.calls() == names(2, 4)).await;
    // A reader that is there goes on where it was, whoever sends.
    drop(sending);
    refuse_each(&*ledger, &late, &names(4, 6)).await;
    clock.advance(Seconds(30));
    let _sending = Sending::start(&ledger, settings(Some(receiver.url())));
    receiver.until("told the rest", |receiver| receiver.calls() == names(2, 6)).await;
}

async fn until_async(what: &str, right: impl AsyncFn() -> bool) {
    let looking = async {
        while !right().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    seen.unwrap_or_else(|_| panic!("not {what} after {PATIENCE:?}"));
}

/// alice has 3000 minutes, carol credits only.
const MAILED: &str = r#"
tenants:
  - id: contoso
    currency: USD
    notices: { emails: [ops@contoso.example, gone@contoso.example, late@contoso.example] }
    credits:
      - { key: po-2, amount: "0.15", purchased_at: TODAY }
    users:
      - { id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], numbers: ["+14255550100"] }
      - { id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1], numbers: ["+14255550101"] }
"#;

#[tokio::test]
async fn administrators_are_mailed_when_minutes_and_credits_run_out_though_the_relay_was_away() {
    let kept = tempfile::tempdir().unwrap();
    // A port that nobody listens on yet.
    let port = Relay::start(&kept, 0).port;
    let mut config = config();
    let files = Files::default();
    let file = format!(
        "[notices]\nsmtp_url = \"smtp://127.0.0.1:{port}\"\nmail_from = \"Tollgate <tollgate@sbc.example>\"\n\
         interval = \"10ms\"\nretry_first = \"10ms\"\nretry_longest = \"50ms\"\n"
    );
    let path = files.write("tollgate.toml", &file);
    let read = tollgate::config::load(Default::default(), Some(path.as_ref())).unwrap();
    config.notices_smtp_url = read.notices_smtp_url;
    config.notices_mail_from = read.notices_mail_from;
    config.notices_interval = read.notices_interval;
    config.notices_retry_first = read.notices_retry_first;
    config.notices_retry_longest = read.notices_retry_longest;
    let server = Server::start_with(config).await;
    server.apply(&bought_today(MAILED)).await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("big", "alice", "+12065550100")).await.unwrap();
    calls.settle_call(settle("big", 3000 * 60)).await.unwrap();
    // The 10 that were there and the 0.15 of this document: 101 minutes and a fee.
    calls.authorize_call(authorize("dear", "carol", "+12065550100")).await.unwrap();
    calls.settle_call(settle("dear", 101 * 60)).await.unwrap();
    let relay = Relay::start(&kept, port);
    until("mailed", || mails(&kept).len() >= 6).await;
    let expected: Vec<String> = ["ops@contoso.example", "late@contoso.example"]
        .into_iter()
        .cycle()
        .take(6)
        .map(str::to_owned)
        .collect();
    let mut got = recipients(&kept);
    // The first mail to one of them is refused twice, and comes after the others'.
    got.sort();
    let mut sorted = expected;
    sorted.sort();
    assert_eq!(got, sorted);
    let subjects: Vec<String> = mails(&kept)
        .iter()
        .filter(|(head, _)| head["x-rcptto"] == "ops@contoso.example")
        .map(|(head, _)| head["subject"].clone())
        .collect();
    assert_eq!(
        subjects,
        [
            "[Tollgate] contoso: 80 % of the minutes of a plan are used",
            "[Tollgate] contoso: the minutes of a plan are used up",
            "[Tollgate] contoso: communications credits are used up",
        ]
    );
    let (head, body) = mails(&kept).remove(0);
    assert_eq!(head["from"], "Tollgate <tollgate@sbc.example>");
    assert_eq!(head["to"], "ops@contoso.example");
    assert_eq!(head["auto-submitted"], "auto-generated");
    assert!(head["content-type"].starts_with("text/plain"), "{head:?}");
    let id = &head["message-id"];
    assert!(id.starts_with('<') && id.ends_with("@sbc.example>"), "{id}");
    for part in
        ["Organisation: contoso\n", "Pool:         US:MCOPSTN1:DOMESTIC:", " UTC\n", "What to do: "]
    {
        assert!(body.contains(part), "{part} in {body}");
    }
    let mut ids: Vec<String> =
        mails(&kept).iter().map(|(head, _)| head["message-id"].clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "one id an event");
    drop(relay);
    server.running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed_is_followed_by_another_and_says_no_secret() {
    let redis = RedisServer::started();
    let receiver = Receiver::start([Answer::Status(410)]).await;
    let files = Files::default();
    let secrets = files.write("secrets", &format!("# for all\n{}\n", secret(&KEY)));
    let url = receiver.url();
    let ledger = redis.url();
    let flags = [
        "--ledger",
        &ledger,
        "--ledger-timeout",
        "10s",
        "--notices-webhook-url",
        &url,
        "--notices-webhook-secrets-file",
        &secrets,
        "--notices-webhook-events",
        "all",
        "--notices-interval",
        "10ms",
        "--notices-timeout",
        "500ms",
        "--notices-lease",
        "1s",
        "--notices-retry-longest",
        "10ms",
        "--notices-retry-first",
        "10ms",
    ];
    let mut first = Sidecar::ready(&flags);
    let private = "http://127.0.0.1:9/hook?token=hidden";
    let other =
        format!("  - {{ id: fabrikam, currency: USD, notices: {{ webhook: \"{private}\" }} }}\n");
    first.set_up(&(crate::server::organisation() + &other));
    let deny = async |sidecar: &Sidecar, tenant: &str, call: &str| {
        let request = tollgate::proto::v1::AuthorizeCallRequest {
            tenant_id: tenant.to_owned(),
            ..authorize(call, "nobody", "+12065550100")
        };
        sidecar.calls().await.authorize_call(request).await.unwrap();
    };
    deny(&first, "contoso", "c-0").await;
    receiver.until("taken at the second attempt", |receiver| receiver.calls() == ["c-0"]).await;
    deny(&first, "fabrikam", "c-1").await;
    let said = "the receivers of tenants must be of https";
    until("refused", || first.log().contains(said)).await;
    assert!(first.log().contains("the receiver answered 410: it is gone for good"));

    let second = Sidecar::ready(&flags);
    first.kill();
    deny(&second, "contoso", "c-2").await;
    receiver.until("told by the other", |receiver| receiver.calls() == ["c-0", "c-2"]).await;
    for sidecar in [&first, &second] {
        let log = sidecar.log();
        assert!(!log.contains(&secret(&KEY)) && !log.contains("hidden"), "{log}");
    }
}
