//! The socket around the mock: connections, delays, dropped answers, and waking the courier.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock;
use crate::courier;
use crate::exchange::Refusal;
use crate::limits;
use crate::mock::{Connection, MockTwitch};
use crate::shared::Shared;

/// A mock that listens on a socket and sends EventSub messages; dropping it closes the socket and
/// all connections.
///
/// Messages go out over plain `http`, for webhooks on the same machine: a subscription with an
/// `https` callback can be made, but fails its verification.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves on a bound listener, with the system's clock. Must be called inside a tokio runtime
    /// with IO.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn start(mock: MockTwitch, listener: TcpListener) -> io::Result<Self> {
        Self::start_with_clock(mock, listener, clock::now_ms)
    }

    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn local(mock: MockTwitch) -> io::Result<Self> {
        Self::start(mock, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
    }

    /// Serves on a bound listener, with the caller's clock in Unix milliseconds.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn start_with_clock(
        mock: MockTwitch,
        listener: TcpListener,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(mock, Arc::new(clock)));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve_and_deliver(listener, Arc::clone(&shared), stopped));
        Ok(Self { shared, address, stop: Some(stop), task })
    }

    /// The address for callers on this machine, for example `http://127.0.0.1:8410`, without a
    /// path.
    pub fn url(&self) -> String {
        if self.address.ip().is_unspecified() {
            return format!("http://localhost:{}", self.address.port());
        }
        format!("http://{}", self.address)
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads or changes the mock between two requests. Deliveries that become due are sent at once.
    ///
    /// A change without a time happens at the time of the server's clock. If the caller's clock has
    /// moved on, this also sends the deliveries that have become due.
    pub fn with<T>(&self, look: impl FnOnce(&mut MockTwitch) -> T) -> T {
        self.shared.with(look)
    }

    /// Closes the socket and all connections; deliveries in flight are aborted.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // The task may have ended already.
            let _ended = stop.send(());
        }
        let _ended = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves until stopped, and sends deliveries meanwhile.
async fn serve_and_deliver(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    tokio::select! {
        () = accept(listener, Arc::clone(&shared), stopped) => {}
        () = courier::run(shared) => {}
    }
}

/// Accepts until stopped. Dropping the set of connections ends them.
async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            accepted = accept_one(&listener, &slots) => {
                if let Some((stream, slot)) = accepted {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        serve(stream, shared).await;
                        drop(slot);
                    });
                }
            }
        }
    }
}

async fn accept_one(
    listener: &tokio::net::TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(_) => {
            // Such as too many open files: others may be closed in the meantime.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            None
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Without it connections are only slower.
    let _slower = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    // An error here means that the caller disconnected, or that a fault closes the connection.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Makes hyper drop the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection closes without an answer")]
struct NoAnswer;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, limits::BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let refusal = Refusal::new(http::StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
            return Ok(refusal.into_answer().map(Full::new));
        }
        Err(_) => return Err(NoAnswer),
    };
    let request = Request::from_parts(parts, body);
    let reply = shared.change(|mock, now_ms| mock.handle(&request, now_ms));
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match reply.connection {
        Connection::Keep => Ok(reply.response.map(Full::new)),
        Connection::CloseWithoutAnswer => Err(NoAnswer),
    }
}
