//! TLS on the listeners: certificates that are replaced while calls run, and handshakes that hold nobody.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::security::identities::normal;
use crate::security::{BadFile, Reason, Security};

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most handshakes at a time, on each thread that accepts; further connections wait.
const MAX_HANDSHAKES: usize = 1024;

/// Connections whose handshake is done and that wait to be served.
const AHEAD: usize = 64;

/// Certificates and key of the server, as they are now.
pub struct Tls(ArcSwap<Configs>);

struct Configs {
    /// Clients must show a certificate, where there is an authority for them.
    mutual: Arc<ServerConfig>,
    /// They need none.
    open: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate and key, and the authorities of clients.
    pub fn load(files: &(PathBuf, PathBuf), client_ca: Option<&Path>) -> Result<Tls, BadFile> {
        Ok(Tls(ArcSwap::from_pointee(read(files, client_ca)?)))
    }

    /// The same again, for connections from now on. On an error all stays as it was.
    pub fn reload(
        &self,
        files: &(PathBuf, PathBuf),
        client_ca: Option<&Path>,
    ) -> Result<(), BadFile> {
        self.0.store(Arc::new(read(files, client_ca)?));
        Ok(())
    }

    /// Takes connections until `stop`, and hands over what has passed its handshake. Each handshake is a task of its
    /// own on the runtime of the caller, for at most five seconds.
    pub fn accept<S: Transport>(
        self: &Arc<Self>,
        mut incoming: impl Stream<Item = io::Result<(S, SocketAddr)>> + Send + Unpin + 'static,
        mutual: bool,
        security: Arc<Security>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> mpsc::Receiver<Connection<S>> {
        let (hand_over, accepted) = mpsc::channel(AHEAD);
        let tls = self.clone();
        let gone = hand_over.clone();
        let all = async move {
            let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
            loop {
                let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
                let Some(next) = incoming.next().await else { return };
                // An error is that the other end has gone already.
                let Ok((stream, peer)) = next else { continue };
                let configs = tls.0.load();
                let config = if mutual { &configs.mutual } else { &configs.open };
                let acceptor = TlsAcceptor::from(config.clone());
                let (security, hand_over) = (security.clone(), hand_over.clone());
                tokio::spawn(async move {
                    let shaken = handshake(acceptor, stream, peer);
                    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await;
                    drop(permit);
                    match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                        // An error is that nobody serves any more.
                        Ok(connection) => drop(hand_over.send(connection).await),
                        Err(error) => {
                            tracing::debug!(%peer, %error, "no handshake");
                            let peer = peer.to_string();
                            security.refusals().record("", &peer, "", Reason::Handshake);
                        }
                    }
                });
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = all => {}
                () = stop => {}
                () = gone.closed() => {}
            }
        });
        accepted
    }
}

async fn handshake<S: Transport>(
    acceptor: TlsAcceptor,
    stream: S,
    peer: SocketAddr,
) -> io::Result<Connection<S>> {
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let names = certificate.map(names).unwrap_or_default();
    let peer = Peer { address: peer, names: names.into() };
    Ok(Connection { stream: Box::new(stream), peer })
}

/// The alternative names of a certificate that has been verified, as `DNS:` or `URI:` and the name.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return vec![] };
    let dns = certificate.valid_dns_names().map(|name| normal(&format!("DNS:{name}")));
    dns.chain(certificate.valid_uri_names().map(|name| format!("URI:{name}"))).collect()
}

fn read(
    (certificate, key): &(PathBuf, PathBuf),
    client_ca: Option<&Path>,
) -> Result<Configs, BadFile> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| BadFile::new(key, format!("expected a private key in PEM: {error}")))?;
    let roots = match client_ca {
        None => None,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| BadFile::new(path, error))?;
            }
            Some((path, Arc::new(roots)))
        }
    };
    let provider = Arc::new(ring::default_provider());
    let config = |roots: Option<(&Path, Arc<RootCertStore>)>| {
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| BadFile::new(certificate, error))?;
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some((path, roots)) => {
                let provider = provider.clone();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| BadFile::new(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(|error| BadFile::new(certificate, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A session that is resumed is not asked for its certificate again, which may have expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    };
    Ok(Configs { mutual: config(roots)?, open: config(None)? })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let bad = |message: String| BadFile::new(path, message);
    let read = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(bad("expected certificates in PEM".to_owned())),
        Err(error) => Err(bad(format!("expected certificates in PEM: {error}"))),
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What its certificate says, as `DNS:` or `URI:` and the name; empty without one.
    pub names: Arc<[String]>,
}

/// What TLS runs on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for S {}

/// A connection whose handshake is done.
pub struct Connection<S> {
    stream: Box<TlsStream<S>>,
    peer: Peer,
}

impl<S: Transport> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: Transport> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: Transport> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// For servers that accept by themselves.
pub struct Accepted<S> {
    /// What [`Tls::accept`] gave.
    pub connections: mpsc::Receiver<Connection<S>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl<S: Transport> axum::serve::Listener for Accepted<S> {
    type Io = Connection<S>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection<S>, SocketAddr) {
        match self.connections.recv().await {
            Some(connection) => {
                let address = connection.peer.address;
                (connection, address)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
