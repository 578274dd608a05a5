//! HTTP and JSON beside gRPC, on the same listeners: a request is put into protobuf, answered by the very
//! service that gRPC asks, and its answer put back into JSON.
//!
//! Which path means which RPC stands in the `google.api.http` annotations of the protobuf files, and
//! nowhere else. What an RPC does is not known here: there is one code for both ways of asking.
//!
//! A request of gRPC is told by its version and path before anything else is looked at, and goes on as
//! if this were not here.

pub mod bindings;
pub mod openapi;
pub mod request;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::{BoxFuture, Either, FutureExt};
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, ORIGIN, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use prost::{Message, Name};
use prost_reflect::DynamicMessage;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tower_layer::Layer;

use crate::grpc::deadline;
use crate::proto::json::{JsonError, descriptor, dynamic_to_json};
use crate::proto::v1;
use crate::transcoding::bindings::{BindingError, Bindings, Found};

/// The path of the document that describes the others.
pub const DOCUMENT: &str = "/openapi.json";

/// Paths of gRPC begin with one of these.
const GRPC: [&str; 2] = ["/tollgate.", "/grpc."];

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC_CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// What names the trace that a request is a part of (W3C Trace Context).
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// Longest wait for a body where the caller names no deadline.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Length of what stands before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What a listener serves as JSON: the unary RPCs of one service that have a path.
#[derive(Debug)]
pub struct Api {
    bindings: Bindings,
    document: Bytes,
    most_bytes: Arc<AtomicUsize>,
}

impl Api {
    /// Of the service with this full name; larger bodies than `most_bytes`, which may change, are
    /// refused.
    ///
    /// An error is an annotation that is not understood here.
    pub fn of(service: &str, most_bytes: Arc<AtomicUsize>) -> Result<Api, BindingError> {
        let bindings = Bindings::of(service)?;
        let document = openapi::document(&bindings).to_string().into();
        Ok(Api { bindings, document, most_bytes })
    }

    async fn answer<S>(&self, grpc: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        self.try_answer(grpc, request).await.unwrap_or_else(Refusal::into_response)
    }

    async fn try_answer<S>(
        &self,
        grpc: S,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let (parts, body) = request.into_parts();
        // A page that somebody opened must not reach a listener on loopback.
        if parts.headers.contains_key(ORIGIN) {
            return Err(Status::permission_denied("expected no browser: found an Origin").into());
        }
        let path = parts.uri.path();
        if path == DOCUMENT {
            return match parts.method {
                Method::GET => Ok(json(StatusCode::OK, self.document.clone())),
                _ => Err(Refusal::method("GET".to_owned())),
            };
        }
        let (binding, captured) = match self.bindings.find(&parts.method, path) {
            Found::Binding(binding, captured) => (binding, captured),
            Found::OtherMethods(methods) => return Err(Refusal::method(methods)),
            Found::Nothing => return Err(Refusal::path()),
        };
        let allowed = deadline::timeout(&parts.headers);
        // tonic ends a request at its deadline as gRPC does, without a body: this must be earlier.
        let patience =
            allowed.map_or(BODY_PATIENCE, |allowed| allowed.min(deadline::LONGEST) * 19 / 20);
        let until = Instant::now() + patience;
        let late = |_| Status::deadline_exceeded("the deadline has passed");
        if allowed.is_some_and(|allowed| allowed.is_zero()) {
            return Err(Status::deadline_exceeded("expected a grpc-timeout above zero").into());
        }
        let text = match binding.has_body {
            true => {
                let read = tokio::time::timeout_at(until, self.read_body(body)).await;
                let body = read.map_err(late)??;
                if !body.is_empty() && !is_json(&parts.headers) {
                    return Err(Refusal::content_type());
                }
                Some(body)
            }
            false => None,
        };
        let (message, violations) =
            request::read(binding, &captured, parts.uri.query(), text.as_deref())?;
        // An emergency call is decided by what could be read of it.
        let decides_anyway =
            binding.rpc.input().full_name() == v1::AuthorizeCallRequest::full_name();
        if !violations.is_empty() && !decides_anyway {
            return Err(violations.into_status().into());
        }

        let mut asked = Request::new(Body::new(Full::new(framed(&message)?)));
        *asked.method_mut() = Method::POST;
        *asked.version_mut() = Version::HTTP_2;
        *asked.uri_mut() = binding.uri.clone();
        *asked.extensions_mut() = parts.extensions;
        for token in parts.headers.get_all(AUTHORIZATION) {
            asked.headers_mut().append(AUTHORIZATION, token.clone());
        }
        asked.extensions_mut().insert(violations);
        asked.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT);
        asked.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        for name in TRACE {
            if let Some(value) = parts.headers.get(name) {
                asked.headers_mut().insert(name, value.clone());
            }
        }
        if allowed.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            asked.headers_mut().insert(GRPC_TIMEOUT, deadline::header(left));
        }
        let called = called(grpc, asked, binding.rpc.output());
        let answer = match allowed {
            None => called.await,
            Some(_) => tokio::time::timeout_at(until, called).await.map_err(late)?,
        }?;
        Ok(json(StatusCode::OK, dynamic_to_json(&answer).map_err(unprintable)?.into()))
    }

    async fn read_body(&self, body: Body) -> Result<Bytes, Refusal> {
        let most = self.most_bytes.load(Ordering::Relaxed);
        match Limited::new(body, most).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Refusal::length(most)),
            Err(_) => Err(Status::cancelled("the body did not arrive").into()),
        }
    }
}

/// Asks a service of gRPC in this process: its answer, or the status that it refuses with.
async fn called<S>(
    mut grpc: S,
    request: Request<Body>,
    output: prost_reflect::MessageDescriptor,
) -> Result<DynamicMessage, Status>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let failed = || Status::internal("the service did not answer");
    let answer = grpc.call(request).await.map_err(|_| failed())?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?;
    let status = match body.trailers() {
        Some(trailers) => Status::from_header_map(trailers),
        None => Status::from_header_map(&head.headers),
    };
    match status {
        Some(status) if status.code() == Code::Ok => {}
        refused => return Err(refused.unwrap_or_else(failed)),
    }
    let mut message = body.to_bytes();
    if message.len() < PREFIX {
        return Err(failed());
    }
    message.advance(PREFIX);
    DynamicMessage::decode(output, message).map_err(|error| unprintable(error.into()))
}

fn framed(message: &DynamicMessage) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let declared =
        u32::try_from(length).map_err(|_| Status::out_of_range("a message too large"))?;
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(declared);
    frame.put_slice(&message.encode_to_vec());
    Ok(frame.freeze())
}

fn unprintable(error: JsonError) -> Status {
    tracing::error!(%error, "an answer cannot be printed as JSON");
    Status::internal("the answer cannot be printed as JSON")
}

/// Whether the body is said to be JSON, in the only character set that JSON has.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some((media, parameters)) = value.map(|v| v.split_once(';').unwrap_or((v, ""))) else {
        return false;
    };
    let charset = parameters.trim().to_ascii_lowercase().replace('"', "");
    media.trim().eq_ignore_ascii_case("application/json")
        && matches!(charset.as_str(), "" | "charset=utf-8")
}

fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Why there is no answer: a status of gRPC, and the status of HTTP that goes with it.
#[derive(Debug)]
struct Refusal {
    http: StatusCode,
    status: Box<Status>,
    allow: Option<String>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal { http: http_status(status.code()), status: Box::new(status), allow: None }
    }
}

impl Refusal {
    fn of(http: StatusCode, status: Status) -> Refusal {
        Refusal { http, status: Box::new(status), allow: None }
    }

    fn path() -> Refusal {
        let message = "expected a path of /openapi.json; gRPC needs HTTP/2";
        Refusal::of(StatusCode::NOT_FOUND, Status::not_found(message))
    }

    fn method(allow: String) -> Refusal {
        let status = Status::unimplemented(format!("expected the method {allow} on this path"));
        let refusal = Refusal::of(StatusCode::METHOD_NOT_ALLOWED, status);
        Refusal { allow: Some(allow), ..refusal }
    }

    fn content_type() -> Refusal {
        let status = Status::invalid_argument("expected the Content-Type application/json");
        Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, status)
    }

    fn length(most: usize) -> Refusal {
        let status = Status::out_of_range(format!("expected a body of at most {most} bytes"));
        Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, status)
    }

    fn into_response(self) -> Response<Body> {
        let mut response = json(self.http, status_json(&self.status).into());
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

/// The status of HTTP that `google.rpc.Code` names for each of its codes.
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The status as `google.rpc.Status`, with its details.
fn status_json(status: &Status) -> Vec<u8> {
    let plain = tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: vec![],
    };
    let encoded = match status.details() {
        [] => plain.encode_to_vec(),
        details => details.to_vec(),
    };
    let print = |encoded: &[u8]| {
        let message = DynamicMessage::decode(descriptor("google.rpc.Status")?, encoded)?;
        dynamic_to_json(&message)
    };
    // Details of a type that is not known here are left out; what remains can be printed.
    print(&encoded).or_else(|_| print(&plain.encode_to_vec())).unwrap_or_default()
}

/// Puts [`Json`] before the services of a listener.
#[derive(Clone, Debug)]
pub struct JsonLayer(pub Arc<Api>);

impl<S> Layer<S> for JsonLayer {
    type Service = Json<S>;

    fn layer(&self, grpc: S) -> Json<S> {
        Json { grpc, api: self.0.clone() }
    }
}

/// Services of gRPC, which are asked in JSON too.
#[derive(Clone, Debug)]
pub struct Json<S> {
    grpc: S,
    api: Arc<Api>,
}

impl<S> Service<Request<Body>> for Json<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.grpc.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(&request) {
            return Either::Left(self.grpc.call(request));
        }
        // The one that is ready, as `poll_ready` told, answers.
        let next = self.grpc.clone();
        let grpc = std::mem::replace(&mut self.grpc, next);
        let api = self.api.clone();
        Either::Right(async move { Ok(api.answer(grpc, request).await) }.boxed())
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    request.version() == Version::HTTP_2
        && (GRPC.iter().any(|begins| path.starts_with(begins))
            // Its own answer to a path that nobody serves.
            || request.headers().get(CONTENT_TYPE).is_some_and(|content| {
                content.as_bytes().starts_with(GRPC_CONTENT.as_bytes())
            }))
}
