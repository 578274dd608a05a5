//! `CallAuthorizationService`: requests are checked here, decided in [`credit_control`].
//!
//! [`credit_control`]: crate::credit_control

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use prost_types::Duration;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::{Extensions, Request, Response, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::number::masked;
use crate::charging::rating::MAX_USAGE;
use crate::charging::units::Seconds;
use crate::credit_control::answer::{Answer, Charge, EndReport};
use crate::credit_control::directives::Directives;
use crate::credit_control::emergency::{RawRequest, may_be_emergency};
use crate::credit_control::{AuthorizeRequest, CreditControl, EndRequest, ExtendRequest};
use crate::grpc::convert::{
    MAX_NAME_BYTES, MAX_NUMBER_BYTES, MAX_REQUESTED, MAX_TEXT_BYTES, MAX_TOKEN_BYTES, cause,
    labels, listed, millis, optional_millis, optional_seconds, required_text, seconds, sequence,
    stated, text,
};
use crate::grpc::gate::Gate;
use crate::grpc::measured::KeptTrace;
use crate::grpc::status::{FieldViolations, ledger, use_case};
use crate::grpc::{answer, deadline, watch};
use crate::ledger::{EndResult, Ending, Ledger};
use crate::metrics::{self, Decider, Settled};
use crate::ops::traces::{self, Parent};
use crate::proto::v1;
use crate::proto::v1::call_authorization_service_server::{
    CallAuthorizationService, CallAuthorizationServiceServer,
};
use crate::security::guard::{Caller, Deferred};

/// The full name of the service.
pub const NAME: &str = "tollgate.v1.CallAuthorizationService";

/// The service as a listener serves it, with its deadline and the largest message that it takes.
pub type Served<L> = InterceptedService<Bounded<L>, fn(Request<()>) -> Result<Request<()>, Status>>;

/// The service with a largest message that may change.
pub struct Bounded<L> {
    server: CallAuthorizationServiceServer<CallAuthorization<L>>,
    most_bytes: Arc<AtomicUsize>,
    /// What the server has now.
    in_force: usize,
}

impl<L> Clone for Bounded<L> {
    fn clone(&self) -> Self {
        let Bounded { server, most_bytes, in_force } = self;
        Bounded { server: server.clone(), most_bytes: most_bytes.clone(), in_force: *in_force }
    }
}

impl<L> NamedService for Bounded<L> {
    const NAME: &'static str = NAME;
}

impl<L: Ledger> Service<http::Request<Body>> for Bounded<L> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <CallAuthorizationServiceServer<CallAuthorization<L>> as Service<
        http::Request<Body>,
    >>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.server, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let most = self.most_bytes.load(Ordering::Relaxed);
        if most != self.in_force {
            self.server = self.server.clone().max_decoding_message_size(most);
            self.in_force = most;
        }
        self.server.call(request)
    }
}

/// See the module.
pub struct CallAuthorization<L> {
    control: Arc<CreditControl<L>>,
    gate: Arc<Gate>,
    directives: Arc<Directives<L>>,
}

impl<L: Ledger> CallAuthorization<L> {
    /// The service on its use cases, ready to be listened for; messages above `most_bytes` are refused.
    pub fn serve(
        control: Arc<CreditControl<L>>,
        gate: Arc<Gate>,
        directives: Arc<Directives<L>>,
        most_bytes: Arc<AtomicUsize>,
    ) -> Served<L> {
        let service = CallAuthorization { control, gate, directives };
        let in_force = most_bytes.load(Ordering::Relaxed);
        let server =
            CallAuthorizationServiceServer::new(service).max_decoding_message_size(in_force);
        InterceptedService::new(Bounded { server, most_bytes, in_force }, deadline::intercept)
    }

    async fn try_authorize(
        &self,
        request: Request<v1::AuthorizeCallRequest>,
    ) -> Result<Answer, Status> {
        let (_, extensions, message) = request.into_parts();
        let deadline = deadline::of(&extensions);
        // Fields of JSON that could not be put into the message.
        let unread = extensions.get::<FieldViolations>();
        let deferred = extensions.get::<Deferred>();
        let unvouched = deferred.map_or("", Deferred::flag);
        let facts = RawRequest { unvouched, ..raw(&message) };
        if deferred.is_some_and(|refusal| may_be_emergency(&facts) && !refusal.admits_emergency()) {
            return Err(Status::unauthenticated("too many emergency calls of unknown callers"));
        }
        if let Some(answer) = self.control.authorize_emergency(&facts, deadline).await {
            // What would refuse any other call is told, all of it.
            let (_, violations) = read_authorize(message);
            return Ok(Answer { warnings: violations.after(unread).into_warnings(), ..answer });
        }
        if let Some(refusal) = deferred {
            return Err(refusal.refuse());
        }
        let _entered = self.gate.enter_new()?;
        let (request, violations) = read_authorize(message);
        let request = violations.after(unread).finish(request)?;
        self.refuse_strangers(&extensions, &request.tenant, deadline).await?;
        Ok(self.control.authorize(&request, deadline).await)
    }

    /// Refuses a tenant that does not exist, where callers are known. Where the ledger cannot say, what
    /// follows says so.
    async fn refuse_strangers(
        &self,
        extensions: &Extensions,
        tenant: &TenantId,
        deadline: Instant,
    ) -> Result<(), Status> {
        let Some(caller) = extensions.get::<Caller>() else { return Ok(()) };
        let directory = self.control.directory();
        if directory.known(tenant).is_some() {
            return Ok(());
        }
        let asked = directory.tenant(self.control.ledger(), tenant);
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(found)) if found.profile().is_none() => Err(caller.refuse_tenant()),
            _ => Ok(()),
        }
    }

    async fn try_quote(&self, request: Request<v1::QuoteCallRequest>) -> Result<Answer, Status> {
        let (_, extensions, message) = request.into_parts();
        let deadline = deadline::of(&extensions);
        let _entered = self.gate.enter_new()?;
        let (request, violations) = read_quote(message);
        let request = violations.finish(request)?;
        self.refuse_strangers(&extensions, &request.tenant, deadline).await?;
        self.control.quote(&request, deadline).await.map_err(ledger)
    }

    async fn try_extend(&self, request: Request<v1::ExtendCallRequest>) -> Result<Answer, Status> {
        let deadline = deadline::of(request.extensions());
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let key = read_key(&mut violations, &message.tenant_id, &message.call_id);
        let used = optional_seconds(message.used_duration.as_ref(), MAX_USAGE);
        let used = violations.take("used_duration", used);
        let requested = optional_seconds(message.requested_duration.as_ref(), MAX_REQUESTED);
        let requested = violations.take("requested_duration", requested);
        let sequence = violations.take("sequence", sequence(message.sequence));
        violations.take("token", text(&message.token, MAX_TOKEN_BYTES));
        let read = || {
            let (tenant, call) = key?;
            let (used, sequence) = (used?.unwrap_or_default(), sequence?);
            let (requested, token) = (requested?, message.token);
            Some(ExtendRequest { tenant, call, used, sequence, requested, token })
        };
        let request = violations.finish(read())?;
        self.control.extend(&request, deadline).await.map_err(use_case)
    }
}

#[tonic::async_trait]
impl<L: Ledger> CallAuthorizationService for CallAuthorization<L> {
    async fn authorize_call(
        &self,
        request: Request<v1::AuthorizeCallRequest>,
    ) -> Result<Response<v1::AuthorizeCallResponse>, Status> {
        let message = request.get_ref();
        let called = Some(masked(&message.called_number));
        let attempt = Some(message.attempt);
        let call_type = message.call_type;
        let span =
            span(&request, "AuthorizeCall", &message.tenant_id, &message.call_id, called, attempt);
        let answer = async {
            let answer = self.try_authorize(request).await?;
            Ok::<_, Status>(logged(Decider::Authorize, call_type, answer))
        };
        let answer = answer.instrument(span).await?;
        Ok(Response::new(answer::authorized(answer)))
    }

    async fn report_answer(
        &self,
        request: Request<v1::ReportAnswerRequest>,
    ) -> Result<Response<v1::ReportAnswerResponse>, Status> {
        let message = request.get_ref();
        let span = span(&request, "ReportAnswer", &message.tenant_id, &message.call_id, None, None);
        let answer = async {
            let deadline = deadline::of(request.extensions());
            let _entered = self.gate.enter()?;
            let mut violations = FieldViolations::new();
            let key = read_key(&mut violations, &message.tenant_id, &message.call_id);
            violations.take("answered_at", optional_millis(message.answered_at.as_ref()));
            let (tenant, call) = violations.finish(key)?;
            self.control.report_answer(&tenant, &call, deadline).await.map_err(use_case)
        };
        let answer = answer.instrument(span).await?;
        Ok(Response::new(answer::answer_reported(answer)))
    }

    async fn extend_call(
        &self,
        request: Request<v1::ExtendCallRequest>,
    ) -> Result<Response<v1::ExtendCallResponse>, Status> {
        let message = request.get_ref();
        let span = span(&request, "ExtendCall", &message.tenant_id, &message.call_id, None, None);
        let answer = async {
            let answer = self.try_extend(request).await?;
            Ok::<_, Status>(logged(Decider::Extend, 0, answer))
        };
        let answer = answer.instrument(span).await?;
        Ok(Response::new(answer::extended(answer)))
    }

    async fn settle_call(
        &self,
        request: Request<v1::SettleCallRequest>,
    ) -> Result<Response<v1::SettleCallResponse>, Status> {
        let message = request.get_ref();
        let span = span(&request, "SettleCall", &message.tenant_id, &message.call_id, None, None);
        let charge = async {
            let deadline = deadline::of(request.extensions());
            let _entered = self.gate.enter()?;
            let request = read_settle(request.into_inner())?;
            self.control.end(request, deadline).await.map(counted).map_err(use_case)
        };
        let charge = charge.instrument(span).await?;
        Ok(Response::new(answer::settled(charge)))
    }

    async fn release_call(
        &self,
        request: Request<v1::ReleaseCallRequest>,
    ) -> Result<Response<v1::ReleaseCallResponse>, Status> {
        let message = request.get_ref();
        let span = span(&request, "ReleaseCall", &message.tenant_id, &message.call_id, None, None);
        let charge = async {
            let deadline = deadline::of(request.extensions());
            let _entered = self.gate.enter()?;
            let mut violations = FieldViolations::new();
            let key = read_key(&mut violations, &message.tenant_id, &message.call_id);
            let cause = violations.take("q850_cause", cause(message.q850_cause));
            let ((tenant, call), cause) = violations.finish(key.zip(cause))?;
            let q850_cause = cause.map_or(0, u32::from);
            let report = EndReport { q850_cause, ..EndReport::default() };
            let (how, token) = (Ending::Release, String::new());
            let request = EndRequest { tenant, call, how, report, token };
            self.control.end(request, deadline).await.map(counted).map_err(use_case)
        };
        let charge = charge.instrument(span).await?;
        Ok(Response::new(answer::released(charge)))
    }

    async fn quote_call(
        &self,
        request: Request<v1::QuoteCallRequest>,
    ) -> Result<Response<v1::QuoteCallResponse>, Status> {
        let message = request.get_ref();
        let called = Some(masked(&message.called_number));
        let call_type = message.call_type;
        let span = span(&request, "QuoteCall", &message.tenant_id, &message.call_id, called, None);
        let answer = async {
            let answer = self.try_quote(request).await?;
            Ok::<_, Status>(logged(Decider::Quote, call_type, answer))
        };
        let answer = answer.instrument(span).await?;
        Ok(Response::new(answer::quoted(answer)))
    }

    async fn end_calls(
        &self,
        request: Request<v1::EndCallsRequest>,
    ) -> Result<Response<v1::EndCallsResponse>, Status> {
        let message = request.get_ref();
        let span = span(&request, "EndCalls", &message.tenant_id, "", None, None);
        let ended = async {
            let deadline = deadline::of(request.extensions());
            let _entered = self.gate.enter()?;
            let mut violations = FieldViolations::new();
            let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
            let trunk = required_text(&message.trunk_id, MAX_NAME_BYTES);
            let trunk = violations.take("trunk_id", trunk);
            let before = violations.take("started_before", millis(message.started_before.as_ref()));
            let read = tenant.zip(trunk).zip(before);
            let ((tenant, trunk), before) = violations.finish(read)?;
            let ended = self.control.end_calls(&tenant, trunk, before, deadline).await;
            ended.map_err(use_case)
        };
        let ended = ended.instrument(span).await?;
        Ok(Response::new(answer::ended(&ended)))
    }

    type WatchCallsStream = watch::Stream;

    async fn watch_calls(
        &self,
        request: Request<v1::WatchCallsRequest>,
    ) -> Result<Response<Self::WatchCallsStream>, Status> {
        let message = request.get_ref();
        let span = span(&request, "WatchCalls", &message.tenant_id, "", None, None);
        let told = async {
            if self.gate.is_draining() {
                return Err(watch::draining());
            }
            let mut violations = FieldViolations::new();
            let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
            let trunk = violations.take("trunk_id", text(&message.trunk_id, MAX_NAME_BYTES));
            let (tenant, trunk) = violations.finish(tenant.zip(trunk))?;
            let deadline = Instant::now() + deadline::DEFAULT;
            self.refuse_strangers(request.extensions(), &tenant, deadline).await?;
            let opened = tokio::time::timeout_at(deadline, self.directives.watch(&tenant, trunk));
            match opened.await {
                Ok(opened) => opened.map_err(watch::refused),
                Err(_) => Err(Status::unavailable("the ledger does not answer; try again")),
            }
        };
        let told = told.instrument(span).await?;
        Ok(Response::new(watch::stream(told)))
    }
}

/// The span of one request. What the client sent is cut and escaped: it is not checked yet.
///
/// Made with all of its fields at once: each that is added later has the log write all of them anew. Only what
/// is traced learns more on its way.
fn span<T>(
    request: &Request<T>,
    rpc: &'static str,
    tenant: &str,
    call: &str,
    called: Option<String>,
    attempt: Option<u32>,
) -> Span {
    let (tenant, call) = (shown(tenant), shown(call));
    let (tenant, call) = (tenant.as_ref(), call.as_ref());
    let Some(parent) = Parent::of(request.metadata().as_ref()) else {
        return info_span!("rpc", rpc, tenant, call, called, attempt);
    };
    let span = info_span!(target: traces::TARGET, "rpc", rpc, tenant, call, called, attempt,
        otel.name = rpc, otel.kind = "server", trace_id = Empty, decision = Empty, class = Empty,
        result = Empty);
    if let Some(trace) = parent.adopt(&span) {
        span.record("trace_id", &trace);
        if let Some(kept) = request.extensions().get::<KeptTrace>() {
            kept.set(trace);
        }
    }
    span
}

/// A client's text as a log may show it: cut, and escaped where there is anything but plain ASCII in it.
fn shown(text: &str) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(MAX_NAME_BYTES)];
    match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.escape_debug().to_string()),
    }
}

/// Notes what was decided, within the request's span; `call_type` as it was sent.
fn logged(by: Decider, call_type: i32, answer: Answer) -> Answer {
    let class = answer.classification.as_ref().map(|found| found.class);
    let call_type = v1::CallType::try_from(call_type).ok().and_then(answer::from_call_type);
    metrics::get().decided(by, answer.decision, class, call_type, answer.replayed);
    traces::note("decision", answer.decision.name());
    traces::note("class", class.map_or("", |class| class.name()));
    let (decision, replayed) = (answer.decision.name(), answer.replayed);
    if !answer.decision.allowed() || traces::tells_decision() {
        let granted = answer.grant.as_ref().map(|grant| grant.granted.0);
        let class = class.map(|class| class.name());
        tracing::info!(decision, replayed, class, granted, "decided");
    } else {
        tracing::debug!(decision, replayed, "decided");
    }
    answer
}

/// Counts what became of a call.
fn counted(charge: Charge) -> Charge {
    traces::note("result", settled_word(charge.result).word());
    if !charge.replayed {
        metrics::get()
            .settled(settled_word(charge.result), charge.shortfall_duration.is_positive());
    }
    charge
}

fn settled_word(result: EndResult) -> Settled {
    match result {
        EndResult::Settled => Settled::Settled,
        EndResult::AlreadySettled => Settled::AlreadySettled,
        EndResult::Released => Settled::Released,
        EndResult::Parked => Settled::Parked,
        EndResult::Accepted => Settled::Accepted,
    }
}

fn raw(message: &v1::AuthorizeCallRequest) -> RawRequest<'_> {
    RawRequest {
        tenant: &message.tenant_id,
        call: &message.call_id,
        call_type: v1::CallType::try_from(message.call_type).ok().and_then(answer::from_call_type),
        payer: &message.payer_id,
        calling_number: &message.calling_number,
        called_number: &message.called_number,
        original_called_number: &message.original_called_number,
        trunk: &message.trunk_id,
        reports_answer: message.reports_answer,
        unvouched: "",
    }
}

/// A request as far as it can be read, and what is wrong with it.
type Read = (Option<AuthorizeRequest>, FieldViolations);

fn read_authorize(message: v1::AuthorizeCallRequest) -> Read {
    let mut violations = FieldViolations::new();
    let call = violations.take("call_id", CallId::of_client(&message.call_id));
    read_facts(violations, call, message)
}

/// A quote may do without a call_id: nothing is stored under it.
fn read_quote(message: v1::QuoteCallRequest) -> Read {
    let mut violations = FieldViolations::new();
    let call = match message.call_id.as_str() {
        "" => Some(CallId::literal("-")),
        given => violations.take("call_id", CallId::of_client(given)),
    };
    let message = v1::AuthorizeCallRequest {
        tenant_id: message.tenant_id,
        call_id: message.call_id,
        call_type: message.call_type,
        payer_id: message.payer_id,
        calling_number: message.calling_number,
        called_number: message.called_number,
        original_called_number: message.original_called_number,
        requested_duration: message.requested_duration,
        origin: message.origin,
        on_behalf_of: message.on_behalf_of,
        conference_id: message.conference_id,
        sip_call_id: message.sip_call_id,
        trunk_id: message.trunk_id,
        reports_answer: message.reports_answer,
        attempt: message.attempt,
        labels: message.labels,
    };
    read_facts(violations, call, message)
}

fn read_facts(
    mut violations: FieldViolations,
    call: Option<CallId>,
    message: v1::AuthorizeCallRequest,
) -> Read {
    let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
    let call_type = violations.take("call_type", stated(message.call_type));
    let payer = violations.take("payer_id", PayerId::new(&message.payer_id));
    for (path, value, max) in [
        ("calling_number", &message.calling_number, MAX_NUMBER_BYTES),
        ("called_number", &message.called_number, MAX_NUMBER_BYTES),
        ("original_called_number", &message.original_called_number, MAX_NUMBER_BYTES),
        ("on_behalf_of", &message.on_behalf_of, MAX_NAME_BYTES),
        ("conference_id", &message.conference_id, MAX_TEXT_BYTES),
        ("sip_call_id", &message.sip_call_id, MAX_TEXT_BYTES),
        ("trunk_id", &message.trunk_id, MAX_NAME_BYTES),
    ] {
        violations.take(path, text(value, max));
    }
    let requested = read_requested(message.requested_duration, &mut violations);
    let origin = violations.take("origin", listed(message.origin)).map(origin);
    let labels: Option<BTreeMap<_, _>> = violations.take("labels", labels(message.labels));
    let read = || {
        Some(AuthorizeRequest {
            tenant: tenant?,
            call: call?,
            call_type: call_type.and_then(answer::from_call_type)?,
            payer: payer?,
            calling_number: message.calling_number,
            called_number: message.called_number,
            original_called_number: message.original_called_number,
            requested: requested?,
            origin: origin?,
            on_behalf_of: message.on_behalf_of,
            conference_id: message.conference_id,
            sip_call_id: message.sip_call_id,
            trunk: message.trunk_id,
            reports_answer: message.reports_answer,
            labels: labels?,
        })
    };
    (read(), violations)
}

/// Absent and zero both leave it to the server; outside `None` where it is malformed.
fn read_requested(
    duration: Option<Duration>,
    violations: &mut FieldViolations,
) -> Option<Option<Seconds>> {
    let asked = optional_seconds(duration.as_ref(), MAX_REQUESTED);
    let asked = violations.take("requested_duration", asked)?;
    Some(asked.filter(|seconds| seconds.is_positive()))
}

fn read_settle(message: v1::SettleCallRequest) -> Result<EndRequest, Status> {
    let mut violations = FieldViolations::new();
    let key = read_key(&mut violations, &message.tenant_id, &message.call_id);
    let used = seconds(message.used_duration.as_ref(), MAX_USAGE);
    let used = violations.take("used_duration", used);
    violations.take("sequence", sequence(message.sequence));
    let cause = violations.take("q850_cause", cause(message.q850_cause));
    let answered_at = optional_millis(message.answered_at.as_ref());
    let answered_at = violations.take("answered_at", answered_at);
    let ended_at = violations.take("ended_at", optional_millis(message.ended_at.as_ref()));
    violations.take("token", text(&message.token, MAX_TOKEN_BYTES));
    let labels = violations.take("labels", labels(message.labels));
    let read = || {
        let (tenant, call) = key?;
        let report = EndReport {
            q850_cause: cause?.map_or(0, u32::from),
            answered_at: answered_at?,
            ended_at: ended_at?,
            labels: labels?,
            ..EndReport::default()
        };
        let (how, token) = (Ending::Settle(used?), message.token);
        Some(EndRequest { tenant, call, how, report, token })
    };
    violations.finish(read())
}

fn read_key(
    violations: &mut FieldViolations,
    tenant: &str,
    call: &str,
) -> Option<(TenantId, CallId)> {
    let tenant = violations.take("tenant_id", TenantId::new(tenant));
    let call = violations.take("call_id", CallId::of_client(call));
    tenant.zip(call)
}

/// As it is recorded: its name in the contract, empty for a direct call.
fn origin(origin: v1::CallOrigin) -> String {
    match origin {
        v1::CallOrigin::Unspecified | v1::CallOrigin::Direct => "",
        v1::CallOrigin::Transfer => "TRANSFER",
        v1::CallOrigin::Forward => "FORWARD",
        v1::CallOrigin::AddParty => "ADD_PARTY",
        v1::CallOrigin::OnBehalf => "ON_BEHALF",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_stands_in_the_log_as_it_is_but_for_what_would_change_the_log() {
        assert_eq!(shown("contoso"), "contoso");
        assert_eq!(shown("a \"leg\" of B\u{fc}ro"), "a \\\"leg\\\" of B\u{fc}ro");
        assert_eq!(shown("\u{1b}[2J\n\u{9b}\u{202e}"), "\\u{1b}[2J\\n\\u{9b}\\u{202e}");
        assert_eq!(shown(&"\u{e9}".repeat(200)).len(), MAX_NAME_BYTES);
    }
}
