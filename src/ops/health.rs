//! Whether the program lives, has started, is ready, and sees its ledger: told as `grpc.health.v1` on every
//! listener, and as HTTP `/livez`, `/readyz`.
//!
//! A ledger that goes away later is told by a service of its own and never by readiness: every sidecar
//! would be taken out of service at once, while emergency calls, free ones and what the failure handling
//! allows can still be answered.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::RwLock;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::ops::listener::Bound;

/// Serving as long as the process answers at all.
pub const LIVENESS: &str = "tollgate.liveness";

/// Serving from when the settings are read and the listeners are bound, whether the ledger answers or not.
pub const STARTUP: &str = "tollgate.startup";

/// Serving from the first contact with the ledger, with the decks read, until the end begins.
pub const READINESS: &str = "tollgate.readiness";

/// Serving while the ledger answers.
pub const LEDGER: &str = "tollgate.ledger";

/// How a ledger that does not answer is told in words.
pub const AWAY: &str = "the ledger does not answer";

/// Whether calls should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet, and why. Emergency calls are answered.
    Waiting(String),
    /// They should.
    Ready,
    /// Not any more; calls that still come are answered until the listener closes.
    Draining,
}

/// The state, shared by all who tell it. Starts as waiting.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<RwLock<State>>,
    /// Why the journal takes nothing; calls may be sent here all the same.
    journal: Arc<RwLock<Option<String>>>,
    ledger: Arc<AtomicBool>,
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// `services` are the full names of the gRPC services; the server as a whole is always told.
    pub async fn new(services: &'static [&'static str]) -> Health {
        let starting = State::Waiting("starting".to_owned());
        let state = Arc::new(RwLock::new(starting.clone()));
        let (journal, ledger) = (Arc::default(), Arc::default());
        let reporter = HealthReporter::new();
        let health = Health { state, journal, ledger, reporter, services };
        health.tell(LIVENESS, true).await;
        health.tell(STARTUP, false).await;
        health.ledger_answers(false).await;
        health.set(starting).await;
        health
    }

    /// The settings are read and the listeners bound.
    pub async fn started(&self) {
        self.tell(STARTUP, true).await;
    }

    /// Whether the ledger answers now; says nothing about readiness. What was told before.
    pub async fn ledger_answers(&self, answers: bool) -> bool {
        let before = self.ledger.swap(answers, Ordering::Relaxed);
        self.tell(LEDGER, answers).await;
        before
    }

    /// Calls should be sent here; has no effect once draining.
    pub async fn ready(&self) {
        self.set(State::Ready).await;
    }

    /// Calls should not be sent here yet for that reason; has no effect once ready.
    pub async fn waiting(&self, reason: &str) {
        self.set(State::Waiting(reason.to_owned())).await;
    }

    /// The end has begun.
    pub async fn draining(&self) {
        self.set(State::Draining).await;
    }

    /// Why the journal takes nothing; `None` where it does, or there is none.
    pub async fn set_journal_trouble(&self, trouble: Option<String>) {
        *self.journal.write().await = trouble;
    }

    /// The state now.
    pub async fn state(&self) -> State {
        self.state.read().await.clone()
    }

    /// Whether the ledger answered when it was last asked.
    pub fn is_ledger_up(&self) -> bool {
        self.ledger.load(Ordering::Relaxed)
    }

    /// `grpc.health.v1.Health`, for each listener one.
    pub fn grpc(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, to: State) {
        // Held until all is told, so that the last state is also the last one told.
        let mut state = self.state.write().await;
        if matches!((&*state, &to), (State::Draining, _) | (State::Ready, State::Waiting(_))) {
            return;
        }
        *state = to;
        let ready = *state == State::Ready;
        for service in ["", READINESS].iter().chain(self.services) {
            self.tell(service, ready).await;
        }
    }

    async fn tell(&self, service: &str, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }
}

/// Serves `/livez` (the process runs), `/readyz` (calls should be sent here), `grpc.health.v1` and what `more`
/// has until `stop`.
///
/// gRPC too, because who probes cannot always reach the other listeners: those of a sidecar are on loopback
/// or a Unix socket, which Kubernetes does not probe.
pub async fn serve_http(
    bound: Bound,
    health: Health,
    more: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(health).merge(more);
    match bound {
        Bound::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
        Bound::Unix(listener, _file) => {
            axum::serve(listener, router).with_graceful_shutdown(stop).await
        }
    }
}

/// The same on a listener that accepts by itself, as those of TLS do.
pub async fn serve_http_on<L>(
    listener: L,
    health: Health,
    more: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: axum::serve::Listener<Addr: std::fmt::Debug>,
{
    axum::serve(listener, router(health).merge(more)).with_graceful_shutdown(stop).await
}

fn router(health: Health) -> Router {
    let grpc = Routes::new(health.grpc()).into_axum_router().reset_fallback();
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(health)
        .merge(grpc)
}

async fn readyz(Shared(health): Shared<Health>) -> (StatusCode, String) {
    let (status, mut text) = match health.state().await {
        State::Ready if health.ledger.load(Ordering::Relaxed) => {
            (StatusCode::OK, "ready\n".to_owned())
        }
        State::Ready => (StatusCode::OK, format!("ready; {AWAY}\n")),
        State::Waiting(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting: {reason}\n")),
        State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
    };
    if let Some(trouble) = &*health.journal.read().await {
        text += &format!("{trouble}\n");
    }
    (status, text)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::transport::Endpoint;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::health_server::Health as _;

    use super::*;
    use crate::config::Listen;
    use crate::ops::listener::bind;
    use crate::ops::shutdown::Shutdown;

    const SERVICE: &str = "tollgate.v1.CallAuthorizationService";

    /// gRPC health of the server and of the service.
    async fn grpc(health: &Health) -> [ServingStatus; 2] {
        told(health, ["", SERVICE]).await
    }

    async fn told<const N: usize>(health: &Health, names: [&str; N]) -> [ServingStatus; N] {
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let mut told = [ServingStatus::Unknown; N];
        for (told, name) in told.iter_mut().zip(names) {
            let request = HealthCheckRequest { service: name.to_owned() };
            let response = service.check(tonic::Request::new(request)).await;
            *told = match response.expect("the service is known").into_inner().status {
                1 => ServingStatus::Serving,
                2 => ServingStatus::NotServing,
                _ => ServingStatus::Unknown,
            };
        }
        told
    }

    async fn http(address: &Listen, path: &str) -> String {
        let Listen::Tcp(address) = address else { panic!("expected TCP") };
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the answer is text");
        let status = answer.get(9..12).unwrap_or_default().to_owned();
        format!("{status} {}", answer.lines().last().unwrap_or_default())
    }

    #[tokio::test]
    async fn one_state_is_told_the_same_everywhere() {
        let health = Health::new(&[SERVICE]).await;
        let bound = bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.expect("a port is free");
        let address = bound.address().expect("it is bound");
        let shutdown = Shutdown::default();
        let server =
            tokio::spawn(serve_http(bound, health.clone(), Router::new(), shutdown.begun()));

        let not_serving = [ServingStatus::NotServing; 2];
        assert_eq!(http(&address, "/readyz").await, "503 waiting: starting");
        assert_eq!(grpc(&health).await, not_serving);

        health.waiting(AWAY).await;
        assert_eq!(http(&address, "/readyz").await, "503 waiting: the ledger does not answer");
        assert_eq!(grpc(&health).await, not_serving);

        health.ledger_answers(true).await;
        health.ready().await;
        assert_eq!(http(&address, "/readyz").await, "200 ready");
        assert_eq!(grpc(&health).await, [ServingStatus::Serving; 2]);

        health.draining().await;
        health.ready().await;
        assert_eq!(http(&address, "/readyz").await, "503 draining");
        assert_eq!(grpc(&health).await, not_serving);

        assert_eq!(http(&address, "/livez").await, "200 ok");
        assert!(http(&address, "/other").await.starts_with("404"));
        shutdown.begin();
        server.await.expect("it does not panic").expect("it ends well");
    }

    const PROBED: [&str; 4] = [LIVENESS, STARTUP, READINESS, LEDGER];

    #[tokio::test]
    async fn a_ledger_that_goes_away_is_told_apart_and_readiness_stays() {
        use ServingStatus::{NotServing as No, Serving as Yes};
        let health = Health::new(&[SERVICE]).await;
        assert_eq!(told(&health, PROBED).await, [Yes, No, No, No]);
        health.started().await;
        assert_eq!(told(&health, PROBED).await, [Yes, Yes, No, No]);
        health.ledger_answers(true).await;
        health.ready().await;
        assert_eq!(told(&health, PROBED).await, [Yes; 4]);

        assert!(health.ledger_answers(false).await, "it had answered");
        health.waiting(AWAY).await;
        assert_eq!(told(&health, PROBED).await, [Yes, Yes, Yes, No]);
        assert_eq!(grpc(&health).await, [Yes; 2]);
        let (status, text) = readyz(Shared(health.clone())).await;
        assert_eq!(
            (status, text.as_str()),
            (StatusCode::OK, "ready; the ledger does not answer\n")
        );

        health.ledger_answers(true).await;
        health.draining().await;
        assert_eq!(told(&health, PROBED).await, [Yes, Yes, No, Yes]);
    }

    #[tokio::test]
    async fn the_listener_for_http_answers_grpc_health_too() {
        let health = Health::new(&[SERVICE]).await;
        let bound = bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.expect("a port is free");
        let Ok(Listen::Tcp(address)) = bound.address() else { panic!("expected TCP") };
        let shutdown = Shutdown::default();
        let server =
            tokio::spawn(serve_http(bound, health.clone(), Router::new(), shutdown.begun()));
        let url = format!("http://{address}");
        let endpoint = Endpoint::try_from(url).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        let mut client = HealthClient::new(channel);
        let request = |name: &str| HealthCheckRequest { service: name.to_owned() };
        let answer = client.check(request(LIVENESS)).await.expect("it is known").into_inner();
        assert_eq!(answer.status, ServingStatus::Serving as i32);
        let answer = client.check(request(READINESS)).await.expect("it is known").into_inner();
        assert_eq!(answer.status, ServingStatus::NotServing as i32);
        let unknown = client.check(request("else")).await.expect_err("nobody knows it");
        assert_eq!(unknown.code(), tonic::Code::NotFound);
        drop(client);
        shutdown.begin();
        server.await.expect("it does not panic").expect("it ends well");
    }
}
