//! One connection: its protocol, its requests, and its end.

use std::{convert::Infallible, future::ready, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo, response::Response};
use claviger_axum::UnixPeer;
use futures_util::future::Either;
use http::{HeaderValue, StatusCode, Version, header};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::{
    Serves,
    activity::{Activity, Arriving, Outbound, Patience, Taking, Verdict, Watch},
    listener::{Listener, Remote},
    places::Places,
    socket::{Accepted, Socket},
};
use crate::timer;

/// Maximum number of open requests per HTTP/2 connection.
const STREAMS_PER_CONNECTION: u32 = 100;
/// Maximum number of octets of a body that an HTTP/2 client may send unread. Clients are near: they
/// are the proxies in front.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Uploads that nobody reads must not hold up the others. The places limit their number.
const CONNECTION_WINDOW: u32 = STREAMS_PER_CONNECTION * STREAM_WINDOW;
/// Maximum number of octets of an answer that wait for an HTTP/2 client.
const SEND_BUFFER: usize = 64 * 1024;

/// How long to wait after a connection could not be accepted, such as for lack of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a request that got no place. A body that waits for the client
/// would occupy memory that nothing counts.
fn busy() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Ends an HTTP/2 connection after an answer with `Connection: close`. HTTP/2 has no such header
/// (RFC 9113 section 8.2.2), so the connection sends GOAWAY in its place.
fn end_after(mut answer: Response, http2: Option<CancellationToken>) -> Response {
    if let Some(connection) = http2
        && answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close")
    {
        answer.headers_mut().remove(header::CONNECTION);
        connection.cancel();
    }
    answer
}

/// Runs what serves the requests of HTTP/2 connections, each in a task of its own.
#[derive(Clone)]
struct PerRequest {
    untaken: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for PerRequest {
    fn execute(&self, request: F) {
        tokio::spawn(Taking::watch(request, self.untaken));
    }
}

/// How connections are served.
#[derive(Clone)]
pub(super) struct Http {
    builder: Arc<Builder<PerRequest>>,
    patience: Patience,
    /// How long an HTTP/2 client may take for a ping, and to close an idle connection.
    farewell: Duration,
    places: Places,
}

impl Http {
    /// A request may have 100 headers, which is hyper's default; setting the same number would cost
    /// an allocation per request.
    pub(super) fn new(header_bytes: usize, patience: Patience, farewell: Duration, places: Places) -> Self {
        let mut builder = Builder::new(PerRequest { untaken: patience.untaken });
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.idle)
            .max_buf_size(header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(Some(patience.idle))
            .keep_alive_timeout(farewell);
        Self { builder: Arc::new(builder), patience, farewell, places }
    }

    /// Accepts the next connection, and waits until there is a place for it. It takes no place
    /// before, since requests over HTTP/2 could need the last one.
    pub(super) async fn accept(&self, listener: &Listener) -> Option<(Accepted, Remote)> {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let place = self.places.take(remote.map(|remote| remote.ip())).await?;
                Some((Accepted { stream, place }, remote))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// Serves a connection until it closes. After `stop` it serves only requests that have arrived,
    /// for as long as `shutdown` says. The token is the connection's own: each poll locks it.
    pub(super) fn serve<S: Serves>(
        &self,
        accepted: Accepted,
        remote: Remote,
        service: S,
        stop: CancellationToken,
        shutdown: Duration,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self { builder, patience, farewell, places } = self.clone();
        let activity = Arc::new(Activity::default());
        let socket = TokioIo::new(Socket::new(accepted, Arc::clone(&activity)));
        let mut watch = Watch::new(Arc::clone(&activity), patience);
        let ends = stop.clone();
        let requests = service_fn(move |mut request: http::Request<Incoming>| {
            let ends = (request.version() == Version::HTTP_2).then(|| ends.clone());
            let place = match request.version() {
                Version::HTTP_2 => {
                    places.take_at_once(remote.map(|remote| remote.ip())).map(|place| Some(Arc::new(place)))
                }
                _ => Some(None),
            };
            let is_full = place.is_none();
            let (open, place) = (activity.begin(), place.flatten());
            match remote {
                Some(address) => drop(request.extensions_mut().insert(ConnectInfo(address))),
                None => drop(request.extensions_mut().insert(UnixPeer)),
            }
            let answer = if is_full {
                Either::Left(ready(Ok(busy())))
            } else {
                let request = request.map(|body| Arriving::new(body, place.clone()));
                Either::Right(service.clone().call(request))
            };
            async move {
                let answer = end_after(answer.await?, ends);
                Ok::<_, Infallible>(answer.map(|body| Outbound::new(body, open, place)))
            }
        });
        async move {
            let mut connection = pin!(builder.serve_connection_with_upgrades(socket, requests));
            let begun = timer::now();
            let mut look = pin!(sleep_until(begun));
            let mut stopped = pin!(stop.cancelled());
            let mut cut = pin!(sleep_until(begun));
            let (mut stops, mut idle) = (false, false);
            loop {
                tokio::select! {
                    biased;
                    // An error means that the client closed it, or broke the protocol.
                    _over = connection.as_mut() => return,
                    () = stopped.as_mut(), if !stops => {
                        stops = true;
                        connection.as_mut().graceful_shutdown();
                        cut.as_mut().reset(timer::now() + shutdown);
                    }
                    () = cut.as_mut(), if stops => return,
                    () = look.as_mut() => match watch.look(begun.elapsed()) {
                        Verdict::Fine(pause) => look.as_mut().reset(timer::now() + pause),
                        Verdict::Idle if !idle => {
                            idle = true;
                            connection.as_mut().graceful_shutdown();
                            look.as_mut().reset(timer::now() + farewell);
                        }
                        Verdict::Idle | Verdict::Stuck => return,
                    },
                }
            }
        }
    }
}
