//! The socket: accepts connections up to a limit, speaks HTTP/1.1 and HTTP/2, and stops in good order.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::bail;
use axum::{ServiceExt, extract::connect_info::Connected};
use axum_server::{AddrListener, Address, Handle, Server};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Limits, gateway::Gateway};

/// So many requests may one HTTP/2 connection have open.
const STREAMS_PER_CONNECTION: u32 = 100;

/// Opens the socket at an address that its operator chose by this setting or option.
///
/// # Errors
/// Why not, as a sentence for the operator.
pub fn bind(address: SocketAddr, chosen_by: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("{address} is in use by another program; stop it, or choose another with {chosen_by}")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!(
                "{address} may not be opened by this user; ports below 1024 need a privilege, so choose another with \
                 {chosen_by}"
            )
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            bail!("{address} is no address of this computer; choose one of its own with {chosen_by}")
        }
        Err(error) => bail!("{address} cannot be opened ({error})"),
    }
}

/// Serves until `stop`, then lets requests finish for `limits.shutdown`, and the engine write down what it holds.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    gateway: Gateway,
    listener: TcpListener,
    limits: &Limits,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Bounded {
        listener: tokio::net::TcpListener::from_std(listener)?,
        free: Arc::new(Semaphore::new(limits.connections)),
    };
    let engine = gateway.claviger().engine().clone();
    let streams = gateway.streams().clone();
    let watching = tokio::spawn({
        let (streams, endings, engine) = (streams.clone(), engine.endings(), engine.clone());
        async move { streams.watch(endings, |session| engine.doubts(session)).await }
    });
    // The engine goes on until no request is left that could need it.
    let served = CancellationToken::new();
    let background = tokio::spawn({
        let (engine, served) = (engine.clone(), served.clone());
        async move { engine.run(served).await }
    });

    let handle = Handle::new();
    let mut server = Server::<Peer>::from_listener(listener).handle(handle.clone());
    let shutdown = limits.shutdown.0;
    let told = stop.clone();
    let stopping = tokio::spawn(async move {
        told.cancelled().await;
        tracing::info!("stopping: requests have {} to finish", humantime::format_duration(shutdown));
        handle.graceful_shutdown(Some(shutdown));
    });
    speak(&mut server, limits);
    let result = server
        .first_request_timeout(limits.header_read.0)
        .accept_error_handler(|_, error| tracing::warn!(%error, "a connection could not be accepted"))
        .serve(ServiceExt::<http::Request<Incoming>>::into_make_service_with_connect_info::<SocketAddr>(
            gateway.entry(),
        ))
        .await;
    stopping.abort();
    stop.cancel();
    streams.closed().await;
    served.cancel();
    background.await?;
    watching.abort();
    result?;
    Ok(())
}

/// A request may have 100 headers, which is hyper's own limit: setting it to the same number would cost an allocation for
/// each request.
fn speak<A: Address, Acc>(server: &mut Server<A, Acc>, limits: &Limits) {
    let builder = server.http_builder();
    builder.http1().header_read_timeout(limits.keep_alive.0).max_buf_size(limits.header_bytes);
    builder
        .http2()
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .keep_alive_interval(Some(limits.keep_alive.0))
        .keep_alive_timeout(limits.header_read.0);
}

/// A client's address.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl Address for Peer {
    type Stream = Counted;
    type Listener = Bounded;
}

impl Connected<Peer> for SocketAddr {
    fn connect_info(peer: Peer) -> Self {
        peer.0
    }
}

/// Accepts a connection only while there is room for one.
#[derive(Debug)]
struct Bounded {
    listener: tokio::net::TcpListener,
    free: Arc<Semaphore>,
}

impl AddrListener<Counted, Peer> for Bounded {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the socket is opened before the server starts"))
    }

    async fn accept_stream(&self) -> io::Result<(Counted, Peer)> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        // Only speed is at stake.
        let _slower = stream.set_nodelay(true);
        Ok((Counted { stream, _permit: permit }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}

/// A connection that gives its place back when it closes.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
