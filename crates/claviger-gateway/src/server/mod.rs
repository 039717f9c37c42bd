//! The socket: accepts connections up to a limit, serves HTTP/1.1 and HTTP/2, and shuts down
//! gracefully.
//!
//! | module | the question it answers |
//! |---|---|
//! | `listener` | where do connections arrive |
//! | `places` | may one more connection come in |
//! | `connection` | how is one served, and when does it end |
//! | `activity` | does anything move on it |
//! | `socket` | how does it close |

mod activity;
mod connection;
mod listener;
mod places;
mod socket;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use claviger_core::policy::limits::SHUTDOWN_DRAIN;
use futures_util::future::OptionFuture;
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::{
    config::{Config, Limits},
    entry::Entry,
    gateway::{Gateway, site},
};
use activity::{Arriving, Patience};
use connection::Http;
use places::{Places, Trusted};

pub use listener::{Listener, bind};
pub(crate) use places::REFUSED;

/// The sockets of a gateway.
#[derive(Debug)]
pub struct Listeners {
    /// For browsers and front proxies.
    pub public: Listener,
    /// For programs with a credential.
    pub private: Option<PrivateListener>,
}

/// A socket for programs with a credential, and the metrics that they may read.
pub type PrivateListener = (Listener, PrometheusHandle);

/// The public socket, which is served also before there is a gateway. So nobody is refused in
/// between.
pub(crate) struct Front {
    shown: String,
    entries: Arc<Entries>,
    stopping: CancellationToken,
    served: JoinHandle<()>,
}

/// What serves requests.
struct Entries {
    /// Until there is a gateway.
    before: Entry,
    gateway: OnceLock<Entry>,
}

impl Entries {
    fn present(&self) -> &Entry {
        self.gateway.get().unwrap_or(&self.before)
    }
}

impl Front {
    /// Serves with this entry until there is a gateway. At `stopping` connections end.
    pub(crate) fn open(
        listener: Listener,
        config: &Config,
        before: Entry,
        stopping: CancellationToken,
    ) -> Self {
        let limits = &config.limits;
        let site = site(config);
        let trusted = Trusted { networks: site.trusted_proxies, unix: site.trusts_unix_peers };
        let places = Places::new(limits.connections, limits.connections_per_address, trusted);
        let shown = listener.shown();
        let server = Server {
            listener,
            http: Http::new(limits.header_bytes, patience(limits), limits.header_read.0, places),
        };
        let entries = Arc::new(Entries { before, gateway: OnceLock::new() });
        let service = tower::service_fn({
            let entries = Arc::clone(&entries);
            move |request: http::Request<Arriving<Incoming>>| entries.present().clone().call(request)
        });
        let served = tokio::spawn(server.run(service, stopping.clone(), limits.shutdown.0));
        Self { shown, entries, stopping, served }
    }

    /// Its address or path, for people.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Serves with this gateway until `stop`, as [`serve`] says.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) async fn serve(
        self,
        gateway: Gateway,
        private: Option<PrivateListener>,
        config: &Config,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let limits = &config.limits;
        let engine = gateway.claviger().engine().clone();
        let streams = gateway.streams().clone();
        let private = OptionFuture::from(private.map(|(listener, metrics)| {
            // Its callers may take all of its places.
            let places = Places::new(limits.connections, limits.connections, Trusted::default());
            let http = Http::new(limits.header_bytes, patience(limits), limits.header_read.0, places);
            let routes = gateway.private(metrics).routes();
            tokio::spawn(Server { listener, http }.run(routes, streams.stopping(), limits.shutdown.0))
        }));
        let watching = tokio::spawn({
            let (streams, endings, engine) = (streams.clone(), engine.endings(), engine.clone());
            async move { streams.watch(endings, |session| engine.doubts(session)).await }
        });
        // The engine outlives all requests, because they may need it.
        let served = CancellationToken::new();
        let background = tokio::spawn({
            let (engine, served) = (engine.clone(), served.clone());
            async move { engine.run(served).await }
        });
        self.entries.gateway.get_or_init(|| gateway.entry());
        // Nobody sent requests to a gateway that never was ready.
        let notice = if stop.is_cancelled() { Duration::ZERO } else { config.shutdown_notice() };
        let mut connections = self.served;
        tokio::select! {
            () = stop.cancelled() => {}
            // It panicked.
            over = &mut connections => return Ok(over?),
        }
        gateway.claviger().stop_being_ready();
        tracing::info!(
            notice = %humantime::format_duration(notice),
            shutdown = %humantime::format_duration(limits.shutdown.0),
            drain = %humantime::format_duration(SHUTDOWN_DRAIN),
            "stopping: /readyz says so for the time of notice; then requests have the time of shutdown to finish, \
             and the engine has the time of drain for refreshes; allow their sum before the process is killed"
        );
        tokio::time::sleep(notice).await;
        streams.stop();
        self.stopping.cancel();
        connections.await?;
        private.await.transpose()?;
        streams.closed().await;
        served.cancel();
        background.await?;
        watching.abort();
        Ok(())
    }
}

/// Serves until `stop`. Then the gateway is not ready for `limits.shutdown_notice`, and goes on
/// serving. After that it accepts no connection, tunnels and streams of events end, and other
/// requests have `limits.shutdown` to finish. At last the engine saves its state.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    gateway: Gateway,
    listeners: Listeners,
    config: &Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let front = Front::open(listeners.public, config, gateway.entry(), gateway.streams().stopping());
    front.serve(gateway, listeners.private, config, stop).await
}

fn patience(limits: &Limits) -> Patience {
    Patience {
        first_request: limits.header_read.0,
        idle: limits.keep_alive.0,
        untaken: limits.answer_pause.0,
    }
}

/// Maximum number of connections to a socket that only a few programs use.
const FEW_CONNECTIONS: usize = 64;
/// Maximum size of the head of a request there, in bytes.
const FEW_HEADER_BYTES: usize = 16 * 1024;
/// How long a head may take there, and how long a connection may be idle.
const FEW_PATIENCE: Duration = Duration::from_secs(10);
const FEW_KEEP_ALIVE: Duration = Duration::from_secs(130);

/// Serves a socket that only a few programs use, such as Prometheus, until `stop`.
pub fn serve_few(
    listener: Listener,
    router: Router,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let patience = Patience { first_request: FEW_PATIENCE, idle: FEW_KEEP_ALIVE, untaken: FEW_KEEP_ALIVE };
    let places = Places::new(FEW_CONNECTIONS, FEW_CONNECTIONS, Trusted::default());
    let server = Server { listener, http: Http::new(FEW_HEADER_BYTES, patience, FEW_PATIENCE, places) };
    async move { server.run(router, stop, Duration::ZERO).await }
}

/// A service for the requests of a connection.
trait Serves:
    Service<
        http::Request<Arriving<Incoming>>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Serves for S where
    S: Service<
            http::Request<Arriving<Incoming>>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A socket and its limits.
struct Server {
    listener: Listener,
    http: Http,
}

impl Server {
    /// Serves connections until `stop`. Then they have this long to finish.
    async fn run<S: Serves>(self, service: S, stop: CancellationToken, shutdown: Duration) {
        let connections = TaskTracker::new();
        let accepting = async {
            loop {
                let Some((socket, address)) = self.http.accept(&self.listener).await else { continue };
                let stop = stop.child_token();
                connections.spawn(self.http.serve(socket, address, service.clone(), stop, shutdown));
            }
        };
        // None means that the server stops.
        let _stops = stop.run_until_cancelled(accepting).await;
        // Clients learn at once that nobody listens here any more.
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}
