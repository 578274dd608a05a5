//! An SBC: it places calls, keeps their timers, repeats what is not answered, misbehaves, and restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{CallId, PayerId, TenantId};
use tollgate::charging::units::{Millis, Seconds};
use tollgate::credit_control::answer::{Answer, Charge, EndReport};
use tollgate::credit_control::emergency::RawRequest;
use tollgate::credit_control::{
    AuthorizeRequest, EndRequest, EndedCalls, ExtendRequest, UseCaseError,
};
use tollgate::ledger::{EndResult, Ending, Ledger};

use crate::places::Place;
use crate::tally::{Facts, Money};
use crate::world::{World, locked};

type Reply<T> = Option<Result<T, UseCaseError>>;

/// What a client never sends, so that a conflict is one by its payload alone.
const OTHER_NUMBER: &str = "+12065550199";

pub struct Sbc {
    world: Arc<World>,
    trunk: String,
    /// How often it has restarted.
    life: AtomicU64,
    /// When it last did.
    restarted: AtomicI64,
}

impl Sbc {
    pub fn new(world: &Arc<World>, number: usize) -> Arc<Sbc> {
        Arc::new(Sbc {
            world: world.clone(),
            trunk: format!("sbc-{number}"),
            life: AtomicU64::new(0),
            restarted: AtomicI64::new(0),
        })
    }

    /// Places its calls at instants of the window; the tasks end with the last word about each call.
    pub fn place_calls(self: &Arc<Self>, number: u64) -> Vec<JoinHandle<()>> {
        let mut dice = self.world.dice(100 + number);
        let calls = 0..self.world.plan.calls_per_sbc;
        calls
            .map(|n| {
                let (sbc, mut dice) = (self.clone(), dice.fork());
                tokio::spawn(async move {
                    let window = u64::try_from(sbc.world.plan.window.0).unwrap();
                    sleep(Duration::from_millis(dice.u64(..window * 1000))).await;
                    Leg::draw(sbc, n, dice).run().await;
                })
            })
            .collect()
    }

    /// Forgets every call, and has those that it may have had ended.
    pub async fn restart(self: Arc<Self>, tenants: [TenantId; 2]) {
        let world = self.world.clone();
        let now = world.now();
        self.life.fetch_add(1, Ordering::Relaxed);
        self.restarted.store(now.0, Ordering::Relaxed);
        world.point("SBC restarts", "EndCalls");
        world.note(|| format!("{} restarts", self.trunk));
        let of_mine = format!("{}|", self.trunk);
        // Where nothing arrives late, nothing can begin to hold again after it was ended.
        let is_orderly = world.plan.ledger_faults == 0 && world.plan.client_faults == 0;
        let mut running = vec![];
        for (call, facts) in &mut locked(&world.tally).calls {
            if call.starts_with(&of_mine) {
                let told = facts.decided.as_ref().map(|(answer, _)| answer.decision);
                if is_orderly && told == Some(Decision::Allowed) && !facts.ending {
                    running.push((facts.tenant.clone(), facts.call.clone()));
                }
                facts.ending = true;
                facts.in_time = false;
            }
        }
        for tenant in tenants {
            loop {
                let (trunk, of) = (self.trunk.clone(), tenant.clone());
                let reply: Reply<EndedCalls> = world
                    .message(
                        "end_calls",
                        Arc::new(move |at, deadline| {
                            let (trunk, of) = (trunk.clone(), of.clone());
                            Box::pin(async move {
                                at.control.end_calls(&of, &trunk, now, deadline).await
                            })
                        }),
                    )
                    .await;
                match reply {
                    Some(Ok(ended)) => {
                        world.note(|| format!("{} ended {}", self.trunk, ended.calls.len()));
                        break;
                    }
                    _ => sleep(Duration::from_secs(5)).await,
                }
            }
        }
        for (tenant, call) in running {
            let found = world.store.call(&tenant, &call).await.unwrap();
            if found.is_some_and(|found| found.state.is_open()) {
                world.find(format!("{call} runs on after its SBC has restarted"));
            }
        }
    }
}

/// What its SBC does wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Good,
    /// Talks on after the hard stop.
    Overruns,
    /// Settles long after the end.
    SettlesLate,
    /// Sends old extensions once more.
    RepeatsOldReports,
    /// Uses the key for another call.
    ReusesTheKey,
    /// Lets a refused call through.
    IgnoresRefusals,
    /// Releases a call that is being answered.
    CrossesCancelAndAnswer,
    /// Never says how the call ended.
    NeverSettles,
    /// Sends each settle twice, the second time with less.
    SettlesTwice,
    /// Settles with less than it has reported.
    SettlesLess,
    /// Releases a call that it has reported answered.
    ReleasesAnswered,
}

/// One call leg.
struct Leg {
    world: Arc<World>,
    sbc: Arc<Sbc>,
    life: u64,
    dice: Rng,
    request: AuthorizeRequest,
    place: Place,
    habit: Habit,
    rings: i64,
    talks: i64,
    is_answered: bool,
    sequence: i64,
    /// The last one that was acknowledged.
    heard_sequence: i64,
    /// Every report had a sequence and was acknowledged.
    is_tidy: bool,
    answered_at: Option<Instant>,
}

impl Leg {
    fn draw(sbc: Arc<Sbc>, n: usize, mut dice: Rng) -> Leg {
        let world = sbc.world.clone();
        let payers = ["alice", "alice", "bob", "dave", "dave", "eve", "olga", "hal", "support"];
        let is_fabrikam = dice.u8(..6) == 0;
        let payer = if is_fabrikam { "gina" } else { payers[dice.usize(..payers.len())] };
        let call_type = match payer {
            "olga" => CallType::ConferenceDialOut,
            "support" => CallType::TollFreeInbound,
            _ => CallType::UserOutbound,
        };
        let place = match (payer, dice.u8(..20)) {
            ("support", _) => Place::UnitedStates,
            (_, 0) => Place::Emergency,
            (_, 1) => Place::Nowhere,
            (_, 2) => Place::Japan,
            ("gina" | "olga", 3) => Place::Germany,
            (_, 3) => Place::Colleague,
            (_, 4 | 5) => Place::Germany,
            (_, 6 | 7) => Place::France,
            ("gina", 8..=11) => Place::UnitedStates,
            (_, 8..=11) => Place::Britain,
            ("gina", _) => Place::Britain,
            _ => Place::UnitedStates,
        };
        let habits = [
            Habit::Overruns,
            Habit::SettlesLate,
            Habit::RepeatsOldReports,
            Habit::ReusesTheKey,
            Habit::IgnoresRefusals,
            Habit::CrossesCancelAndAnswer,
            Habit::NeverSettles,
            Habit::SettlesTwice,
            Habit::SettlesLess,
            Habit::ReleasesAnswered,
        ];
        let habit = if dice.bool() { Habit::Good } else { habits[dice.usize(..habits.len())] };
        let requested =
            [None, Some(60), Some(90), Some(600), Some(3600), Some(4 * 3600)][dice.usize(..6)];
        let inbound = call_type == CallType::TollFreeInbound;
        let request = AuthorizeRequest {
            tenant: TenantId::new(if is_fabrikam { "fabrikam" } else { "contoso" }).unwrap(),
            call: CallId::new(&format!("{}|{n}", sbc.trunk)).unwrap(),
            call_type,
            payer: PayerId::new(payer).unwrap(),
            calling_number: if inbound { "+12065550123".to_owned() } else { String::new() },
            called_number: if inbound { "+18005550199" } else { place.number() }.to_owned(),
            original_called_number: String::new(),
            requested: requested.map(Seconds),
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: sbc.trunk.clone(),
            reports_answer: dice.bool(),
            labels: Default::default(),
        };
        Leg {
            life: sbc.life.load(Ordering::Relaxed),
            world,
            sbc,
            request,
            place,
            habit,
            rings: if dice.u8(..8) == 0 { dice.i64(150..400) } else { dice.i64(0..40) },
            talks: if dice.bool() { dice.i64(1..200) } else { dice.i64(1..4_000) },
            is_answered: dice.u8(..5) > 0,
            dice,
            sequence: 0,
            heard_sequence: 0,
            is_tidy: true,
            answered_at: None,
        }
    }

    fn call(&self) -> &CallId {
        &self.request.call
    }

    fn is_forgotten(&self) -> bool {
        self.sbc.life.load(Ordering::Relaxed) != self.life
    }

    async fn run(mut self) {
        let payer = match self.request.payer.as_str() {
            "alice" => "alice",
            "bob" => "bob",
            "dave" => "dave",
            "eve" => "eve",
            "olga" => "olga",
            "hal" => "hal",
            "gina" => "gina",
            _ => "support",
        };
        let facts = Facts {
            tenant: self.request.tenant.clone(),
            call: self.call().clone(),
            payer,
            place: self.place,
            call_type: self.request.call_type,
            money: match payer {
                "bob" | "hal" => Money::Never,
                "olga" | "gina" => Money::Perhaps,
                _ if self.place == Place::Japan => Money::Never,
                _ => Money::Always,
            },
            first_sent: self.world.now(),
            decided: None,
            local: false,
            granted: 0,
            acknowledged: 0,
            sent: 0,
            era: 0,
            held_until: Millis::ZERO,
            in_time: true,
            ending: false,
            ended: None,
            corrected: None,
        };
        locked(&self.world.tally).calls.insert(self.call().as_str().to_owned(), facts);
        if self.dice.u8(..10) == 0 {
            self.quote().await;
        }
        let answer = self.authorize().await;
        if self.is_forgotten() {
            return self.lose().await;
        }
        let granted = match &answer {
            Some(answer) => answer.grant.as_ref().map(|grant| grant.granted.0),
            None => None,
        };
        match granted {
            Some(granted) => self.go_on(granted).await,
            None if self.habit == Habit::IgnoresRefusals => {
                self.world.point("SBC misbehaves", "lets a refused call through");
                sleep(Duration::from_secs(20)).await;
                self.extend(10).await;
                self.end(Ending::Settle(Seconds(20))).await;
            }
            // Whether anything was held nobody knows: it is given back.
            None if answer.is_none_or(|a| a.decision == Decision::LedgerUnavailable) => {
                self.end(Ending::Release).await;
            }
            None => {}
        }
    }

    /// The call is allowed: it rings, is talked, and ends.
    async fn go_on(mut self, mut granted: i64) {
        if self.habit == Habit::ReusesTheKey {
            self.reuse_the_key().await;
        }
        sleep(Duration::from_secs(u64::try_from(self.rings).unwrap())).await;
        if self.is_forgotten() {
            return self.lose().await;
        }
        if !self.is_answered {
            let how = if self.dice.bool() { Ending::Release } else { Ending::Settle(Seconds(0)) };
            return self.end(how).await;
        }
        if self.habit == Habit::CrossesCancelAndAnswer {
            self.world.point("SBC misbehaves", "cancel and answer cross");
            self.end(Ending::Release).await;
            sleep(Duration::from_secs(30)).await;
            return self.end(Ending::Settle(Seconds(30))).await;
        }
        let answered_at = Instant::now();
        self.answered_at = Some(answered_at);
        if self.request.reports_answer {
            self.report_answer().await;
        }
        let overrun = match self.habit {
            Habit::Overruns => self.dice.i64(1..200),
            _ => 0,
        };
        let mut next = granted * 4 / 5;
        loop {
            // As much as the grant allows, as much as there is to say.
            let stop = self.talks.min(granted + overrun);
            let until = next.min(stop);
            tokio::time::sleep_until(
                answered_at + Duration::from_secs(u64::try_from(until).unwrap()),
            )
            .await;
            if self.is_forgotten() {
                return self.lose().await;
            }
            if until >= stop || next >= granted {
                tokio::time::sleep_until(
                    answered_at + Duration::from_secs(u64::try_from(stop).unwrap()),
                )
                .await;
                break;
            }
            let used = Instant::now().duration_since(answered_at).as_secs();
            match self.extend(i64::try_from(used).unwrap()).await {
                Some(Some(more)) if more > granted => {
                    next = granted + (more - granted) * 4 / 5;
                    granted = more;
                }
                // Nothing more, or no answer: the hard stop stands.
                _ => next = granted,
            }
        }
        if self.is_forgotten() {
            return self.lose().await;
        }
        let used = i64::try_from(Instant::now().duration_since(answered_at).as_secs()).unwrap();
        let used = used.max(1).min(granted + overrun);
        if overrun > 0 && used > granted {
            self.world.point("SBC misbehaves", "talks on after the hard stop");
        }
        match self.habit {
            Habit::NeverSettles => {
                self.world.point("SBC misbehaves", "never settles");
                self.world.facts(self.call(), |facts| facts.ending = true);
                return;
            }
            Habit::SettlesLate => {
                self.world.point("SBC misbehaves", "settles late");
                sleep(Duration::from_secs(self.dice.u64(..3 * 3600))).await;
            }
            _ => {}
        }
        if self.habit == Habit::SettlesLess {
            self.world.point("SBC misbehaves", "settles with less than it has reported");
            return self.end(Ending::Settle(Seconds((used / 3).max(1)))).await;
        }
        if self.habit == Habit::ReleasesAnswered {
            self.release_though_answered().await;
        }
        self.end(Ending::Settle(Seconds(used))).await;
        if self.habit == Habit::SettlesTwice && used > 1 {
            self.world.point("SBC misbehaves", "settles again with less");
            self.settle_again(used / 2).await;
        }
    }

    /// The SBC restarted: half of its calls are found in its records later.
    async fn lose(mut self) {
        self.world.facts(self.call(), |facts| {
            facts.ending = true;
            facts.in_time = false;
        });
        let restarted = self.sbc.restarted.load(Ordering::Relaxed);
        let Some(answered_at) = self.answered_at else { return };
        if self.dice.bool() {
            return;
        }
        let since = Instant::now().duration_since(answered_at).as_secs();
        let late = (self.world.now().0 - restarted) / 1000;
        let granted = self.world.facts(self.call(), |facts| facts.granted);
        let used = (i64::try_from(since).unwrap() - late).clamp(1, granted.max(1));
        self.world.point("SBC restarts", "settles from its records");
        sleep(Duration::from_secs(self.dice.u64(..3600))).await;
        self.end(Ending::Settle(Seconds(used))).await;
    }

    // Messages.

    async fn quote(&mut self) {
        let request = self.request.clone();
        let handle = move |at: Arc<crate::world::Sidecar>, deadline| {
            let request = request.clone();
            Box::pin(async move { at.control.quote(&request, deadline).await.is_ok() }) as _
        };
        self.world.message("quote", Arc::new(handle)).await;
    }

    async fn authorize(&mut self) -> Option<Answer> {
        let tries = self.dice.u32(2..6);
        let mut last = None;
        for _ in 0..tries {
            if self.is_forgotten() {
                return None;
            }
            let sent = self.world.now();
            let answer = authorize(&self.world, self.request.clone()).await;
            let (call, what) = (self.call(), answer.as_ref().map(|answer| answer.decision));
            self.world.note(|| format!("{call} authorize {}: {what:?}", self.request.payer));
            match answer {
                None => sleep(Duration::from_millis(self.dice.u64(50..4_000))).await,
                Some(answer)
                    if matches!(
                        answer.decision,
                        Decision::LedgerUnavailable | Decision::RateLimited
                    ) =>
                {
                    last = Some(answer);
                    sleep(Duration::from_secs(1)).await;
                }
                Some(answer) => {
                    if self.place != Place::Emergency {
                        self.world.decided(self.call(), &answer, sent);
                    }
                    return Some(answer);
                }
            }
        }
        last
    }

    async fn reuse_the_key(&mut self) {
        let is_local = self.world.facts(self.call(), |facts| facts.local);
        if is_local || self.place == Place::Emergency {
            return;
        }
        self.world.point("SBC misbehaves", "uses the key for another call");
        let other =
            AuthorizeRequest { called_number: OTHER_NUMBER.to_owned(), ..self.request.clone() };
        let answer = authorize(&self.world, other).await;
        let found = answer.map(|answer| answer.decision);
        let right =
            [Decision::KeyConflict, Decision::CallAlreadyEnded, Decision::LedgerUnavailable];
        if found.is_some_and(|found| !right.contains(&found)) {
            self.world.find(format!("{}, key used for another number: {found:?}", self.call()));
        }
    }

    async fn report_answer(&mut self) {
        for _ in 0..self.dice.u8(1..3) {
            let (tenant, call) = (self.request.tenant.clone(), self.call().clone());
            self.world.reporting(&call, 1);
            let sent = self.world.now();
            let handle = move |at: Arc<crate::world::Sidecar>, deadline| {
                let (tenant, call) = (tenant.clone(), call.clone());
                Box::pin(async move { at.control.report_answer(&tenant, &call, deadline).await })
                    as _
            };
            let reply: Reply<Answer> = self.world.message("report_answer", Arc::new(handle)).await;
            self.is_tidy &= matches!(reply, Some(Ok(_)));
            self.heard("report_answer", 1, &reply, sent);
            if matches!(reply, Some(Ok(_))) {
                return;
            }
        }
    }

    /// Reports usage and asks for more; the grant in force, where the SBC hears of one.
    async fn extend(&mut self, used: i64) -> Option<Option<i64>> {
        self.sequence += 1;
        let sequence = if self.dice.u8(..5) == 0 { None } else { Some(self.sequence) };
        let requested = [None, Some(60), Some(300), Some(1800)][self.dice.usize(..4)];
        let requested = requested.map(Seconds);
        if self.habit == Habit::RepeatsOldReports {
            self.repeat_an_old_report(used).await;
        }
        for _ in 0..self.dice.u8(1..4) {
            if self.is_forgotten() {
                return None;
            }
            let reply = self.send_extend(used, sequence, requested).await;
            if let Some(Ok(answer)) = reply {
                self.heard_sequence = self.heard_sequence.max(sequence.unwrap_or_default());
                return Some(answer.grant.map(|grant| grant.granted.0));
            }
        }
        None
    }

    /// An old sequence is answered with the grant in force, whatever it asks for.
    async fn repeat_an_old_report(&mut self, used: i64) {
        if self.heard_sequence == 0 || self.place == Place::Emergency {
            return;
        }
        self.world.point("SBC misbehaves", "repeats an old report");
        let (before, era) = self.world.facts(self.call(), |facts| (facts.granted, facts.era));
        let old = Some(self.heard_sequence);
        let reply = self.send_extend((used / 2).max(1), old, Some(Seconds(7_200))).await;
        let Some(Ok(answer)) = reply else { return };
        let Some(grant) = answer.grant else { return };
        let in_time = self.world.facts(self.call(), |facts| facts.in_time);
        let is_known = in_time && self.is_tidy && era == self.world.era();
        if is_known && (grant.granted.0 != before || !answer.replayed) {
            let call = self.call();
            self.world.find(format!("{call} was granted {before} s, an old report got {grant:?}"));
        }
    }

    async fn release_though_answered(&mut self) {
        let proven = self.world.facts(self.call(), |facts| facts.acknowledged);
        if proven == 0 || self.place == Place::Emergency {
            return;
        }
        self.world.point("SBC misbehaves", "releases an answered call");
        self.world.reporting(&self.request.call.clone(), proven);
        let reply = self.send_end(Ending::Release).await;
        let in_time = self
            .world
            .facts(self.call(), |facts| facts.in_time && self.world.now() < facts.held_until);
        // Accepted while the ledger is away it is refused when it is brought there.
        let reply =
            reply.filter(|r| !matches!(r, Ok(charge) if charge.result == EndResult::Accepted));
        if let (true, Some(Ok(charge))) = (in_time, reply) {
            self.world.find(format!("{} is answered and released: {charge:?}", self.call()));
        }
    }

    async fn send_extend(
        &mut self,
        used: i64,
        sequence: Option<i64>,
        requested: Option<Seconds>,
    ) -> Reply<Answer> {
        let (tenant, call) = (self.request.tenant.clone(), self.call().clone());
        if self.place != Place::Emergency {
            self.world.reporting(&call, used);
        }
        let used = Seconds(used);
        let request =
            ExtendRequest { tenant, call, used, sequence, requested, token: String::new() };
        let sent = self.world.now();
        let handle = move |at: Arc<crate::world::Sidecar>, deadline| {
            let request = request.clone();
            Box::pin(async move { at.control.extend(&request, deadline).await }) as _
        };
        let reply: Reply<Answer> = self.world.message("extend", Arc::new(handle)).await;
        self.is_tidy &= sequence.is_some() && matches!(reply, Some(Ok(_)));
        self.heard("extend", used.0, &reply, sent);
        reply
    }

    fn heard(&self, verb: &str, used: i64, reply: &Reply<Answer>, sent: Millis) {
        let what = reply.as_ref().map(|reply| match reply {
            Ok(answer) => format!("{:?} {:?}", answer.decision, answer.grant.map(|g| g.granted.0)),
            Err(error) => error.to_string(),
        });
        self.world.note(|| format!("{} {verb} {used} s: {what:?}", self.call()));
        if self.place == Place::Emergency {
            return;
        }
        let (told, local) = self.world.facts(self.call(), |facts| {
            (facts.decided.as_ref().map(|(answer, _)| answer.decision), facts.local)
        });
        match reply {
            Some(Ok(answer)) => {
                self.world.reported(self.call(), used, answer, sent);
                if answer.grant.is_some() && told.is_some_and(|told| !told.allowed()) {
                    self.world.find(format!("{} was refused and is extended", self.call()));
                }
            }
            Some(Err(UseCaseError::NoSuchCall)) if told == Some(Decision::Allowed) && !local => {
                self.world.find(format!("{} was allowed, and nobody knows it", self.call()));
            }
            _ => {}
        }
    }

    /// Says how the call ended until somebody has heard it.
    async fn end(&mut self, how: Ending) {
        let used = if let Ending::Settle(used) = how { used.0 } else { 0 };
        if self.place != Place::Emergency {
            self.world.reporting(&self.request.call.clone(), used);
            self.world.facts(&self.request.call, |facts| facts.ending = true);
        }
        let mut pause = 1;
        loop {
            let reply = self.send_end(how).await;
            match reply {
                Some(Ok(charge)) => {
                    if self.place != Place::Emergency {
                        self.world.ended(self.call(), used, &charge);
                    }
                    return;
                }
                Some(Err(UseCaseError::AnsweredAlready)) if self.answered_at.is_none() => {
                    let call = self.call();
                    self.world.find(format!("{call} was never answered, and a release is refused"));
                    return;
                }
                Some(Err(UseCaseError::NoSuchCall)) => {
                    self.world.find(format!("the end of {} names no call", self.call()));
                    return;
                }
                _ => {}
            }
            sleep(Duration::from_secs(pause)).await;
            pause = (pause * 2).min(60);
        }
    }

    async fn settle_again(&mut self, used: i64) {
        let before = self.world.facts(self.call(), |facts| facts.ended.clone());
        let Some((_, before)) = before else { return };
        // Two ends that contradict each other, in the journals of two sidecars: the one that is brought first
        // stands, and the other is listed there.
        if before.result == EndResult::Accepted {
            return;
        }
        let Some(Ok(after)) = self.send_end(Ending::Settle(Seconds(used))).await else { return };
        if after.result == EndResult::Accepted {
            return;
        }
        let changed = after.charged_money != before.charged_money
            || after.charged_duration != before.charged_duration;
        let corrected = self.place == Place::Emergency
            || self.world.facts(self.call(), |facts| facts.corrected.is_some() || facts.local);
        if changed && !corrected && before.result == EndResult::Settled {
            self.world.find(format!("{} settled again: {before:?}, {after:?}", self.call()));
        }
    }

    async fn send_end(&mut self, how: Ending) -> Reply<Charge> {
        let request = EndRequest {
            tenant: self.request.tenant.clone(),
            call: self.call().clone(),
            how,
            report: EndReport::default(),
            token: String::new(),
        };
        let handle = move |at: Arc<crate::world::Sidecar>, deadline| {
            let request = request.clone();
            Box::pin(async move { at.control.end(request, deadline).await }) as _
        };
        let verb = if how == Ending::Release { "release" } else { "settle" };
        let reply: Reply<Charge> = self.world.message(verb, Arc::new(handle)).await;
        let what = reply.as_ref().map(|reply| match reply {
            Ok(charge) => format!(
                "{:?}, {} s, {} micros, short {} s",
                charge.result,
                charge.charged_duration,
                charge.charged_money,
                charge.shortfall_duration
            ),
            Err(error) => error.to_string(),
        });
        self.world.note(|| format!("{} {how:?}: {what:?}", self.call()));
        reply
    }
}

/// One authorize, as the gRPC service does it; every decision is judged, whoever hears of it.
async fn authorize(world: &Arc<World>, request: AuthorizeRequest) -> Option<Answer> {
    let outer = world.clone();
    let handle = move |at: Arc<crate::world::Sidecar>, deadline| {
        let (world, request) = (outer.clone(), request.clone());
        Box::pin(async move {
            let from = world.now();
            let raw = RawRequest {
                tenant: request.tenant.as_str(),
                call: request.call.as_str(),
                call_type: Some(request.call_type),
                payer: request.payer.as_str(),
                calling_number: &request.calling_number,
                called_number: &request.called_number,
                original_called_number: &request.original_called_number,
                trunk: &request.trunk,
                reports_answer: request.reports_answer,
                unvouched: "",
            };
            let was_quiet = world.is_quiet();
            let answer = match at.control.authorize_emergency(&raw, deadline).await {
                Some(answer) => answer,
                None => at.control.authorize(&request, deadline).await,
            };
            let is_emergency = request.called_number == Place::Emergency.number();
            if is_emergency != (answer.decision == Decision::AllowedEmergency) {
                let what = format!("{}: {:?}", request.called_number, answer.decision);
                world.find(what);
            }
            if is_emergency {
                let kept = (request.tenant.clone(), request.call.clone());
                let key = (at.number, answer.decision_id.clone());
                locked(&world.tally).emergencies.insert(key, kept);
            }
            if was_quiet && world.is_quiet() && answer.decision == Decision::LedgerUnavailable {
                world.find(format!("{} is refused without any trouble", request.call));
            }
            let of_contoso = request.tenant.as_str() == "contoso";
            world.judge_decision(request.payer.as_str(), of_contoso, &answer, from);
            answer
        }) as _
    };
    world.message("authorize", Arc::new(handle)).await
}
