//! Two sidecars on one Redis are restarted one after the other while clients that mind their health call.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tollgate::ops::health::READINESS;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::server::organisation;
use crate::support::messages::{authorize, extend, settle};
use crate::support::process::{Sidecar, wait_until};
use crate::support::redis::RedisServer;

/// Clients at a time.
const CLIENTS: usize = 8;

/// Calls that each phase waits for, so that there is load in all of them.
const CALLS: u64 = 100;

/// Longest that a client tries for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a sidecar is, and whether calls should be sent to it: what a Service of Kubernetes knows.
struct Place {
    address: Mutex<SocketAddr>,
    ready: AtomicBool,
}

/// What the clients know together.
struct World {
    places: [Place; 2],
    calls: AtomicU64,
    repeated: AtomicU64,
    failed: Mutex<Vec<String>>,
    next: AtomicUsize,
    over: AtomicBool,
}

impl World {
    fn of(sidecars: &[Sidecar; 2]) -> Arc<World> {
        let place = |sidecar: &Sidecar| Place {
            address: Mutex::new(sidecar.calls),
            ready: AtomicBool::new(true),
        };
        Arc::new(World {
            places: [place(&sidecars[0]), place(&sidecars[1])],
            calls: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            failed: Mutex::default(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// A place that is ready, another one than `not` where there is one.
    fn choose(&self, not: Option<usize>) -> usize {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let both = [first % 2, (first + 1) % 2];
        let ready = |place: &&usize| self.places[**place].ready.load(Ordering::Relaxed);
        let other = both.iter().filter(ready).find(|place| Some(**place) != not);
        *other.or(both.iter().find(ready)).unwrap_or(&both[0])
    }

    /// Looks at a sidecar's readiness, for ever, as a client with health checks does.
    async fn watch(self: Arc<Self>, n: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let ready = self.is_ready(n).await.unwrap_or(false);
            self.places[n].ready.store(ready, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self, n: usize) -> Option<bool> {
        let address = *self.places[n].address.lock().unwrap();
        let endpoint = Endpoint::try_from(format!("http://{address}")).ok()?;
        let channel = endpoint.timeout(Duration::from_secs(1)).connect().await.ok()?;
        let request = HealthCheckRequest { service: READINESS.to_owned() };
        let answer = HealthClient::new(channel).check(request).await.ok()?;
        Some(answer.into_inner().status() == ServingStatus::Serving)
    }
}

/// A client: a connection to each sidecar, made anew where it has moved.
struct Client {
    world: Arc<World>,
    connections: [Option<(SocketAddr, Channel)>; 2],
}

impl Client {
    async fn to(&mut self, n: usize) -> Option<CallAuthorizationServiceClient<Channel>> {
        let address = *self.world.places[n].address.lock().unwrap();
        if self.connections[n].as_ref().is_none_or(|(known, _)| *known != address) {
            let endpoint = Endpoint::try_from(format!("http://{address}")).ok()?;
            let channel = endpoint.connect().await.ok()?;
            self.connections[n] = Some((address, channel));
        }
        let channel = self.connections[n].as_ref().map(|(_, channel)| channel.clone());
        channel.map(CallAuthorizationServiceClient::new)
    }

    /// Asks until there is an answer: with the same message, which has the same key, elsewhere.
    async fn ask<T>(
        &mut self,
        what: &str,
        request: impl Fn(
            CallAuthorizationServiceClient<Channel>,
        ) -> BoxFuture<'static, Result<T, Status>>,
    ) -> Option<T> {
        let begun = Instant::now();
        let mut not = None;
        loop {
            let n = self.world.choose(not);
            let status = match self.to(n).await {
                Some(client) => match request(client).await {
                    Ok(answer) => return Some(answer),
                    Err(status) => status,
                },
                None => Status::unavailable("no connection"),
            };
            // Whoever gave no answer is asked no more on this connection.
            self.connections[n] = None;
            // What tonic says of a connection that closes under a request.
            let may_repeat = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
                    // A connection that was closed while the request was on its way (GOAWAY), as tonic tells it.
                    || (status.code() == Code::Internal && status.message().contains("h2 protocol error"));
            if !may_repeat || begun.elapsed() > PATIENCE {
                let failed = format!("{what}: {status}");
                self.world.failed.lock().unwrap().push(failed);
                return None;
            }
            self.world.repeated.fetch_add(1, Ordering::Relaxed);
            not = Some(n);
            tokio::task::yield_now().await;
        }
    }

    /// Whole calls, one after the other, until it is over.
    async fn calls(mut self, name: usize) {
        let world = self.world.clone();
        for n in 0_u64.. {
            if world.over.load(Ordering::Relaxed) {
                return;
            }
            let call = format!("c{name}-{n}");
            let started = authorize(&call, "carol", "+12065550100");
            let started = self.ask("authorize", |mut to| {
                let message = started.clone();
                async move { to.authorize_call(message).await }.boxed()
            });
            let Some(started) = started.await.map(|answer| answer.into_inner()) else { continue };
            if !started.allowed {
                let failed = format!("refused: {:?}", started.decision());
                world.failed.lock().unwrap().push(failed);
                continue;
            }
            let more = self.ask("extend", |mut to| {
                let message = extend(&call, 10, 1);
                async move { to.extend_call(message).await }.boxed()
            });
            let more = more.await;
            let end = self.ask("settle", |mut to| {
                let message = settle(&call, 15);
                async move { to.settle_call(message).await }.boxed()
            });
            let end = end.await;
            if more.is_some() && end.is_some() {
                world.calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_two_sidecars_are_restarted_one_after_the_other() {
    let redis = RedisServer::started();
    let mut sidecars = [Sidecar::on(&redis.url()), Sidecar::on(&redis.url())];
    sidecars[0].set_up(&organisation().replace("amount: \"10\"", "amount: \"100000\""));
    let world = World::of(&sidecars);
    let mut tasks: Vec<_> = (0..2).map(|n| tokio::spawn(world.clone().watch(n))).collect();
    for name in 0..CLIENTS {
        let client = Client { world: world.clone(), connections: [None, None] };
        tasks.push(tokio::spawn(client.calls(name)));
    }
    let done = || world.calls.load(Ordering::Relaxed);
    let further = || {
        let until = done() + CALLS;
        tokio::task::block_in_place(|| wait_until("called", done, |calls| *calls >= until));
    };
    further();
    for (n, sidecar) in sidecars.iter_mut().enumerate() {
        let status = tokio::task::block_in_place(|| sidecar.stop());
        assert_eq!(status.code(), Some(0), "{}", sidecar.log());
        further();
        // It comes back somewhere else, as a pod does.
        *sidecar = tokio::task::block_in_place(|| Sidecar::on(&redis.url()));
        *world.places[n].address.lock().unwrap() = sidecar.calls;
        let is_ready = || world.places[n].ready.load(Ordering::Relaxed);
        tokio::task::block_in_place(|| wait_until("seen as ready", is_ready, |ready| *ready));
        further();
    }
    world.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let repeated = world.repeated.load(Ordering::Relaxed);
    println!("{} calls, {repeated} requests were asked again elsewhere", done());
    assert_eq!(*world.failed.lock().unwrap(), Vec::<String>::new(), "calls that failed");
    // Each was charged once, one minute and the fee, at whichever sidecar.
    let balance = sidecars[1].json(&["balance", "--tenant", "contoso"]);
    let spent = balance["credits"]["spent"]["amount"].as_str().unwrap();
    let cents = done() * 15;
    assert_eq!(spent.parse::<rust_decimal::Decimal>().unwrap(), {
        rust_decimal::Decimal::new(i64::try_from(cents).unwrap(), 2)
    });
    sidecars[0].client(&["audit"]).succeeded();
}
