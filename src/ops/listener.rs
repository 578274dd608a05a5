//! Binding the addresses of the settings.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// A listener that is bound, so that its clients can connect before anything is served.
#[derive(Debug)]
pub enum Bound {
    /// TCP. The gRPC server must set TCP_NODELAY on what it accepts.
    Tcp(TcpListener),
    /// A socket of the file system, and the file, which must outlive the serving.
    Unix(UnixListener, Arc<SocketFile>),
}

/// A listener that several threads accept from; each takes one of these along.
#[derive(Debug)]
pub enum Share {
    /// See [`Bound::Tcp`].
    Tcp(std::net::TcpListener),
    /// See [`Bound::Unix`].
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
}

impl Share {
    /// The listener on the runtime of this thread.
    pub fn listen(self) -> Result<Bound> {
        Ok(match self {
            Share::Tcp(listener) => Bound::Tcp(TcpListener::from_std(listener)?),
            Share::Unix(listener, file) => Bound::Unix(UnixListener::from_std(listener)?, file),
        })
    }
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
    /// Takes it apart for so many threads.
    pub fn shares(self, threads: u32) -> Result<Vec<Share>> {
        match self {
            Bound::Tcp(listener) => {
                let listener = listener.into_std()?;
                (0..threads).map(|_| listener.try_clone().map(Share::Tcp)).collect()
            }
            Bound::Unix(listener, file) => {
                let listener = listener.into_std()?;
                let share = |_| Ok(Share::Unix(listener.try_clone()?, file.clone()));
                (0..threads).map(share).collect()
            }
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

fn bind_unix(path: &Path) -> Result<Bound> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    Ok(Bound::Unix(listener, Arc::new(SocketFile(path.to_owned()))))
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let refused = || UnixStream::connect(path).err().map(|error| error.kind());
    is_socket && refused() == Some(ErrorKind::ConnectionRefused)
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
}
