//! What a collector of traces is sent, by OTLP.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::metrics::{get, http};
use crate::server::organisation;
use crate::stock_client::tool;
use crate::support::messages::{authorize, settle};
use crate::support::process::{PATIENCE, Sidecar, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector in this process, made of OTLP's own services: the spans that it was sent, and the figures.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>, Arc<Mutex<Vec<Metric>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let of = request.into_inner().resource_metrics.into_iter();
        let scopes = of.flat_map(|resource| resource.scope_metrics);
        *self.1.lock().unwrap() = scopes.flat_map(|scope| scope.metrics).collect();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let metrics = MetricsServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service).add_service(metrics);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn of_trace<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_the_callers_trace_and_no_number() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    // Nothing is sampled but what its caller samples.
    let mut sidecar = Sidecar::ready(&["--otlp-endpoint", &endpoint, "--trace-sample", "0"]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("untraced", "alice", "+12065550100")).await.unwrap();
    let request = of_trace(authorize("unsampled", "alice", "+12065550100"), "00");
    calls.authorize_call(request).await.unwrap();
    calls
        .authorize_call(of_trace(authorize("traced", "alice", "+12065550100"), "01"))
        .await
        .unwrap();
    calls.settle_call(of_trace(settle("traced", 5), "01")).await.unwrap();
    // The same in JSON, over HTTP/1.1.
    let head = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\nContent-Type: application/json");
    let path = "/v1/tenants/contoso/calls/traced:settle";
    let answer = http(sidecar.calls, "POST", path, &head, r#"{"usedDuration":"5s"}"#);
    assert!(answer.0.starts_with("HTTP/1.1 200"), "{answer:?}");
    let page = get(sidecar.http, "/metrics").1;
    assert!(page.contains(&format!("# {{trace_id=\"{TRACE}\"}}")), "an exemplar: {page}");
    assert!(sidecar.stop().success());

    let all = |spans: &Vec<Span>| spans.iter().filter(|span| span.name != "ledger").count() == 3;
    let spans = wait_until("the spans", || collector.spans(), all);
    let decided = spans.iter().find(|span| span.name == "AuthorizeCall").expect("its span");
    assert_eq!(hex::encode(&decided.trace_id), TRACE);
    assert_eq!(hex::encode(&decided.parent_span_id), PARENT);
    assert_eq!(attribute(decided, "decision").as_deref(), Some("ALLOWED"));
    assert_eq!(attribute(decided, "class").as_deref(), Some("DOMESTIC"));
    assert!(attribute(decided, "tenant").unwrap().contains("contoso"));
    let asked = spans.iter().filter(|span| span.parent_span_id == decided.span_id);
    let asked: Vec<_> = asked.filter_map(|span| attribute(span, "command")).collect();
    assert!(asked.contains(&"authorize".to_owned()), "{spans:#?}");
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE), "{spans:#?}");
    let text = format!("{spans:?}");
    assert!(!text.contains("2065550100") && !text.contains("untraced"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_the_figures_of_the_page() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let sidecar = Sidecar::ready(&["--otlp-endpoint", &endpoint, "--otlp-metrics", "50ms"]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    let of = |name: &str| {
        let figures = collector.1.lock().unwrap();
        figures.iter().find(|figure| figure.name == name).and_then(|figure| figure.data.clone())
    };
    let answered = || match of("tollgate_rpc_requests") {
        Some(Data::Sum(sum)) => {
            let word = |value: &str| Some(Value::StringValue(value.to_owned()));
            let is = |point: &&opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
                let has = |value: &str| {
                    point
                        .attributes
                        .iter()
                        .any(|a| a.value.as_ref().is_some_and(|v| v.value == word(value)))
                };
                has("AuthorizeCall") && has("OK")
            };
            sum.data_points.iter().find(is).and_then(|point| point.value)
        }
        _ => None,
    };
    wait_until("the answer is reported", answered, |n| *n == Some(Number::AsInt(1)));
    let Some(Data::Histogram(took)) = of("tollgate_rpc_duration_seconds") else {
        panic!("no histogram")
    };
    for point in &took.data_points {
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    }
    // Whatever the page has is reported.
    let page = get(sidecar.http, "/metrics").1;
    let named = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let missing = named.filter_map(|line| line.split(' ').next()).filter(|name| of(name).is_none());
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_keeps_nobody_waiting() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let mut sidecar = Sidecar::ready(&[
        "--otlp-endpoint",
        &endpoint,
        "--trace-sample",
        "1",
        "--otlp-metrics",
        "50ms",
    ]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    let answer = calls.authorize_call(authorize("a", "alice", "+12065550100")).await.unwrap();
    assert!(answer.into_inner().allowed);
    assert!(sidecar.stop().success());
}

#[tokio::test]
async fn refusals_are_logged_always_and_the_rest_as_often_as_asked() {
    for (share, allowed) in [("0", 0), ("1", 3)] {
        let sidecar = Sidecar::ready(&["--log-decisions", share]);
        sidecar.set_up(&organisation());
        let mut calls = sidecar.calls().await;
        for call in ["a", "b", "c"] {
            calls.authorize_call(authorize(call, "alice", "+12065550100")).await.unwrap();
        }
        calls.authorize_call(authorize("d", "dave", "+12065550100")).await.unwrap();
        let lines = |decision: &str| {
            let told = format!("\"decision\":\"{decision}\"");
            sidecar.log().lines().filter(|line| line.contains(&told)).count()
        };
        wait_until("the refusal is logged", || lines("NOT_ENTITLED"), |n| *n == 1);
        assert_eq!(lines("ALLOWED"), allowed, "{}", sidecar.log());
        assert!(!sidecar.log().contains("2065550100"), "{}", sidecar.log());
    }
}

/// A collector that others have made (PyPI `rotel`), which prints what it receives; ends with this value.
struct Packaged {
    child: Child,
    said: Arc<Mutex<String>>,
    address: SocketAddr,
}

impl Packaged {
    /// `None` where there is none for the Python of this machine, as `make tools` has noted.
    fn start() -> Option<Packaged> {
        if tool("buf").with_file_name(".no-rotel").exists() {
            eprintln!("NOT TESTED: there is no packaged collector for the Python of this machine");
            return None;
        }
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Somebody else may take a port between its choice and its use.
        (0..5).find_map(|_| Packaged::start_on(free(), free())).or_else(|| panic!("it starts"))
    }

    fn start_on(address: SocketAddr, http: SocketAddr) -> Option<Packaged> {
        let mut command = Command::new(tool("rotel-agent"));
        command.args(["start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"]);
        command.args(["--debug-log", "traces", "--debug-log", "metrics"]);
        command.args(["--otlp-grpc-endpoint", &address.to_string()]);
        command.args(["--otlp-http-endpoint", &http.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the collector starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (output, to) = (child.stdout.take().expect("a pipe"), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                to.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut packaged = Packaged { child, said, address };
        let answers = || std::net::TcpStream::connect(address).is_ok();
        let up = |packaged: &mut Packaged| matches!(packaged.child.try_wait(), Ok(None));
        let patience = Instant::now() + PATIENCE;
        while up(&mut packaged) && Instant::now() < patience {
            if answers() {
                return Some(packaged);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Packaged {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packaged_collector_takes_traces_and_figures() {
    let Some(collector) = Packaged::start() else { return };
    let endpoint = format!("http://{}", collector.address);
    let mut sidecar = Sidecar::ready(&["--otlp-endpoint", &endpoint, "--otlp-metrics", "100ms"]);
    sidecar.set_up(&organisation());
    let mut calls = sidecar.calls().await;
    calls
        .authorize_call(of_trace(authorize("packaged", "alice", "+12065550100"), "01"))
        .await
        .unwrap();
    let series = "Name: tollgate_rpc_duration_seconds";
    wait_until("the figures", || collector.said(), |said| said.contains(series));
    // Spans on their way are sent at the end.
    assert!(sidecar.stop().success());
    let trace = format!("Trace ID       : {TRACE}");
    let said = wait_until("the trace", || collector.said(), |said| said.contains(&trace));
    for part in [
        "service.name: Str(tollgate)",
        "Name: tollgate_open_holds",
        "DataType: Histogram",
        &format!("Parent ID      : {PARENT}"),
        "Name           : AuthorizeCall",
        "decision: Str(ALLOWED)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("2065550100"), "{said}");
}
