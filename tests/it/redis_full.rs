//! The running program on a Redis whose memory or disk is full, or that may not be written to.

use std::process::Command;

use redis::Value;
use tollgate::proto::v1::{Decision, GetBalanceRequest, SettleResult};
use tonic::Code;

use crate::server::organisation;
use crate::support::messages::{authorize, settle, usd};
use crate::support::process::{Sidecar, wait_until};
use crate::support::redis_group::Process;

async fn spent_and_held(sidecar: &Sidecar) -> [String; 2] {
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    let balance = sidecar.account().await.get_balance(request).await.unwrap().into_inner();
    let credits = balance.credits.unwrap();
    [credits.spent, credits.held].map(|money| money.unwrap().amount)
}

/// A call is refused with nothing held, and one that runs is settled once, when `mended`; whether a settle
/// waits for that, too.
async fn play(redis: &Process, break_it: impl Fn(), mend: impl Fn(), settles_meanwhile: bool) {
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let sidecar = Sidecar::on(&url);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    let paid = |call: &str| authorize(call, "carol", "+12065550100");
    calls.authorize_call(paid("running")).await.unwrap();
    let before = spent_and_held(&sidecar).await;

    break_it();
    let answer = calls.authorize_call(paid("refused")).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::LedgerUnavailable, "{answer:?}");
    assert_eq!(spent_and_held(&sidecar).await, before);
    let emergency = calls.authorize_call(authorize("911", "alice", "911")).await.unwrap();
    assert_eq!(emergency.into_inner().decision(), Decision::AllowedEmergency);
    match calls.settle_call(settle("running", 61)).await {
        Ok(answer) => {
            assert!(settles_meanwhile, "{answer:?}");
            assert_eq!(answer.into_inner().result(), SettleResult::Settled);
        }
        Err(error) => {
            assert!(!settles_meanwhile, "{error}");
            assert_eq!(error.code(), Code::Unavailable, "{error}");
        }
    }

    mend();
    let charge = calls.settle_call(settle("running", 61)).await.unwrap().into_inner();
    assert_eq!((charge.result(), charge.replayed), (SettleResult::Settled, settles_meanwhile));
    assert_eq!(charge.charged_money, usd("0.25"));
    assert_eq!(spent_and_held(&sidecar).await, ["0.25", "0"]);
    sidecar.client(&["audit"]).succeeded();
}

#[tokio::test]
async fn a_redis_that_is_out_of_memory_holds_nothing_and_settles_what_runs() {
    let redis = Process::start(&["--maxmemory-policy", "noeviction"]);
    let limit = |bytes: &str| drop(redis.ask::<Value>(&["CONFIG", "SET", "maxmemory", bytes]));
    play(&redis, || limit("1"), || limit("0"), true).await;
}

#[tokio::test]
async fn a_redis_that_has_become_a_replica_refuses_and_half_applies_nothing() {
    let (redis, other) = (Process::start(&[]), Process::start(&[]));
    // Of one that never answers as a master: the data stay as they are.
    other.kill();
    let follow = |host: &str, port: &str| drop(redis.ask::<Value>(&["REPLICAOF", host, port]));
    let port = other.port.to_string();
    play(&redis, || follow("127.0.0.1", &port), || follow("NO", "ONE"), false).await;
}

#[tokio::test]
async fn a_redis_whose_disk_is_full_refuses_and_half_applies_nothing() {
    let redis = Process::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let limit = |bytes: &str| {
        let pid = redis.pid().to_string();
        let limit = format!("--fsize={bytes}:");
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(set.expect("prlimit").success());
    };
    let status = || redis.ask::<String>(&["INFO", "persistence"]);
    let break_it = || {
        limit("1");
        // The write that meets the limit is the last one that is answered.
        let _: Value = redis.ask(&["SET", "somebody", "else"]);
        wait_until("full", status, |said| said.contains("aof_last_write_status:err"));
    };
    let mend = || {
        limit("unlimited");
        wait_until("written", status, |said| said.contains("aof_last_write_status:ok"));
    };
    play(&redis, break_it, mend, false).await;
}
