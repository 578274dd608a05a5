//! What the Redis ledger says when Redis fails: out of reach, perhaps applied, or unreadable.

use std::time::{Duration, Instant};

use redis::Commands;
use tollgate::charging::ids::{CallId, LotId, TenantId};
use tollgate::charging::profile::Purchase;
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::redis::{RedisLedger, RedisSettings};
use tollgate::ledger::{
    Answer, ClockOffset, End, EndResult, Ended, Ending, Ledger, LedgerError, Reply,
};

use crate::support::redis::RedisServer;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant id")
}

/// The shortest command that writes: the end of a call that was never authorized.
async fn release(
    ledger: &RedisLedger,
    tenant: &TenantId,
    call: &str,
) -> Result<Reply<Ended>, LedgerError> {
    let command = End {
        tenant: tenant.clone(),
        call: CallId::new(call).expect("a call id"),
        how: Ending::Release,
        report: vec![],
        ended_retention: Seconds(600),
        has_grant: false,
    };
    ledger.end(&command).await
}

#[track_caller]
fn is_released(outcome: Result<Reply<Ended>, LedgerError>) {
    let reply = outcome.expect("the ledger answers");
    assert!(
        matches!(reply.outcome, Ended::Done { result: EndResult::Released, .. }),
        "{:?}",
        reply.outcome
    );
}

/// Waits until the ledger has found Redis.
async fn found(ledger: &RedisLedger) {
    let patience = Instant::now() + Duration::from_secs(10);
    while let Err(error) = ledger.ping().await {
        assert!(Instant::now() < patience, "redis was not found within 10 s: {error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn scripts_are_loaded_again_when_redis_has_forgotten_them() {
    let server = RedisServer::started();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let tenant = tenant("flushed");
    is_released(release(&ledger, &tenant, "a").await);
    let mut plain = server.client().get_connection().expect("redis");
    redis::cmd("FUNCTION").arg("FLUSH").exec(&mut plain).expect("function flush");
    is_released(release(&ledger, &tenant, "b").await);
}

#[tokio::test]
async fn a_ledger_starts_before_redis_and_finds_it() {
    let server = RedisServer::absent();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let away = ledger.ping().await;
    assert!(matches!(away, Err(LedgerError::Unavailable(_))), "{away:?}");
    server.start();
    found(&ledger).await;
    is_released(release(&ledger, &tenant("late"), "a").await);
}

#[tokio::test]
async fn a_killed_redis_is_out_of_reach_at_once_and_found_again() {
    let server = RedisServer::started();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let tenant = tenant("killed");
    is_released(release(&ledger, &tenant, "a").await);
    server.kill();
    // Until the loss is noticed, nobody knows whether a command was sent.
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match release(&ledger, &tenant, "b").await {
            Err(LedgerError::Unavailable(_)) => break,
            Err(LedgerError::Indeterminate(_)) => assert!(Instant::now() < patience),
            other => panic!("{other:?}"),
        }
    }
    let asked = Instant::now();
    let away = release(&ledger, &tenant, "b").await;
    assert!(matches!(away, Err(LedgerError::Unavailable(_))), "{away:?}");
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    server.start();
    found(&ledger).await;
    is_released(release(&ledger, &tenant, "b").await);
}

#[tokio::test]
async fn a_redis_that_hangs_leaves_a_command_undecided_within_the_bound() {
    let server = RedisServer::started();
    let settings = RedisSettings {
        url: server.url(),
        response_timeout: Duration::from_millis(100),
        connect_timeout: Duration::from_millis(100),
        probe_timeout: Duration::from_millis(100),
    };
    let clock = ClockOffset::default();
    let ledger = RedisLedger::connect(&settings, clock).await.expect("a redis url");
    let tenant = tenant("hung");
    is_released(release(&ledger, &tenant, "before").await);
    server.signal("STOP");
    let asked = Instant::now();
    let undecided = release(&ledger, &tenant, "a").await;
    let waited = asked.elapsed();
    server.signal("CONT");
    assert!(matches!(undecided, Err(LedgerError::Indeterminate(_))), "{undecided:?}");
    assert!(waited < Duration::from_millis(1_000), "{waited:?}");
    found(&ledger).await;
    // It was applied after all: the repeat says so.
    let again = release(&ledger, &tenant, "a").await.expect("the ledger answers").outcome;
    assert!(matches!(again, Ended::Done { replayed: true, .. }), "{again:?}");
}

#[tokio::test]
async fn a_key_of_another_type_or_an_unreadable_value_is_corrupt_and_changes_nothing() {
    let server = RedisServer::shared();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let mut plain = server.client().get_connection().expect("redis");
    for (key, field) in [("calls", "a"), ("journal", ""), ("accounts", "t"), ("profiles", "t")] {
        let tenant = tenant(&format!("corrupt-{key}"));
        let key = format!("tg:{{{tenant}}}:{key}");
        let () = plain.set(&key, "text").expect("set");
        let mut outcomes = vec![
            ledger.tenant(&tenant).await.err(),
            ledger.snapshot(&tenant).await.err(),
            ledger.sweep(&tenant, 5, Seconds(1)).await.err(),
            ledger.call(&tenant, &CallId::new("a").expect("a call id")).await.err(),
            ledger.journal(&tenant, None, 5).await.err(),
        ];
        if !field.is_empty() {
            let () = plain.del(&key).expect("del");
            let () = plain.hset(&key, field, &b"\xc1garbage"[..]).expect("hset");
            outcomes.push(ledger.tenant(&tenant).await.err());
            outcomes.push(ledger.snapshot(&tenant).await.err());
            outcomes.push(release(&ledger, &tenant, "a").await.err());
        }
        let errors: Vec<LedgerError> = outcomes.into_iter().flatten().collect();
        assert!(!errors.is_empty(), "{key}");
        assert!(
            errors.iter().all(|error| matches!(error, LedgerError::Corrupt(_))),
            "{key}: {errors:?}"
        );
    }
    // A journal that is no stream refuses the first write, so that the call is not stored either.
    let tenant = tenant("corrupt-stream");
    let () = plain.set(format!("tg:{{{tenant}}}:journal"), "text").expect("set");
    let purchase = tollgate::charging::profile::Purchase {
        key: tollgate::charging::ids::LotId::new("po-1").expect("a lot id"),
        amount: tollgate::charging::units::Micros(1),
        purchased_at: tollgate::charging::units::Millis(1),
        payment: std::collections::BTreeMap::new(),
    };
    let refused =
        ledger.purchase(&tenant, &purchase, tollgate::charging::units::Millis(i64::MAX / 4)).await;
    assert!(matches!(refused, Err(LedgerError::Corrupt(_))), "{refused:?}");
    let lots: bool = plain.exists(format!("tg:{{{tenant}}}:lots")).expect("exists");
    assert!(!lots, "a lot was stored without its entry");
}

#[tokio::test]
async fn a_store_that_may_not_write_refuses_before_anything_is_applied() {
    let server = RedisServer::started();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let mut plain = server.client().get_connection().expect("redis");
    let tenant = tenant("refused");
    is_released(release(&ledger, &tenant, "a").await);
    let mut say = |words: &str| {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        words.for_each(|word| {
            command.arg(word);
        });
        command.exec(&mut plain).expect("redis obeys");
    };
    // A full store takes nothing on, but what gives back goes on.
    say("CONFIG SET maxmemory 1");
    let purchase = Purchase {
        key: LotId::new("po-1").expect("a key"),
        amount: Micros(5),
        purchased_at: Millis(1),
        payment: Default::default(),
    };
    let refused = ledger.purchase(&tenant, &purchase, Millis(2)).await;
    let released = release(&ledger, &tenant, "full").await;
    // Also what travels with others.
    let answered = Answer { tenant: tenant.clone(), call: CallId::new("a").expect("a call id") };
    let (first, ended, last) = tokio::join!(
        ledger.answer(&answered),
        release(&ledger, &tenant, "together"),
        ledger.answer(&answered),
    );
    say("CONFIG SET maxmemory 0");
    for refused in [first, last] {
        assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    }
    is_released(ended);
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    assert_eq!(ledger.balance(&tenant).await.map(|reply| reply.outcome.lots), Ok(vec![]));
    is_released(released);
    for (refuse, relent) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ] {
        say(refuse);
        let refused = release(&ledger, &tenant, "b").await;
        say(relent);
        assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refuse}: {refused:?}");
        let stored = ledger.call(&tenant, &CallId::new("b").expect("a call id")).await;
        assert_eq!(stored, Ok(None), "{refuse}");
    }
    is_released(release(&ledger, &tenant, "b").await);
}

#[tokio::test]
async fn a_url_that_names_no_redis_is_an_error_at_start() {
    let settings = RedisSettings {
        url: "http://localhost".to_owned(),
        response_timeout: Duration::from_millis(100),
        connect_timeout: Duration::from_millis(100),
        probe_timeout: Duration::from_millis(100),
    };
    let refused = RedisLedger::connect(&settings, ClockOffset::default()).await.err();
    let text = refused.expect("a refusal").to_string();
    assert!(text.starts_with("expected redis://"), "{text}");
}

#[tokio::test]
async fn decks_and_tenants_are_kept_for_all_ledgers() {
    let server = RedisServer::started();
    let ledger = server.ledger(&ClockOffset::default()).await;
    assert_eq!(ledger.tenants().await, Ok(vec![]));
    assert_eq!(ledger.deck("v1").await, Ok(None));
    ledger.put_deck("v1", b"prefix\xff").await.expect("put");
    ledger.name_deck("default", "v1").await.expect("name");
    assert_eq!(ledger.deck("v1").await, Ok(Some(b"prefix\xff".to_vec())));
    assert_eq!(ledger.named_deck("default").await, Ok(Some("v1".to_owned())));
    assert_eq!(ledger.named_deck("other").await, Ok(None));
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_is_refused() {
    let server = RedisServer::shared();
    let ledger = server.ledger(&ClockOffset::default()).await;
    let tenant = tenant("cursors");
    for cursor in ["", "x", "1", "1-", "-1", "1-x\n"] {
        let open = ledger.open_calls(&tenant, Some(cursor), 5).await;
        let journal = ledger.journal(&tenant, Some(cursor), 5).await;
        let bad = LedgerError::BadCursor(cursor.to_owned());
        assert_eq!(journal.err(), Some(bad.clone()), "{cursor:?}");
        assert!(open.is_err_and(|error| error == bad), "{cursor:?}");
    }
}

#[tokio::test]
async fn the_clock_is_the_stores_and_moves_with_the_offset() {
    let server = RedisServer::shared();
    let clock = ClockOffset::default();
    let ledger = server.ledger(&clock).await;
    let tenant = tenant("clocks");
    let before = ledger.tenant(&tenant).await.expect("the ledger answers").now;
    clock.advance(Seconds(86_400));
    let by_script = release(&ledger, &tenant, "a").await.expect("the ledger answers").now;
    let by_time = ledger.tenant(&tenant).await.expect("the ledger answers").now;
    for now in [by_script, by_time] {
        let passed = now.seconds_since(before).0;
        assert!((86_400..86_460).contains(&passed), "{passed} s");
    }
    clock.freeze_at(before);
    assert_eq!(release(&ledger, &tenant, "b").await.expect("the ledger answers").now, before);
    assert_eq!(ledger.tenant(&tenant).await.expect("the ledger answers").now, before);
}
