//! A run from its beginning to its judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tollgate::charging::decision::Decision;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::{Micros, Seconds};
use tollgate::credit_control::answer::funding_charged;
use tollgate::ledger::audit::audit;
use tollgate::ledger::state::{Bucket, Call, CallState, EntryKind};
use tollgate::ledger::{Balance, Ledger};

use crate::operator::{self, Operator, contoso, fabrikam};
use crate::places::Place;
use crate::sbc::Sbc;
use crate::tally::{DAVES_LIMIT, SEAT, judge_call};
use crate::world::{ENDED_RETENTION, Sidecar, World, locked};

/// Nothing in a run takes longer: three hours until a late settle, and all of its repeats.
const PATIENCE: Duration = Duration::from_secs(12 * 3600);

/// The longest grant, its ringing and its grace.
const LONGEST_HOLD: Duration = Duration::from_secs(5 * 3600);

pub async fn run(world: &Arc<World>) {
    world.start_sidecars();
    let mut operator = Operator::new(world);
    operator.set_up().await;
    world.set_calm(false);
    let sbcs: Vec<_> = (0..world.plan.sbcs).map(|n| Sbc::new(world, n)).collect();
    let mut tasks = vec![
        tokio::spawn(operator.work()),
        tokio::spawn(operator::pay(world.clone())),
        tokio::spawn(operator::bad_luck(world.clone(), sbcs.clone())),
    ];
    if world.plan.goes_back {
        tasks.push(tokio::spawn(operator::go_back(world.clone())));
    }
    let sweeper = tokio::spawn(operator::sweep(world.clone()));
    for (number, sbc) in (0..).zip(&sbcs) {
        tasks.extend(sbc.place_calls(number));
    }
    let half = Duration::from_secs(u64::try_from(world.plan.window.0 / 2).unwrap());
    sleep(half).await;
    audit_books(world, Seconds(3600)).await;
    // Faults end with the window, so that what is repeated until it is heard is heard.
    sleep(half).await;
    world.set_calm(true);
    world.start_sidecars();
    if world.plan.goes_back {
        // What nobody has asked about since is looked for.
        world.sidecar(0).unwrap().look_for_losses();
    }
    let everybody = async {
        for task in tasks {
            let _ = task.await;
        }
    };
    if timeout(PATIENCE, everybody).await.is_err() {
        return world.find("somebody still waits".to_owned());
    }
    sleep(LONGEST_HOLD).await;
    sweeper.abort();
    world.start_sidecars();
    let sidecar = world.sidecar(0).unwrap();
    settle_down(world, &sidecar).await;
    audit_books(world, Seconds::ZERO).await;
    judge(world, &sidecar).await;
    forget(world, &sidecar).await;
}

async fn settle_down(world: &Arc<World>, sidecar: &Sidecar) {
    for slot in 0..world.plan.sidecars {
        let sidecar = world.sidecar(slot).unwrap();
        if !sidecar.control.flush_records(Duration::from_secs(60)).await {
            world.find("records still wait for the ledger".to_owned());
        }
        if !sidecar.drained(Duration::from_secs(60)).await {
            world.find("the journal still holds what the ledger has to do".to_owned());
        }
        if !sidecar.is_whole(&[contoso(), fabrikam()]).await {
            world.find("what the ledger has lost is not replayed".to_owned());
        }
    }
    for tenant in [contoso(), fabrikam()] {
        while let Ok(swept) = sidecar.control.ledger().sweep(&tenant, 128, ENDED_RETENTION).await {
            if swept.outcome.expired == 0 && swept.outcome.lapsed == 0 {
                break;
            }
        }
    }
}

async fn audit_books(world: &Arc<World>, bound: Seconds) {
    for tenant in [contoso(), fabrikam()] {
        let snapshot = world.store.snapshot(&tenant).await.unwrap().outcome;
        for finding in audit(&tenant, world.now(), bound, &snapshot).findings {
            world.find(format!("audit of {tenant}: {finding:?}"));
        }
    }
}

/// Compares what everybody was told with calls and balances, as an operator reads them.
async fn judge(world: &Arc<World>, sidecar: &Sidecar) {
    let keys: Vec<_> = locked(&world.tally)
        .calls
        .values()
        .map(|facts| (facts.tenant.clone(), facts.call.clone()))
        .collect();
    let mut found: BTreeMap<String, Call> = BTreeMap::new();
    for (tenant, call) in &keys {
        if let Ok((known, _)) = sidecar.administration.call(tenant, call).await {
            found.insert(call.as_str().to_owned(), known);
        }
    }
    let mut spent: BTreeMap<TenantId, BTreeMap<String, i64>> = BTreeMap::new();
    let mut wrong = vec![];
    {
        let tally = locked(&world.tally);
        for (key, facts) in &tally.calls {
            let known = found.get(key);
            let spent = spent.entry(facts.tenant.clone()).or_default();
            let how = (world.plan.charges_granted, world.era() > 0);
            if let Err(why) = judge_call(facts, known, &tally, how, spent) {
                wrong.push(format!("{key} of {}: {why}", facts.payer));
            }
            let Some(call) = known else { continue };
            for line in funding_charged(call) {
                let lot = tally.lots.get(&line.bucket);
                if lot.is_some_and(|lot| lot.ends <= facts.first_sent.0) {
                    wrong.push(format!("{key} is paid by {}, which had lapsed", line.bucket));
                }
            }
        }
        let of_dave = || tally.calls.iter().filter(|(_, facts)| facts.payer == "dave");
        let within = world.era() == 0
            && of_dave().all(|(_, facts)| {
                let used = facts.ended.as_ref().map_or(0, |(used, _)| *used);
                facts.in_time && used <= facts.granted && facts.corrected.is_none()
            });
        let mut by_month: BTreeMap<&str, i64> = BTreeMap::new();
        for money in of_dave().filter_map(|(key, _)| found.get(key)?.money.as_ref()) {
            *by_month.entry(&money.month).or_default() += money.spent().0;
        }
        if within && by_month.values().any(|spent| *spent > DAVES_LIMIT) {
            wrong.push(format!("dave spent {by_month:?}, his limit is {DAVES_LIMIT}"));
        }
    }
    for tenant in [contoso(), fabrikam()] {
        let spent = spent.remove(&tenant).unwrap_or_default();
        judge_balance(world, sidecar, &tenant, spent, &found, &mut wrong).await;
    }
    judge_emergencies(world, &mut wrong).await;
    wrong.into_iter().for_each(|what| world.find(what));
}

async fn judge_balance(
    world: &Arc<World>,
    sidecar: &Sidecar,
    tenant: &TenantId,
    spent: BTreeMap<String, i64>,
    calls: &BTreeMap<String, Call>,
    wrong: &mut Vec<String>,
) {
    let ledger = sidecar.control.ledger();
    let Ok(reply) = ledger.balance(tenant).await else { return };
    let balance: Balance = reply.outcome;
    let pools = balance.pools.iter().map(|(id, bucket)| (id.as_str().to_owned(), *bucket));
    let lots = balance.lots.iter().chain(&balance.overage);
    let lots = lots.map(|lot| (lot.key.as_str().to_owned(), lot.bucket));
    let buckets: BTreeMap<String, Bucket> = pools.chain(lots).collect();
    judge_buckets(world, tenant, &balance, &buckets, &spent, calls, wrong);
    if tenant != &contoso() {
        return;
    }
    if let Ok(told) = sidecar.administration.balance(tenant).await {
        let sum = |of: fn(&Bucket) -> i64| {
            Micros(balance.lots.iter().map(|lot| of(&lot.bucket)).sum::<i64>())
        };
        if (told.credits.spent, told.credits.held) != (sum(|lot| lot.spent), Micros::ZERO) {
            wrong.push(format!("GetBalance tells {:?}", told.credits));
        }
        for pool in told.pools {
            let spent = buckets.get(pool.id.as_str()).map_or(0, |bucket| bucket.spent);
            if (pool.spent.0, pool.held.0) != (spent, 0) {
                wrong.push(format!("GetBalance tells {pool:?}"));
            }
        }
    }
}

fn judge_buckets(
    world: &World,
    tenant: &TenantId,
    balance: &Balance,
    buckets: &BTreeMap<String, Bucket>,
    spent: &BTreeMap<String, i64>,
    calls: &BTreeMap<String, Call>,
    wrong: &mut Vec<String>,
) {
    let tally = locked(&world.tally);
    let mut collected = 0;
    for (name, bucket) in buckets {
        if bucket.held != 0 || bucket.holds != 0 {
            wrong.push(format!("{name} still has {} held by {}", bucket.held, bucket.holds));
        }
        let due = spent.get(name).copied().unwrap_or_default();
        let is_lot = tally.lots.contains_key(name) || tally.recharges.contains_key(name);
        if is_lot && world.plan.deducts_shortfall && tenant == &contoso() {
            collected += bucket.spent - due;
        } else if bucket.spent != due {
            wrong.push(format!("{name} has spent {}, the calls say {due}", bucket.spent));
        }
        let never = BTreeSet::from([0]);
        let adjusted = tally.adjusted.get(name).unwrap_or(&never);
        if tenant == &contoso() && !adjusted.contains(&bucket.adjusted) {
            wrong.push(format!("{name} is adjusted by {}, not {adjusted:?}", bucket.adjusted));
        }
        if let Some(month) = name.strip_prefix("US:MCOPSTN5:DOMESTIC:") {
            let most = tally.most_seats() * SEAT + adjusted.last().unwrap_or(&0);
            if bucket.spent > most.max(tally.most_seats() * SEAT) {
                wrong.push(format!("{name} has spent {} of {most}", bucket.spent));
            }
            let is_current = month == world.plan.month.after || world.now().0 < world.plan.month.at;
            if is_current && bucket.funded != tally.seats_now() * SEAT {
                let seats = tally.seats_now();
                wrong.push(format!("{name} has {} s for {seats} seats", bucket.funded));
            }
        }
    }
    for (name, due) in spent {
        if *due > 0 && !buckets.contains_key(name) {
            wrong.push(format!("the calls spent {due} of {name}, which is not there"));
        }
    }
    if balance.wallet_holds != 0 {
        wrong.push(format!("{} calls still hold money", balance.wallet_holds));
    }
    if tenant != &contoso() {
        return;
    }
    let funded: BTreeMap<&str, i64> =
        balance.lots.iter().map(|lot| (lot.key.as_str(), lot.bucket.funded)).collect();
    wrong.extend(tally.judge_lots(&funded).err());
    // Shortfalls are owed until a purchase has paid them; a correction may have lowered them after that.
    let corrected = tally.calls.values().any(|facts| facts.corrected.is_some());
    let short: i64 = tally
        .calls
        .iter()
        .filter(|(_, facts)| facts.tenant == *tenant && facts.ended.is_some())
        .filter_map(|(key, _)| calls.get(key))
        .filter(|call| call.state == CallState::Settled)
        .map(|call| call.shortfall_money.0)
        .sum();
    if !corrected && collected + balance.owed.0 != short {
        let owed = balance.owed;
        wrong.push(format!("calls fell short of {short}, {collected} was paid, {owed} is owed"));
    }
}

/// Every emergency call of a sidecar that did not crash is on record.
async fn judge_emergencies(world: &Arc<World>, wrong: &mut Vec<String>) {
    let granted: Vec<_> = locked(&world.tally).emergencies.values().cloned().collect();
    for (tenant, call) in granted {
        let journal = world.store.journal(&tenant, None, usize::MAX).await.unwrap().items;
        let recorded = journal.iter().any(|entry| {
            // The other one where it was lost and put back.
            matches!(entry.kind, EntryKind::Authorized | EntryKind::Restored)
                && entry.subject == call.as_str()
                && entry.decision == Some(Decision::AllowedEmergency)
        });
        // One that was decided after its release is on record beside a key that is closed, and in no journal.
        let is_closed = world.store.call(&tenant, &call).await.unwrap();
        let is_closed = is_closed.is_some_and(|call| call.state == CallState::Ended);
        if !(recorded || is_closed && world.era() > 0) {
            let number = Place::Emergency.number();
            wrong.push(format!("{call} to {number} is not on record"));
        }
    }
}

/// Emergency calls that nobody ended expire after a day; a day later every call is forgotten, and no
/// balance has changed for it.
async fn forget(world: &Arc<World>, sidecar: &Sidecar) {
    sleep(Duration::from_secs(25 * 3600)).await;
    settle_down(world, sidecar).await;
    sleep(Duration::from_secs(25 * 3600)).await;
    for tenant in [contoso(), fabrikam()] {
        let ledger = sidecar.control.ledger();
        let spent = |balance: Balance| {
            let pools = balance.pools.into_iter().map(|(_, bucket)| bucket.spent);
            let lots = balance.lots.into_iter().map(|lot| lot.bucket.spent);
            pools.chain(lots).sum::<i64>()
        };
        let before = spent(ledger.balance(&tenant).await.unwrap().outcome);
        while let Ok(swept) = ledger.sweep(&tenant, 128, ENDED_RETENTION).await {
            if swept.outcome.forgotten == 0 {
                break;
            }
        }
        let snapshot = ledger.snapshot(&tenant).await.unwrap().outcome;
        if !snapshot.calls.is_empty() || !snapshot.deadlines.is_empty() {
            world.find(format!("{} calls of {tenant} are kept", snapshot.calls.len()));
        }
        if snapshot.tenant.open != 0 || snapshot.payers.iter().any(|(_, p)| p.open != 0) {
            world.find(format!("{} calls of {tenant} are counted", snapshot.tenant.open));
        }
        let after = spent(ledger.balance(&tenant).await.unwrap().outcome);
        if before != after {
            world.find(format!("{tenant} had spent {before}, now {after}"));
        }
    }
    audit_books(world, Seconds::ZERO).await;
}
