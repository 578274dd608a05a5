//! A redis-server of the measurement's own: on loopback, without persistence, gone with this value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Commands, IntoConnectionInfo};

pub struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// With further settings.
    pub fn start_with(settings: &[&str]) -> RedisServer {
        let port = free_port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("expected redis-server 7 or newer on the PATH: run `make redis`");
        let server = RedisServer { child, port };
        let patience = Instant::now() + Duration::from_secs(10);
        while server.client().get_connection().and_then(|mut c| c.ping::<String>()).is_err() {
            assert!(Instant::now() < patience, "redis-server did not answer within 10 s");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[allow(dead_code, reason = "only nodes of a cluster are told by their ports")]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[allow(dead_code, reason = "not everybody who starts one watches its CPU")]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> redis::Client {
        client(&self.url()).expect("a redis url")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    free.expect("a free port").port()
}

/// A client that sends at once, as Tollgate's does: redis-rs leaves that to its user.
pub fn client(url: &str) -> redis::RedisResult<redis::Client> {
    let place = url.into_connection_info()?;
    let tcp = place.tcp_settings().clone().set_nodelay(true);
    redis::Client::open(place.set_tcp_settings(tcp))
}
