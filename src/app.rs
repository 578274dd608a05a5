//! The composition root: builds the parts of a server on a ledger, in order, and takes them down.

mod figures;
mod reload;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, MapOk, TryFutureExt};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;

use crate::administration::Administration;
pub use crate::app::reload::Reloads;
use crate::charging::ids::TenantId;
use crate::charging::number;
use crate::charging::units::Seconds;
use crate::config::{Config, HttpTls, Listen};
use crate::credit_control::directives::{Directives, Limits};
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::credit_control::{CreditControl, Settings, leases};
use crate::grpc::account::{self, Account};
use crate::grpc::call_authorization::{self, CallAuthorization};
use crate::grpc::gate::Gate;
use crate::grpc::measured::{MeasuredLayer, Rpcs};
use crate::journal::{self, Journal};
use crate::ledger::{Ledger, LedgerError};
use crate::metrics::{self, Command};
use crate::notices::{self, MailSettings, Notices, WebhookSettings};
use crate::ops::health::{self, Health};
use crate::ops::listener::{Share, bind};
use crate::ops::report::Reports;
use crate::ops::shutdown::{Ended, Shutdown, serve_until};
use crate::proto;
use crate::security::Security;
use crate::security::guard::GuardLayer;
use crate::security::tls::Accepted;
use crate::transcoding::{Api, JsonLayer};

/// Every service whose health is told.
const SERVICES: &[&str] = &[call_authorization::NAME, account::NAME];

/// How often the ledger is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// How often the event loop of a thread for calls wakes by itself: sooner than the deadline of any request that is worth
/// sending.
const TICK: Duration = Duration::from_millis(50);

/// Longest wait for one step of a sweep; a step that is not awaited may still be carried out.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether records are to be erased or trimmed.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);

/// Longest wait for one tenant and its deck at the start; a deck goes on being read when it is over.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Most tenants read before the first call.
const MAX_TENANTS_READ: usize = 1000;

/// How much longer than the sweep interval a due hold may stay open before an audit calls it a leak: a
/// sweep takes its time, and so does a ledger that was away.
const SWEEP_SLACK: Seconds = Seconds(60);

/// Streams of one connection beyond the limit of requests in flight: those above the limit are shed, not
/// kept waiting, and an emergency call finds a stream.
const SPARE_STREAMS: u32 = 256;

/// Largest body in JSON on the listener for administration. What is larger, a deck of many thousand rows,
/// goes by gRPC.
const ADMINISTRATION_JSON: usize = 4 << 20;

/// How often it is asked whether the other end of a connection is still there: a stream that nobody reads
/// would keep its place for ever.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait for the answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Least time for what waits for the ledger when all else has ended.
const FLUSH_AT_LEAST: Duration = Duration::from_secs(1);

/// A server that runs.
pub struct Running<L> {
    security: Arc<Security>,
    control: Arc<CreditControl<L>>,
    call_threads: Vec<CallThread<L>>,
    gate: Arc<Gate>,
    health: Health,
    shutdown: Shutdown,
    servers: JoinSet<io::Result<()>>,
    tasks: Tasks,
    /// Of what the journal holds.
    draining: Tasks,
    notices: JoinSet<()>,
    grace: Duration,
    addresses: Addresses,
    reload_interval: Arc<watch::Sender<Duration>>,
    /// Largest message on the listener for calls.
    most_bytes: Arc<AtomicUsize>,
}

/// Where a server listens, with the ports that the system chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For calls.
    pub calls: Listen,
    /// For administration.
    pub administration: Listen,
    /// For HTTP.
    pub http: Listen,
}

/// Starts a server on a ledger: its listeners, the sweeper and the watch over the ledger.
///
/// The ledger need not answer yet: the server then waits for it with readiness down, and answers
/// emergency calls. An error is an address that cannot be bound, or a ledger that does not answer where
/// the settings require it.
pub async fn start<L: Ledger>(ledger: Arc<L>, config: &Config) -> io::Result<Running<L>> {
    let calls = bind(&config.listen).await?;
    let administration = bind(&config.admin_listen).await?;
    let http = bind(&config.http_listen).await?;
    let addresses = Addresses {
        calls: calls.address()?,
        administration: administration.address()?,
        http: http.address()?,
    };
    let security = Arc::new(Security::load(config.security()).map_err(io::Error::other)?);

    if config.token_keys_file.is_none() {
        tracing::info!("grants are not signed: there is no token_keys_file");
    }
    let journal = open_journal(config).await?;
    let control = CreditControl::with_journal(ledger, settings(config), journal.clone());
    let control = Arc::new(control);
    let gate = Arc::new(Gate::new(config.max_requests_in_flight));
    let health = Health::new(SERVICES).await;
    let shutdown = Shutdown::default();

    let most_bytes = Arc::new(AtomicUsize::new(message_size(config)));
    let streams = config.max_requests_in_flight.saturating_add(SPARE_STREAMS);
    let json =
        Arc::new(Api::of(call_authorization::NAME, most_bytes.clone()).map_err(io::Error::other)?);
    let rpcs = Rpcs::of(call_authorization::NAME).map_err(io::Error::other)?;
    let sends_on = gate.clone();
    let directives = Directives::new(control.ledger().clone(), Limits::default(), move || {
        sends_on.is_draining()
    });
    let mut servers = JoinSet::new();
    let mut call_threads = vec![];
    // Not each thread for itself: whichever is awake would take them all.
    let mut dealer = calls.dealer();
    for n in 0..config.threads_for_calls() {
        let share = dealer.share();
        let (control, gate, json) = (control.clone(), gate.clone(), json.clone());
        let directives = directives.clone();
        let routes = common_routes(&health, call_authorization::NAME)?;
        let (begun, closing) = (shutdown.begun(), shutdown.begun());
        let guard = GuardLayer { security: security.clone(), most_bytes: most_bytes.clone() };
        let most_bytes = most_bytes.clone();
        let thread = CallThread::start(n, control, move |control| async move {
            let calls = CallAuthorization::serve(control, gate, directives, most_bytes);
            let services = CallsFirst { calls, others: routes.routes().prepare() };
            let layers = Layers { json, rpcs, guard };
            serve(share, services, layers, streams, begun, closing).await
        });
        let (thread, served) = thread.await?;
        servers.spawn(async { served.await.map_err(thread_gone)? });
        call_threads.push(thread);
    }
    servers.spawn(dealer.deal(shutdown.begun()));
    let mut routes = common_routes(&health, account::NAME)?;
    let sweep_bound = seconds(config.sweep_interval) + SWEEP_SLACK;
    let administered = Administration::new(control.clone(), sweep_bound);
    routes.add_service(Account::serve(administered, control.clone(), gate.clone()));
    let most_json = Arc::new(AtomicUsize::new(ADMINISTRATION_JSON));
    let json = Api::of(account::NAME, most_json).map_err(io::Error::other)?;
    let rpcs = Rpcs::of(account::NAME).map_err(io::Error::other)?;
    let most_administered = Arc::new(AtomicUsize::new(account::MAX_MESSAGE_BYTES));
    let guard = GuardLayer { security: security.clone(), most_bytes: most_administered };
    let layers = Layers { json: Arc::new(json), rpcs, guard };
    let others = routes.routes().prepare();
    let mut dealer = administration.dealer();
    let share = dealer.share();
    servers.spawn(dealer.deal(shutdown.begun()));
    let (stop, closing) = (shutdown.begun(), shutdown.begun());
    servers.spawn(serve(share, others, layers, streams, stop, closing));
    let page = figures::page(journal.clone(), health.clone());
    let stop = shutdown.begun();
    match (&addresses.http, security.tls(), config.tls_http) {
        (&Listen::Tcp(address), Some(tls), HttpTls::On | HttpTls::Mutual) => {
            let mutual = config.tls_http == HttpTls::Mutual;
            let mut dealer = http.dealer();
            if let Share::Tcp(dealt) = dealer.share() {
                let connections =
                    tls.accept(dealt.with_peers(), mutual, security.clone(), shutdown.begun());
                let accepted = Accepted { connections, address };
                servers.spawn(health::serve_http_on(accepted, health.clone(), page, stop));
            }
            servers.spawn(dealer.deal(shutdown.begun()));
        }
        _ => {
            servers.spawn(health::serve_http(http, health.clone(), page, stop));
        }
    }

    health.started().await;
    let found = watch_once(&control, &health, config.ledger_timeout).await;
    if let Err(error) = found {
        if config.require_ledger_at_start {
            return Err(io::Error::other(error));
        }
        tracing::warn!(%error, "waiting for the ledger; emergency calls are answered");
    }
    let mut tasks = Tasks::default();
    tasks.spawn(watch(control.clone(), health.clone(), config.ledger_timeout));
    tasks.spawn(sweep(control.clone(), config.sweep_interval, config.sweep_batch));
    let reload_interval = Arc::new(watch::Sender::new(config.reload_interval));
    tasks.spawn(keep_security(security.clone(), reload_interval.subscribe()));
    if !config.metrics_survey.is_zero() {
        let surveys = figures::Surveys {
            control: control.clone(),
            interval: config.metrics_survey,
            named: config.metrics_tenants,
        };
        tasks.spawn(surveys.run());
    }
    tasks.spawn(control.clone().replay_losses());
    if let Some(endpoint) = &config.otlp_endpoint
        && !config.otlp_metrics.is_zero()
    {
        let reports = Reports::new(endpoint).map_err(io::Error::other)?;
        let report = figures::report(reports, config.otlp_metrics, journal.clone(), health.clone());
        tasks.spawn(report);
    }
    tasks.spawn(keep_records(Administration::new(control.clone(), sweep_bound)));
    // Serving goes on meanwhile: what is asked about a call that the journal holds waits for it.
    let mut draining = Tasks::default();
    if let Some(journal) = &journal {
        tasks.spawn(watch_journal(journal.clone(), health.clone()));
        draining.spawn(control.clone().drain());
        tasks.spawn(control.clone().keep_leases());
    }
    let mut notices = JoinSet::new();
    if let Some(settings) = notice_settings(config) {
        let made = Notices::new(control.ledger().clone(), settings, account::event_json);
        notices.spawn(made.map_err(io::Error::other)?.run(shutdown.begun()));
    }
    let grace = config.shutdown_grace;
    Ok(Running {
        security,
        control,
        call_threads,
        gate,
        health,
        shutdown,
        servers,
        tasks,
        draining,
        notices,
        grace,
        addresses,
        reload_interval,
        most_bytes,
    })
}

impl<L: Ledger> Running<L> {
    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its use cases, as administration has them; each thread for calls has its own.
    pub fn control(&self) -> &Arc<CreditControl<L>> {
        &self.control
    }

    /// Says loudly in the log what is open to everybody.
    pub fn warn_of_open_doors(&self) {
        if !self.security.has_identities() {
            tracing::warn!(
                "NO IDENTITIES ARE CONFIGURED: whoever reaches a listener may authorize calls and move money; \
                 set identities_file"
            );
        }
        let plain = [&self.addresses.calls, &self.addresses.administration];
        let plain = plain.into_iter().filter(|listen| {
            matches!(listen, Listen::Tcp(address) if !address.ip().is_loopback())
                && self.security.tls().is_none()
        });
        for listen in plain {
            tracing::warn!(%listen, "A LISTENER IS NOT ENCRYPTED and not on loopback; set tls_cert and tls_key");
        }
    }

    /// Who may ask it for what.
    pub fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// What changes its settings while it runs.
    pub fn reloads(&self) -> Reloads {
        Reloads {
            security: self.security.clone(),
            gate: self.gate.clone(),
            interval: self.reload_interval.clone(),
            most_bytes: self.most_bytes.clone(),
            keys: self.control.token_keys().clone(),
        }
    }

    /// Whether calls should be sent to it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until the records of calls that were decided without the ledger are in it; whether they are.
    pub async fn flush_records(&self, limit: Duration) -> bool {
        if let Some(journal) = self.control.journal()
            && !journal.drained(None, limit).await
        {
            return false;
        }
        flush_records(&self.call_threads, limit).await
    }

    /// Takes it out of service: nothing new begins, running calls are served on, emergency calls too.
    pub async fn drain(&self) {
        self.gate.drain();
        self.health.draining().await;
    }

    /// Serves until `stop` names a reason, then drains within the grace time.
    ///
    /// An error is a listener that failed.
    pub async fn run_until(self, stop: impl Future<Output = &'static str>) -> io::Result<()> {
        let Running {
            control,
            call_threads,
            gate,
            health,
            shutdown,
            mut servers,
            tasks,
            draining,
            mut notices,
            grace,
            ..
        } = self;
        let mut stopped_at = None;
        let stop = async {
            let reason = stop.await;
            gate.drain();
            stopped_at = Some(Instant::now());
            reason
        };
        let all = async {
            while let Some(ended) = servers.join_next().await {
                ended??;
            }
            Ok(())
        };
        let ended = serve_until(stop, all, &health, &shutdown, grace).await;
        drop(tasks);
        // Others may take the notices over at once where this ends in time, else when the lease is over.
        let _ = tokio::time::timeout(FLUSH_AT_LEAST, notices.join_next()).await;
        let left = stopped_at.map_or(Duration::ZERO, |at| grace.saturating_sub(at.elapsed()));
        let flush_until = Instant::now() + left.max(FLUSH_AT_LEAST);
        if let Some(journal) = control.journal() {
            let left = flush_until.saturating_duration_since(Instant::now());
            if !journal.drained(None, left).await {
                let waiting = journal.status().todo;
                tracing::warn!(
                    waiting,
                    "the journal holds what the ledger has to do until the next start"
                );
            }
        }
        drop(draining);
        // Others may have at once what no call was granted out of; else it comes back by itself.
        let _ = tokio::time::timeout(FLUSH_AT_LEAST, control.return_leases()).await;
        if let Some(journal) = control.journal().cloned() {
            tokio::task::spawn_blocking(move || journal.close()).await?;
        }
        let left = flush_until.saturating_duration_since(Instant::now());
        if !flush_records(&call_threads, left).await {
            tracing::error!(
                "records of calls decided without the ledger are lost: it did not come back"
            );
        }
        match ended {
            Ended::ByItself(Ok(())) => Err(io::Error::other("all listeners have closed")),
            Ended::ByItself(result) | Ended::Drained(result) => result,
            Ended::TimeOver => {
                tracing::warn!("requests were still running when the grace time was over");
                Ok(())
            }
        }
    }

    /// Stops now, within the grace time.
    pub async fn shutdown(self) -> io::Result<()> {
        self.run_until(ready("shutdown")).await
    }
}

/// A thread that serves calls, with an event loop and a connection to the ledger of its own, so that no
/// call waits for another thread, or for administration. It ends with this value.
struct CallThread<L> {
    control: Arc<CreditControl<L>>,
    _quit: oneshot::Sender<()>,
}

impl<L: Ledger> CallThread<L> {
    /// Starts it; its handle, and what tells how serving ended.
    async fn start<S>(
        number: u32,
        control: Arc<CreditControl<L>>,
        serve: impl FnOnce(Arc<CreditControl<L>>) -> S + Send + 'static,
    ) -> io::Result<(CallThread<L>, oneshot::Receiver<io::Result<()>>)>
    where
        S: Future<Output = io::Result<()>> + Send,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, started) = oneshot::channel();
        let (ended, served) = oneshot::channel();
        let (_quit, quitting) = oneshot::channel();
        let work = async move {
            tokio::spawn(tick());
            let control = match control.on_this_thread().await {
                Ok(control) => Arc::new(control),
                Err(error) => return drop(ready.send(Err(io::Error::other(error)))),
            };
            let _ = ready.send(Ok(control.clone()));
            let served = async {
                let _ = ended.send(serve(control).await);
                // Records may still be on their way to the ledger.
                std::future::pending().await
            };
            // An error is that this value is gone: nobody waits for anything any more.
            tokio::select! {
                () = served => {}
                _ = quitting => {}
            }
        };
        let name = format!("calls-{number}");
        std::thread::Builder::new().name(name).spawn(move || {
            // The first number compiles patterns, and the first of each thread makes room to match them, which no
            // call should wait for. Here, because that room belongs to the first thread that needs a pattern, and all
            // others share theirs by a lock.
            number::warm_up();
            runtime.block_on(work);
        })?;
        let control = started.await.map_err(thread_gone)??;
        Ok((CallThread { control, _quit }, served))
    }
}

/// Wakes an event loop for ever, and does nothing. tokio has a loop ring itself, by a write to the kernel, for each timer
/// that is due before the next it knows of, and each request sets two: with one that is due sooner it does not.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

fn thread_gone(_: oneshot::error::RecvError) -> io::Error {
    io::Error::other("a thread for calls has ended")
}

async fn flush_records<L: Ledger>(threads: &[CallThread<L>], limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let mut all = true;
    for thread in threads {
        all &= thread.control.flush_records(until.saturating_duration_since(Instant::now())).await;
    }
    all
}

/// Tasks that end with what holds them.
#[derive(Default)]
struct Tasks(Vec<AbortHandle>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task).abort_handle());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn seconds(length: Duration) -> Seconds {
    Seconds(i64::try_from(length.as_secs()).unwrap_or(i64::MAX))
}

/// Opens the journal, where one is set up; reading it may take a second for each gigabyte.
async fn open_journal(config: &Config) -> io::Result<Option<Arc<Journal>>> {
    let Some(folder) = config.journal.clone() else { return Ok(None) };
    let settings = journal::Settings {
        folder,
        keep: config.journal_keep,
        most_bytes: config.journal_size.into(),
    };
    let opened = tokio::task::spawn_blocking(move || Journal::open(&settings)).await?;
    opened.map(|journal| Some(Arc::new(journal))).map_err(io::Error::other)
}

/// Tells for ever, beside whether the server is ready, when its journal takes nothing.
async fn watch_journal(journal: Arc<Journal>, health: Health) {
    loop {
        health.set_journal_trouble(journal.status().trouble).await;
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// What notices are sent; `None` where neither of the channels is set up.
fn notice_settings(config: &Config) -> Option<notices::Settings> {
    let webhooks = config.webhook_secrets().map(|secrets| WebhookSettings {
        url: config.notices_webhook_url.clone(),
        secrets: secrets.clone(),
        kinds: config.notices_webhook_events.clone(),
        private: config.notices_private_receivers,
    });
    let relay = config.notices_smtp_url.as_ref().zip(config.notices_mail_from.as_ref());
    let mails = relay.map(|(url, from)| MailSettings {
        url: url.whole().to_owned(),
        from: from.clone(),
        kinds: config.notices_mail_events.clone(),
    });
    (webhooks.is_some() || mails.is_some()).then(|| notices::Settings {
        webhooks,
        mails,
        also: vec![TenantId::literal(UNATTRIBUTED)],
        timeout: config.notices_timeout,
        interval: config.notices_interval,
        lease: seconds(config.notices_lease),
        first_pause: config.notices_retry_first,
        longest_pause: config.notices_retry_longest,
        keep: seconds(config.notices_keep),
    })
}

/// Of the largest message on the listener for calls, in bytes.
fn message_size(config: &Config) -> usize {
    usize::try_from(config.max_message_size).unwrap_or(usize::MAX)
}

pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        default_grant: seconds(config.default_grant),
        max_grant: seconds(config.max_grant),
        ringing_timeout: seconds(config.ringing_timeout),
        grace: seconds(config.grace),
        denied_retention: seconds(config.denied_retention),
        ended_retention: seconds(config.ended_retention),
        ledger_timeout: config.ledger_timeout,
        emergency_country: config.emergency_country,
        token_keys: config.token_keys(),
        degraded: leases::Settings {
            call: seconds(config.degraded_call),
            per_hour: seconds(config.degraded_per_hour),
            money_per_hour: config.degraded_money_per_hour,
            lease: seconds(config.degraded_lease),
        },
    }
}

/// What both gRPC listeners serve: health and reflection, the latter in both versions because older
/// tools know only v1alpha.
///
/// Reflection describes everything, and lists what is served here: the listener's own `service` too.
fn common_routes(health: &Health, service: &str) -> io::Result<RoutesBuilder> {
    const COMMON: [&str; 3] = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure().with_service_name(service);
        COMMON
            .into_iter()
            .fold(builder, |builder, common| builder.with_service_name(common))
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of a refusal, which stock clients print field by field.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes.add_service(health.grpc());
    routes.add_service(reflection().build_v1().map_err(io::Error::other)?);
    routes.add_service(reflection().build_v1alpha().map_err(io::Error::other)?);
    Ok(routes)
}

/// The service for calls, and the others of its listener behind it: what calls take skips the router.
#[derive(Clone)]
struct CallsFirst<S> {
    calls: S,
    others: Routes,
}

type Called<F, B> = MapOk<F, fn(http::Response<B>) -> http::Response<Body>>;
type Routed = <Routes as Service<http::Request<Body>>>::Future;

impl<S, B> Service<http::Request<Body>> for CallsFirst<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    B: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<Called<S::Future, B>, Routed>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.calls.poll_ready(cx) {
            Poll::Ready(Ok(())) => Service::<http::Request<Body>>::poll_ready(&mut self.others, cx),
            waiting => waiting,
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/');
        let of_calls = path.and_then(|path| path.strip_prefix(call_authorization::NAME));
        match of_calls {
            Some(rpc) if rpc.starts_with('/') => {
                Either::Left(self.calls.call(request).map_ok(|response| response.map(Body::new)))
            }
            _ => Either::Right(self.others.call(request)),
        }
    }
}

/// What a request passes on its way to the services of a listener, in this order.
struct Layers {
    json: Arc<Api>,
    rpcs: &'static Rpcs,
    guard: GuardLayer,
}

/// Serves gRPC, and the same in JSON over HTTP/1.1 and HTTP/2. Which it is of the two is found out once
/// for each connection, by its first bytes.
async fn serve<S>(
    share: Share,
    services: S,
    Layers { json, rpcs, guard }: Layers,
    streams: u32,
    stop: impl Future<Output = ()> + Send + 'static,
    closing: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let security = guard.security.clone();
    let server = Server::builder()
        .max_concurrent_streams(streams)
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(JsonLayer(json))
        .layer(MeasuredLayer(rpcs))
        .layer(guard);
    let served = match (share, security.tls()) {
        (Share::Tcp(dealt), Some(tls)) => {
            let accepted = tls.accept(dealt.with_peers(), true, security.clone(), closing);
            let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
            server.serve_with_incoming_shutdown(services, incoming, stop).await
        }
        (Share::Tcp(dealt), None) => {
            server.serve_with_incoming_shutdown(services, dealt.tcp(), stop).await
        }
        (Share::Unix(dealt), _) => {
            server.serve_with_incoming_shutdown(services, dealt.unix(), stop).await
        }
    };
    served.map_err(io::Error::other)
}

/// Tells for ever whether the ledger answers.
async fn watch<L: Ledger>(control: Arc<CreditControl<L>>, health: Health, limit: Duration) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        let was_ready = health.state().await == health::State::Ready;
        let _ = watch_once(&control, &health, limit).await;
        if !was_ready && health.state().await == health::State::Ready {
            tracing::info!("ready: the ledger answers");
        }
    }
}

/// Whether the ledger answers. Once it has, and the decks are read, this is ready for good: a ledger that
/// goes away later is told apart.
async fn watch_once<L: Ledger>(
    control: &CreditControl<L>,
    health: &Health,
    limit: Duration,
) -> Result<(), LedgerError> {
    let begun = Instant::now();
    let answered = within(limit, control.ledger().ping()).await;
    let fault = answered.as_ref().err().map(LedgerError::fault);
    metrics::get().asked(Command::Ping, begun.elapsed(), fault);
    let answered_before = health.ledger_answers(answered.is_ok()).await;
    let ready = health.state().await == health::State::Ready;
    match &answered {
        Ok(()) if !ready => match read_decks(control).await {
            Ok(()) => health.ready().await,
            Err(error) => {
                health.waiting("the decks are not read yet").await;
                return Err(error);
            }
        },
        Ok(()) if !answered_before => tracing::info!("the ledger answers again"),
        Ok(()) => {}
        Err(error) if ready && answered_before => tracing::warn!(%error, "{}", health::AWAY),
        Err(_) => health.waiting(health::AWAY).await,
    }
    answered
}

/// Reads the tenants with their decks, so that no call waits for one, as many as are remembered anyway.
///
/// One that is broken does not keep the others from being served: its own calls are told.
async fn read_decks<L: Ledger>(control: &CreditControl<L>) -> Result<(), LedgerError> {
    let tenants = within(READ_TIMEOUT, control.ledger().tenants()).await?;
    for tenant in tenants.iter().take(MAX_TENANTS_READ) {
        let read = control.directory().tenant(control.ledger(), tenant);
        match within(READ_TIMEOUT, async { read.await.map(drop) }).await {
            Err(LedgerError::Corrupt(what)) => {
                tracing::error!(%tenant, what, "the deck cannot be read");
            }
            read => read?,
        }
    }
    Ok(())
}

/// Expires what is due, for ever; each round waits for the one before.
async fn sweep<L: Ledger>(control: Arc<CreditControl<L>>, interval: Duration, batch: u32) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep_all(&control, batch).await {
            tracing::warn!(%error, "sweeping is tried again");
        }
    }
}

/// One round. A tenant that cannot be swept, or not in time, does not keep the others waiting: its holds
/// would be theirs too. Only where nothing can be reached is the round given up.
async fn sweep_all<L: Ledger>(control: &CreditControl<L>, batch: u32) -> Result<(), LedgerError> {
    let mut tenants = within(SWEEP_TIMEOUT, control.ledger().tenants()).await?;
    tenants.push(TenantId::literal(UNATTRIBUTED));
    let mut late = Ok(());
    for tenant in tenants {
        match sweep_tenant(control, &tenant, batch).await {
            Err(LedgerError::Corrupt(what)) => {
                tracing::error!(%tenant, what, "the ledger cannot be swept");
            }
            Err(LedgerError::Indeterminate(what)) => {
                tracing::warn!(%tenant, what, "sweeping took too long");
                late = Err(LedgerError::Indeterminate(what));
            }
            swept => swept?,
        }
    }
    late
}

async fn sweep_tenant<L: Ledger>(
    control: &CreditControl<L>,
    tenant: &TenantId,
    batch: u32,
) -> Result<(), LedgerError> {
    let retention = control.settings().ended_retention;
    loop {
        let step = control.ledger().sweep(tenant, batch, retention);
        let begun = Instant::now();
        let swept = within(SWEEP_TIMEOUT, step).await;
        let fault = swept.as_ref().err().map(LedgerError::fault);
        metrics::get().asked(Command::Sweep, begun.elapsed(), fault);
        let swept = swept?.outcome;
        metrics::get().expired(swept.expired);
        if swept.expired > 0 {
            tracing::info!(%tenant, expired = swept.expired, "holds expired");
        }
        if swept.expired < batch && swept.forgotten < batch {
            return Ok(());
        }
    }
}

/// Looks for changed identities and certificates, for ever.
async fn keep_security(security: Arc<Security>, mut interval: watch::Receiver<Duration>) {
    loop {
        let length = *interval.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(length) => security.reload().await,
            Ok(()) = interval.changed() => {}
        }
    }
}

/// Carries out the retention of every tenant, for ever.
async fn keep_records<L: Ledger>(administration: Administration<L>) {
    let mut ticks = tokio::time::interval(RETENTION_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = administration.keep_records().await {
            tracing::warn!(%error, "retention is tried again");
        }
    }
}

async fn within<T>(
    limit: Duration,
    command: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let late = || LedgerError::Indeterminate(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, command).await.unwrap_or_else(|_| Err(late()))
}
