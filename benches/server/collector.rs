//! A collector of telemetry: takes traces and figures by OTLP, reads the server's page of figures each
//! second, and counts what came.
//!
//! A process of its own: this program, started again. In the client's process its work would count as
//! the client's, and keep the client from sending.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

/// Between two readings of the page.
const EVERY: Duration = Duration::from_secs(1);

/// What came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// Spans of traces.
    pub spans: u64,
    /// Reports of figures by OTLP.
    pub reports: u64,
    /// Pages of figures that were read.
    pub pages: u64,
}

impl Received {
    pub fn add(&mut self, more: Received) {
        self.spans += more.spans;
        self.reports += more.reports;
        self.pages += more.pages;
    }
}

/// A collector that runs; ends with this value.
pub struct Collector {
    child: Child,
    said: BufReader<ChildStdout>,
    /// Where it takes OTLP.
    pub endpoint: String,
}

impl Collector {
    pub fn start() -> Collector {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--serve-collector").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut collector = Collector { child, said, endpoint: String::new() };
        let line = collector.line();
        let address = line.strip_prefix("listening ").expect("an address");
        collector.endpoint = format!("http://{address}");
        collector
    }

    /// Makes it read the figures of the server whose HTTP listener this is.
    pub fn watch(&mut self, http: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{http}").expect("it listens");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; what came.
    pub fn finish(mut self) -> Received {
        drop(self.child.stdin.take());
        let line = self.line();
        let counts: Vec<u64> = line.split(' ').filter_map(|count| count.parse().ok()).collect();
        let [spans, reports, pages] = counts[..] else { panic!("expected counts, found {line:?}") };
        Received { spans, reports, pages }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it says something");
        line.trim_end().to_owned()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Counts {
    spans: AtomicU64,
    reports: AtomicU64,
}

#[derive(Clone, Default)]
struct Sink(Arc<Counts>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.spans.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.reports.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Serves until its standard input ends; says where, and in the end what came. The first line of its
/// input is where the page of figures is.
pub fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening {}", listener.local_addr()?);
        let sink = Sink::default();
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(sink.clone()))
            .add_service(MetricsServiceServer::new(sink.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        let (tell, mut told) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = tell.send(line);
            }
        });
        let (mut http, mut pages) = (None, 0_u64);
        let mut clock = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                line = told.recv() => match line {
                    Some(line) => http = Some(line),
                    None => break,
                },
                _ = clock.tick() => if let Some(http) = &http {
                    // The server may be ending.
                    pages += u64::from(read_page(http).await.unwrap_or(false));
                },
            }
        }
        let Counts { spans, reports } = &*sink.0;
        let [spans, reports] = [spans, reports].map(|count| count.load(Ordering::Relaxed));
        println!("{spans} {reports} {pages}");
        Ok(())
    })
}

/// Reads the page of figures; whether it was one.
async fn read_page(http: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = vec![];
    stream.read_to_end(&mut page).await?;
    Ok(page.starts_with(b"HTTP/1.1 200"))
}
