//! The connections to the app.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Builder, Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
#[cfg(not(unix))]
use tokio::net::TcpStream as UnixStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::body::Upload;
use crate::{
    config::{Config, Upstream, Via},
    keeping::Keeping,
};

/// How long idle connections to the app are kept: less than any common server's own limit (Node.js:
/// 5 s), so that a request rarely meets a connection that the app is closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// Maximum size of what is read of an answer at a time, in bytes, and so of its head.
const ANSWER_BUFFER: u32 = 64 * 1024;
/// Maximum number of idle connections to the app.
const IDLE_CONNECTIONS: usize = 64;
/// Maximum number of requests at a time on one connection to an app that speaks HTTP/2. An app
/// should allow as many (RFC 9113 section 6.5.2).
const STREAMS: u16 = 100;
/// How often such a connection is pinged while the app owes answers. If the app vanished, all
/// requests on it would wait.
const PING: Duration = Duration::from_secs(10);
/// How long the app may take to answer a ping, at least and at most. In between it is
/// `proxy.answer_timeout`. A pause of the app must not cut off all its requests, and an app that
/// vanished must be noticed soon.
const PING_ANSWER: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];

/// Sends requests to the app.
pub(super) enum AppClient {
    Http1(Client<HttpsConnector<HttpConnector>, Upload>),
    Http2(Connections),
    Unix(Client<UnixConnector, Upload>),
}

/// The body of an answer, and over HTTP/2 its place on a connection.
pub(super) type FromApp = Keeping<Incoming, Option<Place>>;

impl AppClient {
    /// # Errors
    /// If the system's trusted certificates cannot be used.
    pub(super) fn new(config: &Config, app: &Upstream) -> io::Result<Self> {
        let timeout = config.proxy.connect_timeout.0;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        // The client's retries stay on. They repeat only requests that were never sent, on a
        // connection that turned out to be closed. A request that may have reached the app is never
        // repeated.
        let mut client = Client::builder(TokioExecutor::new());
        client
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(64 * 1024)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .set_host(false);
        Ok(match app.via() {
            Via::Tcp => {
                let connector = hyper_rustls::HttpsConnectorBuilder::new()
                    .try_with_platform_verifier()
                    .map_err(io::Error::other)?
                    .https_or_http()
                    .enable_http1()
                    .wrap_connector(tcp);
                Self::Http1(client.build(connector))
            }
            Via::Http2 => {
                // Each answer has a window of its own. Together they do not fill that of the
                // connection, so one that nobody reads holds up no other.
                client
                    .timer(TokioTimer::new())
                    .http2_only(true)
                    .http2_initial_stream_window_size(ANSWER_BUFFER)
                    .http2_initial_connection_window_size(u32::from(STREAMS) * ANSWER_BUFFER)
                    .http2_max_header_list_size(ANSWER_BUFFER)
                    .http2_keep_alive_interval(PING)
                    .http2_keep_alive_timeout(ping_answer(config.proxy.answer_timeout.0));
                let address = app.site().origin().parse().map_err(io::Error::other)?;
                Self::Http2(Connections::new(client, Always { address, tcp }))
            }
            Via::Unix(path) => {
                Self::Unix(client.build(UnixConnector { path: path.as_path().into(), timeout }))
            }
        })
    }

    pub(super) async fn request(
        &self,
        request: http::Request<Upload>,
    ) -> Result<http::Response<FromApp>, Error> {
        let (answer, place) = match self {
            Self::Http1(client) => (client.request(request), None),
            Self::Unix(client) => (client.request(request), None),
            Self::Http2(connections) => {
                let (client, place) = connections.place();
                let request = request.map(|body| Keeping::new(body, Arc::clone(&place)));
                (client.request(request), Some(place))
            }
        };
        Ok(answer.await?.map(|body| Keeping::new(body, place)))
    }
}

/// How long an app with this limit for its answers may take to answer a ping.
fn ping_answer(answer_timeout: Duration) -> Duration {
    let [least, most] = PING_ANSWER;
    answer_timeout.clamp(least, most)
}

/// The connections to an app that speaks HTTP/2. A client of hyper puts all requests for a host on
/// one connection, so there are as many clients as connections are needed. One that is not needed
/// keeps no connection.
pub(super) struct Connections {
    builder: Builder,
    connector: Always,
    all: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Http2Client,
    free: Arc<Semaphore>,
}

type Http2Client = Client<Always, Keeping<Upload, Place>>;

/// A request's place on a connection. The request's body and its answer share it.
type Place = Arc<OwnedSemaphorePermit>;

impl Connections {
    fn new(builder: Builder, connector: Always) -> Self {
        Self { builder, connector, all: Mutex::default() }
    }

    /// A place on the first connection that has one. The later ones become idle when there are
    /// fewer requests.
    fn place(&self) -> (Http2Client, Place) {
        // A panic cannot leave the list inconsistent.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            for Connection { client, free } in all.iter() {
                if let Ok(place) = Arc::clone(free).try_acquire_owned() {
                    return (client.clone(), Arc::new(place));
                }
            }
            let client = self.builder.build(self.connector.clone());
            all.push(Connection { client, free: Arc::new(Semaphore::new(STREAMS.into())) });
        }
    }
}

/// Connects to this address, whatever host a request names. Over HTTP/2 the address of a request is
/// the host that the app sees.
#[derive(Clone)]
pub(super) struct Always {
    address: Uri,
    tcp: HttpConnector,
}

impl Service<Uri> for Always {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = <HttpConnector as Service<Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context)
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.tcp.call(self.address.clone())
    }
}

/// Connects to a Unix socket.
#[derive(Clone)]
pub(super) struct UnixConnector {
    path: Arc<Path>,
    timeout: Duration,
}

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { path, timeout } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(tokio::time::timeout(timeout, connect(&path)).await??)) })
    }
}

#[cfg(unix)]
async fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

#[cfg(not(unix))]
async fn connect(_: &Path) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_waited_for_neither_too_short_nor_too_long() {
        for (answer_timeout, expected) in [(1, 10), (10, 10), (20, 20), (60, 30), (600, 30)] {
            let waited = ping_answer(Duration::from_secs(answer_timeout));
            assert_eq!(waited.as_secs(), expected, "{answer_timeout}");
        }
    }
}
