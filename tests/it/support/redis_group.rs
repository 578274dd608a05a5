//! Several Redis processes of the tests' own on loopback: a master with replicas and sentinels, or a cluster.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Client, Commands, Connection, FromRedisValue, Value, cmd};
use tempfile::TempDir;

use crate::support::process::wait_until;

/// Name of the master, at the sentinels.
const MASTER: &str = "main";

/// Silence after which a sentinel, or a node of the cluster, takes another one for dead.
const DOWN_AFTER_MS: u32 = 500;

/// One process; ends with this value.
pub struct Process {
    _home: TempDir,
    pub port: u16,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// With these settings, on a free port.
    pub fn start(settings: &[&str]) -> Process {
        Process::start_with(|home, port| {
            // A file that is too large is an error for it, as a full disk is, and not its end.
            let mut server = Command::new("sh");
            server.args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis-server"]);
            server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            server.args(["--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir"]);
            server.arg(home.path());
            server.args(settings.iter().map(|setting| match *setting {
                "FREE_PORT" => free_port().to_string(),
                setting => setting.to_owned(),
            }));
            server
        })
    }

    /// A sentinel of the master at a port.
    fn sentinel(master: u16) -> Process {
        let settings = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {MASTER} 3000\n"
        );
        Process::start_with(|home, port| {
            let path = home.path().join("sentinel.conf");
            let text = format!("port {port}\nbind 127.0.0.1\n{settings}");
            std::fs::write(&path, text).expect("the directory is writable");
            let mut server = Command::new("redis-server");
            server.arg(path).arg("--sentinel");
            server
        })
    }

    fn start_with(command: impl Fn(&TempDir, u16) -> Command) -> Process {
        // Somebody else may take the port between its choice and its use.
        for _ in 0..5 {
            let home = tempfile::tempdir().expect("a directory for redis");
            let port = free_port();
            let mut command = command(&home, port);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().expect("redis-server 7 or newer on the PATH: `make redis`");
            let process = Process { _home: home, port, child: Mutex::new(Some(child)) };
            let patience = Instant::now() + Duration::from_secs(10);
            while process.runs() && Instant::now() < patience {
                let answer = process.client().get_connection().and_then(|mut c| c.ping::<String>());
                if answer.is_ok() {
                    return process;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("redis-server does not start");
    }

    pub fn pid(&self) -> u32 {
        self.child().as_ref().expect("a running redis-server").id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success(), "kill -{name}");
    }

    /// How often it has carried out a command of that name.
    pub fn count(&self, command: &str) -> u64 {
        let stats: String = self.ask(&["INFO", "commandstats"]);
        let of = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&of));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    fn runs(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills it, with everything that it holds.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().expect("kill redis-server");
            child.wait().expect("wait for redis-server");
        }
    }

    pub fn client(&self) -> Client {
        Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a redis url")
    }

    pub fn connection(&self) -> Connection {
        self.client().get_connection().expect("redis answers")
    }

    /// Runs one command, in words.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A master, two replicas and three sentinels.
pub struct Guarded {
    pub master: Process,
    pub replicas: [Process; 2],
    pub sentinels: [Process; 3],
}

impl Guarded {
    pub fn start(settings: &[&str]) -> Guarded {
        let master = Process::start(settings);
        let port = master.port.to_string();
        let follows = [settings, &["--replicaof", "127.0.0.1", &port]].concat();
        let replicas = [(), ()].map(|()| Process::start(&follows));
        wait_until("replicated", || online_replicas(&master), |online| *online == 2);
        let sentinels = [(), (), ()].map(|()| Process::sentinel(master.port));
        for sentinel in &sentinels {
            let known = || {
                let said: std::collections::HashMap<String, String> =
                    sentinel.ask(&["SENTINEL", "MASTER", MASTER]);
                ["num-slaves", "num-other-sentinels"].map(|name| said[name].clone())
            };
            wait_until("known to each other", known, |known| *known == ["2", "2"]);
        }
        Guarded { master, replicas, sentinels }
    }

    /// Where the sidecar finds the master.
    pub fn url(&self) -> String {
        let places: Vec<String> =
            self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/{MASTER}", places.join(","))
    }

    /// Port of the master, as a sentinel says.
    pub fn named(&self) -> u16 {
        let (_, port): (String, u16) =
            self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        port
    }
}

/// Three masters with a third of the slots each, and replicas of those that are named.
pub struct Shards {
    pub masters: Vec<Process>,
    pub replicas: Vec<Process>,
}

impl Shards {
    /// `replicas_of` are numbers of masters.
    pub fn start(replicas_of: &[usize]) -> Shards {
        let timeout = DOWN_AFTER_MS.to_string();
        let settings = [
            ["--cluster-enabled", "yes"],
            ["--cluster-port", "FREE_PORT"],
            ["--cluster-node-timeout", &timeout],
        ]
        .concat();
        let node = || Process::start(&settings);
        let masters: Vec<Process> = (0..3).map(|_| node()).collect();
        let replicas: Vec<Process> = replicas_of.iter().map(|_| node()).collect();
        for (n, [first, last]) in
            [["0", "5460"], ["5461", "10922"], ["10923", "16383"]].into_iter().enumerate()
        {
            let epoch = (n + 1).to_string();
            let _: Value = masters[n].ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let _: Value = masters[n].ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        let (first, all) = (&masters[0], || masters.iter().chain(&replicas));
        for other in all().skip(1) {
            let bus: Vec<String> = other.ask(&["CONFIG", "GET", "cluster-port"]);
            let port = other.port.to_string();
            let _: Value = first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]);
        }
        let count = all().count();
        let met = |node: &Process| node.ask::<String>(&["CLUSTER", "NODES"]).lines().count();
        for node in all() {
            wait_until("met", || met(node), |known| *known == count);
        }
        for (replica, of) in replicas.iter().zip(replicas_of) {
            let id: String = masters[*of].ask(&["CLUSTER", "MYID"]);
            let _: Value = replica.ask(&["CLUSTER", "REPLICATE", &id]);
        }
        for of in replicas_of {
            let expected = replicas_of.iter().filter(|n| *n == of).count();
            wait_until("replicated", || online_replicas(&masters[*of]), |n| *n == expected);
        }
        let shards = Shards { masters, replicas };
        shards.wait_until_ok();
        shards
    }

    /// Until those that run say that all slots are served.
    #[track_caller]
    pub fn wait_until_ok(&self) {
        for node in self.masters.iter().chain(&self.replicas).filter(|node| node.runs()) {
            let state = || node.ask::<String>(&["CLUSTER", "INFO"]);
            wait_until("ok", state, |state| state.contains("cluster_state:ok"));
        }
    }

    pub fn url(&self) -> String {
        let places: Vec<String> =
            self.masters.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+cluster://{}", places.join(","))
    }

    pub fn slot(&self, tenant: &str) -> u16 {
        self.masters[0].ask(&["CLUSTER", "KEYSLOT", tenant])
    }

    /// Number of the master that has a slot at first.
    pub fn master_of(slot: u16) -> usize {
        match slot {
            0..=5460 => 0,
            5461..=10922 => 1,
            _ => 2,
        }
    }
}

fn online_replicas(master: &Process) -> usize {
    master.ask::<String>(&["INFO", "replication"]).matches("state=online").count()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
