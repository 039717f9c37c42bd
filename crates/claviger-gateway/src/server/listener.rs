//! Where connections arrive: an address of this computer, or a Unix socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
/// This system has no Unix sockets.
#[cfg(not(unix))]
use tokio::net::{TcpListener as UnixListener, TcpStream as UnixStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::ListenAt;

/// Maximum number of connections that the operating system holds before we accept them.
const BACKLOG: u32 = 1024;

/// A socket that listens. It needs a runtime.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// The stream of a connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// Who connected: an address, or none if it was through a Unix socket.
pub(super) type Remote = Option<SocketAddr>;

impl Listener {
    /// Opens the socket that the operator chose with this setting.
    ///
    /// # Errors
    /// Why not, as a sentence for the operator.
    pub async fn open(at: &ListenAt, chosen_by: &str) -> anyhow::Result<Self> {
        match at {
            ListenAt::Tcp(address) => Ok(bind(*address, chosen_by)?.try_into()?),
            ListenAt::Unix(path) => {
                let opened = open_unix(path).await;
                let listener = opened.map_err(|error| why_no_unix_socket(path, chosen_by, &error))?;
                Ok(Self(Socket::Unix(listener, path.clone())))
            }
        }
    }

    /// Its address or path, for people.
    pub fn shown(&self) -> String {
        match &self.0 {
            Socket::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
            }
            Socket::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match &self.0 {
            Socket::Tcp(listener) => {
                listener.accept().await.map(|(stream, address)| (Either::Left(stream), Some(address)))
            }
            Socket::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| (Either::Right(stream), None))
            }
        }
    }
}

impl TryFrom<std::net::TcpListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(|listener| Self(Socket::Tcp(listener)))
    }
}

/// Opens the socket at an address that the operator chose with this setting or option. It needs a
/// runtime.
///
/// # Errors
/// Why not, as a sentence for the operator.
pub fn bind(address: SocketAddr, chosen_by: &str) -> anyhow::Result<std::net::TcpListener> {
    let bound = open(address).or_else(|error| match address.ip() {
        // This computer has no IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        _ => Err(error),
    });
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("{address} is in use by another program; stop it, or choose another address with {chosen_by}")
        }
        io::ErrorKind::PermissionDenied => anyhow!(
            "this user may not open {address}; ports below 1024 need a privilege, so choose another port with \
             {chosen_by}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is not an address of this computer; choose one of its own with {chosen_by}")
        }
        _ => anyhow!("{address} cannot be opened ({error})"),
    })
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A successor may use the address at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn why_no_unix_socket(path: &Path, chosen_by: &str, error: &io::Error) -> anyhow::Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!(
                "unix:{shown} is in use by another program; stop it, or choose another path with {chosen_by}"
            )
        }
        io::ErrorKind::AlreadyExists => anyhow!(
            "{shown} is a file and not a socket; remove it, or choose another path with {chosen_by}, such as \
             \"unix:/run/claviger/claviger.sock\""
        ),
        io::ErrorKind::NotFound => {
            anyhow!(
                "the directory of unix:{shown} does not exist; make it, or choose another path with {chosen_by}"
            )
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "this user may not make a file beside {shown}; change that, or choose another path with {chosen_by}"
            )
        }
        _ => anyhow!("unix:{shown} cannot be opened ({error}); a path is shorter than about 100 characters"),
    }
}

/// Who may use the socket: the user and the group of the gateway.
#[cfg(unix)]
const MODE: u32 = 0o660;
/// How long to wait for a sign that another program serves the socket.
#[cfg(unix)]
const SIGN_OF_LIFE: std::time::Duration = std::time::Duration::from_secs(1);

/// Opens a Unix socket. One that a gateway left behind is replaced in one step, so that nobody
/// finds no socket, or one with other permissions. It stays when the gateway stops: the file could
/// be a successor's by then.
#[cfg(unix)]
async fn open_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let connecting = tokio::time::timeout(SIGN_OF_LIFE, UnixStream::connect(path)).await;
        if !matches!(connecting, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // A gateway that was killed while it started left it.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = tokio::net::UnixSocket::new_stream()?;
    socket.bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(MODE))?;
    let listener = socket.listen(BACKLOG)?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(not(unix))]
async fn open_unix(_: &Path) -> io::Result<UnixListener> {
    Err(io::ErrorKind::Unsupported.into())
}
