//! The calls of a test: each is authorized, extended and settled as the mix says, by a user drawn by
//! Zipf's law, under a call_id that no call had before.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::Duration as WireDuration;

use crate::cli::args::Endpoint;
use crate::cli::loadtest::drive::{Play, Scene};
use crate::cli::loadtest::measure::{Kind, Outcome, Step};
use crate::cli::loadtest::random::{Random, Zipf};
use crate::cli::loadtest::wire::{Connection, Fault, Rpc, Shown, framed};
use crate::proto::v1;

/// How many of each request a player makes before it begins anew: `AUTHORIZE:EXTEND:SETTLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// New calls, at least 1.
    pub authorize: usize,
    /// Extensions, spread evenly over the new calls.
    pub extend: usize,
    /// Settles, at most as many as new calls; the other calls stay open until they expire.
    pub settle: usize,
}

/// Most of each kind in a mix.
const MAX_PARTS: usize = 100;

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let parts: Option<Vec<usize>> = text.split(':').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some([authorize @ 1..=MAX_PARTS, extend @ 0..=MAX_PARTS, settle])
                if settle <= authorize =>
            {
                Ok(Mix { authorize: *authorize, extend: *extend, settle: *settle })
            }
            _ => Err(format!(
                "expected AUTHORIZE:EXTEND:SETTLE such as 1:2:1, at least one authorize, at most \
                 {MAX_PARTS} of each, and no more settles than authorizes"
            )),
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.authorize, self.extend, self.settle)
    }
}

/// The calls and where they go.
pub struct Calls {
    endpoint: Endpoint,
    shown: Shown,
    timeout: Duration,
    connections: usize,
    rpcs: [Rpc; 3],
    plan: CallPlan,
    users: Zipf,
    /// Sets the calls of one test apart from those of all others.
    run: String,
}

/// What the calls are like.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// What each player does.
    pub mix: Mix,
    /// Tenants, named `PREFIX-1` and so on.
    pub tenants: u32,
    /// Begin of the tenants' names.
    pub prefix: String,
    /// Users of each tenant, named `user-1` and so on.
    pub users: u32,
    /// Exponent of Zipf's law in hundredths; 0 draws evenly.
    pub zipf_hundredths: u32,
    /// Length asked for, in seconds.
    pub requested_seconds: i64,
    /// Usage that a settle reports, in seconds.
    pub used_seconds: i64,
}

/// Connections of one thread.
pub struct Wires(Vec<Arc<Connection>>);

impl Calls {
    /// To be played on so many connections a thread.
    pub fn new(
        endpoint: &Endpoint,
        shown: Shown,
        timeout: Duration,
        connections: usize,
        plan: CallPlan,
    ) -> io::Result<Calls> {
        let of = |path| Rpc::of(endpoint, path);
        let rpcs = [
            of("/tollgate.v1.CallAuthorizationService/AuthorizeCall")?,
            of("/tollgate.v1.CallAuthorizationService/ExtendCall")?,
            of("/tollgate.v1.CallAuthorizationService/SettleCall")?,
        ];
        let users = Zipf::new(plan.tenants * plan.users, plan.zipf_hundredths);
        let run = uuid::Uuid::now_v7().simple().to_string();
        let endpoint = endpoint.clone();
        Ok(Calls { endpoint, shown, timeout, connections, rpcs, plan, users, run })
    }
}

impl Scene for Calls {
    type Connections = Wires;
    type Player = Player;

    async fn connect(&self, _: usize) -> io::Result<Wires> {
        let mut wires = vec![];
        for _ in 0..self.connections {
            let wire = Connection::open(&self.endpoint, self.timeout, &self.shown).await?;
            wires.push(Arc::new(wire));
        }
        Ok(Wires(wires))
    }

    fn player(self: &Arc<Self>, wires: &Arc<Wires>, number: usize) -> Player {
        let wire = wires.0[number % wires.0.len()].clone();
        Player::new(self.clone(), wire, number)
    }
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Names it among the player's calls.
    serial: u64,
    tenant: u32,
    extensions: u64,
}

/// See [`Play`].
pub struct Player {
    calls: Arc<Calls>,
    wire: Arc<Connection>,
    number: usize,
    random: Random,
    /// Calls of the round, in the order authorized; `None` where the call was refused.
    open: Vec<Option<Open>>,
    /// Requests of the round that were made or skipped.
    at: usize,
    serial: u64,
    authorize: v1::AuthorizeCallRequest,
    extend: v1::ExtendCallRequest,
    settle: v1::SettleCallRequest,
}

impl Player {
    fn new(calls: Arc<Calls>, wire: Arc<Connection>, number: usize) -> Player {
        let duration = |seconds| Some(WireDuration { seconds, nanos: 0 });
        let authorize = v1::AuthorizeCallRequest {
            call_type: v1::CallType::UserOutbound.into(),
            calling_number: "+14255550100".to_owned(),
            requested_duration: duration(calls.plan.requested_seconds),
            trunk_id: "loadtest".to_owned(),
            ..Default::default()
        };
        let extend = v1::ExtendCallRequest {
            requested_duration: duration(calls.plan.requested_seconds),
            ..Default::default()
        };
        let random = Random::new(number as u64 + 1);
        let open = Vec::new();
        let settle = v1::SettleCallRequest { q850_cause: 16, ..Default::default() };
        Player { calls, wire, number, random, open, at: 0, serial: 0, authorize, extend, settle }
    }

    /// Which request is next, and for which call of the round; passes over those of refused calls.
    fn next(&mut self) -> (Kind, usize) {
        let Mix { authorize, extend, settle } = self.calls.plan.mix;
        loop {
            if self.at >= authorize + extend + settle {
                self.at = 0;
            }
            if self.at == 0 {
                self.open.clear();
            }
            let at = self.at;
            self.at += 1;
            let (kind, call) = match at {
                new if new < authorize => return (Kind::Authorize, new),
                more if more < authorize + extend => (Kind::Extend, (more - authorize) % authorize),
                last => (Kind::Settle, last - authorize - extend),
            };
            if self.open.get(call).is_some_and(Option::is_some) {
                return (kind, call);
            }
        }
    }

    fn name(calls: &Calls, number: usize, open: &Open, tenant: &mut String, call: &mut String) {
        tenant.clear();
        call.clear();
        // A text takes whatever is written to it.
        let _ = write!(tenant, "{}-{}", calls.plan.prefix, open.tenant + 1);
        let _ = write!(call, "{}|{number}|{}", calls.run, open.serial);
    }

    async fn authorize(&mut self) -> (Outcome, u64) {
        let calls = &self.calls;
        let user = self.calls.users.draw(&mut self.random) as u32;
        self.serial += 1;
        // Neighbours in rank are users of different tenants: every tenant has frequent ones.
        let tenant = user % calls.plan.tenants;
        let open = Open { serial: self.serial, tenant, extensions: 0 };
        let to = &mut self.authorize;
        Player::name(calls, self.number, &open, &mut to.tenant_id, &mut to.call_id);
        to.payer_id.clear();
        to.called_number.clear();
        let _ = write!(to.payer_id, "user-{}", user / calls.plan.tenants + 1);
        let _ = write!(to.called_number, "+1206555{:04}", self.random.below(10_000));
        let answer = self.wire.call(&calls.rpcs[0], framed(to)).await;
        let (outcome, _) = decided(answer);
        self.open.push((outcome == Outcome::Done).then_some(open));
        (outcome, 0)
    }

    async fn extend(&mut self, call: usize) -> (Outcome, u64) {
        let Some(Some(open)) = self.open.get_mut(call) else { return (Outcome::Done, 0) };
        open.extensions += 1;
        let to = &mut self.extend;
        Player::name(&self.calls, self.number, open, &mut to.tenant_id, &mut to.call_id);
        to.sequence = Some(open.extensions);
        let seconds = i64::try_from(open.extensions).unwrap_or(i64::MAX);
        to.used_duration = Some(WireDuration { seconds, nanos: 0 });
        decided(self.wire.call(&self.calls.rpcs[1], framed(to)).await)
    }

    async fn settle(&mut self, call: usize) -> (Outcome, u64) {
        let Some(Some(open)) = self.open.get(call) else { return (Outcome::Done, 0) };
        let to = &mut self.settle;
        Player::name(&self.calls, self.number, open, &mut to.tenant_id, &mut to.call_id);
        let seconds = self.calls.plan.used_seconds;
        to.used_duration = Some(WireDuration { seconds, nanos: 0 });
        to.sequence = Some(open.extensions + 1);
        charged(self.wire.call(&self.calls.rpcs[2], framed(to)).await)
    }
}

impl Play for Player {
    async fn step(&mut self) -> Step {
        let (kind, call) = self.next();
        let (outcome, charged_seconds) = match kind {
            Kind::Authorize => self.authorize().await,
            Kind::Extend => self.extend(call).await,
            Kind::Settle => self.settle(call).await,
        };
        Step { kind, outcome, charged_seconds }
    }
}

/// What counts of an AuthorizeCallResponse and an ExtendCallResponse: fewer fields are read for less.
#[derive(Clone, PartialEq, Message)]
struct Decided {
    #[prost(int32, tag = "1")]
    decision: i32,
    #[prost(bool, tag = "2")]
    allowed: bool,
}

/// The same of a SettleCallResponse.
#[derive(Clone, PartialEq, Message)]
struct Charged {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(message, optional, tag = "3")]
    charged_duration: Option<WireDuration>,
}

fn decided(answer: Result<Bytes, Fault>) -> (Outcome, u64) {
    let outcome = match answer.map(Decided::decode) {
        Ok(Ok(Decided { allowed: true, .. })) => Outcome::Done,
        Ok(Ok(Decided { decision, .. })) => Outcome::Refused(decision),
        Ok(Err(_)) => Outcome::Failed(Fault::Malformed),
        Err(fault) => Outcome::Failed(fault),
    };
    (outcome, 0)
}

fn charged(answer: Result<Bytes, Fault>) -> (Outcome, u64) {
    match answer.map(Charged::decode) {
        Ok(Ok(Charged { result, charged_duration })) => {
            let seconds = charged_duration.and_then(|length| u64::try_from(length.seconds).ok());
            let outcome = match result == i32::from(v1::SettleResult::Settled) {
                true => Outcome::Done,
                false => Outcome::Uncharged(result),
            };
            (outcome, seconds.unwrap_or_default())
        }
        Ok(Err(_)) => (Outcome::Failed(Fault::Malformed), 0),
        Err(fault) => (Outcome::Failed(fault), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_three_numbers() {
        assert_eq!("1:2:1".parse(), Ok(Mix { authorize: 1, extend: 2, settle: 1 }));
        assert_eq!("1:0:0".parse::<Mix>().map(|mix| mix.to_string()), Ok("1:0:0".to_owned()));
        for text in ["", "1", "1:1", "0:1:0", "1:1:2", "1:-1:1", "101:0:0", "1:1:1:1", "a:b:c"] {
            assert!(text.parse::<Mix>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_read_of_an_answer_is_what_the_server_writes() {
        let answer = v1::AuthorizeCallResponse {
            decision: v1::Decision::PoolExhausted.into(),
            decision_id: "x".to_owned(),
            ..Default::default()
        };
        let refused = decided(Ok(answer.encode_to_vec().into()));
        assert_eq!(refused.0, Outcome::Refused(v1::Decision::PoolExhausted.into()));
        let answer = v1::SettleCallResponse {
            result: v1::SettleResult::Settled.into(),
            charged_duration: Some(WireDuration { seconds: 60, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(charged(Ok(answer.encode_to_vec().into())), (Outcome::Done, 60));
        assert_eq!(decided(Ok(Bytes::from_static(b"\xff"))).0, Outcome::Failed(Fault::Malformed));
    }
}
