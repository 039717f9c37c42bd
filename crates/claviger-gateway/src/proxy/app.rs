//! The connections to the app.

use std::{
    io,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
#[cfg(not(unix))]
use tokio::net::TcpStream as UnixStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tower::Service;

use super::body::Upload;
use crate::config::{Config, Upstream, Via};

/// How long idle connections to the app are kept: less than any common server's own limit (Node.js:
/// 5 s), so that a request rarely meets a connection that the app is closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// Maximum size of what is read of an answer at a time, in bytes, and so of its head.
const ANSWER_BUFFER: u32 = 64 * 1024;
/// Maximum number of idle connections to the app.
const IDLE_CONNECTIONS: usize = 64;
/// How often an app is pinged that speaks HTTP/2 and owes answers, and how long it may take. One
/// connection has all requests, so they would all wait for an app that vanished.
const PING: Duration = Duration::from_secs(10);

/// Sends requests to the app.
#[derive(Clone)]
pub(super) enum AppClient {
    Http1(Client<HttpsConnector<HttpConnector>, Upload>),
    Http2(Client<Always, Upload>),
    Unix(Client<UnixConnector, Upload>),
}

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
                let answers = u32::try_from(config.limits.connections).unwrap_or(u32::MAX);
                client
                    .timer(TokioTimer::new())
                    .http2_only(true)
                    .http2_initial_stream_window_size(ANSWER_BUFFER)
                    .http2_initial_connection_window_size(
                        LARGEST_WINDOW.min(answers.saturating_mul(ANSWER_BUFFER)),
                    )
                    .http2_max_header_list_size(ANSWER_BUFFER)
                    .http2_keep_alive_interval(PING)
                    .http2_keep_alive_timeout(PING);
                let address = app.site().origin().parse().map_err(io::Error::other)?;
                Self::Http2(client.build(Always { address, tcp }))
            }
            Via::Unix(path) => {
                Self::Unix(client.build(UnixConnector { path: path.as_path().into(), timeout }))
            }
        })
    }

    pub(super) fn request(&self, request: http::Request<Upload>) -> ResponseFuture {
        match self {
            Self::Http1(client) => client.request(request),
            Self::Http2(client) => client.request(request),
            Self::Unix(client) => client.request(request),
        }
    }
}

/// RFC 9113 section 6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

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
