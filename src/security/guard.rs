//! The one place where requests are refused for who asks: before the services of a listener, behind what
//! turns JSON into protobuf, so that both ways of asking come by here.
//!
//! AuthorizeCall is never refused here: an emergency call is decided first (contract rule 13). What would
//! refuse it goes along as [`Deferred`], and its handler refuses whatever is no emergency.
//!
//! An answer that goes on, such as that of WatchCalls, is judged again at every look at the identities.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt};
use futures_util::stream;
use governor::clock::{Clock, DefaultClock};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, StreamBody};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower_layer::Layer;

use crate::security::identities::Identity;
use crate::security::roles::{self, Rpc, Scope};
use crate::security::tls::Peer;
use crate::security::{Reason, Security};

/// Bytes before a message of gRPC.
const PREFIX: usize = 5;

/// When to ask again where too many requests are in flight.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Puts [`Guard`] before the services of a listener, whose messages are at most so large.
#[derive(Clone)]
pub struct GuardLayer {
    /// Who may ask.
    pub security: Arc<Security>,
    /// Largest message, in bytes; may change.
    pub most_bytes: Arc<AtomicUsize>,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, layer: self.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

/// A caller that is known, beside its request.
#[derive(Clone)]
pub struct Caller {
    security: Arc<Security>,
    identity: Arc<Identity>,
    peer: String,
    rpc: &'static str,
}

impl Caller {
    /// Refuses for a tenant that does not exist: names are not to be found out by trying.
    pub fn refuse_tenant(&self) -> Status {
        let refusals = self.security.refusals();
        refusals.record(&self.identity.name, &self.peer, self.rpc, Reason::Tenant);
        status(Reason::Tenant, None)
    }
}

/// Why an AuthorizeCall is refused where it is no emergency call.
#[derive(Clone)]
pub struct Deferred {
    security: Arc<Security>,
    caller: String,
    peer: String,
    reason: Reason,
    retry: Option<Duration>,
}

impl Deferred {
    /// What is written beside the record of an emergency call; empty where the caller may make calls of
    /// this tenant, only not so many.
    pub fn flag(&self) -> &'static str {
        match self.reason {
            Reason::Rate | Reason::InFlight | Reason::MessageSize => "",
            Reason::Tenant => "TENANT_NOT_THE_CALLERS",
            Reason::Role => "CALLER_NOT_ALLOWED",
            _ => "CALLER_NOT_AUTHENTICATED",
        }
    }

    /// Whether an emergency call passes all the same. Callers that are known always pass; of the others
    /// as many each second as do no harm.
    pub fn admits_emergency(&self) -> bool {
        let known = matches!(self.flag(), "" | "TENANT_NOT_THE_CALLERS");
        let admitted = known || self.security.strangers.check().is_ok();
        match admitted {
            true => tracing::warn!(
                caller = ?self.caller,
                peer = ?self.peer,
                reason = self.reason.name(),
                "an emergency call passes that would be refused otherwise"
            ),
            false => self.record(Reason::Strangers),
        }
        admitted
    }

    /// Refuses.
    pub fn refuse(&self) -> Status {
        self.record(self.reason);
        status(self.reason, self.retry)
    }

    fn record(&self, reason: Reason) {
        self.security.refusals().record(&self.caller, &self.peer, roles::AUTHORIZE, reason);
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let security = &self.layer.security;
        let open = security.settings.open_health && request.uri().path().starts_with(roles::HEALTH);
        if security.identities.is_none() || open {
            return Either::Left(self.inner.call(request));
        }
        // The one that is ready, as `poll_ready` told, answers.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Either::Right(layer.answer(inner, request).boxed())
    }
}

impl GuardLayer {
    async fn answer<S>(
        self,
        mut inner: S,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let (mut parts, body) = request.into_parts();
        let peer = peer(&parts.extensions);
        let identity = self.security.identify(&parts.headers, &parts.extensions);
        let caller = identity.as_ref().map_or("", |identity| identity.name.as_str()).to_owned();
        let rpc = roles::find(parts.uri.path());
        let refuse = |reason, retry| {
            self.security.refusals().record(&caller, &peer, parts.uri.path(), reason);
            Ok(status(reason, retry).into_http())
        };
        let admitted = identity.and_then(|identity| {
            let rpc = rpc.filter(|rpc| rpc.roles.contains(&identity.role));
            rpc.map(|rpc| (identity, rpc)).ok_or(Reason::Role)
        });
        let is_authorize = parts.uri.path() == roles::AUTHORIZE;
        let (identity, rpc) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) if is_authorize => {
                let deferred = self.deferred(caller, peer, reason, None);
                parts.extensions.insert(deferred);
                return inner.call(Request::from_parts(parts, body)).await;
            }
            Err(reason) => return refuse(reason, None),
        };
        let mut standing = roles::goes_on(rpc.path).then(|| {
            let security = self.security.clone();
            Standing::new(security, rpc, &parts.headers, &parts.extensions)
        });
        let limits = limits(&identity);
        if let Err((reason, retry)) = &limits
            && !is_authorize
        {
            return refuse(*reason, *retry);
        }
        let (body, verdict) = match rpc.scope {
            Scope::Nothing => (body, Ok(())),
            Scope::All if !identity.has_all_tenants() => (body, Err(Reason::Tenant)),
            _ => match Limited::new(body, self.most_framed()).collect().await {
                Ok(read) => {
                    let frame = read.to_bytes();
                    if let Some(standing) = &mut standing {
                        standing.frame = frame.clone();
                    }
                    let verdict = judge(&identity, rpc, &frame);
                    (Body::new(Full::new(frame)), verdict)
                }
                Err(error) if error.is::<LengthLimitError>() => {
                    let most = self.most_framed().saturating_sub(PREFIX);
                    let large = format!("expected a message of at most {most} bytes");
                    return Ok(Status::out_of_range(large).into_http());
                }
                Err(_) => {
                    return Ok(Status::cancelled("the message did not arrive").into_http());
                }
            },
        };
        let (permit, refused) = match (verdict, limits) {
            // Whose it is comes first: what is only too much is recorded under the tenant.
            (Err(reason @ Reason::Tenant), _) => (None, Some((reason, None))),
            (_, Err(refused)) => (None, Some(refused)),
            (Err(reason), Ok(_)) => (None, Some((reason, None))),
            (Ok(()), Ok(permit)) => (permit, None),
        };
        match refused {
            Some((reason, retry)) if is_authorize => {
                parts.extensions.insert(self.deferred(caller, peer, reason, retry));
            }
            Some((reason, retry)) => return refuse(reason, retry),
            None => {
                let security = self.security.clone();
                parts.extensions.insert(Caller { security, identity, peer, rpc: rpc.path });
            }
        }
        let response = inner.call(Request::from_parts(parts, body)).await?;
        let response = match standing {
            Some(standing) => response.map(|body| standing.while_held(body)),
            None => response,
        };
        let Some(permit) = permit else { return Ok(response) };
        // Until the last of the answer is sent, which of a stream may take long.
        Ok(response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &permit;
                frame
            }))
        }))
    }

    /// Most bytes of a message with what stands before it.
    fn most_framed(&self) -> usize {
        self.most_bytes.load(Ordering::Relaxed).saturating_add(PREFIX)
    }

    fn deferred(
        &self,
        caller: String,
        peer: String,
        reason: Reason,
        retry: Option<Duration>,
    ) -> Deferred {
        Deferred { security: self.security.clone(), caller, peer, reason, retry }
    }
}

/// What a stream was asked for with, to be judged again.
struct Standing {
    security: Arc<Security>,
    rpc: &'static Rpc,
    /// Tokens alone.
    headers: HeaderMap,
    /// The certificate alone.
    extensions: Extensions,
    /// The message; empty where it is about no tenant.
    frame: Bytes,
    peer: String,
}

impl Standing {
    fn new(
        security: Arc<Security>,
        rpc: &'static Rpc,
        all_headers: &HeaderMap,
        all_extensions: &Extensions,
    ) -> Standing {
        let mut headers = HeaderMap::new();
        for token in all_headers.get_all(AUTHORIZATION) {
            headers.append(AUTHORIZATION, token.clone());
        }
        let mut extensions = Extensions::new();
        if let Some(peer) = all_extensions.get::<Peer>() {
            extensions.insert(peer.clone());
        }
        let peer = peer(all_extensions);
        Standing { security, rpc, headers, extensions, frame: Bytes::new(), peer }
    }

    /// Whether it would be begun now; if not, who asks and why.
    fn judge(&self) -> Result<(), (String, Reason)> {
        let identity = self.security.identify(&self.headers, &self.extensions);
        let identity = identity.map_err(|reason| (String::new(), reason))?;
        let judged = match self.rpc.scope {
            _ if !self.rpc.roles.contains(&identity.role) => Err(Reason::Role),
            Scope::Nothing => Ok(()),
            Scope::All if !identity.has_all_tenants() => Err(Reason::Tenant),
            _ => judge(&identity, self.rpc, &self.frame),
        };
        judged.map_err(|reason| (identity.name.clone(), reason))
    }

    /// The body, which ends with a refusal as soon as it would not be begun any more.
    fn while_held(self, body: Body) -> Body {
        let looks = self.security.looks.subscribe();
        let begun = Some((self, body, looks));
        Body::new(StreamBody::new(stream::unfold(begun, |state| async {
            let (standing, mut body, mut looks) = state?;
            loop {
                tokio::select! {
                    biased;
                    Ok(()) = looks.changed() => {
                        let Err((caller, reason)) = standing.judge() else { continue };
                        let Standing { security, rpc, peer, .. } = &standing;
                        security.refusals().record(&caller, peer, rpc.path, reason);
                        let mut trailers = HeaderMap::new();
                        // A name or text that is no header is left out.
                        let _ = status(reason, None).add_header(&mut trailers);
                        let end = Empty::<Bytes>::new().with_trailers(ready(Some(Ok(trailers))));
                        let end = std::pin::pin!(end).frame().await?;
                        return Some((end.map_err(|never| match never {}), None));
                    }
                    frame = body.frame() => {
                        return frame.map(|frame| (frame, Some((standing, body, looks))));
                    }
                }
            }
        })))
    }
}

impl Security {
    /// Who asks. A token decides where there is one, else the certificate of the connection.
    fn identify(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Arc<Identity>, Reason> {
        let identities = self.identities.as_ref().ok_or(Reason::NoCredential)?.load();
        let mut tokens = headers.get_all(AUTHORIZATION).iter();
        match (tokens.next(), tokens.next()) {
            (Some(_), Some(_)) => Err(Reason::UnknownToken),
            (Some(value), None) => match value.as_bytes().split_at_checked("Bearer ".len()) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                    identities.by_token(token)
                }
                _ => Err(Reason::UnknownToken),
            },
            (None, _) => match extensions.get::<Peer>() {
                Some(peer) if !peer.names.is_empty() => identities.by_certificate(&peer.names),
                _ => Err(Reason::NoCredential),
            },
        }
    }
}

type Limit = (Reason, Option<Duration>);

fn limits(identity: &Identity) -> Result<Option<OwnedSemaphorePermit>, Limit> {
    let permit = match &identity.in_flight {
        None => None,
        Some((_, permits)) => match permits.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => return Err((Reason::InFlight, Some(RETRY_AFTER))),
        },
    };
    if let Some((_, rate)) = &identity.rate
        && let Err(until) = rate.check()
    {
        return Err((Reason::Rate, Some(until.wait_time_from(DefaultClock::default().now()))));
    }
    Ok(permit)
}

fn judge(identity: &Identity, rpc: &Rpc, frame: &Bytes) -> Result<(), Reason> {
    let all = identity.has_all_tenants();
    let own = match roles::tenants(rpc.scope, frame) {
        // What cannot be read, nobody serves either; of whom it is remains open.
        None => all,
        Some(tenants) if rpc.scope == Scope::TenantOrAll && tenants.is_empty() => all,
        Some(tenants) => tenants.iter().all(|tenant| identity.has_tenant(tenant)),
    };
    if !own {
        return Err(Reason::Tenant);
    }
    let most = identity.message_size.map(|most| usize::try_from(most.get()).unwrap_or(usize::MAX));
    match most {
        Some(most) if frame.len().saturating_sub(PREFIX) > most => Err(Reason::MessageSize),
        _ => Ok(()),
    }
}

fn peer(extensions: &Extensions) -> String {
    let plain = || extensions.get::<TcpConnectInfo>()?.remote_addr();
    let address = extensions.get::<Peer>().map(|peer| peer.address).or_else(plain);
    address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

/// What the caller is told; never what it would have to be called to be let in.
fn status(reason: Reason, retry: Option<Duration>) -> Status {
    let limited = |message: &str| {
        let details = ErrorDetails::with_retry_info(retry);
        Status::with_error_details(Code::ResourceExhausted, message, details)
    };
    match reason {
        Reason::NoCredential => {
            Status::unauthenticated("expected a bearer token or a certificate of a known caller")
        }
        Reason::ExpiredToken => Status::unauthenticated("the token has expired"),
        Reason::UnknownToken => Status::unauthenticated("the token is not known"),
        Reason::UnknownCertificate | Reason::Handshake => {
            Status::unauthenticated("the certificate names no known caller")
        }
        Reason::Role => Status::permission_denied("the role of the caller does not allow this"),
        Reason::Tenant => Status::permission_denied("the tenant is not one of the caller's"),
        Reason::Rate => limited("more requests a second than the caller may make"),
        Reason::InFlight => limited("more requests in flight than the caller may have"),
        Reason::MessageSize => limited("a larger message than the caller may send"),
        Reason::Strangers => limited("too many emergency calls of unknown callers"),
    }
}
