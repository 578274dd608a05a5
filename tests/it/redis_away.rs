//! The running program while Redis is not there yet, dies, comes back or hangs.

use std::time::{Duration, Instant};

use tollgate::ops::health::{LEDGER, READINESS, STARTUP};
use tollgate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, Decision, GetBalanceRequest, SettleResult,
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::server::{channel, organisation};
use crate::support::messages::{authorize, length, settle, usd};
use crate::support::process::{Sidecar, run, tollgate, wait_until};
use crate::support::redis::RedisServer;

/// Every answer comes within it: `--ledger-timeout` is 250 ms, a request may ask the ledger more than
/// once, and the machine is busy.
const BOUND: Duration = Duration::from_secs(2);

const AWAY: &[&str] = &["--ledger-timeout", "250ms"];

fn on(redis: &RedisServer) -> Sidecar {
    Sidecar::start(&[&["--ledger", &redis.url()], AWAY].concat())
}

/// Within the bound.
async fn in_time<T>(asked: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = asked.await;
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    answer
}

fn emergency(call: &str) -> AuthorizeCallRequest {
    authorize(call, "alice", "911")
}

fn paid(call: &str) -> AuthorizeCallRequest {
    authorize(call, "carol", "+12065550100")
}

/// `LEDGER_UNAVAILABLE`, as the SBC must be told: another route may be tried.
#[track_caller]
fn is_failed_closed(answer: &AuthorizeCallResponse) {
    assert_eq!(answer.decision(), Decision::LedgerUnavailable, "{answer:?}");
    assert!(!answer.allowed && answer.grant.is_none());
    let denial = answer.denial.as_ref().unwrap();
    let (status, cause) = (denial.sip_status, denial.q850_cause);
    assert_eq!((status, cause, denial.reroute_allowed), (503, 41, true), "{answer:?}");
}

async fn health(sidecar: &Sidecar, service: &str) -> Vec<ServingStatus> {
    let mut statuses = Vec::new();
    for address in [sidecar.calls, sidecar.administration, sidecar.http] {
        let channel = channel(&tollgate::config::Listen::Tcp(address)).await;
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(request).await;
        statuses.push(answer.unwrap().into_inner().status());
    }
    statuses
}

#[track_caller]
fn wait_until_not_ready(sidecar: &Sidecar) {
    let not_ready = wait_until(
        "not ready",
        || sidecar.readyz(),
        |answer| answer.as_ref().is_some_and(|(status, _)| *status == 503),
    );
    assert_eq!(not_ready.unwrap().1, "waiting: the ledger does not answer");
}

/// Waits until it says so, and that calls may be sent.
#[track_caller]
fn readyz_says(sidecar: &Sidecar, text: &str) {
    let expected = Some((200, text.to_owned()));
    wait_until(text, || sidecar.readyz(), |answer| *answer == expected);
}

/// Waits until the record of this call, free or emergency, is among the decisions of the tenant, once.
#[track_caller]
fn recorded(sidecar: &Sidecar, call: &str) {
    let listed = || {
        let finished = sidecar.client(&["decisions", "--tenant", "contoso", "--call-id", call]);
        finished.stdout.lines().filter(|line| line.contains("ALLOWED_")).count()
    };
    wait_until("recorded", listed, |count| *count == 1);
}

/// Nothing held, this much spent, and the audit clean.
async fn assert_spent(sidecar: &Sidecar, money: &str) {
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let balance = sidecar.account().await.get_balance(request).await.unwrap().into_inner();
    let credits = balance.credits.unwrap();
    assert_eq!((credits.held, credits.spent), (usd("0"), usd(money)));
    sidecar.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn a_sidecar_that_starts_before_redis_waits_for_it_and_answers_emergency_calls() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    Sidecar::on(&redis.url()).set_up(&organisation());
    redis.kill();

    let sidecar = on(&redis);
    wait_until_not_ready(&sidecar);
    assert_eq!(health(&sidecar, STARTUP).await, [ServingStatus::Serving; 3]);
    assert_eq!(health(&sidecar, READINESS).await, [ServingStatus::NotServing; 3]);
    let mut calls = sidecar.calls().await;
    let answer = in_time(calls.authorize_call(emergency("911"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    let answer = in_time(calls.authorize_call(paid("early"))).await.unwrap().into_inner();
    is_failed_closed(&answer);
    let unsettled = in_time(calls.settle_call(settle("early", 61))).await.unwrap_err();
    assert_eq!(unsettled.code(), Code::Unavailable, "{unsettled}");

    redis.start();
    sidecar.wait_until_ready();
    assert_eq!(health(&sidecar, READINESS).await, [ServingStatus::Serving; 3]);
    // The refusal was no decision: the same key is decided now.
    let answer = calls.authorize_call(paid("early")).await.unwrap().into_inner();
    assert_eq!((answer.decision(), answer.replayed), (Decision::Allowed, false), "{answer:?}");
    let charge = calls.settle_call(settle("early", 61)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.25")));
    recorded(&sidecar, "911");
    assert_spent(&sidecar, "0.25").await;
}

#[tokio::test]
async fn a_call_that_runs_while_redis_dies_is_settled_once_when_it_is_back() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    let sidecar = on(&redis);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    let answer = calls.authorize_call(paid("running")).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    let free = |call| authorize(call, "carol", "+18005550100");
    calls.authorize_call(free("free before")).await.unwrap();

    redis.kill();
    let answer = in_time(calls.authorize_call(free("free"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedFree, "{answer:?}");
    let answer = in_time(calls.authorize_call(paid("new"))).await.unwrap().into_inner();
    is_failed_closed(&answer);
    let unsettled = in_time(calls.settle_call(settle("running", 61))).await.unwrap_err();
    assert_eq!(unsettled.code(), Code::Unavailable, "{unsettled}");
    let answer = in_time(calls.authorize_call(emergency("911"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    readyz_says(&sidecar, "ready; the ledger does not answer");
    assert_eq!(health(&sidecar, READINESS).await, [ServingStatus::Serving; 3]);
    assert_eq!(health(&sidecar, LEDGER).await, [ServingStatus::NotServing; 3]);

    redis.start();
    readyz_says(&sidecar, "ready");
    let charge = calls.settle_call(settle("running", 61)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, false));
    assert_eq!(charge.charged_money, usd("0.25"));
    let again = calls.settle_call(settle("running", 61)).await.unwrap().into_inner();
    assert_eq!((again.result(), again.replayed), (SettleResult::Settled, true));
    // The records have followed, so that these calls end like any other.
    for call in ["911", "free"] {
        recorded(&sidecar, call);
        let charge = calls.settle_call(settle(call, 30)).await.unwrap().into_inner();
        assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0")));
    }
    assert_spent(&sidecar, "0.25").await;
}

#[tokio::test]
async fn while_redis_hangs_answers_come_in_time_and_a_retry_holds_nothing_twice() {
    let redis = RedisServer::started();
    let sidecar = on(&redis);
    sidecar.wait_until_ready();
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    calls.authorize_call(paid("running")).await.unwrap();

    redis.signal("STOP");
    let answer = in_time(calls.authorize_call(paid("new"))).await.unwrap().into_inner();
    is_failed_closed(&answer);
    let unsettled = in_time(calls.settle_call(settle("running", 61))).await.unwrap_err();
    assert!(matches!(unsettled.code(), Code::Unavailable | Code::DeadlineExceeded), "{unsettled}");
    let answer = in_time(calls.authorize_call(emergency("911"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    readyz_says(&sidecar, "ready; the ledger does not answer");
    assert_eq!(health(&sidecar, READINESS).await, [ServingStatus::Serving; 3]);
    assert_eq!(health(&sidecar, LEDGER).await, [ServingStatus::NotServing; 3]);
    redis.signal("CONT");
    readyz_says(&sidecar, "ready");

    // Redis may have carried out what nobody waited for.
    let answer = calls.authorize_call(paid("new")).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    assert_eq!(answer.funding[0].money, usd("0.55"));
    let charge = calls.settle_call(settle("running", 61)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.25")));
    let charge = calls.settle_call(settle("new", 0)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.charged_duration), (SettleResult::Released, length(0)));
    recorded(&sidecar, "911");
    assert_spent(&sidecar, "0.25").await;
}

/// A store that hangs is known to: only the first calls wait for `--ledger-timeout`, all others are
/// answered at once, and nothing piles up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_hangs_calls_are_answered_at_once_and_memory_stays_flat() {
    const CALLS: usize = 3_000;
    const AT_A_TIME: usize = 30;
    let redis = RedisServer::started();
    let sidecar = Sidecar::ready(&["--ledger", &redis.url(), "--ledger-timeout", "1s"]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    calls.authorize_call(paid("running")).await.unwrap();
    let free = |call: &str| authorize(call, "carol", "+18005550100");
    calls.authorize_call(free("free before")).await.unwrap();

    redis.signal("STOP");
    // Each thread of the server finds out for itself, by the first call that it has.
    let mut tasks = tokio::task::JoinSet::new();
    let storm = |tasks: &mut tokio::task::JoinSet<_>, round: usize, each: usize| {
        for caller in 0..AT_A_TIME {
            let address = tollgate::config::Listen::Tcp(sidecar.calls);
            tasks.spawn(async move {
                use tollgate::proto::v1::call_authorization_service_client as client;
                let channel = channel(&address).await;
                let mut calls = client::CallAuthorizationServiceClient::new(channel);
                let mut longest = Duration::ZERO;
                for number in 0..each {
                    let begun = Instant::now();
                    let call = format!("hung-{round}-{caller}-{number}");
                    let answer = calls.authorize_call(paid(&call)).await.unwrap().into_inner();
                    is_failed_closed(&answer);
                    longest = longest.max(begun.elapsed());
                }
                longest
            });
        }
    };
    storm(&mut tasks, 0, 3);
    let first = std::mem::take(&mut tasks).join_all().await.into_iter().max().unwrap();
    assert!(first < 2 * BOUND, "{first:?}");
    let before = sidecar.memory();
    storm(&mut tasks, 1, CALLS / AT_A_TIME);
    let longest = tasks.join_all().await.into_iter().max().unwrap();
    let grown = sidecar.memory().saturating_sub(before);
    eprintln!("redis hangs: first {first:?}, later {longest:?}, memory +{grown} KiB");
    assert!(longest < Duration::from_millis(800), "{longest:?}");
    assert!(grown < 16 * 1024, "{grown} KiB");
    let answer = in_time(calls.authorize_call(emergency("911"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedEmergency, "{answer:?}");
    let answer = in_time(calls.authorize_call(free("free"))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::AllowedFree, "{answer:?}");

    redis.signal("CONT");
    readyz_says(&sidecar, "ready");
    let settled = || async { sidecar.calls().await.settle_call(settle("running", 61)).await };
    let begun = Instant::now();
    let charge = loop {
        match settled().await {
            Ok(charge) => break charge.into_inner(),
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
    };
    assert_eq!((charge.result(), charge.charged_money), (SettleResult::Settled, usd("0.25")));
}

#[test]
fn a_sidecar_that_requires_its_ledger_says_so_and_exits() {
    let redis = RedisServer::absent();
    let mut serve = tollgate();
    serve.args(["serve", "--ledger", &redis.url(), "--require-ledger-at-start", "true"]);
    for flag in ["--listen", "--admin-listen", "--http-listen"] {
        serve.args([flag, "127.0.0.1:0"]);
    }
    let said = run(serve).failed(1);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("tollgate: ")).collect();
    assert!(matches!(lines[..], [line] if line.contains("ledger")), "{said}");
}
