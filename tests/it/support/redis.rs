//! A real redis-server of the tests' own, on a unix socket in a directory of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::Commands;
use tempfile::TempDir;
use tollgate::ledger::ClockOffset;
use tollgate::ledger::redis::{RedisLedger, RedisSettings};

/// Longest wait for one that starts.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that ends with this value.
pub struct RedisServer {
    home: TempDir,
    /// When what it acknowledged is synced to its append-only file; without it there is none.
    appendfsync: Option<&'static str>,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    /// The one that all tests of this process share while any of them runs; each uses its own tenant.
    pub fn shared() -> Arc<RedisServer> {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(RedisServer::started());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// One for a test that stops or breaks it.
    pub fn started() -> RedisServer {
        let server = RedisServer::absent();
        server.start();
        server
    }

    /// The place of one that does not run yet.
    pub fn absent() -> RedisServer {
        RedisServer::placed(None)
    }

    /// The place of one that does not run yet, and that keeps on disk whatever it has acknowledged.
    pub fn absent_and_durable() -> RedisServer {
        RedisServer::absent_with("always")
    }

    /// The place of one that does not run yet, with an append-only file that is synced so.
    pub fn absent_with(appendfsync: &'static str) -> RedisServer {
        RedisServer::placed(Some(appendfsync))
    }

    fn placed(appendfsync: Option<&'static str>) -> RedisServer {
        let home = tempfile::tempdir().expect("a directory for redis");
        RedisServer { home, appendfsync, child: Mutex::new(None) }
    }

    /// Starts it and waits until it answers: empty, or with what a durable one holds.
    pub fn start(&self) {
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--auto-aof-rewrite-percentage", "0"])
            .args(["--appendfsync", self.appendfsync.unwrap_or("no"), "--appendonly"])
            .args([if self.appendfsync.is_some() { "yes" } else { "no" }, "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("expected redis-server 7 or newer on the PATH: run `make redis`");
        *self.child() = Some(child);
        let patience = Instant::now() + PATIENCE;
        while self.client().get_connection().and_then(|mut c| c.ping::<String>()).is_err() {
            assert!(Instant::now() < patience, "redis-server did not answer within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, with everything that it holds in memory.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().expect("kill redis-server");
            child.wait().expect("wait for redis-server");
        }
    }

    /// Sends the process a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child().as_ref().expect("a running redis-server").id();
        let done = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
        assert!(done.expect("kill").success(), "kill -{name}");
    }

    /// Its append-only file.
    pub fn appended(&self) -> PathBuf {
        let all = std::fs::read_dir(self.home.path().join("appendonlydir")).expect("its files");
        let mut paths = all.map(|file| file.expect("a file").path());
        let is_it = |path: &PathBuf| path.to_string_lossy().ends_with(".incr.aof");
        paths.find(is_it).expect("an append-only file")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// A plain client, to look behind the ledger.
    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a redis url")
    }

    /// A ledger on it.
    pub async fn ledger(&self, clock: &ClockOffset) -> RedisLedger {
        let settings = RedisSettings {
            url: self.url(),
            response_timeout: Duration::from_millis(2_000),
            connect_timeout: Duration::from_millis(500),
            probe_timeout: Duration::from_secs(2),
        };
        RedisLedger::connect(&settings, clock.clone()).await.expect("a redis url")
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("redis.sock")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
