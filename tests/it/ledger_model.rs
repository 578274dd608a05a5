//! The model test: random commands, played in lock step to two ledgers whose clocks are stopped.
//!
//! Few calls, payers, pools and lots, so that commands collide in every state. Every answer must be
//! equal and every audit clean; a tally of its own says what each settled call may cost at most.
//! `TOLLGATE_MODEL_COMMANDS` is the number of commands in all, `TOLLGATE_MODEL_SEED` plays one seed.

pub mod commands;
mod faulty;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use futures_util::future::join_all;
use tollgate::charging::decision::Decision;
use tollgate::charging::funding::{CreditSide, PoolSide, charge, reserve};
use tollgate::charging::ids::{CallId, TenantId};
use tollgate::charging::rating::Tariff;
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::audit::audit;
use tollgate::ledger::state::{Call, CallState, EntryKind};
use tollgate::ledger::{
    Adjusted, Answered, Authorized, ClockOffset, EndResult, Ended, Ending, Extended, Ledger,
    Restored,
};

use crate::support::{DAY, NEVER_OVERDUE, NOON, Opened, Stage, credits, memory, request};
use commands::{Command, Dealer, Outcome, play};
use faulty::{Fault, Faulty};

/// Commands of one run on one pair of ledgers.
const RUN: usize = 5_000;
/// Commands between two audits.
const AUDIT_EVERY: usize = 250;
/// Commands that are sent at once, where they are.
const TOGETHER: usize = 12;

fn commands_in_all() -> usize {
    std::env::var("TOLLGATE_MODEL_COMMANDS").map_or(200_000, |n| n.parse().unwrap())
}

/// Plays `total` commands over several seeds, two at a time; the first difference, with its seed. The second ledger gets
/// at most `together` commands at once.
fn compare<A: Ledger, B: Ledger, FA: Future<Output = Opened<A>>, FB: Future<Output = Opened<B>>>(
    total: usize,
    together: usize,
    make_a: impl Fn(ClockOffset) -> FA + Sync,
    make_b: impl Fn(ClockOffset) -> FB + Sync,
) -> Result<(), String> {
    let chosen: Option<u64> = std::env::var("TOLLGATE_MODEL_SEED").ok().map(|s| s.parse().unwrap());
    let runs = if chosen.is_some() { 1 } else { total.div_ceil(RUN) as u64 };
    let next = AtomicU64::new(0);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok(());
            }
            let seed = chosen.unwrap_or(run);
            runtime.block_on(async {
                let (clock_a, clock_b) = (ClockOffset::default(), ClockOffset::default());
                clock_a.freeze_at(NOON);
                clock_b.freeze_at(NOON);
                let a = make_a(clock_a.clone()).await;
                let b = make_b(clock_b.clone()).await;
                let (a, b) = ((&a.ledger, &clock_a), (&b.ledger, &clock_b));
                lock_step(seed, RUN.min(total), together, a, b).await
            })?;
        }
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mine = work();
        mine.and(other.join().unwrap())
    })
}

static TENANTS: AtomicU32 = AtomicU32::new(0);

async fn lock_step<A: Ledger, B: Ledger>(
    seed: u64,
    commands: usize,
    together: usize,
    (a, clock_a): (&A, &ClockOffset),
    (b, clock_b): (&B, &ClockOffset),
) -> Result<(), String> {
    let first = TENANTS.fetch_add(2, Ordering::Relaxed);
    let name = |n| TenantId::new(&format!("model-{}-{n}", std::process::id())).unwrap();
    let tenants = vec![name(first), name(first + 1)];
    let dealer = Dealer::new(seed, tenants.clone());
    let mut dealer = if together > 1 { dealer.for_many_at_once() } else { dealer };
    let mut tally = Tally::default();
    let (mut step, mut audited) = (0, 0);
    while step < commands {
        let now = clock_a.reading().at(Millis::ZERO);
        let mut dealt = vec![];
        while step < commands && dealt.len() < together {
            dealt.push(dealer.deal(now, a).await);
            step += 1;
            if !dealt.last().is_some_and(Command::travels_with_others) {
                break;
            }
        }
        let behind = dealt.pop_if(|last| !last.travels_with_others());
        for group in [dealt, behind.into_iter().collect()] {
            if let [Command::Pass(length)] = group[..] {
                clock_a.advance(length);
                clock_b.advance(length);
                continue;
            }
            let context = |what: &str| format!("seed {seed}, step {step}: {what} after {group:#?}");
            let mut found_a = vec![];
            for command in &group {
                found_a.push(play(a, command).await);
            }
            let found_b = join_all(group.iter().map(|command| play(b, command))).await;
            for (command, (a, b)) in group.iter().zip(found_a.iter().zip(&found_b)) {
                if a != b {
                    let found = format!("{command:#?} is answered differently\na {a:#?}\nb {b:#?}");
                    return Err(context(&found));
                }
            }
            for (command, found) in group.iter().zip(&found_a) {
                tally.check(command, found).map_err(|found| context(&found))?;
            }
        }
        if step - audited >= AUDIT_EVERY || step == commands {
            audited = step;
            check_books(&tenants, now, NEVER_OVERDUE, a, b)
                .await
                .map_err(|found| format!("seed {seed}, step {step}: {found}"))?;
        }
    }
    // Time heals all: everything expires, and nothing is overdue.
    clock_a.advance(DAY);
    clock_b.advance(DAY);
    for tenant in &tenants {
        for ledger in [&a.sweep(tenant, 1000, DAY).await, &b.sweep(tenant, 1000, DAY).await] {
            assert!(ledger.is_ok());
        }
    }
    let now = clock_a.reading().at(Millis::ZERO);
    check_books(&tenants, now, Seconds::ZERO, a, b)
        .await
        .map_err(|found| format!("seed {seed}: {found}"))
}

async fn check_books<A: Ledger, B: Ledger>(
    tenants: &[TenantId],
    now: Millis,
    bound: Seconds,
    a: &A,
    b: &B,
) -> Result<(), String> {
    for tenant in tenants {
        let left = a.snapshot(tenant).await.unwrap().outcome;
        let right = b.snapshot(tenant).await.unwrap().outcome;
        let report = audit(tenant, now, bound, &left);
        if !report.findings.is_empty() {
            return Err(format!("the audit finds {:#?}", report.findings));
        }
        if left != right {
            return Err(format!("the books differ\na {left:#?}\nb {right:#?}"));
        }
    }
    Ok(())
}

/// What every call should cost by first principles, kept from the commands alone.
#[derive(Default)]
struct Tally {
    reported: HashMap<(TenantId, CallId), Seconds>,
}

impl Tally {
    fn check(&mut self, command: &Command, outcome: &Outcome) -> Result<(), String> {
        match (command, outcome) {
            (Command::Authorize(c), Outcome::Authorized(reply)) => {
                if let Authorized::Decided(call) = &reply.outcome {
                    self.reported.insert((c.tenant.clone(), c.call.clone()), call.used);
                }
            }
            (Command::Restore(c), Outcome::Restored(reply))
                if reply.outcome == Restored::Restored =>
            {
                self.reported.insert((c.tenant.clone(), c.call.clone()), c.granted.used);
            }
            (Command::Answer(c), Outcome::Answered(reply)) => {
                if let Answered::Standing(call) = &reply.outcome {
                    let known =
                        self.reported.entry((c.tenant.clone(), c.call.clone())).or_default();
                    *known = (*known).max(call.used.min(Seconds(1)));
                }
            }
            (Command::Extend(c), Outcome::Extended(reply)) => match &reply.outcome {
                Extended::Granted { call, .. } | Extended::Stopped(call, _)
                    if call.state.is_open() =>
                {
                    let known =
                        self.reported.entry((c.tenant.clone(), c.call.clone())).or_default();
                    *known = (*known).max(c.used);
                }
                _ => {}
            },
            (Command::AdjustSettlement(c), Outcome::AdjustedSettlement(reply, call)) => {
                if let (Adjusted::Applied(entry), Some(call)) = (&reply.outcome, call) {
                    if entry.used != c.used || call.used != c.used {
                        return Err(format!("{} s are recorded", call.used));
                    }
                    return check_price(call, c.used, Ending::Settle(c.used));
                }
            }
            (Command::End(c), Outcome::Ended(reply)) => {
                if let Ended::Done { result: EndResult::Settled, call, replayed: false } =
                    &reply.outcome
                {
                    let key = (c.tenant.clone(), c.call.clone());
                    let reported = self.reported.get(&key).copied().unwrap_or_default();
                    let settled = match c.how {
                        Ending::Settle(used) => reported.max(used),
                        Ending::Release | Ending::Proven => reported,
                    };
                    return check_price(call, settled, c.how);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A call by the minute costs, in whatever order its sources pay: every started minute once, and the
/// fee where a minute is not the pool's.
fn check_price(call: &Call, used: Seconds, how: Ending) -> Result<(), String> {
    let expected = if how == Ending::Proven { CallState::Expired } else { CallState::Settled };
    if call.state != expected {
        return Err(format!("{how:?} is {}", call.state));
    }
    if call.used != used && !call.terms.charge_granted_when_lost {
        return Err(format!("{used} s were reported, {} s are charged", call.used));
    }
    let by_the_minute = |line: &tollgate::ledger::state::PoolLine| line.increment == Seconds(60);
    if call.terms.free || !call.pools.iter().all(by_the_minute) {
        return Ok(());
    }
    let minutes = (call.used.0 + 59) / 60;
    let unpaid = minutes - call.pool_spent().0 / 60;
    if unpaid < 0 || call.pool_spent().0 % 60 != 0 {
        return Err(format!("pools paid {} s of {} s", call.pool_spent(), call.used));
    }
    let Some(money) = &call.money else { return Ok(()) };
    let Tariff { rate_per_minute, connection_fee, initial_increment, increment } = money.tariff;
    if initial_increment != Seconds(60) || increment != Seconds(60) {
        return Ok(());
    }
    let price = if unpaid > 0 { unpaid * rate_per_minute.0 + connection_fee.0 } else { 0 };
    let found = call.money_spent().0 + call.shortfall_money.0;
    if price == found { Ok(()) } else { Err(format!("expected a price of {price}, found {found}")) }
}

#[test]
fn random_commands_keep_the_embedded_ledger_clean() {
    if let Err(difference) = compare(commands_in_all(), 1, memory, memory) {
        panic!("{difference}");
    }
}

#[test]
fn both_ledgers_answer_every_random_command_alike() {
    if let Err(difference) = compare(commands_in_all(), 1, memory, crate::support::redis) {
        panic!("{difference}");
    }
}

/// Whatever travels together is carried out in its order, each command as if it had come alone.
#[test]
fn commands_that_come_at_once_are_answered_as_one_by_one() {
    if let Err(difference) = compare(commands_in_all(), TOGETHER, memory, crate::support::redis) {
        panic!("{difference}");
    }
}

#[test]
fn the_harness_notices_a_ledger_that_is_wrong() {
    for fault in [Fault::ChargesASecondMore, Fault::LosesReleases, Fault::ForgetsSequences] {
        let faulty = async |clock| {
            let Opened { ledger: inner, keep } = memory(clock).await;
            Opened { ledger: Faulty { inner, fault }, keep }
        };
        let found = compare(2_000, 1, memory, faulty);
        assert!(found.is_err_and(|text| text.starts_with("seed ")), "{fault:?} goes unnoticed");
    }
}

#[tokio::test]
async fn the_random_commands_meet_every_state_and_leave_every_kind_of_entry() {
    let clock = ClockOffset::default();
    clock.freeze_at(NOON);
    let ledger = memory(clock.clone()).await.ledger;
    let tenant = TenantId::new("census").unwrap();
    let mut dealer = Dealer::new(1, vec![tenant.clone(); 2]);
    let mut met = BTreeSet::new();
    let mut journal = vec![];
    for _ in 0..60_000 {
        let command = dealer.deal(clock.reading().at(Millis::ZERO), &ledger).await;
        let (message, call) = match &command {
            Command::Authorize(c) => ("authorize", &c.call),
            Command::Answer(c) => ("answer", &c.call),
            Command::Extend(c) => ("extend", &c.call),
            Command::End(c) => ("end", &c.call),
            Command::Restore(c) => ("restore", &c.call),
            Command::Pass(length) => {
                clock.advance(*length);
                continue;
            }
            other => {
                if matches!(other, Command::Rewrite(..)) {
                    // What is trimmed is told too.
                    journal.extend(ledger.snapshot(&tenant).await.unwrap().outcome.journal);
                }
                play(&ledger, other).await;
                continue;
            }
        };
        let call = ledger.call(&tenant, call).await.unwrap();
        met.insert((message, call.map_or("none".to_owned(), |call| call.state.to_string())));
        play(&ledger, &command).await;
    }
    assert_eq!(met.len(), 5 * 8, "{met:#?}");
    let snapshot = ledger.snapshot(&tenant).await.unwrap().outcome;
    assert!(snapshot.lots.iter().any(|lot| lot.key.is_overage() && lot.bucket.spent > 0));
    assert!(snapshot.ring.width > 0);
    journal.extend(snapshot.journal);
    let kinds: HashSet<_> = journal.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds.len(), 25, "{kinds:?}");
    let decisions: HashSet<_> = journal.iter().filter_map(|entry| entry.decision).collect();
    assert!(decisions.len() >= 13, "{decisions:?}");
    assert!(decisions.contains(&Decision::FraudSuspected));
    let count = |kind| journal.iter().filter(|entry| entry.kind == kind).count();
    assert!(count(EntryKind::Extended) > 300 && count(EntryKind::Settled) > 300);
    let adjusted = journal.iter().filter(|entry| entry.kind == EntryKind::Adjusted);
    let (of_calls, of_balances): (Vec<_>, Vec<_>) = adjusted.partition(|e| e.is_of_call());
    assert!(
        of_calls.len() > 30 && of_balances.len() > 30,
        "{} {}",
        of_calls.len(),
        of_balances.len()
    );
    let moved = journal.iter().filter(|entry| !entry.postings.is_empty()).count();
    assert!(moved > 1_500, "only {moved} entries moved anything");
}

// Chunked = whole (contract rule 5, invariant 8).

const TARIFFS: [Tariff; 4] = [
    Tariff {
        rate_per_minute: Micros(100_000),
        connection_fee: Micros(50_000),
        initial_increment: Seconds(60),
        increment: Seconds(60),
    },
    Tariff {
        rate_per_minute: Micros(333_333),
        connection_fee: Micros::ZERO,
        initial_increment: Seconds(30),
        increment: Seconds(6),
    },
    Tariff {
        rate_per_minute: Micros::ZERO,
        connection_fee: Micros(70_000),
        initial_increment: Seconds(1),
        increment: Seconds(1),
    },
    Tariff {
        rate_per_minute: Micros::ZERO,
        connection_fee: Micros::ZERO,
        initial_increment: Seconds(60),
        increment: Seconds(60),
    },
];

/// Sources as they stand before a call.
#[derive(Clone, Debug)]
struct Sources {
    pools: Vec<PoolSide>,
    credits: Option<CreditSide>,
}

impl Sources {
    fn hold(&mut self, target: Seconds) {
        let added = reserve(target, &self.pools, self.credits.as_ref());
        for (pool, added) in self.pools.iter_mut().zip(&added.pools) {
            pool.taken += *added;
            pool.available -= *added;
        }
        if let Some(credits) = &mut self.credits {
            credits.taken += added.money;
            credits.available -= added.money;
            credits.limit = credits.limit.map(|limit| limit.minus_or_zero(added.money));
        }
    }

    /// What the call is charged when it reports every `step` seconds and asks for `more` each time.
    fn charge_in_chunks(mut self, used: Seconds, step: i64, more: i64) -> Vec<i64> {
        let mut at = 0;
        while at < used.0 {
            self.hold(Seconds(at + more));
            at += step;
        }
        let charge = charge(used, &self.pools, self.credits.as_ref());
        let mut found: Vec<i64> = charge.pools.iter().map(|pool| pool.0).collect();
        found.extend([charge.money.0, charge.money_duration.0]);
        found.extend([charge.shortfall_duration.0, charge.shortfall_money.0]);
        found
    }
}

#[test]
fn a_charge_is_the_same_however_it_was_chunked_in_every_small_case() {
    let mut credit_cases = vec![None];
    for tariff in TARIFFS {
        for available in [0, 149_999, 150_000, 260_000, 5_000_000] {
            for limit in [None, Some(Micros(200_000))] {
                let (taken, available) = (Micros::ZERO, Micros(available));
                let others = 1;
                let side = CreditSide { taken, available, others, limit, tariff, velocity: None };
                credit_cases.push(Some(side));
            }
        }
    }
    let mut cases = 0_u32;
    for (first, second) in [(0, 0), (60, 0), (90, 60), (181, 0), (120, 125), (600, 6)] {
        for increments in [(60, 60), (60, 1), (1, 60)] {
            for others in [0, 2] {
                let pool = |available, increment| PoolSide {
                    taken: Seconds::ZERO,
                    available: Seconds(available),
                    others,
                    increment: Seconds(increment),
                };
                let pools = vec![pool(first, increments.0), pool(second, increments.1)];
                for credits in &credit_cases {
                    let sources = Sources { pools: pools.clone(), credits: *credits };
                    for used in [1, 59, 60, 61, 119, 120, 125, 181, 300] {
                        let whole = sources.clone().charge_in_chunks(Seconds(used), used, used);
                        for (step, more) in [(1, 1), (7, 60), (60, 60), (61, 300), (100, 40)] {
                            let chunked =
                                sources.clone().charge_in_chunks(Seconds(used), step, more);
                            assert_eq!(chunked, whole, "{used} by {step}+{more} of {sources:?}");
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 60_000, "{cases}");
}

crate::on_every_ledger! {
    a_charge_is_the_same_however_it_was_chunked
}

async fn a_charge_is_the_same_however_it_was_chunked<L: Ledger>(stage: &Stage<L>) {
    let mut random = fastrand::Rng::with_seed(7);
    stage.buy("first", 700_000).await;
    for round in 0..60 {
        let size = random.i64(0..400);
        let used = random.i64(1..700);
        let mut money = credits();
        money.tariff = TARIFFS[random.usize(0..TARIFFS.len())];
        let mut charges = vec![];
        for (way, steps) in [("whole", 1), ("chunked", random.i64(2..9))] {
            let (call, family) = (format!("{way}-{round}"), format!("X:{way}:{round}"));
            stage.set_pool(&family, size).await;
            let ask = request().pool(&family).money(money);
            let first = if steps == 1 { used } else { random.i64(1..=used) };
            if !matches!(stage.authorize(&call, ask.lasting(first)).await, Authorized::Decided(c) if c.state == CallState::Ringing)
            {
                charges.push(None);
                continue;
            }
            for step in 1..steps {
                let at = used * step / steps;
                stage.extended(&call, at, random.i64(1..400)).await;
            }
            let call = stage.settled(&call, used).await;
            charges.push(Some((
                call.pool_spent(),
                call.money_spent(),
                call.money_duration,
                call.shortfall_duration,
                call.shortfall_money,
            )));
            let spent = call.money_spent().0;
            if spent > 0 {
                stage.buy(&format!("refill-{way}-{round}"), spent).await;
            }
        }
        assert_eq!(charges[0], charges[1], "round {round}");
    }
}
