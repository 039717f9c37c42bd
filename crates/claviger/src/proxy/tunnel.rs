//! WebSockets: a request that becomes a tunnel between client and app.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::{
    headers,
    streams::{Hold, Streams},
};
use crate::problems;

/// The only protocol that is passed on. An upgrade to HTTP/2, say, would tunnel requests past every rule.
const WEBSOCKET: &str = "websocket";

/// An upgrade that the client asks for.
pub(super) struct Upgrade {
    client: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for, if it is one that is passed on.
    pub(super) fn asked(parts: &mut Parts) -> Option<Self> {
        let protocol = headers::upgrade(&parts.headers)?;
        if !protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
            return None;
        }
        Some(Self { client: parts.extensions.remove::<OnUpgrade>()? })
    }

    /// Asks the app for it.
    #[expect(clippy::unused_self, reason = "only who has an upgrade may name it")]
    pub(super) fn name_in(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }

    /// The app agreed: the tunnel stands as soon as the client has the answer, and falls when the session ends.
    pub(super) fn accepted(
        self,
        mut answer: http::Response<Incoming>,
        streams: &Streams,
        hold: Option<Hold>,
    ) -> Response {
        let agreed = answer.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
        if !agreed.is_some_and(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes())) {
            tracing::warn!("the app switched to another protocol than was asked for");
            return problems::APP_UNREACHABLE.json();
        }
        let app = hyper::upgrade::on(&mut answer);
        streams.tunnel(run(self.client, app, hold));
        headers::end_hop(answer.headers_mut());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::mem::swap(response.headers_mut(), answer.headers_mut());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
        response
    }
}

async fn run(client: OnUpgrade, app: OnUpgrade, hold: Option<Hold>) {
    let ended = hold.as_ref().map_or_else(CancellationToken::new, |hold| hold.ended().clone());
    let passing = async {
        let (client, app) = tokio::try_join!(client, app)?;
        // An error is one side going away, as is usual.
        let _closed = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(app)).await;
        Ok::<_, hyper::Error>(())
    };
    match ended.run_until_cancelled(passing).await {
        Some(Err(error)) => tracing::debug!(%error, "a tunnel did not come to stand"),
        Some(Ok(())) => {}
        None => tracing::debug!("a tunnel was closed because its session ended"),
    }
}
