//! The sample app. It reads who is calling from the headers that the gateway adds.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use axum_server::Handle;
use claviger_provider::{Preset, twitch};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;

const SCRIPT: &str = include_str!("../../templates/sample.js");
const STYLE: &str = include_str!("../../templates/sample.css");

/// The headers that the gateway adds.
const IDENTITY: [&str; 5] =
    ["x-auth-provider", "x-auth-user", "x-auth-name", "x-auth-login", "x-auth-session"];

/// A sample app that listens on a free port of this computer.
pub(super) struct Sample {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
}

#[derive(Template)]
#[template(path = "sample.html")]
struct Page<'a> {
    name: &'a str,
    identity: Vec<(&'static str, &'a str)>,
    mock: &'a str,
    /// What people call the provider.
    provider: &'static str,
    /// Its stable name.
    preset: &'static str,
}

impl Sample {
    /// Starts it. It links to the mock of Twitch at this address. Its streams end at `stop`.
    pub(super) fn start(mock: String, stop: CancellationToken) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let handle = Handle::new();
        let server = axum_server::from_tcp(listener)?.handle(handle.clone());
        tokio::spawn(async move {
            if let Err(error) = server.serve(router(mock, stop).into_make_service()).await {
                tracing::error!(%error, "the sample app stopped");
            }
        });
        Ok(Self { address, handle })
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it.
    pub(super) fn stop(self) {
        self.handle.shutdown();
    }
}

fn router(mock: String, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/events", get(async move || events(stop.clone())))
        .route(
            "/sample.js",
            get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)),
        )
        .route("/sample.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)))
        .with_state(Arc::from(mock))
}

/// A stream without events. The gateway closes it when the session ends, and the page notices.
fn events(stop: CancellationToken) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let begun = stream::iter([Ok(Event::default().event("begun").data("signed in"))]);
    let events = begun.chain(stream::pending()).take_until(stop.cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn home(State(mock): State<Arc<str>>, headers: HeaderMap) -> Response {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = percent_decode_str(field("x-auth-name")).decode_utf8_lossy();
    let identity = IDENTITY.map(|name| (name, field(name))).to_vec();
    let Preset { name: preset, display_name: provider, .. } = twitch::PRESET;
    match (Page { name: &name, identity, mock: &mock, provider, preset }).render() {
        Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "the sample page failed to render");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
