//! The audit on a ledger that is in use: it must find nothing, however many calls run meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tollgate::charging::profile::PayerState;
use tollgate::ledger::audit::audit;
use tollgate::ledger::rewriting::{Plan, rewrite};
use tollgate::ledger::state::Entry;
use tollgate::ledger::{Ending, Ledger};

use crate::support::{self, NEVER_OVERDUE, Stage, UNIT, credits, request};

const FAMILY: &str = "US:MCOPSTN1:DOMESTIC";

/// One caller: calls that are extended, settled, released, forgotten and made again.
async fn use_it<L: Ledger>(stage: Arc<Stage<L>>, caller: u64, stop: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(caller);
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) && calls < 3_000 {
        calls += 1;
        // Holds run out while they are looked at.
        if caller == 0 && calls % 20 == 0 {
            stage.pass(25);
        }
        let call = format!("call-{caller}-{}", calls % 50);
        let payer = ["alice", "bob"][random.usize(..2)];
        let request = match random.u8(..4) {
            0 => request().of(payer).money(credits()),
            1 => request().of(payer).free(),
            2 => request().emergency(),
            _ => request().of(payer).pool(FAMILY).money(credits()),
        };
        // Versions move under way: stale is an answer like any other.
        let command = stage.command(&call, request).await;
        stage.ledger.authorize(&command).await.unwrap();
        for _ in 0..random.u8(..3) {
            stage.extend(&call, random.i64(..400), None, 60).await;
        }
        match random.u8(..6) {
            0 => drop(stage.release(&call).await),
            1 => drop(stage.end(&call, Ending::Proven).await),
            2 => drop(stage.answer(&call).await),
            3 => {}
            _ => drop(stage.settle(&call, random.i64(..500)).await),
        }
        if random.u8(..40) == 0 {
            stage.sweep().await;
        }
        tokio::task::yield_now().await;
    }
}

/// What an operator does meanwhile.
async fn administer<L: Ledger>(stage: Arc<Stage<L>>, stop: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(77);
    let mut purchases = 0;
    while !stop.load(Ordering::Relaxed) {
        match random.u8(..4) {
            0 => stage.set_pool(FAMILY, random.i64(10..200) * 60).await,
            1 => {
                purchases += 1;
                stage.buy(&format!("po-{purchases}"), random.i64(1..5) * UNIT).await;
            }
            2 => stage.set_payer("bob", PayerState::Active, &[(FAMILY, 600)]).await,
            _ => drop(stage.ledger.balance(&stage.tenant).await.unwrap()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Trims and erases all the time, what is just over and what one in three calls said.
async fn rewrite_it<L: Ledger>(stage: Arc<Stage<L>>, stop: Arc<AtomicBool>) -> u64 {
    let mut random = fastrand::Rng::with_seed(78);
    let mut trimmed = 0;
    while !stop.load(Ordering::Relaxed) {
        let erases = random.bool();
        let plan = Plan {
            token: format!("rewriter-{}", random.u64(..)),
            trim: random.bool().then(|| stage.now()),
            erase: |entry: &mut Entry| {
                let erased = erases && entry.is_of_call() && entry.subject.ends_with('3');
                if erased {
                    entry.context.clear();
                }
                erased
            },
            erase_within: None,
            note: |_| vec![],
            always: random.bool(),
        };
        let rewritten = rewrite(&stage.ledger, &stage.tenant, plan).await;
        trimmed += rewritten.expect("the ledger answers, and nobody else rewrites").trimmed;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    trimmed
}

async fn audited_while_used<L: Ledger>(opened: Stage<L>, audits: u32) {
    let stage = Arc::new(opened);
    stage.set_pool(FAMILY, 6_000).await;
    stage.buy("po-0", 20 * UNIT).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..4 {
        tasks.spawn(use_it(stage.clone(), caller, stop.clone()));
    }
    tasks.spawn(administer(stage.clone(), stop.clone()));
    let rewriting = tokio::spawn(rewrite_it(stage.clone(), stop.clone()));
    let entries = AtomicU32::new(0);
    for _ in 0..audits {
        let reply = stage.ledger.snapshot(&stage.tenant).await.unwrap();
        let report = audit(&stage.tenant, reply.now, NEVER_OVERDUE, &reply.outcome);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        let seen = u32::try_from(report.checked.entries).unwrap();
        entries.store(seen, Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(rewriting.await.unwrap() > 0, "something was trimmed meanwhile");
    assert!(entries.load(Ordering::Relaxed) > 100, "something happened meanwhile");
    stage.assert_audit_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_in_use_is_audited_clean() {
    let stage = Stage::open(support::memory).await;
    audited_while_used(stage, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_in_use_is_audited_clean() {
    let stage = Stage::open(support::redis).await;
    audited_while_used(stage, 60).await;
}
