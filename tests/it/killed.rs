//! A process is killed while many calls end: whoever repeats what was not answered charges it once.

use tokio::task::JoinSet;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    AuthorizeCallRequest, Decision, GetBalanceRequest, SettleCallResponse, SettleResult,
};
use tonic::transport::Channel;

use crate::server::organisation;
use crate::support::messages::{authorize, length, settle, usd};
use crate::support::process::{PATIENCE, Sidecar};
use crate::support::redis::RedisServer;

type Client = CallAuthorizationServiceClient<Channel>;

/// At 0.15 each they fit into the wallet of 10.
const CALLS: usize = 60;
/// So many have ended when the process is killed: the others travel together, right behind.
const BEFORE: usize = 1;

fn name(number: usize) -> String {
    format!("call-{number}")
}

/// Repeats a settle until it is answered, as an SBC must.
async fn settled(mut client: Client, call: String) -> SettleCallResponse {
    let answered = async {
        loop {
            match client.settle_call(settle(&call, 60)).await {
                Ok(answer) => return answer.into_inner(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
}

/// Ends all calls at once at `first`, kills in the middle of it, and ends all again at `second`.
async fn play(first: &Sidecar, second: &Sidecar, kill: impl FnOnce()) {
    first.set_up(&organisation());
    let mut client = first.calls().await;
    for number in 0..CALLS {
        let request = AuthorizeCallRequest {
            requested_duration: length(60),
            ..authorize(&name(number), "carol", "+12065550100")
        };
        let answer = client.authorize_call(request).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    }
    let mut ends = JoinSet::new();
    for number in 0..CALLS {
        let mut client = client.clone();
        ends.spawn(async move { client.settle_call(settle(&name(number), 60)).await });
    }
    for _ in 0..BEFORE {
        ends.join_next().await.expect("more calls").expect("no panic").unwrap();
    }
    kill();
    let answered = ends.join_all().await.into_iter().filter(Result::is_ok).count() + BEFORE;

    let client = second.calls().await;
    let again = (0..CALLS).map(|number| settled(client.clone(), name(number)));
    let again = again.collect::<JoinSet<_>>().join_all().await;
    for charge in &again {
        assert_eq!(charge.result(), SettleResult::Settled, "{charge:?}");
        assert_eq!(charge.charged_money, usd("0.15"), "{charge:?}");
    }
    let replayed = again.iter().filter(|charge| charge.replayed).count();
    assert!(replayed >= answered, "{answered} were answered, {replayed} are known");

    // The connection of administration may not have noticed yet that Redis is another.
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let mut account = second.account().await;
    let looked = async {
        loop {
            match account.get_balance(request.clone()).await {
                Ok(balance) => return balance.into_inner(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    let balance = tokio::time::timeout(PATIENCE, looked).await.expect("a balance");
    let credits = balance.credits.unwrap();
    assert_eq!((credits.spent, credits.held, credits.available), (usd("9"), usd("0"), usd("1")));
    second.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn calls_that_end_while_a_sidecar_is_killed_are_charged_once() {
    let redis = RedisServer::started();
    let (first, second) = (Sidecar::on(&redis.url()), Sidecar::on(&redis.url()));
    play(&first, &second, || first.signal("KILL")).await;
}

#[tokio::test]
async fn calls_that_end_while_redis_is_killed_are_charged_once() {
    let redis = RedisServer::absent_and_durable();
    redis.start();
    let sidecar = Sidecar::on(&redis.url());
    let kill = || {
        redis.kill();
        redis.start();
    };
    play(&sidecar, &sidecar, kill).await;
}
