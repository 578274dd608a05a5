//! Which requests are followed by a trace, and which decisions are told in the log.
//!
//! Traces go to a collector by OTLP; they begin with a request about a call and have the ledger's commands
//! below it. What is not sampled costs one look at a number: its span is the log's own, as without traces.
//! Which requests are kept is decided here and not by the SDK, so that none is built to be thrown away.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Target of the spans that traces are made of; no others are.
pub const TARGET: &str = "tollgate::trace";

/// All of a million.
pub const ALL: u32 = 1_000_000;

/// Longest wait for the collector, also at the end.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// A share of what happens, in parts of a million.
struct Sample {
    share: AtomicU32,
    count: AtomicU64,
}

impl Sample {
    const fn none() -> Sample {
        Sample { share: AtomicU32::new(0), count: AtomicU64::new(0) }
    }

    fn takes(&self) -> bool {
        match self.share.load(Ordering::Relaxed) {
            0 => false,
            ALL.. => true,
            share => {
                let count = self.count.fetch_add(1, Ordering::Relaxed);
                scattered(count) % u64::from(ALL) < u64::from(share)
            }
        }
    }
}

/// The same share of any pattern of requests: the finalizer of splitmix64.
fn scattered(count: u64) -> u64 {
    let mut n = count.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

static TRACES: Sample = Sample::none();
static DECISIONS: Sample = Sample::none();
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Sets which share of allowed decisions is told in the log, in parts of a million.
pub fn log_decisions(share: u32) {
    DECISIONS.share.store(share, Ordering::Relaxed);
}

/// Sets which share of requests begins a trace, in parts of a million; nothing where there are no traces.
pub fn trace(share: u32) {
    TRACES.share.store(share, Ordering::Relaxed);
}

/// Whether an allowed decision is to be told.
pub fn tells_decision() -> bool {
    DECISIONS.takes()
}

/// Whether there are traces at all.
pub fn is_on() -> bool {
    PROVIDER.get().is_some()
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up traces: {0}")]
pub struct TracesError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The layer that makes traces of the spans of [`TARGET`], sent to that collector. Within a runtime; once.
pub fn layer<S>(endpoint: &str, share: u32) -> Result<impl Layer<S>, TracesError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let exporter = SpanExporter::builder().with_tonic();
    let exporter = exporter.with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
    let resource = Resource::builder().with_service_name("tollgate");
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource.with_attribute(version).build())
        .build();
    let tracer = provider.tracer("tollgate");
    let _ = PROVIDER.set(provider);
    trace(share);
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false);
    let layer = layer.with_threads(false).with_tracked_inactivity(false).with_target(false);
    Ok(layer.with_filter(filter_fn(|about| about.target() == TARGET)))
}

/// Sends what was not sent yet; waits for the collector for a bounded time. Blocks.
pub fn flush() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT)
    {
        tracing::warn!(%error, "traces are lost");
    }
}

/// A trace that a request is a part of.
pub struct Parent(Option<Context>);

impl Parent {
    /// The trace that these headers name (W3C Trace Context), or a new one; `None` where the request is not
    /// sampled: a caller's trace is as the caller says, all else by the share.
    pub fn of(headers: &HeaderMap) -> Option<Parent> {
        if !is_on() {
            return None;
        }
        if headers.contains_key("traceparent") {
            let context = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Headers(headers));
            let parent = context.span().span_context().clone();
            if parent.is_valid() {
                return parent.is_sampled().then_some(Parent(Some(context)));
            }
        }
        TRACES.takes().then_some(Parent(None))
    }

    /// Makes the span a part of the trace; the trace's id.
    pub fn adopt(self, span: &Span) -> Option<String> {
        if let Some(context) = self.0 {
            // Fails only where the span is disabled.
            let _ = span.set_parent(context);
        }
        let context = span.context();
        let found = context.span().span_context().clone();
        found.is_valid().then(|| found.trace_id().to_string())
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Notes a fact on the span of this request, where it is a part of a trace.
pub fn note(field: &'static str, value: &'static str) {
    if is_on() && tracing::enabled!(target: TARGET, Level::INFO) {
        let span = Span::current();
        if span.metadata().is_some_and(|about| about.target() == TARGET) {
            span.record(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_of_any_pattern() {
        let sample = Sample::none();
        assert!(!sample.takes());
        sample.share.store(10_000, Ordering::Relaxed);
        let mut taken = [0, 0];
        for n in 0..200_000 {
            taken[n % 2] += i32::from(sample.takes());
        }
        assert!(taken.iter().all(|taken| (900..1100).contains(taken)), "{taken:?}");
        sample.share.store(ALL, Ordering::Relaxed);
        assert!(sample.takes());
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", http::HeaderValue::from_static(parent));
        assert!(Parent::of(&headers).is_none());
    }
}
