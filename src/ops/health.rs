//! Whether the program is ready: one state, told as `grpc.health.v1` and as HTTP `/livez`, `/readyz`.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::RwLock;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::ops::listener::Bound;

/// Whether calls should be sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet, or not now, and why. Emergency calls are answered.
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
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// `services` are the full names of the gRPC services; the server as a whole is always told.
    pub async fn new(services: &'static [&'static str]) -> Health {
        let starting = State::Waiting("starting".to_owned());
        let state = Arc::new(RwLock::new(starting.clone()));
        let journal = Arc::default();
        let health = Health { state, journal, reporter: HealthReporter::new(), services };
        health.set(starting).await;
        health
    }

    /// Calls should be sent here; has no effect once draining.
    pub async fn ready(&self) {
        self.set(State::Ready).await;
    }

    /// Calls should not be sent here for that reason; has no effect once draining.
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

    /// `grpc.health.v1.Health`, for each listener one.
    pub fn grpc(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, to: State) {
        // Held until all is told, so that the last state is also the last one told.
        let mut state = self.state.write().await;
        if *state == State::Draining {
            return;
        }
        *state = to;
        let status = match *state {
            State::Ready => ServingStatus::Serving,
            State::Waiting(_) | State::Draining => ServingStatus::NotServing,
        };
        for service in std::iter::once(&"").chain(self.services) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Serves `/livez` (the process runs) and `/readyz` (calls should be sent here) until `stop`.
pub async fn serve_http(
    bound: Bound,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(health);
    match bound {
        Bound::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
        Bound::Unix(listener, _file) => {
            axum::serve(listener, router).with_graceful_shutdown(stop).await
        }
    }
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn readyz(Shared(health): Shared<Health>) -> (StatusCode, String) {
    let (status, mut text) = match health.state().await {
        State::Ready => (StatusCode::OK, "ready\n".to_owned()),
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
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;

    use super::*;
    use crate::config::Listen;
    use crate::ops::listener::bind;
    use crate::ops::shutdown::Shutdown;

    const SERVICE: &str = "tollgate.v1.CallAuthorizationService";

    /// gRPC health of the server and of the service.
    async fn grpc(health: &Health) -> [ServingStatus; 2] {
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let mut told = [ServingStatus::Unknown; 2];
        for (told, name) in told.iter_mut().zip(["", SERVICE]) {
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
        let server = tokio::spawn(serve_http(bound, health.clone(), shutdown.begun()));

        let not_serving = [ServingStatus::NotServing; 2];
        assert_eq!(http(&address, "/readyz").await, "503 waiting: starting");
        assert_eq!(grpc(&health).await, not_serving);

        health.ready().await;
        assert_eq!(http(&address, "/readyz").await, "200 ready");
        assert_eq!(grpc(&health).await, [ServingStatus::Serving; 2]);

        health.waiting("the ledger is away").await;
        assert_eq!(http(&address, "/readyz").await, "503 waiting: the ledger is away");
        assert_eq!(grpc(&health).await, not_serving);

        health.draining().await;
        health.ready().await;
        assert_eq!(http(&address, "/readyz").await, "503 draining");
        assert_eq!(grpc(&health).await, not_serving);

        assert_eq!(http(&address, "/livez").await, "200 ok");
        assert!(http(&address, "/other").await.starts_with("404"));
        shutdown.begin();
        server.await.expect("it does not panic").expect("it ends well");
    }
}
