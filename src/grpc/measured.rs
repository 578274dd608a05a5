//! Requests of a listener, counted and timed by RPC and code.
//!
//! Whatever is no RPC of the listener's service is one series, `other`: a caller's path names none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tonic::codegen::Service;
use tower_layer::Layer;

use crate::metrics::{self, Begun, Rpc};
use crate::ops::traces;
use crate::proto::json::{JsonError, descriptors};

/// The RPCs of a service, and one for all else.
pub struct Rpcs {
    service: &'static str,
    known: Vec<Rpc>,
    other: Rpc,
}

impl Rpcs {
    /// Of the service of that full name. Kept for the life of the process: there are two of them.
    pub fn of(service: &'static str) -> Result<&'static Rpcs, JsonError> {
        let methods = descriptors()?.get_service_by_name(service);
        let names = methods.iter().flat_map(|service| service.methods());
        let known = names.map(|method| metrics::get().rpc(method.name().to_owned().leak()));
        let rpcs = Rpcs { service, known: known.collect(), other: metrics::get().rpc("other") };
        Ok(Box::leak(Box::new(rpcs)))
    }

    fn find(&self, path: &str) -> &Rpc {
        let rpc = path.strip_prefix('/').and_then(|path| path.strip_prefix(self.service));
        let rpc = rpc.and_then(|rpc| rpc.strip_prefix('/'));
        let known = rpc.and_then(|rpc| self.known.iter().find(|known| known.name() == rpc));
        known.unwrap_or(&self.other)
    }
}

/// Measures what is below it, refusals of the guard too.
#[derive(Clone, Copy)]
pub struct MeasuredLayer(pub &'static Rpcs);

impl<S> Layer<S> for MeasuredLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, rpcs: self.0 }
    }
}

/// The services of a listener, measured.
#[derive(Clone)]
pub struct Measured<S> {
    inner: S,
    rpcs: &'static Rpcs,
}

/// The trace that a request is a part of, where it is one that is kept: noted by who serves it.
#[derive(Clone, Debug, Default)]
pub struct KeptTrace(Arc<OnceLock<String>>);

impl KeptTrace {
    /// Notes the trace's id.
    pub fn set(&self, trace: String) {
        let _ = self.0.set(trace);
    }
}

impl<S, B, R> Service<http::Request<B>> for Measured<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Measuring<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let begun = self.rpcs.find(request.uri().path()).begin();
        let trace = traces::is_on().then(KeptTrace::default);
        if let Some(trace) = &trace {
            request.extensions_mut().insert(trace.clone());
        }
        Measuring { answer: self.inner.call(request), begun, trace }
    }
}

pin_project! {
    /// A request that is measured; one that is given up counts as CANCELLED.
    pub struct Measuring<F> {
        #[pin]
        answer: F,
        begun: Begun,
        trace: Option<KeptTrace>,
    }
}

impl<F, R> Future for Measuring<F>
where
    F: Future<Output = Result<http::Response<R>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answered = ready!(this.answer.poll(cx));
        if let Ok(response) = &answered {
            let trace = this.trace.as_ref().and_then(|trace| trace.0.get().cloned());
            this.begun.answered(code(response), trace);
        }
        Poll::Ready(answered)
    }
}

/// An error stands in the headers; what goes well says so behind its message, and is OK here.
fn code<R>(response: &http::Response<R>) -> usize {
    let Some(status) = response.headers().get("grpc-status") else { return 0 };
    let number = status.to_str().ok().and_then(|status| status.parse().ok());
    number.unwrap_or(usize::MAX)
}
