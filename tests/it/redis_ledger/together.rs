//! Commands that are sent together: each is decided as if it had come alone.

use std::collections::HashSet;
use std::sync::Arc;

use redis::Commands;
use tokio::task::JoinSet;
use tollgate::charging::decision::Decision;
use tollgate::charging::units::Seconds;
use tollgate::ledger::redis::RedisLedger;
use tollgate::ledger::state::{CallState, EntryKind};
use tollgate::ledger::{
    Authorize, Authorized, CallLimits, EndResult, Ended, Extended, Ledger, LedgerError, Reply,
};

use crate::support::redis::RedisServer;
use crate::support::{DOMESTIC, MINUTE, Opened, Stage, request};

const CALLERS: i64 = 200;

async fn on(server: &RedisServer) -> Arc<Stage<RedisLedger>> {
    let open =
        |clock| async move { Opened { ledger: server.ledger(&clock).await, keep: Box::new(()) } };
    Arc::new(Stage::open(open).await)
}

/// Sends commands at once; the answers in their order.
async fn at_once(
    stage: &Arc<Stage<RedisLedger>>,
    commands: Vec<Authorize>,
) -> Vec<Result<Reply<Authorized>, LedgerError>> {
    let mut crowd = JoinSet::new();
    for (place, command) in commands.into_iter().enumerate() {
        let stage = stage.clone();
        crowd.spawn(async move { (place, stage.ledger.authorize(&command).await) });
    }
    let mut answers = crowd.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// How many scripts the server has run.
fn runs(server: &RedisServer) -> u64 {
    let mut plain = server.client().get_connection().expect("redis");
    let stats: redis::InfoDict =
        redis::cmd("INFO").arg("commandstats").query(&mut plain).expect("statistics");
    let line: String = stats.get("cmdstat_fcall").expect("scripts have run");
    let calls = line.split(',').find_map(|part| part.strip_prefix("calls="));
    calls.and_then(|calls| calls.parse().ok()).expect("a number of runs")
}

#[tokio::test]
async fn what_comes_at_once_travels_together_and_shares_what_there_is() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, MINUTE.0 * CALLERS / 2).await;
    let mut commands = asked(&stage).await;
    // The same key twice in one run is one call.
    commands.push(commands[0].clone());
    let before = runs(&server);
    let mut answers = at_once(&stage, commands).await;
    let after = runs(&server);
    assert!(after - before <= 20, "{} commands in {} runs", answers.len(), after - before);
    let repeated = answers.pop().expect("an answer").expect("the ledger answers").outcome;
    let first = answers[0].as_ref().expect("the ledger answers").outcome.clone();
    let call_of = |answer: Authorized| match answer {
        Authorized::Decided(call) => (call, true),
        Authorized::Replayed(call) => (call, false),
        other => panic!("{other:?}"),
    };
    let (first, repeated) = (call_of(first), call_of(repeated));
    assert_eq!(first.0, repeated.0);
    assert_ne!(first.1, repeated.1, "one of the two is the repeat");
    let granted = answers
        .into_iter()
        .map(|answer| call_of(answer.expect("the ledger answers").outcome).0)
        .filter(|call| match call.state {
            CallState::Ringing => true,
            state => {
                let denied = (CallState::Denied, Some(Decision::PoolExhausted));
                assert_eq!((state, call.decision), denied);
                false
            }
        });
    assert_eq!(granted.count() as i64, CALLERS / 2);
    assert_eq!(stage.pool(DOMESTIC).await.held, MINUTE.0 * CALLERS / 2);
    stage.assert_audit_clean().await;
}

/// Holds that are due are given back once, whichever command of a run looks for them.
#[tokio::test]
async fn what_is_due_expires_once_in_a_run_of_many() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, MINUTE.0 * CALLERS).await;
    let limits = CallLimits { tenant_calls: Some(CALLERS as u32), ..CallLimits::default() };
    let one_minute = || request().pool(DOMESTIC).lasting(MINUTE.0).limits(limits);
    let mut old = vec![];
    let mut new = vec![];
    for caller in 0..CALLERS {
        old.push(stage.command(&format!("old{caller}"), one_minute()).await);
        new.push(stage.command(&format!("new{caller}"), one_minute()).await);
    }
    assert_eq!(allowed(at_once(&stage, old).await), CALLERS);
    stage.pass(3600);
    // Each makes room for two: those that come first make room for all.
    assert_eq!(allowed(at_once(&stage, new).await), CALLERS);
    let told = stage.of_calls().await;
    let expired: Vec<_> = told.iter().filter(|entry| entry.kind == EntryKind::Expired).collect();
    let calls: HashSet<_> = expired.iter().map(|entry| &entry.subject).collect();
    assert_eq!((expired.len() as i64, calls.len() as i64), (CALLERS, CALLERS));
    assert_eq!(stage.pool(DOMESTIC).await.held, MINUTE.0 * CALLERS);
    stage.assert_audit_clean().await;
}

/// A refusal that is due to be forgotten, and is asked for again: nobody behind it in the run forgets the new call.
#[tokio::test]
async fn a_call_that_is_made_anew_is_not_forgotten_in_the_same_run() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    assert_eq!(allowed(at_once(&stage, asked(&stage).await).await), 0, "there is no pool yet");
    stage.set_pool(DOMESTIC, MINUTE.0 * CALLERS).await;
    stage.pass(3600);
    // Each has two forgotten, the oldest: whose refusal is still there gets it again.
    let answers = at_once(&stage, asked(&stage).await).await;
    let mut anew = 0;
    for (caller, answer) in answers.into_iter().enumerate() {
        if let Authorized::Decided(call) = answer.expect("the ledger answers").outcome {
            assert_eq!(call.state, CallState::Ringing);
            assert_eq!(stage.call(&format!("c{caller}")).await, Some(call));
            anew += 1;
        }
    }
    assert!(anew > 1, "{anew}");
    stage.assert_audit_clean().await;
}

/// What a run has made is what its later commands find, also where it was stored as it was proposed.
#[tokio::test]
async fn a_call_is_made_lengthened_and_settled_in_one_run() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, 2 * MINUTE.0 * CALLERS).await;
    let commands = asked(&stage).await;
    let before = runs(&server);
    let mut crowd = JoinSet::new();
    for (caller, command) in commands.into_iter().enumerate() {
        let stage = stage.clone();
        crowd.spawn(async move {
            let call = format!("c{caller}");
            tokio::join!(
                stage.ledger.authorize(&command),
                stage.extend(&call, 30, Some(1), MINUTE.0),
                stage.settle(&call, 61)
            )
        });
    }
    for answers in crowd.join_all().await {
        let (
            Ok(Reply { outcome: Authorized::Decided(made), .. }),
            Extended::Granted { call: longer, replayed: false },
            Ended::Done { result: EndResult::Settled, call: settled, replayed: false },
        ) = answers
        else {
            panic!("{answers:?}");
        };
        assert_eq!((made.state, made.granted), (CallState::Ringing, MINUTE));
        assert_eq!((longer.state, longer.granted), (CallState::Answered, Seconds(90)));
        assert_eq!(longer.pools[0].held, Seconds(120));
        assert_eq!((settled.pools[0].held, settled.pools[0].spent), (Seconds(0), Seconds(120)));
        assert_eq!(made.authorized_at, settled.authorized_at);
    }
    let ran = runs(&server) - before;
    assert!(ran <= 30, "{} commands in {ran} runs", 3 * CALLERS);
    let pool = stage.pool(DOMESTIC).await;
    assert_eq!((pool.held, pool.holds, pool.spent), (0, 0, 2 * MINUTE.0 * CALLERS));
    stage.assert_audit_clean().await;
}

/// A call of a minute by each caller.
async fn asked(stage: &Stage<RedisLedger>) -> Vec<Authorize> {
    let mut commands = vec![];
    for caller in 0..CALLERS {
        let one_minute = request().pool(DOMESTIC).lasting(MINUTE.0);
        commands.push(stage.command(&format!("c{caller}"), one_minute).await);
    }
    commands
}

/// How many of them were allowed; all are decided.
fn allowed(answers: Vec<Result<Reply<Authorized>, LedgerError>>) -> i64 {
    let state = |answer: Result<Reply<Authorized>, LedgerError>| match answer {
        Ok(Reply { outcome: Authorized::Decided(call), .. }) => call.state,
        other => panic!("{other:?}"),
    };
    answers.into_iter().map(state).filter(|state| *state == CallState::Ringing).count() as i64
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_the_matter_of_one_call_only() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, MINUTE.0 * CALLERS).await;
    let mut commands = vec![];
    for caller in 0..40 {
        let one_minute = request().pool(DOMESTIC).lasting(MINUTE.0);
        commands.push(stage.command(&format!("c{caller}"), one_minute).await);
    }
    let calls = format!("tg:{{{}}}:calls", stage.tenant);
    let mut plain = server.client().get_connection().expect("redis");
    let _: () = plain.hset(&calls, "c17", b"\xc1").expect("a broken call");
    for (caller, answer) in at_once(&stage, commands).await.into_iter().enumerate() {
        match answer {
            Ok(Reply { outcome: Authorized::Decided(_), .. }) => assert_ne!(caller, 17),
            Err(LedgerError::Corrupt(_)) => assert_eq!(caller, 17),
            other => panic!("{caller}: {other:?}"),
        }
    }
    assert_eq!(stage.pool(DOMESTIC).await.held, MINUTE.0 * 39);
    let _: () = plain.hdel(&calls, "c17").expect("the broken call is gone");
    stage.assert_audit_clean().await;
}

#[tokio::test]
async fn a_run_that_fails_when_it_writes_leaves_nothing_to_the_next() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, MINUTE.0 * 3).await;
    let mut commands = vec![];
    for caller in 0..4 {
        let one_minute = request().pool(DOMESTIC).lasting(MINUTE.0);
        commands.push(stage.command(&format!("c{caller}"), one_minute).await);
    }
    let decided = |outcome: Result<Reply<Authorized>, LedgerError>| match outcome {
        Ok(Reply { outcome: Authorized::Decided(call), .. }) => call.decision,
        other => panic!("{other:?}"),
    };
    assert_eq!(decided(stage.ledger.authorize(&commands[0]).await), Some(Decision::Allowed));
    // Where the journal is no stream, a run fails at its first write: all is decided then.
    let key = |name: &str| format!("tg:{{{}}}:{name}", stage.tenant);
    let mut plain = server.client().get_connection().expect("redis");
    let () = plain.rename(key("journal"), key("aside")).expect("a journal");
    let () = plain.set(key("journal"), "text").expect("set");
    for command in &commands {
        let failed = stage.ledger.authorize(command).await;
        assert!(
            matches!(failed, Err(LedgerError::Corrupt(_)))
                || matches!(&failed, Ok(Reply { outcome: Authorized::Replayed(_), .. })),
            "{failed:?}"
        );
    }
    let () = plain.del(key("journal")).expect("del");
    let () = plain.rename(key("aside"), key("journal")).expect("the journal is back");
    for command in &commands[1..3] {
        assert_eq!(decided(stage.ledger.authorize(command).await), Some(Decision::Allowed));
    }
    let last = stage.ledger.authorize(&commands[3]).await;
    assert_eq!(decided(last), Some(Decision::PoolExhausted));
    assert_eq!(stage.pool(DOMESTIC).await.held, MINUTE.0 * 3);
    stage.assert_audit_clean().await;
}

#[tokio::test]
async fn payers_whose_accounts_are_equal_are_counted_apart() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.set_pool(DOMESTIC, MINUTE.0 * CALLERS).await;
    let limits = CallLimits { payer_calls: Some(2), ..CallLimits::default() };
    let mut answers = vec![];
    // Equal again and again: none has a call, then one, then two, by runs of one command and by one of all.
    for (round, together) in [false, true, false].into_iter().enumerate() {
        let mut commands = vec![];
        for payer in ["ann", "bob", "cid"] {
            let asked = request().of(payer).pool(DOMESTIC).lasting(MINUTE.0).limits(limits);
            commands.push(stage.command(&format!("{payer}-{round}"), asked).await);
        }
        if together {
            answers.extend(at_once(&stage, commands).await);
            continue;
        }
        for command in &commands {
            answers.push(stage.ledger.authorize(command).await);
        }
    }
    let decisions: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer.expect("the ledger answers").outcome {
            Authorized::Decided(call) => call.decision,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(decisions[..6], [Some(Decision::Allowed); 6]);
    assert_eq!(decisions[6..], [Some(Decision::ConcurrencyLimit); 3]);
    stage.assert_audit_clean().await;
}

#[tokio::test]
async fn the_accounts_of_a_small_tenant_are_kept_as_a_table() {
    let server = RedisServer::started();
    let stage = on(&server).await;
    stage.authorize("a", request().free()).await;
    let mut plain = server.client().get_connection().expect("redis");
    let key = format!("tg:{{{}}}:accounts", stage.tenant);
    let kept: String =
        redis::cmd("OBJECT").arg("ENCODING").arg(key).query(&mut plain).expect("an encoding");
    assert_eq!(kept, "hashtable");
    stage.assert_audit_clean().await;
}
