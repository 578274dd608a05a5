//! Many callers at several processes want the last unit of a pool or a wallet, on one real Redis.

use std::fmt::Write;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tollgate::proto::v1::{
    AuthorizeCallRequest, Decision, GetBalanceRequest, RunAuditRequest, SettleCallRequest,
};

use crate::server::bought_today;
use crate::support::messages::{authorize, length, settle};
use crate::support::process::Sidecar;
use crate::support::redis::RedisServer;

const ROUNDS: usize = 50;
const CALLS: usize = 30;

/// One tenant a round.
fn organisation(users: &str, credits: &str) -> String {
    let mut document = "tenants:\n".to_owned();
    for round in 0..ROUNDS {
        write!(
            document,
            "  - id: round-{round}\n    currency: USD\n    credits: [{credits}]\n    users: [{users}]\n"
        )
        .expect("a string grows");
    }
    bought_today(&document)
}

fn call(round: usize, name: &str, seconds: i64) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        tenant_id: format!("round-{round}"),
        requested_duration: length(seconds),
        ..authorize(name, "alice", "+12065550100")
    }
}

fn end(round: usize, name: &str, seconds: i64) -> SettleCallRequest {
    SettleCallRequest { tenant_id: format!("round-{round}"), ..settle(name, seconds) }
}

/// Plays all rounds; `talked` seconds are spent in each beforehand.
async fn play(document: &str, talked: i64, refusal: Decision) {
    let redis = RedisServer::started();
    let sidecars: Vec<Sidecar> = (0..3).map(|_| Sidecar::on(&redis.url())).collect();
    sidecars[0].set_up(document);
    let mut clients = Vec::new();
    for sidecar in &sidecars {
        clients.push(sidecar.calls().await);
    }
    let mut account = sidecars[0].account().await;
    for round in 0..ROUNDS {
        if talked > 0 {
            let before = clients[0].authorize_call(call(round, "before", talked)).await.unwrap();
            assert_eq!(before.into_inner().decision(), Decision::Allowed);
            clients[1].settle_call(end(round, "before", talked)).await.unwrap();
        }
        let together = Arc::new(Barrier::new(CALLS));
        let mut callers = JoinSet::new();
        for number in 0..CALLS {
            let (mut client, together) = (clients[number % 3].clone(), together.clone());
            callers.spawn(async move {
                together.wait().await;
                let name = format!("call-{number}");
                let answer = client.authorize_call(call(round, &name, 60)).await.unwrap();
                (name, answer.into_inner().decision())
            });
        }
        let answers = callers.join_all().await;
        let (allowed, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, decision)| *decision == Decision::Allowed);
        assert_eq!(allowed.len(), 1, "round {round}: {allowed:?}");
        assert!(refused.iter().all(|(_, decision)| *decision == refusal), "{refused:?}");

        // All is held, nothing is left; the winner settles where it did not ask.
        let request = GetBalanceRequest { tenant_id: format!("round-{round}") };
        let balance = account.get_balance(request).await.unwrap().into_inner();
        for pool in &balance.pools {
            assert_eq!((pool.held, pool.available), (length(60), length(0)), "round {round}");
        }
        let left = balance.credits.unwrap().available.unwrap().amount;
        assert_eq!(left, "0", "round {round}");
        let charge = clients[round % 3].settle_call(end(round, &allowed[0].0, 60)).await.unwrap();
        assert_eq!(charge.into_inner().charged_duration, length(60), "round {round}");
    }
    let audit = account.run_audit(RunAuditRequest::default()).await.unwrap().into_inner();
    assert!(audit.clean, "{:#?}", audit.findings);
    assert_eq!(audit.checked_tenants, u32::try_from(ROUNDS).unwrap());
}

#[tokio::test]
async fn the_last_minute_of_a_pool_goes_to_exactly_one_of_thirty_callers() {
    // 120 minutes, of which 119 are spent.
    let users = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN5] }";
    play(&organisation(users, ""), 119 * 60, Decision::PoolExhausted).await;
}

#[tokio::test]
async fn the_last_increment_of_credits_goes_to_exactly_one_of_thirty_callers() {
    // A fee of 0.05 and one minute at 0.10.
    let users = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1] }";
    let credits = "{ key: po-1, amount: '0.15', purchased_at: TODAY }";
    play(&organisation(users, credits), 0, Decision::InsufficientCredits).await;
}
