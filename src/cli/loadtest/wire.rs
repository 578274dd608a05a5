//! A gRPC client that costs little: unary calls straight on HTTP/2 frames (crate `h2`), without the
//! layers of a channel, so that what is measured is the server.
//!
//! A connection that is lost is made again; what was under way on it is counted as lost.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::cli::args::{Endpoint, Trust};
use crate::cli::client::bearer;
use crate::cli::output::Failure;

/// Bytes that a server may send before it waits for this client; enough for everything in flight.
const WINDOW: u32 = 16 << 20;

/// Pause before a lost connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// gRPC's five bytes before a message: not compressed, length.
const PREFIX: usize = 5;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A gRPC status other than OK, by its number.
    Status(u16),
    /// The connection was lost, or could not be made.
    Connection,
    /// The answer is not what the protocol says.
    Malformed,
}

/// One RPC of a server: where requests go.
#[derive(Clone, Debug)]
pub struct Rpc {
    uri: Uri,
}

/// What a client shows to a server, and whom it trusts; read once.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    tls: Option<Arc<ClientConfig>>,
    /// `authorization` of each request.
    bearer: Option<HeaderValue>,
}

impl Shown {
    /// Reads the files; those of TLS only for an `https://` endpoint.
    pub fn of(endpoint: &Endpoint, trust: &Trust) -> Result<Shown, Failure> {
        let tls = is_secure(endpoint).then(|| tls(trust).map(Arc::new)).transpose()?;
        let value = bearer(trust)?;
        let bearer = value.map(|value| HeaderValue::from_bytes(value.as_encoded_bytes()));
        let bearer = bearer.transpose();
        let mut bearer = bearer.map_err(|error| Failure::new(error.to_string()))?;
        if let Some(bearer) = &mut bearer {
            bearer.set_sensitive(true);
        }
        Ok(Shown { tls, bearer })
    }
}

fn tls(trust: &Trust) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match &trust.tls_ca {
        Some(path) => {
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| bad(path, &error))?;
            }
        }
        None => {
            // As many of the system's as can be used.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&trust.tls_cert, &trust.tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
            let shows = builder.with_client_auth_cert(chain, private);
            shows.map_err(|error| bad(certificate, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| bad(path, &error))?;
    all.collect::<Result<_, _>>().map_err(|error| bad(path, &error))
}

fn bad(path: &Path, error: &dyn Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// A connection that requests may share.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    shown: Shown,
    headers: HeaderMap,
    live: Mutex<Option<SendRequest<Bytes>>>,
    /// Held while it is made again.
    making: tokio::sync::Mutex<()>,
    /// Counts the connections that were made.
    made: AtomicU64,
}

impl Rpc {
    /// Of a path such as `/tollgate.v1.CallAuthorizationService/AuthorizeCall`.
    pub fn of(endpoint: &Endpoint, path: &'static str) -> io::Result<Rpc> {
        let mut parts = http::uri::Parts::default();
        let secure = is_secure(endpoint);
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority(endpoint)?);
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        Ok(Rpc { uri: Uri::from_parts(parts).map_err(io::Error::other)? })
    }
}

impl Connection {
    /// Connects; the server is told to spend at most `timeout` on each request, and who asks.
    pub async fn open(
        endpoint: &Endpoint,
        timeout: Duration,
        shown: &Shown,
    ) -> io::Result<Connection> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // At most eight digits.
        let millis = timeout.as_millis().min(99_999_999);
        let text = HeaderValue::from_str(&format!("{millis}m")).map_err(io::Error::other)?;
        headers.insert("grpc-timeout", text);
        if let Some(bearer) = &shown.bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        let live = connect(endpoint, shown).await?;
        Ok(Connection {
            endpoint: endpoint.clone(),
            shown: shown.clone(),
            headers,
            live: Mutex::new(Some(live)),
            making: tokio::sync::Mutex::default(),
            made: AtomicU64::new(1),
        })
    }

    /// Sends one request, as [`framed`], and waits for all of its answer: the message without its prefix.
    pub async fn call(&self, method: &Rpc, message: Bytes) -> Result<Bytes, Fault> {
        let made = self.made.load(Ordering::Relaxed);
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = match live {
            Some(live) => self.call_on(live, method, message).await,
            None => Err(Fault::Connection),
        };
        if matches!(answer, Err(Fault::Connection)) {
            self.renew(made).await;
        }
        answer
    }

    async fn call_on(
        &self,
        live: SendRequest<Bytes>,
        method: &Rpc,
        message: Bytes,
    ) -> Result<Bytes, Fault> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = method.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let mut live = live.ready().await.map_err(lost)?;
        let (answer, mut body) = live.send_request(request, false).map_err(lost)?;
        body.send_data(message, true).map_err(lost)?;
        let answer = answer.await.map_err(lost)?;
        if let Some(status) = status(answer.headers()) {
            return Err(Fault::Status(status));
        }
        let mut body = answer.into_body();
        let mut read = Bytes::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(lost)?;
            // The window is made for everything in flight; a stream that ends needs no more of it.
            let _ = body.flow_control().release_capacity(part.len());
            read = if read.is_empty() { part } else { [read, part].concat().into() };
        }
        let trailers = body.trailers().await.map_err(lost)?.ok_or(Fault::Malformed)?;
        match status(&trailers) {
            Some(0) if read.len() >= PREFIX => Ok(read.slice(PREFIX..)),
            Some(0) | None => Err(Fault::Malformed),
            Some(status) => Err(Fault::Status(status)),
        }
    }

    /// Makes the connection again unless somebody has since `made`.
    async fn renew(&self, made: u64) {
        let _alone = self.making.lock().await;
        if self.made.load(Ordering::Relaxed) != made {
            return;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
        let live = connect(&self.endpoint, &self.shown).await.ok();
        if live.is_some() {
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

/// A message as it goes over the wire, with its prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows where it is too small: it cannot fail.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

fn lost(error: h2::Error) -> Fault {
    // A single stream that the server gave up leaves the connection as it is.
    match error.is_reset() && error.is_remote() {
        true => Fault::Malformed,
        false => Fault::Connection,
    }
}

fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn authority(endpoint: &Endpoint) -> io::Result<Authority> {
    match endpoint {
        Endpoint::Unix(_) => Ok(Authority::from_static("localhost")),
        Endpoint::Url(url) => {
            let uri: Uri = url.parse().map_err(io::Error::other)?;
            uri.authority().cloned().ok_or_else(|| io::Error::other("expected http://HOST:PORT"))
        }
    }
}

/// Sockets of the file system stay plain.
fn is_secure(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Url(url) if url.starts_with("https:"))
}

async fn connect(endpoint: &Endpoint, shown: &Shown) -> io::Result<SendRequest<Bytes>> {
    let connecting = async {
        match endpoint {
            Endpoint::Unix(path) => handshake(UnixStream::connect(path).await?).await,
            Endpoint::Url(_) => {
                let to = authority(endpoint)?;
                // Brackets of an IPv6 address belong to the URL.
                let host = to.host().trim_start_matches('[').trim_end_matches(']');
                let usual = if is_secure(endpoint) { 443 } else { 80 };
                let stream = TcpStream::connect((host, to.port_u16().unwrap_or(usual))).await?;
                stream.set_nodelay(true)?;
                match &shown.tls {
                    None => handshake(stream).await,
                    Some(tls) => {
                        let name =
                            ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                        let tls = TlsConnector::from(tls.clone());
                        handshake(tls.connect(name, stream).await?).await
                    }
                }
            }
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<SendRequest<Bytes>> {
    let (live, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    // Its end is seen by the requests on it.
    tokio::spawn(connection);
    Ok(live)
}
