//! What calls cost, through gRPC, by a clock that moves by steps alone.

use prost_types::Duration;
use tollgate::charging::units::{Millis, Seconds};
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    AuthorizeCallRequest, CallState, ExtendCallRequest, GetBalanceRequest, GetCallRequest,
    RunAuditRequest, SettleCallRequest, SettleCallResponse, SettleResult,
};
use tonic::transport::Channel;

use crate::server::Server;
use crate::support::messages::{authorize, extend, length, release, report_answer, settle, usd};

/// The in-process server and a client, the clock stopped.
async fn stopped() -> (Server, CallAuthorizationServiceClient<Channel>) {
    let server = Server::start().await;
    let now = jiff::Timestamp::now().as_millisecond();
    server.clock.freeze_at(Millis(now));
    let calls = server.calls().await;
    (server, calls)
}

fn ringing_first(call: &str, payer: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest { reports_answer: true, ..authorize(call, payer, "+12065550100") }
}

#[track_caller]
fn is_charged(charge: &SettleCallResponse, seconds: i64, money: &str) {
    assert_eq!(charge.result(), SettleResult::Settled, "{charge:?}");
    let (time, sum) = (charge.charged_duration, charge.charged_money.clone());
    assert_eq!((time, sum), (length(seconds), usd(money)), "{charge:?}");
    let lacking = (charge.shortfall_duration, charge.shortfall_money.clone());
    assert_eq!(lacking, (length(0), usd("0")), "{charge:?}");
}

/// Nothing is held, this much is spent, and the audit is clean.
async fn assert_spent(server: &Server, pool: i64, money: &str) {
    let mut account = server.account().await;
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let balance = account.get_balance(request).await.unwrap().into_inner();
    let minutes = &balance.pools[0];
    assert_eq!((minutes.held, minutes.spent), (length(0), length(pool)));
    let credits = balance.credits.unwrap();
    assert_eq!((credits.held, credits.spent), (usd("0"), usd(money)));
    let audit = account.run_audit(RunAuditRequest::default()).await.unwrap().into_inner();
    assert!(audit.clean, "{:#?}", audit.findings);
}

#[tokio::test]
async fn forty_seconds_of_ringing_and_five_of_talk_are_one_minute() {
    let (server, mut calls) = stopped().await;
    for payer in ["alice", "carol"] {
        calls.authorize_call(ringing_first(payer, payer)).await.unwrap();
        server.clock.advance(Seconds(40));
        calls.report_answer(report_answer(payer)).await.unwrap();
        server.clock.advance(Seconds(5));
        let charge = calls.settle_call(settle(payer, 5)).await.unwrap().into_inner();
        is_charged(&charge, 60, if payer == "alice" { "0" } else { "0.15" });
        assert_eq!(charge.recorded_duration, length(5));
    }
    // The same where the SBC does not report the answer.
    calls.authorize_call(authorize("quiet", "carol", "+12065550100")).await.unwrap();
    server.clock.advance(Seconds(45));
    let charge = calls.settle_call(settle("quiet", 5)).await.unwrap().into_inner();
    is_charged(&charge, 60, "0.15");
    assert_spent(&server, 60, "0.3").await;
}

#[tokio::test]
async fn a_call_that_is_never_answered_costs_nothing() {
    let (server, mut calls) = stopped().await;
    for payer in ["alice", "carol"] {
        for how in ["settled", "released", "lost"] {
            let call = format!("{how} by {payer}");
            calls.authorize_call(ringing_first(&call, payer)).await.unwrap();
            server.clock.advance(Seconds(40));
            match how {
                "settled" => {
                    let end = calls.settle_call(settle(&call, 0)).await.unwrap().into_inner();
                    assert_eq!(end.result(), SettleResult::Released);
                    assert_eq!((end.charged_duration, end.charged_money), (length(0), usd("0")));
                }
                "released" => {
                    let end = calls.release_call(release(&call)).await.unwrap().into_inner();
                    assert_eq!(end.result(), SettleResult::Released);
                    assert_eq!((end.charged_duration, end.charged_money), (length(0), usd("0")));
                }
                _ => {
                    server.clock.advance(Seconds(3600));
                    wait_for(&server, &call, CallState::Expired).await;
                }
            }
        }
    }
    assert_spent(&server, 0, "0").await;
}

async fn wait_for(server: &Server, call: &str, state: CallState) {
    let mut account = server.account().await;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let request = GetCallRequest { tenant_id: "contoso".to_owned(), call_id: call.to_owned() };
        let found = account.get_call(request).await.unwrap().into_inner().call.unwrap();
        if found.state() == state {
            return;
        }
        assert!(std::time::Instant::now() < patience, "not {state:?}: {found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn sixty_one_seconds_at_a_tenth_with_a_fee_of_a_twentieth_cost_a_quarter() {
    let (server, mut calls) = stopped().await;
    calls.authorize_call(authorize("a", "carol", "+12065550100")).await.unwrap();
    let charge = calls.settle_call(settle("a", 61)).await.unwrap().into_inner();
    is_charged(&charge, 120, "0.25");
    calls.authorize_call(authorize("b", "carol", "+12065550100")).await.unwrap();
    let charge = calls.settle_call(settle("b", 60)).await.unwrap().into_inner();
    is_charged(&charge, 60, "0.15");
    assert_spent(&server, 0, "0.4").await;
}

#[tokio::test]
async fn less_than_a_second_counts_as_one_and_other_fractions_are_cut() {
    let (server, mut calls) = stopped().await;
    for (seconds, nanos, recorded, charged, money) in [
        (0, 1, 1, 60, "0.15"),
        (0, 999_999_999, 1, 60, "0.15"),
        (1, 0, 1, 60, "0.15"),
        (60, 999_999_999, 60, 60, "0.15"),
        (61, 1, 61, 120, "0.25"),
    ] {
        let call = format!("{seconds}.{nanos:09}");
        calls.authorize_call(authorize(&call, "carol", "+12065550100")).await.unwrap();
        let used_duration = Some(Duration { seconds, nanos });
        let request = SettleCallRequest { used_duration, ..settle(&call, 0) };
        let charge = calls.settle_call(request).await.unwrap().into_inner();
        assert_eq!(charge.recorded_duration, length(recorded), "{call}");
        is_charged(&charge, charged, money);
    }
    assert_spent(&server, 0, "0.85").await;
}

#[tokio::test]
async fn extensions_do_not_change_the_charge() {
    let (server, mut calls) = stopped().await;
    let reports: [&[i64]; 6] = [
        &[],
        &[60, 120, 180, 240],
        &[1, 2, 59, 61, 119, 121, 250],
        // Late, twice, out of order.
        &[200, 100, 100, 30, 200],
        &[250],
        &[10, 250, 20],
    ];
    for (number, reports) in reports.iter().enumerate() {
        let call = format!("pattern {number}");
        let request = AuthorizeCallRequest {
            requested_duration: length(60),
            ..authorize(&call, "carol", "+12065550100")
        };
        calls.authorize_call(request).await.unwrap();
        for (sequence, used) in (1..).zip(*reports) {
            let request = ExtendCallRequest {
                requested_duration: length(60),
                ..extend(&call, *used, sequence)
            };
            let answer = calls.extend_call(request.clone()).await.unwrap().into_inner();
            assert!(answer.allowed, "{answer:?}");
            calls.extend_call(request).await.unwrap();
        }
        let charge = calls.settle_call(settle(&call, 251)).await.unwrap().into_inner();
        // Five minutes and one fee.
        is_charged(&charge, 300, "0.55");
    }
    assert_spent(&server, 0, "3.3").await;
}
