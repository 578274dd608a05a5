//! The program as its users run it: `tollgate` processes, and what they say.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tollgate::config::Listen;
use tollgate::proto::v1::account_service_client::AccountServiceClient;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tonic::transport::Channel;

use crate::server::{DECK, channel};

/// Longest wait for anything that a test expects to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// `tollgate serve` on free ports; ends with this value.
pub struct Sidecar {
    child: Child,
    log: Log,
    pub calls: SocketAddr,
    pub administration: SocketAddr,
    pub http: SocketAddr,
}

/// What a command came to.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// What a process has said so far.
type Log = Arc<Mutex<String>>;

impl Sidecar {
    /// Starts one and waits until it listens, whether it is ready or not.
    pub fn start(flags: &[&str]) -> Sidecar {
        let mut serve = tollgate();
        serve.arg("serve");
        Sidecar::start_as(serve, flags)
    }

    /// The same by this command, which says `serve`.
    pub fn start_as(mut serve: Command, flags: &[&str]) -> Sidecar {
        let ports = ["--listen", "--admin-listen", "--http-listen"];
        let mut child = serve
            .args(["--log-format", "json"])
            .args(ports.iter().flat_map(|flag| [flag, "127.0.0.1:0"]))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Log::default();
        let (tell, told) = mpsc::channel();
        let (stderr, to) = (child.stderr.take().expect("a pipe"), log.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&(line + "\n"));
                if said["message"] == "serving" {
                    let address = |name: &str| said[name].as_str().and_then(|a| a.parse().ok());
                    // Nobody may wait any more.
                    let _ = tell.send(["calls", "administration", "http"].map(address));
                }
            }
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let [calls, administration, http] = [unknown; 3];
        // Built before the wait, so that a test that fails here leaves no process behind.
        let mut sidecar = Sidecar { child, log, calls, administration, http };
        let Ok([Some(calls), Some(administration), Some(http)]) = told.recv_timeout(PATIENCE)
        else {
            panic!("the program does not serve: {}", sidecar.log());
        };
        (sidecar.calls, sidecar.administration, sidecar.http) = (calls, administration, http);
        sidecar
    }

    /// One that calls may be sent to.
    pub fn ready(flags: &[&str]) -> Sidecar {
        let sidecar = Sidecar::start(flags);
        sidecar.wait_until_ready();
        sidecar
    }

    /// One that calls may be sent to, by this command, which says `serve`.
    pub fn ready_as(serve: Command, flags: &[&str]) -> Sidecar {
        let sidecar = Sidecar::start_as(serve, flags);
        sidecar.wait_until_ready();
        sidecar
    }

    /// One on this ledger that calls may be sent to. A Redis on a busy test machine is slow, not away.
    pub fn on(ledger: &str) -> Sidecar {
        Sidecar::ready(&["--ledger", ledger, "--ledger-timeout", "10s"])
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        wait_until("ready", || self.readyz().map(|(status, _)| status), |s| *s == Some(200));
    }

    /// What `/readyz` answers, if anything: status and text.
    pub fn readyz(&self) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request = "GET /readyz HTTP/1.1\r\nHost: tollgate\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, text) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, text.trim_end().to_owned()))
    }

    /// Activates [`DECK`] and applies the document, with the program's own commands.
    #[track_caller]
    pub fn set_up(&self, document: &str) {
        let files = Files::default();
        let deck = files.write("deck.csv", DECK);
        self.client(&["rates", "activate", "--deck", "default", &deck]).succeeded();
        self.client(&["apply", "--file", &files.write("org.yaml", document)]).succeeded();
    }

    /// Runs a client command against this server.
    pub fn client(&self, arguments: &[&str]) -> Finished {
        let mut command = tollgate();
        command.args(arguments);
        command.env("TOLLGATE_ENDPOINT", format!("http://{}", self.calls));
        command.env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{}", self.administration));
        run(command)
    }

    /// The result of a client command as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.client(&[arguments, &["--output", "json"]].concat());
        parsed(&finished.succeeded())
    }

    pub async fn calls(&self) -> CallAuthorizationServiceClient<Channel> {
        CallAuthorizationServiceClient::new(channel(&Listen::Tcp(self.calls)).await)
    }

    pub async fn account(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(channel(&Listen::Tcp(self.administration)).await)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a text in the log, which is written behind what it tells of.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log(), |log| log.contains(text));
    }

    /// How many connections for calls each event loop of the process has, of those that have any, in order.
    pub fn connections_of_loops(&self) -> Vec<usize> {
        let process = format!("/proc/{}", self.child.id());
        let sockets = std::fs::read_to_string(format!("{process}/net/tcp"));
        let local = format!(":{:04X}", self.calls.port());
        let established = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let is = words.len() > 9 && words[1].ends_with(&local) && words[3] == "01";
            is.then(|| words[9].parse::<u64>().expect("an inode"))
        };
        let sockets: Vec<_> =
            sockets.expect("a running process on Linux").lines().filter_map(established).collect();
        let descriptors = std::fs::read_dir(format!("{process}/fdinfo")).expect("likewise");
        let watched = |text: String| {
            let inodes = text.lines().filter(|line| line.starts_with("tfd:"));
            let inodes = inodes.filter_map(|line| line.split("ino:").nth(1)?.split(' ').next());
            let inodes = inodes.filter_map(|inode| u64::from_str_radix(inode, 16).ok());
            inodes.filter(|inode| sockets.contains(inode)).collect::<BTreeSet<_>>()
        };
        // One that is closed meanwhile is no event loop.
        let texts = descriptors.filter_map(|one| std::fs::read_to_string(one.ok()?.path()).ok());
        // A loop has several descriptors, which tell the same.
        let loops: BTreeSet<_> = texts.map(watched).collect();
        let mut counts: Vec<_> = loops.iter().map(BTreeSet::len).filter(|n| *n > 0).collect();
        counts.sort_unstable();
        counts
    }

    /// Resident memory of the process, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number of KiB")
    }

    /// Whether the process runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal("KILL");
        // What it has locked is free only then.
        self.child.wait().expect("a child of this process");
    }

    /// Sends it a signal, such as `HUP`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success(), "kill -{name} {pid}");
    }

    /// Asks it to stop, as a service manager does, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let ended = wait_until("stopped", || self.child.try_wait().ok().flatten(), Option::is_some);
        ended.expect("an exit status")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Standard output of a command that was carried out.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.status.success(), "{self:#?}");
        self.stdout
    }

    /// Standard error of a command that was not, with this exit code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self.stderr
    }
}

/// Files for one test, removed with this value.
pub struct Files(TempDir);

impl Default for Files {
    fn default() -> Files {
        Files(tempfile::tempdir().expect("a directory for the test"))
    }
}

impl Files {
    /// Writes one; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("the directory is writable");
        path.display().to_string()
    }

    /// The path of one that need not exist.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// The program, free of the settings of whoever runs the tests.
pub fn tollgate() -> Command {
    let other = std::env::var_os("TOLLGATE_BINARY");
    let mut command = Command::new(other.unwrap_or(env!("CARGO_BIN_EXE_tollgate").into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, which must come.
#[track_caller]
pub fn run(mut command: Command) -> Finished {
    let what = format!("{command:?}");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    let stdout = collected(child.stdout.take().expect("a pipe"));
    let stderr = collected(child.stderr.take().expect("a pipe"));
    let patience = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of this process") {
            break status;
        }
        if Instant::now() > patience {
            // Both fail only for a process that has just ended.
            let _ = child.kill();
            let _ = child.wait();
            panic!("no end after {PATIENCE:?}: {what}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("a reader ends");
    Finished { status, stdout: text(stdout), stderr: text(stderr) }
}

fn collected(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8(bytes).expect("the program speaks UTF-8")
    })
}

/// Looks until what is seen is right, and returns it.
#[track_caller]
pub fn wait_until<T: Debug>(what: &str, look: impl FnMut() -> T, right: impl Fn(&T) -> bool) -> T {
    wait_long(PATIENCE, what, look, right)
}

/// The same for what may take longer.
#[track_caller]
pub fn wait_long<T: Debug>(
    most: Duration,
    what: &str,
    mut look: impl FnMut() -> T,
    right: impl Fn(&T) -> bool,
) -> T {
    let patience = Instant::now() + most;
    loop {
        let seen = look();
        if right(&seen) {
            return seen;
        }
        assert!(Instant::now() < patience, "not {what} after {most:?}: {seen:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
