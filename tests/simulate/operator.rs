//! Everybody who is no SBC: the operator, the payment system, the sweeper, and bad luck.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;
use tollgate::administration::{AdministrationError, Amount, Authority};
use tollgate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, TenantId};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::ledger::state::BlockNote;
use tollgate::ledger::{EndResult, Ledger};
use tollgate::organisation;

use crate::places::{DECKS, deck_csv};
use crate::sbc::Sbc;
use crate::tally::{Bought, DAVES_CALLS, DAVES_LIMIT, Standing};
use crate::world::{Away, ENDED_RETENTION, Handle, Plan, World, locked};

const UNIT: i64 = 1_000_000;
const YEAR: i64 = 365 * 86_400_000;

pub fn contoso() -> TenantId {
    TenantId::new("contoso").unwrap()
}

pub fn fabrikam() -> TenantId {
    TenantId::new("fabrikam").unwrap()
}

/// Both organisations as the operator wants them.
fn document(plan: &Plan, suspended: bool, hal: Standing) -> String {
    let zone = plan.month.zone;
    let lost = if plan.charges_granted { "granted" } else { "proven" };
    let handling = if plan.retries { "retry_then_terminate" } else { "terminate" };
    let velocity = match plan.velocity {
        true => "spend_velocity: { amount: \"4\", per: 1h }",
        false => "blocked_prefixes: []",
    };
    let judged = if plan.recharge_on_available { "available" } else { "spent" };
    let recharge = match plan.recharge {
        true => format!(
            "auto_recharge: {{ trigger: \"2\", amount: \"3\", daily_cap: \"9\", recharge_on: {judged} }}"
        ),
        false => "trunks: []".to_owned(),
    };
    let state = if suspended { "suspended" } else { "active" };
    let hal = match hal {
        Standing::Active => "licences: [MCOEV, MCOPSTN5]",
        Standing::Unlicensed => "licences: []",
        Standing::Blocked => "state: blocked, licences: [MCOEV, MCOPSTN5]",
        Standing::Removed => "state: removed, licences: [MCOEV, MCOPSTN5]",
    };
    let limit = DAVES_LIMIT / UNIT;
    format!(
        r#"tenants:
  - id: contoso
    currency: USD
    state: {state}
    time_zone: {zone}
    on_lost_settle: {lost}
    deduct_shortfall: {deducts}
    failure_handling: {{ user_outbound: {handling} }}
    pool_increments: {{ MCOPSTN8: 1s }}
    {velocity}
    {recharge}
    users:
      - {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN5, MCOPSTNPP], numbers: ["+14255550100"] }}
      - {{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTN5] }}
      - {{ id: dave, usage_location: US, licences: [MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP], spend_limit: "{limit}", limits: {{ concurrent_calls: {calls} }} }}
      - {{ id: eve, usage_location: US, licences: [MCOEV, MCOPSTN8, MCOPSTNPP] }}
      - {{ id: olga, usage_location: US, licences: [MCOEV, MCOMEETADD, MCOPSTNPP] }}
      - {{ id: hal, usage_location: US, {hal} }}
    service_numbers:
      - {{ id: support, e164: "+18005550199", kind: toll_free }}
  - id: fabrikam
    currency: USD
    time_zone: {zone}
    billing: postpaid
    overage: true
    on_lost_settle: {lost}
    users:
      - {{ id: gina, usage_location: GB, licences: [MCOEV, MCOPSTN5, MCOPSTNPP] }}
"#,
        deducts = plan.deducts_shortfall,
        calls = DAVES_CALLS,
    )
}

type Done = Result<(), AdministrationError>;

/// The operator of one world.
pub struct Operator {
    world: Arc<World>,
    dice: Rng,
    acts: u64,
}

impl Operator {
    pub fn new(world: &Arc<World>) -> Operator {
        Operator { world: world.clone(), dice: world.dice(1), acts: 0 }
    }

    /// Decks, organisations and the first credits; one lot lapses while calls are placed.
    pub async fn set_up(&mut self) {
        self.activate(0).await;
        self.apply(false, Standing::Active).await;
        let begins = self.world.plan.begins.0;
        let lapses = begins + self.dice.i64(1..self.world.plan.window.0) * 1000;
        self.buy("old", 2 * UNIT, Some(Millis(lapses - YEAR))).await;
        let credits = self.world.plan.credits;
        if credits > 0 {
            self.buy("first", credits * UNIT, None).await;
        }
    }

    /// Changes this and that until the window is over.
    pub async fn work(mut self) {
        let ends = self.world.plan.begins.after(self.world.plan.window);
        loop {
            sleep(Duration::from_secs(self.dice.u64(20..900))).await;
            if self.world.now() > ends {
                return;
            }
            match self.dice.u8(..10) {
                0 => {
                    self.suspend(true).await;
                    sleep(Duration::from_secs(self.dice.u64(5..600))).await;
                    self.suspend(false).await;
                }
                1..=3 => {
                    let all = [Standing::Active, Standing::Unlicensed, Standing::Blocked];
                    let hal = match self.dice.u8(..6) {
                        5 => Standing::Removed,
                        n => all[usize::from(n) % 3],
                    };
                    locked(&self.world.tally).hal.begin(self.world.now(), hal);
                    self.apply(false, hal).await;
                    locked(&self.world.tally).hal.settle(self.world.now());
                }
                4 => {
                    let barred = !locked(&self.world.tally).barred.last();
                    locked(&self.world.tally).barred.begin(self.world.now(), barred);
                    self.set_block(barred).await;
                    locked(&self.world.tally).barred.settle(self.world.now());
                }
                5 => {
                    let deck = (locked(&self.world.tally).deck.last() + 1) % DECKS;
                    locked(&self.world.tally).deck.begin(self.world.now(), deck);
                    self.activate(deck).await;
                    locked(&self.world.tally).deck.settle(self.world.now());
                }
                6 => {
                    self.acts += 1;
                    let (key, amount) = (format!("po-{}", self.acts), self.dice.i64(1..5) * UNIT);
                    self.buy(&key, amount, None).await;
                }
                7 | 8 => self.correct_a_call().await,
                _ => self.correct_a_bucket().await,
            }
        }
    }

    async fn suspend(&self, suspended: bool) {
        let hal = locked(&self.world.tally).hal.last();
        locked(&self.world.tally).suspended.begin(self.world.now(), suspended);
        self.apply(suspended, hal).await;
        locked(&self.world.tally).suspended.settle(self.world.now());
    }

    /// Tries until it is done; what was refused for a reason.
    async fn until_done(&self, verb: &'static str, act: Handle<Done>) -> Done {
        loop {
            match self.world.administer(verb, act.clone()).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(AdministrationError::Ledger(_))) | None => {}
                Some(Err(refused)) => return Err(refused),
            }
            sleep(Duration::from_secs(3)).await;
        }
    }

    fn must(&self, what: &str, done: Done) {
        self.world.note(|| format!("operator: {what}"));
        if let Err(refused) = done {
            self.world.find(format!("{what} is refused: {refused}"));
        }
    }

    async fn activate(&self, deck: usize) {
        let act: Handle<Done> = Arc::new(move |at, _| {
            Box::pin(async move {
                let csv = deck_csv(deck);
                at.administration.activate_deck("default", csv.as_bytes()).await.map(drop)
            })
        });
        self.world.applied.fetch_add(1, Ordering::Relaxed);
        let done = self.until_done("activate_deck", act).await;
        self.world.applied.fetch_add(1, Ordering::Relaxed);
        self.must(&format!("deck {deck}"), done);
    }

    async fn apply(&self, suspended: bool, hal: Standing) {
        let text = document(&self.world.plan, suspended, hal);
        let read = organisation::read(&text).unwrap();
        let documents = Arc::new(organisation::check(&read).unwrap());
        let act: Handle<Done> = Arc::new(move |at, _| {
            let documents = documents.clone();
            Box::pin(async move { at.administration.apply(&documents).await.map(drop) })
        });
        self.world.applied.fetch_add(1, Ordering::Relaxed);
        let done = self.until_done("apply", act).await;
        self.world.applied.fetch_add(1, Ordering::Relaxed);
        self.must(&format!("apply, suspended {suspended}, hal {hal:?}"), done);
    }

    async fn set_block(&self, blocked: bool) {
        let act: Handle<Done> = Arc::new(move |at, _| {
            let note = BlockNote { reason: "fraud".to_owned(), operator: "eva".to_owned() };
            let hal = PayerId::new("hal").unwrap();
            Box::pin(async move {
                at.administration.set_block(&contoso(), &hal, blocked, note).await.map(drop)
            })
        });
        let done = self.until_done("set_block", act).await;
        self.must(&format!("block hal {blocked}"), done);
    }

    async fn buy(&self, key: &str, amount: i64, at: Option<Millis>) {
        let ends = at.map_or(i64::MAX, |at| at.0 + YEAR);
        let bought = Bought { amount, ends, ..Bought::default() };
        locked(&self.world.tally).lots.insert(key.to_owned(), bought);
        let lot = LotId::new(key).unwrap();
        let act: Handle<Done> = Arc::new(move |on, _| {
            let lot = lot.clone();
            Box::pin(async move {
                let (tenant, amount) = (contoso(), Micros(amount));
                let bought = on.administration.purchase(&tenant, lot, amount, "USD", at, [].into());
                bought.await.map(drop)
            })
        });
        let done = self.until_done("purchase", act).await;
        self.must(&format!("buy {key} for {amount} micros"), done);
        locked(&self.world.tally).lots.get_mut(key).unwrap().arrived = true;
    }

    fn authority(&mut self) -> Authority {
        self.acts += 1;
        Authority {
            key: AdjustmentId::new(&format!("fix-{}", self.acts)).unwrap(),
            reason: "complaint".to_owned(),
            operator: "eva".to_owned(),
        }
    }

    async fn correct_a_call(&mut self) {
        let settled: Vec<(TenantId, CallId)> = locked(&self.world.tally)
            .calls
            .values()
            .filter(|facts| {
                let charge = facts.ended.as_ref().map(|(_, charge)| charge);
                let charged = charge.is_some_and(|charge| {
                    charge.result == EndResult::Settled && charge.recorded_duration.is_positive()
                });
                charged && facts.corrected.is_none() && !facts.local
            })
            .map(|facts| (facts.tenant.clone(), facts.call.clone()))
            .collect();
        if settled.is_empty() {
            return;
        }
        let (tenant, call) = settled[self.dice.usize(..settled.len())].clone();
        let used = self.dice.i64(0..1500);
        let authority = self.authority();
        self.world.facts(&call, |facts| facts.corrected = Some(used));
        let named = call.clone();
        let act: Handle<Done> = Arc::new(move |at, _| {
            let (tenant, call, authority) = (tenant.clone(), named.clone(), authority.clone());
            Box::pin(async move {
                let used = Seconds(used);
                let done = at.administration.adjust_settlement(&tenant, &call, used, &authority);
                done.await.map(drop)
            })
        });
        let done = self.until_done("adjust_settlement", act).await;
        self.world.note(|| format!("operator: {call} used {used} s: {done:?}"));
        if done.is_err() {
            // Recorded with that usage before, or its end was an expiry.
            self.world.facts(&call, |facts| facts.corrected = None);
        }
    }

    async fn correct_a_bucket(&mut self) {
        let month = match self.world.now().0 < self.world.plan.month.at {
            true => self.world.plan.month.before,
            false => self.world.plan.month.after,
        };
        let (bucket, amount, number) = match self.dice.bool() {
            true => {
                let number = self.dice.i64(-1_800..1_800);
                let pool = format!("US:MCOPSTN5:DOMESTIC:{month}");
                (pool, Amount::Minutes(Seconds(number)), number)
            }
            false => {
                let number = self.dice.i64(-UNIT..UNIT);
                ("old".to_owned(), Amount::Money(Micros(number), "USD".to_owned()), number)
            }
        };
        if number == 0 {
            return;
        }
        let authority = self.authority();
        let named = bucket.clone();
        let act: Handle<Done> = Arc::new(move |at, _| {
            let (bucket, amount, authority) = (named.clone(), amount.clone(), authority.clone());
            Box::pin(async move {
                let tenant = contoso();
                let done = at.administration.adjust_balance(&tenant, &bucket, &amount, &authority);
                done.await.map(drop)
            })
        });
        let strays = self.world.strays("adjust_balance");
        let done = self.until_done("adjust_balance", act).await;
        self.world.note(|| format!("operator: {number} to {bucket}: {done:?}"));
        let mut tally = locked(&self.world.tally);
        let sums = tally.adjusted.entry(bucket).or_insert_with(|| BTreeSet::from([0]));
        let moved = sums.iter().map(|sum| sum + number).collect();
        match done {
            Ok(()) => *sums = moved,
            // What is refused is not remembered: a duplicate that comes behind may find more there.
            Err(_) if self.world.strays("adjust_balance") > strays => sums.extend(moved),
            Err(_) => {}
        }
    }
}

/// The payment system: it hears of requests, takes its time, and reports, now and then twice or both ways.
pub async fn pay(world: Arc<World>) {
    let mut dice = world.dice(2);
    let ends = world.plan.begins.after(world.plan.window);
    while world.now() < ends {
        sleep(Duration::from_secs(dice.u64(20..200))).await;
        let look: Handle<Option<(LotId, i64)>> = Arc::new(|at, _| {
            Box::pin(async move {
                let balance = at.administration.balance(&contoso()).await.ok()?;
                let (key, request) = balance.recharge?.in_flight?;
                Some((key, request.amount.0))
            })
        });
        let Some(Some((key, amount))) = world.administer("get_balance", look).await else {
            continue;
        };
        let bought = Bought { amount, ends: i64::MAX, ..Bought::default() };
        locked(&world.tally).recharges.entry(key.as_str().to_owned()).or_insert(bought);
        match dice.u8(..8) {
            0 => {}
            1 => report(world.clone(), key, false).await,
            2 => {
                world.point("recharge", "reported failed and succeeded at once");
                let failed = tokio::spawn(report(world.clone(), key.clone(), false));
                report(world.clone(), key, true).await;
                let _ = failed.await;
            }
            3 => {
                world.point("recharge", "reported twice");
                report(world.clone(), key.clone(), true).await;
                report(world.clone(), key, true).await;
            }
            _ => report(world.clone(), key, true).await,
        }
    }
}

async fn report(world: Arc<World>, key: LotId, succeeded: bool) {
    loop {
        let named = key.clone();
        let act: Handle<Done> = Arc::new(move |at, _| {
            let key = named.clone();
            let outcome = if succeeded { Ok(()) } else { Err("card declined".to_owned()) };
            Box::pin(async move {
                at.administration.report_recharge(&contoso(), key, outcome).await.map(drop)
            })
        });
        let done = world.administer("report_recharge", act).await;
        world.note(|| format!("recharge {key} succeeded {succeeded}: {done:?}"));
        match done {
            Some(Ok(())) => {
                let mut tally = locked(&world.tally);
                let known = tally.recharges.get_mut(key.as_str()).unwrap();
                known.arrived |= succeeded;
                return;
            }
            // The other report came first.
            Some(Err(AdministrationError::Refused { .. })) if !succeeded => return,
            Some(Err(AdministrationError::Ledger(_))) | None => {}
            Some(Err(refused)) => {
                return world.find(format!("recharge {key} cannot be reported: {refused}"));
            }
        }
        sleep(Duration::from_secs(3)).await;
    }
}

/// What every sidecar does by itself; one at a time does for all.
pub async fn sweep(world: Arc<World>) {
    let mut dice = world.dice(3);
    loop {
        sleep(Duration::from_millis(dice.u64(5_000..45_000))).await;
        let slot = dice.usize(..world.plan.sidecars);
        let Some(sidecar) = world.sidecar(slot) else { continue };
        for tenant in [contoso(), fabrikam()] {
            let _ = sidecar.control.ledger().sweep(&tenant, 128, ENDED_RETENTION).await;
        }
    }
}

/// Crashes, restarts, and a ledger that is away.
pub async fn bad_luck(world: Arc<World>, sbcs: Vec<Arc<Sbc>>) {
    let mut dice = world.dice(4);
    let ends = world.plan.begins.after(world.plan.window);
    let mut under_way = vec![];
    loop {
        sleep(Duration::from_secs(dice.u64(30..1_200))).await;
        if world.now() > ends {
            break;
        }
        match dice.u8(..8) {
            0..=2 => {
                let slot = dice.usize(..world.plan.sidecars);
                world.crash_sidecar(slot);
                let (world, pause) = (world.clone(), dice.u64(..60_000));
                under_way.push(tokio::spawn(async move {
                    sleep(Duration::from_millis(pause)).await;
                    world.start_sidecar(slot);
                }));
            }
            3 | 4 => {
                let away = if dice.bool() { Away::Refuses } else { Away::Hangs };
                world.note(|| format!("the ledger: {away:?}"));
                world.set_away(away);
                let most = if dice.u8(..4) == 0 { 600 } else { 30 };
                sleep(Duration::from_secs(dice.u64(1..most))).await;
                world.set_away(Away::No);
                world.note(|| "the ledger is back".to_owned());
            }
            5 => {
                let sbc = sbcs[dice.usize(..sbcs.len())].clone();
                under_way.push(tokio::spawn(sbc.restart([contoso(), fabrikam()])));
            }
            _ => {}
        }
    }
    for task in under_way {
        let _ = task.await;
    }
}

/// The ledger goes back now and then, by up to two minutes. What an operator has applied is in no journal, so
/// that it is never lost here.
pub async fn go_back(world: Arc<World>) {
    let mut dice = world.dice(5);
    let ends = world.plan.begins.after(world.plan.window);
    let tenants = [contoso(), fabrikam()];
    loop {
        sleep(Duration::from_secs(dice.u64(20..1_500))).await;
        let applied = world.applied.load(Ordering::Relaxed);
        let kept = world.keep(&tenants);
        let longest = if dice.bool() { 5_000 } else { 120_000 };
        sleep(Duration::from_millis(dice.u64(1..longest))).await;
        if world.now() > ends {
            return;
        }
        if applied % 2 == 1 || world.applied.load(Ordering::Relaxed) != applied {
            continue;
        }
        world.point("ledger goes back", if longest > 5_000 { "far" } else { "a little" });
        world.note(|| "the ledger goes back".to_owned());
        let crashes = dice.u8(..4) == 0;
        if crashes {
            world.crash_sidecar(0);
        }
        world.roll_back(&tenants, &kept);
        if crashes {
            sleep(Duration::from_millis(dice.u64(..60_000))).await;
            world.start_sidecar(0);
        }
    }
}
