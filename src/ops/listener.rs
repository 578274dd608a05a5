//! Binding the addresses of the settings, and dealing connections out to those who serve them.

use std::future::poll_fn;
use std::io::{self, Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::config::Listen;

/// Connections that were accepted and wait for one server to take them. Where all servers have so many, further
/// ones wait in the system's queue.
const AHEAD: usize = 64;

/// Pause where the system gives no connection, as when all file descriptors are used.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Pause where all servers have as many waiting as they may.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// A listener that is bound, so that its clients can connect before anything is served.
#[derive(Debug)]
pub enum Bound {
    /// TCP. The server must set TCP_NODELAY on what it accepts; [`Dealer::deal`] does.
    Tcp(TcpListener),
    /// A socket of the file system, and the file, which must be there as long as somebody listens.
    Unix(UnixListener, SocketFile),
}

/// Where one of several servers gets its connections from.
#[derive(Debug)]
pub enum Share {
    /// Of a TCP listener.
    Tcp(Dealt<std::net::TcpStream>),
    /// Of a Unix socket.
    Unix(Dealt<UnixStream>),
}

/// Connections that one server is dealt, each once its turn has come.
#[derive(Debug)]
pub struct Dealt<S>(mpsc::Receiver<Counted<S>>);

impl<S: Send + 'static> Dealt<S> {
    /// The connections on the runtime of the caller, by what makes one of a plain one there.
    fn streams<T>(self, make: fn(S) -> Result<T>) -> impl Stream<Item = Result<Counted<T>>> {
        let on_runtime =
            move |Counted { stream, open }| Ok(Counted { stream: make(stream)?, open });
        ReceiverStream::new(self.0).map(on_runtime)
    }
}

impl Dealt<std::net::TcpStream> {
    /// The connections on the runtime of the caller.
    pub fn tcp(self) -> impl Stream<Item = Result<Counted<tokio::net::TcpStream>>> + Unpin {
        self.streams(tokio::net::TcpStream::from_std)
    }
}

impl Dealt<std::net::TcpStream> {
    /// The same, each with who is at the other end; an error is that nobody is any more.
    pub fn with_peers(
        self,
    ) -> impl Stream<Item = Result<(Counted<tokio::net::TcpStream>, SocketAddr)>> + Unpin {
        self.tcp().map(|counted| {
            let counted = counted?;
            let peer = counted.stream.peer_addr()?;
            Ok((counted, peer))
        })
    }
}

impl Dealt<UnixStream> {
    /// The connections on the runtime of the caller.
    pub fn unix(self) -> impl Stream<Item = Result<Counted<tokio::net::UnixStream>>> + Unpin {
        self.streams(tokio::net::UnixStream::from_std)
    }
}

/// A connection that counts as open with its server until it is dropped.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    open: Arc<()>,
}

/// One of those who serve, as who deals sees it.
pub struct Server<S> {
    hand_over: mpsc::Sender<Counted<S>>,
    open: Arc<()>,
}

impl<S> Server<S> {
    /// It, and where its connections come out.
    fn new() -> (Server<S>, Dealt<S>) {
        let (hand_over, dealt) = mpsc::channel(AHEAD);
        (Server { hand_over, open: Arc::default() }, Dealt(dealt))
    }

    fn added_to(servers: &mut Vec<Server<S>>) -> Dealt<S> {
        let (server, dealt) = Server::new();
        servers.push(server);
        dealt
    }

    /// Connections that it has or that wait for it.
    fn connections(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }
}

/// A listener, and those who serve its connections.
pub enum Dealer {
    /// See [`Bound::Tcp`].
    Tcp(TcpListener, Vec<Server<std::net::TcpStream>>),
    /// See [`Bound::Unix`].
    Unix(UnixListener, SocketFile, Vec<Server<UnixStream>>),
}

impl Dealer {
    /// The share of one more server, on whatever runtime.
    pub fn share(&mut self) -> Share {
        match self {
            Dealer::Tcp(_, servers) => Share::Tcp(Server::added_to(servers)),
            Dealer::Unix(_, _, servers) => Share::Unix(Server::added_to(servers)),
        }
    }

    /// Accepts connections and deals them out until `stop`, then closes the listener. An error is that all of the
    /// servers are gone.
    pub async fn deal(self, stop: impl Future<Output = ()>) -> Result<()> {
        let dealing = async {
            match self {
                Dealer::Tcp(listener, servers) => {
                    let plain = |accepted: Result<(tokio::net::TcpStream, _)>| {
                        without_delay(accepted?.0).into_std()
                    };
                    deal(|cx| listener.poll_accept(cx).map(plain), servers).await
                }
                Dealer::Unix(listener, _file, servers) => {
                    let plain =
                        |accepted: Result<(tokio::net::UnixStream, _)>| accepted?.0.into_std();
                    deal(|cx| listener.poll_accept(cx).map(plain), servers).await
                }
            }
        };
        tokio::select! {
            // First: the servers are told to stop, too, and are not to be missed.
            biased;
            () = stop => Ok(()),
            ended = dealing => ended,
        }
    }
}

/// Accepts for ever. Each connection goes to the server that has the fewest, the next in turn where several have; to
/// one that is gone or takes none off, only where no other is there.
async fn deal<S>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<Result<S>>,
    mut servers: Vec<Server<S>>,
) -> Result<()> {
    loop {
        let stream = match poll_fn(&mut accept).await {
            Ok(stream) => stream,
            // It was closed before it was accepted.
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut undealt = Some(stream);
        while let Some(stream) = undealt.take() {
            servers.retain(|server| !server.hand_over.is_closed());
            let is_full = |server: &Server<S>| server.hand_over.capacity() == 0;
            let order = |(_, server): &(usize, &Server<S>)| (is_full(server), server.connections());
            let Some((chosen, _)) = servers.iter().enumerate().min_by_key(order) else {
                return Err(Error::other("nobody serves the connections of a listener"));
            };
            let server = servers.remove(chosen);
            match server.hand_over.try_send(Counted { stream, open: server.open.clone() }) {
                Ok(()) => {}
                // It has ended meanwhile: another gets it.
                Err(TrySendError::Closed(unsent)) => undealt = Some(unsent.stream),
                // All of them are full; whichever is first to take one off gets it.
                Err(TrySendError::Full(unsent)) => {
                    undealt = Some(unsent.stream);
                    tokio::time::sleep(FULL_PAUSE).await;
                }
            }
            // Behind the others, which come first the next time.
            servers.push(server);
        }
    }
}

fn is_of_the_connection(error: &Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

/// The file of a Unix socket; removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; there is nothing left to do then.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Somebody who deals its connections out.
    pub fn dealer(self) -> Dealer {
        match self {
            Bound::Tcp(listener) => Dealer::Tcp(listener, vec![]),
            Bound::Unix(listener, file) => Dealer::Unix(listener, file, vec![]),
        }
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> Result<Listen> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Bound::Unix(_, file) => Ok(Listen::Unix(file.0.clone())),
        }
    }
}

/// Binds `listen`; the error names the address.
///
/// The file of a Unix socket that a killed process left behind is replaced; one that somebody still
/// listens on, or that is no socket, is not.
pub async fn bind(listen: &Listen) -> Result<Bound> {
    let bound = match listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Bound::Tcp),
        Listen::Unix(path) => bind_unix(path),
    };
    bound.map_err(|error| Error::new(error.kind(), format!("cannot listen on {listen}: {error}")))
}

fn without_delay(stream: tokio::net::TcpStream) -> tokio::net::TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set: the other end has most likely gone");
    }
    stream
}

fn bind_unix(path: &Path) -> Result<Bound> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    Ok(Bound::Unix(listener, SocketFile(path.to_owned())))
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let refused = || UnixStream::connect(path).err().map(|error| error.kind());
    is_socket && refused() == Some(ErrorKind::ConnectionRefused)
}

impl<S: Connected> Connected for Counted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abandoned_socket_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("calls.sock");
        let listen = Listen::Unix(path.clone());

        let first = bind(&listen).await.expect("the path is free");
        let error = bind(&listen).await.expect_err("the path is in use");
        assert!(
            error.to_string().starts_with(&format!("cannot listen on unix:{}: ", path.display()))
        );
        drop(first);
        assert!(!path.exists());

        // The standard listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("the path is free"));
        assert!(path.exists());
        bind(&listen).await.expect("nobody listens there");

        std::fs::write(&path, "not a socket").expect("the directory is writable");
        bind(&listen).await.expect_err("a file of somebody is not removed");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn the_system_chooses_a_port() {
        let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let bound = bind(&listen).await.expect("a port is free");
        let Ok(Listen::Tcp(address)) = bound.address() else { panic!("expected TCP") };
        assert_ne!(address.port(), 0);
        bind(&Listen::Tcp(address)).await.expect_err("the port is in use");
    }

    async fn bound_to_a_port() -> (Bound, SocketAddr) {
        let bound = bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.expect("a port is free");
        let Ok(Listen::Tcp(address)) = bound.address() else { panic!("expected TCP") };
        (bound, address)
    }

    fn tcp(share: Share) -> mpsc::Receiver<Counted<std::net::TcpStream>> {
        let Share::Tcp(Dealt(dealt)) = share else { panic!("expected TCP") };
        dealt
    }

    #[tokio::test]
    async fn connections_are_dealt_out_evenly_and_to_nobody_who_has_gone() {
        let (bound, address) = bound_to_a_port().await;
        let mut dealer = bound.dealer();
        let [mut first, mut second] = [dealer.share(), dealer.share()].map(tcp);
        let dealing = tokio::spawn(dealer.deal(std::future::pending()));
        let connect = async || tokio::net::TcpStream::connect(address).await.expect("it listens");

        // Four connections, as clients of gRPC have: two each, whoever is awake.
        let mut clients = vec![];
        for _ in 0..4 {
            clients.push(connect().await);
        }
        let of_first = [first.recv().await, first.recv().await].map(|one| one.expect("dealt"));
        let of_second = [second.recv().await, second.recv().await].map(|one| one.expect("dealt"));
        assert!(of_first[0].stream.nodelay().expect("it is open"));
        assert_eq!((first.len(), second.len()), (0, 0));

        // Those that close make room.
        drop(of_second);
        clients.push(connect().await);
        clients.push(connect().await);
        let again = [second.recv().await, second.recv().await].map(|one| one.expect("dealt"));
        assert_eq!(first.len(), 0);

        // A server that has gone is dealt nothing, though it has the fewest.
        drop((first, of_first));
        clients.push(connect().await);
        second.recv().await.expect("dealt");
        drop((second, again));
        connect().await;
        dealing.await.expect("it does not panic").expect_err("nobody serves");
    }

    #[tokio::test]
    async fn a_server_that_takes_none_off_holds_up_no_other() {
        let (bound, address) = bound_to_a_port().await;
        let mut dealer = bound.dealer();
        let [stuck, mut busy] = [dealer.share(), dealer.share()].map(tcp);
        tokio::spawn(dealer.deal(std::future::pending()));
        let (mut clients, mut taken) = (vec![], vec![]);
        for _ in 0..2 * AHEAD + 20 {
            let connecting = tokio::net::TcpStream::connect(address);
            clients.push(connecting.await.expect("it listens"));
        }
        while taken.len() < AHEAD + 20 {
            taken.push(busy.recv().await.expect("dealt"));
        }
        assert_eq!(stuck.len(), AHEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_gives_no_connection_is_asked_again_after_a_pause() {
        let (server, Dealt(mut dealt)) = Server::new();
        let mut asked = 0;
        let accept = move |_: &mut Context<'_>| {
            asked += 1;
            Poll::Ready(match asked {
                1 => Err(ErrorKind::ConnectionAborted.into()),
                2 | 3 => Err(Error::from_raw_os_error(24)),
                _ => Ok(asked),
            })
        };
        let begun = tokio::time::Instant::now();
        tokio::spawn(deal(accept, vec![server]));
        assert_eq!(dealt.recv().await.expect("dealt").stream, 4);
        assert_eq!(begun.elapsed(), 2 * ACCEPT_PAUSE);
    }

    #[tokio::test]
    async fn who_is_told_to_stop_closes_the_listener_and_removes_its_file() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("calls.sock");
        let bound = bind(&Listen::Unix(path.clone())).await.expect("the path is free");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut dealer = bound.dealer();
        let Share::Unix(dealt) = dealer.share() else { panic!("expected one of Unix") };
        let dealing = tokio::spawn(dealer.deal(async { drop(stopped.await) }));
        let _client = tokio::net::UnixStream::connect(&path).await.expect("it listens");
        let mut connections = dealt.unix();
        connections.next().await.expect("dealt").expect("it is open");
        stop.send(()).expect("it waits");
        dealing.await.expect("it does not panic").expect("it ends well");
        assert!(!path.exists() && connections.next().await.is_none());
    }
}
