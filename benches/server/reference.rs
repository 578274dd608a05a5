//! What Tollgate is held against: a bare tonic server, the naive authorizer (tonic and one EVALSHA), and
//! that script alone.
//!
//! The servers are processes of their own: this program, started again.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Script, cmd};
use tollgate::cli::loadtest::drive::{Play, Scene};
use tollgate::cli::loadtest::measure::{Kind, Outcome, Step};
use tollgate::cli::loadtest::random::{Random, Zipf};
use tollgate::cli::loadtest::wire::Fault;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Holds a minute of a pool for a call, the least that an authorizer can do.
const SCRIPT: &str = "
local user = redis.call('HMGET', KEYS[1], 'state', 'version', 'pool')
if user[1] ~= 'active' then return 0 end
local left = tonumber(redis.call('HGET', KEYS[2], 'available'))
local asked = tonumber(ARGV[2])
if left < asked then return 0 end
redis.call('HINCRBY', KEYS[2], 'available', -asked)
redis.call('HSET', KEYS[3], 'user', KEYS[1], 'held', asked, 'called', ARGV[3], 'version', user[2], 'at', ARGV[4])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
return asked
";

const ASKED: i64 = 60;

/// Longest wait for Redis: on a busy machine it is slow, not away. As long as Tollgate's here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fills an empty Redis with the users that the script looks at.
pub fn fill(client: &redis::Client, users: u32) {
    let mut connection = client.get_connection().expect("redis answers");
    let mut commands = redis::pipe();
    for user in 1..=users {
        let fields = [("state", "active"), ("version", "7"), ("pool", "pool-1")];
        commands.hset_multiple(format!("user-{user}"), &fields).ignore();
    }
    commands.hset("pool-1", "available", 9_000_000_000_000_000_i64).ignore();
    commands.query::<()>(&mut connection).expect("redis takes it");
}

/// The fields of an AuthorizeCallRequest that the load test sends.
#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(string, tag = "1")]
    tenant_id: String,
    #[prost(string, tag = "2")]
    call_id: String,
    #[prost(int32, tag = "3")]
    call_type: i32,
    #[prost(string, tag = "4")]
    payer_id: String,
    #[prost(string, tag = "5")]
    calling_number: String,
    #[prost(string, tag = "6")]
    called_number: String,
    #[prost(message, optional, tag = "8")]
    requested_duration: Option<prost_types::Duration>,
    #[prost(string, tag = "13")]
    trunk_id: String,
}

/// An answer of about 80 bytes.
#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(int32, tag = "1")]
    decision: i32,
    #[prost(bool, tag = "2")]
    allowed: bool,
    #[prost(message, optional, tag = "4")]
    granted_duration: Option<prost_types::Duration>,
    #[prost(string, tag = "8")]
    decision_id: String,
    #[prost(string, tag = "9")]
    version: String,
}

fn told() -> Told {
    Told {
        decision: 1,
        allowed: true,
        granted_duration: Some(prost_types::Duration { seconds: ASKED, nanos: 0 }),
        decision_id: "0192f0c1-a2b3-7c4d-8e9f-0a1b2c3d4e5f".to_owned(),
        version: "sample-2026-11-01T00:00:00Z".to_owned(),
    }
}

/// Both servers: with Redis the naive authorizer, without it a bare one.
#[derive(Clone)]
struct Reference {
    ledger: Option<(ConnectionManager, Arc<Script>)>,
}

impl NamedService for Reference {
    const NAME: &'static str = "tollgate.v1.CallAuthorizationService";
}

impl UnaryService<Ask> for Reference {
    type Response = Told;
    type Future = BoxFuture<Response<Told>, Status>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            let Some((mut connection, script)) = ledger else { return Ok(Response::new(told())) };
            let ask = request.into_inner();
            let held: i64 = script
                .key(&ask.payer_id)
                .key("pool-1")
                .key(format!("h:{}", ask.call_id))
                .key("expiries")
                .arg(&ask.call_id)
                .arg(ASKED)
                .arg(&ask.called_number)
                .arg(1_794_312_000)
                .invoke_async(&mut connection)
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            Ok(Response::new(Told { allowed: held > 0, ..told() }))
        })
    }
}

impl Service<http::Request<tonic::body::Body>> for Reference {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Told, Ask>::default());
            Ok(grpc.unary(service, request).await)
        })
    }
}

/// Serves on a socket of the file system's choosing until the process is killed; says where.
pub fn serve(threads: usize, redis: Option<&str>) -> io::Result<()> {
    let runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        many => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(many).enable_all().build()?
        }
    };
    runtime.block_on(async {
        let ledger = match redis {
            None => None,
            Some(url) => {
                let client = crate::redis_server::client(url).map_err(io::Error::other)?;
                let config = ConnectionManagerConfig::new().set_response_timeout(Some(PATIENCE));
                let manager = client.get_connection_manager_with_config(config).await;
                let manager = manager.map_err(io::Error::other)?;
                Some((manager, Arc::new(Script::new(SCRIPT))))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening {}", listener.local_addr()?);
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tonic::transport::Server::builder()
            .add_service(Reference { ledger })
            .serve_with_incoming(incoming)
            .await
            .map_err(io::Error::other)
    })
}

/// The script alone, through redis-rs, without gRPC.
pub struct Alone {
    client: redis::Client,
    users: Zipf,
    script: Script,
}

impl Alone {
    pub fn new(client: redis::Client, users: u32) -> Alone {
        Alone { client, users: Zipf::new(users, 100), script: Script::new(SCRIPT) }
    }
}

pub struct Caller {
    scene: Arc<Alone>,
    connection: MultiplexedConnection,
    number: usize,
    serial: u64,
    random: Random,
}

impl Scene for Alone {
    type Connections = MultiplexedConnection;
    type Player = Caller;

    async fn connect(&self, _: usize) -> io::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let open = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = open.map_err(io::Error::other)?;
        let load = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async::<()>(&mut connection).await;
        load.map_err(io::Error::other)?;
        Ok(connection)
    }

    fn player(self: &Arc<Self>, connection: &Arc<MultiplexedConnection>, number: usize) -> Caller {
        let connection = MultiplexedConnection::clone(connection);
        let random = Random::new(number as u64 + 1);
        Caller { scene: self.clone(), connection, number, serial: 0, random }
    }
}

impl Play for Caller {
    async fn step(&mut self) -> Step {
        self.serial += 1;
        let user = self.scene.users.draw(&mut self.random) + 1;
        let call = format!("0192f0c1a2b37c4d8e9f0a1b2c3d4e5f|{}|{}", self.number, self.serial);
        let held: redis::RedisResult<i64> = self
            .scene
            .script
            .key(format!("user-{user}"))
            .key("pool-1")
            .key(format!("h:{call}"))
            .key("expiries")
            .arg(&call)
            .arg(ASKED)
            .arg("+12065550142")
            .arg(1_794_312_000)
            .invoke_async(&mut self.connection)
            .await;
        let outcome = match held {
            Ok(held) if held > 0 => Outcome::Done,
            Ok(_) => Outcome::Refused(0),
            Err(_) => Outcome::Failed(Fault::Connection),
        };
        Step { kind: Kind::Authorize, outcome, charged_seconds: 0 }
    }
}
