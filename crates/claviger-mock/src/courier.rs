//! Sends EventSub messages to webhooks, each as soon as it is due.
//!
//! It speaks only plain `http`, to a receiver on the same machine. A message to an `https` callback
//! is never sent and counts as unanswered.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::eventsub::{Delivery, WebhookAnswer};
use crate::limits;
use crate::shared::Shared;

/// Sends what is due. Dropping it also stops the deliveries in flight.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut under_way = JoinSet::new();
    loop {
        // After a reset of the mock, older deliveries may still be in flight.
        let (due, wait) = if under_way.len() < limits::DELIVERIES_UNDER_WAY {
            shared.due_deliveries()
        } else {
            (Vec::new(), None)
        };
        for delivery in due {
            under_way.spawn(carry(delivery, Arc::clone(&shared)));
        }
        tokio::select! {
            () = shared.changed() => {}
            Some(_) = under_way.join_next() => {}
            () = pause(wait) => {}
        }
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn carry(delivery: Delivery, shared: Arc<Shared>) {
    let limit = Duration::from_secs(limits::WEBHOOK_ANSWER_SECS);
    let answer = tokio::time::timeout(limit, send(delivery.request)).await;
    shared.delivered(delivery.id, &answer.ok().flatten().unwrap_or(WebhookAnswer::NoAnswer));
}

/// One request on a connection of its own; `None` if no answer comes.
async fn send(mut request: Request<Bytes>) -> Option<WebhookAnswer> {
    let uri = std::mem::take(request.uri_mut());
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.ok()?;
    // Without it connections are only slower.
    let _slower = stream.set_nodelay(true);
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).ok()?);
    *request.uri_mut() = uri.path_and_query().map_or_else(Uri::default, |target| Uri::from(target.clone()));

    let handshake = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    let mut exchange = pin!(async move {
        let response = sender.send_request(request.map(Full::new)).await.ok()?;
        let status = response.status().as_u16();
        let body = match Limited::new(response.into_body(), limits::WEBHOOK_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // The status counts anyway. A body of this length is not a challenge.
            Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
            Err(_) => return None,
        };
        Some(WebhookAnswer::Answered { status, body })
    });
    let mut connection = pin!(connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            // The connection may end before its answer is read.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}
