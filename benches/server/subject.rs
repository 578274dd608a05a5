//! What is measured: each subject is started afresh, with a Redis of its own where it needs one.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tollgate::cli::args::{Cli, Command as Verb, Endpoint};
use tollgate::cli::loadtest::args::LoadtestArgs;
use tollgate::cli::loadtest::play::{CallPlan, Calls};
use tollgate::cli::loadtest::setup;
use tollgate::cli::loadtest::wire::Shown;

use crate::collector::{Collector, Received};
use crate::redis_server::RedisServer;
use crate::{cluster, disk, reference};

/// Longest wait for a server to listen, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections of the client.
const CONNECTIONS: usize = 4;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A tonic server that answers at once, on so many threads.
    Bare(usize),
    /// The script alone, through redis-rs.
    Script,
    /// tonic and one EVALSHA, on so many threads.
    Naive(usize),
    /// Tollgate on a ledger, with a mix of AUTHORIZE:EXTEND:SETTLE.
    Tollgate(Ledger, (usize, usize, usize)),
}

/// Tollgate's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ledger {
    Memory,
    File,
    Redis,
    /// A Redis Cluster of so many masters.
    Cluster(usize),
}

impl Subject {
    pub fn name(self) -> String {
        match self {
            Subject::Bare(threads) => format!("bare tonic, threads: {threads}"),
            Subject::Script => "the script alone".to_owned(),
            Subject::Naive(threads) => format!("naive reference, threads: {threads}"),
            Subject::Tollgate(ledger, (authorize, extend, settle)) => {
                let ledger = match ledger {
                    Ledger::Memory => "memory",
                    Ledger::File => "file",
                    Ledger::Redis => "redis",
                    Ledger::Cluster(_) => "redis cluster",
                };
                format!("Tollgate, {ledger}, {authorize}:{extend}:{settle}")
            }
        }
    }
}

/// A subject that runs.
pub struct Started {
    /// None, one, or the masters of a cluster.
    pub redis: Vec<RedisServer>,
    pub server: Option<Process>,
    /// For administration; Tollgate's only.
    pub administration: Option<Endpoint>,
    collector: Option<Collector>,
    size: Size,
    /// Of the ledger's file, or of what masters know of each other.
    _folder: Option<TempDir>,
}

/// What an organisation of the measurement has.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tenants: u32,
    /// Of each tenant.
    pub users: u32,
    pub minutes: u32,
    pub deck_prefixes: u32,
}

pub const SMALL: Size =
    Size { tenants: 1, users: 1_000, minutes: 30_000_000, deck_prefixes: 1_000 };

impl Started {
    pub fn of(subject: Subject, size: Size) -> Started {
        Started::start(subject, size, None)
    }

    /// With all telemetry there is: traces at the usual share, all figures by OTLP each second, and
    /// the page of figures read each second.
    pub fn observed(subject: Subject, size: Size) -> Started {
        Started::start(subject, size, Some(Collector::start()))
    }

    fn start(subject: Subject, size: Size, collector: Option<Collector>) -> Started {
        let keeps = matches!(subject, Subject::Tollgate(Ledger::File | Ledger::Cluster(_), _));
        let folder = keeps.then(disk::folder);
        let path = || folder.as_ref().map(TempDir::path).expect("a folder");
        let redis = match subject {
            Subject::Bare(_) | Subject::Tollgate(Ledger::Memory | Ledger::File, _) => vec![],
            Subject::Tollgate(Ledger::Cluster(masters), _) => cluster::start(masters, path()),
            Subject::Script | Subject::Naive(_) | Subject::Tollgate(Ledger::Redis, _) => {
                vec![RedisServer::start()]
            }
        };
        let url = redis.first().map(RedisServer::url);
        let ledger = match subject {
            Subject::Tollgate(Ledger::File, _) => Some(file(path())),
            Subject::Tollgate(Ledger::Cluster(_), _) => Some(cluster::url(&redis)),
            _ => url.clone(),
        };
        let (server, administration) = (None, None);
        let mut started =
            Started { redis, server, administration, collector, size, _folder: folder };
        match subject {
            Subject::Bare(threads) => started.server = Some(Process::reference(threads, None)),
            Subject::Script => started.fill(),
            Subject::Naive(threads) => {
                started.fill();
                started.server = Some(Process::reference(threads, url));
            }
            Subject::Tollgate(..) => started.serve(&ledger.unwrap_or("memory".to_owned())),
        }
        started
    }

    fn serve(&mut self, ledger: &str) {
        let mut flags = vec![];
        if let Some(Collector { endpoint, .. }) = &self.collector {
            flags = vec!["--otlp-endpoint", endpoint, "--trace-sample", "0.01"];
            flags.extend(["--otlp-metrics", "1s"]);
        }
        let (server, administration) = Process::tollgate(ledger, &flags);
        if let Some(collector) = &mut self.collector {
            collector.watch(&server.http);
        }
        self.server = Some(server);
        self.administration = Some(administration);
        self.set_up();
    }

    /// Ends the server as an operator does, so that it sends what it has not sent; what its collector
    /// received.
    pub fn end(mut self) -> Received {
        if let Some(server) = &mut self.server {
            server.stop();
        }
        self.collector.take().map(Collector::finish).unwrap_or_default()
    }

    fn fill(&self) {
        for redis in &self.redis {
            reference::fill(&redis.client(), self.size.users);
        }
    }

    fn set_up(&self) {
        let size = self.size;
        let endpoint = |endpoint: &Option<Endpoint>| match endpoint {
            Some(endpoint) => endpoint.to_string(),
            None => "http://127.0.0.1:1".to_owned(),
        };
        let arguments = [
            "tollgate".to_owned(),
            "loadtest".to_owned(),
            "--setup".to_owned(),
            format!("--tenants={}", size.tenants),
            format!("--users={}", size.users),
            format!("--minutes={}", size.minutes),
            format!("--deck-prefixes={}", size.deck_prefixes),
            format!("--admin-endpoint={}", endpoint(&self.administration)),
        ];
        let args: Box<LoadtestArgs> = match Cli::try_parse_from(arguments).map(|cli| cli.command) {
            Ok(Verb::Loadtest(args)) => args,
            other => panic!("expected a load test, found {other:?}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(setup::make(&args)).expect("an organisation");
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.child.id())
    }

    pub fn collector_pid(&self) -> Option<u32> {
        self.collector.as_ref().map(Collector::pid)
    }

    /// Calls of this mix on the server.
    pub fn calls(&self, mix: (usize, usize, usize), requested_seconds: i64, zipf: u32) -> Calls {
        self.calls_of(self.size.tenants, mix, requested_seconds, zipf)
    }

    /// The same of only so many of its tenants.
    pub fn calls_of(
        &self,
        tenants: u32,
        mix: (usize, usize, usize),
        requested_seconds: i64,
        zipf: u32,
    ) -> Calls {
        let (authorize, extend, settle) = mix;
        let mix = format!("{authorize}:{extend}:{settle}").parse().expect("a mix");
        let plan = CallPlan {
            mix,
            tenants,
            prefix: "loadtest".to_owned(),
            users: self.size.users,
            zipf_hundredths: zipf,
            requested_seconds,
            used_seconds: 45,
        };
        let endpoint = &self.server.as_ref().expect("a server").calls;
        let patience = Duration::from_secs(10);
        Calls::new(endpoint, Shown::default(), patience, CONNECTIONS, plan).expect("an address")
    }
}

fn file(folder: &Path) -> String {
    format!("file:{}", folder.join("ledger").display())
}

/// A server process; ends with this value.
pub struct Process {
    child: Child,
    pub calls: Endpoint,
    /// Its HTTP listener; Tollgate's only.
    pub http: String,
}

impl Process {
    fn reference(threads: usize, redis: Option<String>) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--serve-reference").arg(threads.to_string()).args(redis);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("this program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it says where it listens");
        let address = line.trim_end().strip_prefix("listening ").expect("an address").to_owned();
        let http = String::new();
        Process { child, calls: Endpoint::Url(format!("http://{address}")), http }
    }

    pub fn tollgate(ledger: &str, flags: &[&str]) -> (Process, Endpoint) {
        let ports = ["--listen", "--admin-listen", "--http-listen"];
        let mut child = tollgate()
            .args(["serve", "--log-format", "json", "--ledger", ledger])
            // On a busy machine Redis is slow, not away.
            .args(["--ledger-timeout", "10s"])
            .args(flags)
            .args(ports.iter().flat_map(|flag| [flag, "127.0.0.1:0"]))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (tell, told) = mpsc::channel();
        let stderr = child.stderr.take().expect("a pipe");
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if said["message"] == "serving" {
                    let of = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
                    // Nobody may wait any more.
                    let _ = tell.send([of("calls"), of("administration"), of("http")]);
                }
            }
        });
        let nowhere = Endpoint::Url(String::new());
        let mut process = Process { child, calls: nowhere, http: String::new() };
        let [calls, administration, http] = told.recv_timeout(PATIENCE).expect("it serves");
        process.calls = Endpoint::Url(format!("http://{calls}"));
        process.http = http;
        (process, Endpoint::Url(format!("http://{administration}")))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    fn stop(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "kill is there, and so is the process");
        let patience = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("a child of this process").is_none() {
            assert!(Instant::now() < patience, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, free of the settings of whoever runs this.
pub fn tollgate() -> Command {
    let program = std::env::var_os("TOLLGATE_BENCH_PROGRAM");
    let mut command = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_tollgate").into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; how long it took, and the most memory that it had, in KiB.
pub fn timed(mut command: Command) -> (Duration, u64) {
    let began = Instant::now();
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut most = 0;
    let status = loop {
        let memory = tollgate::cli::loadtest::process::memory_kib(child.id());
        most = memory.map_or(most, |(_, peak)| peak.max(most));
        if let Some(status) = child.try_wait().expect("a child of this process") {
            break status;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = began.elapsed();
    if !status.success() {
        let mut said = String::new();
        let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        panic!("{command:?}: {said}");
    }
    (took, most)
}
