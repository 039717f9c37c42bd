//! WebSockets: a request becomes a tunnel between client and app.

use std::{future::pending, io, ops::Range, pin::pin, time::Duration};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{
    frames::{self, Frames},
    headers,
    streams::{Hold, Streams},
};
use crate::problems;

/// The only protocol that passes. An upgrade to HTTP/2 would tunnel requests past every rule.
const WEBSOCKET: &str = "websocket";

/// An upgrade that the client requests.
pub(super) struct Upgrade {
    client: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for, if it may pass.
    pub(super) fn asked(parts: &mut Parts) -> Option<Self> {
        let protocol = headers::upgrade(&parts.headers)?;
        if !protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
            return None;
        }
        Some(Self { client: parts.extensions.remove::<OnUpgrade>()? })
    }

    /// Sets the headers that ask the app for it.
    #[expect(clippy::unused_self, reason = "the headers need an upgrade that was checked")]
    pub(super) fn request_in(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }

    /// Starts the tunnel after the app agreed. It closes when the session ends or the gateway
    /// stops.
    pub(super) fn accepted<B>(
        self,
        mut answer: http::Response<B>,
        streams: &Streams,
        hold: Option<Hold>,
    ) -> Response {
        let agreed = answer.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
        if !agreed.is_some_and(|protocol| protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes())) {
            tracing::warn!("the app switched to a protocol that was not requested");
            return problems::APP_UNREACHABLE.json();
        }
        let app = hyper::upgrade::on(&mut answer);
        streams.tunnel(run(self.client, app, hold, streams.stopping()));
        headers::end_hop(answer.headers_mut());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::mem::swap(response.headers_mut(), answer.headers_mut());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
        response
    }
}

/// How long a tunnel may take to end politely.
const FAREWELL: Duration = Duration::from_secs(1);
/// Maximum number of octets of a frame that still pass after the session ended.
const REST_OF_FRAME: u64 = 64 * 1024;
/// The gateway stops (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// The session ended.
const POLICY_VIOLATION: u16 = 1008;

async fn run(client: OnUpgrade, app: OnUpgrade, hold: Option<Hold>, stopping: CancellationToken) {
    let ended = hold.as_ref().map_or_else(CancellationToken::new, |hold| hold.ended().clone());
    let stops = async {
        tokio::select! {
            () = ended.cancelled() => POLICY_VIOLATION,
            () = stopping.cancelled() => GOING_AWAY,
        }
    };
    let mut stops = pin!(stops);
    let (client, app) = tokio::select! {
        both = async { tokio::try_join!(client, app) } => match both {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a tunnel could not be established"),
        },
        _ = stops.as_mut() => return,
    };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_app, to_app) = tokio::io::split(TokioIo::new(app));
    let mut upwards = OneWay::new(from_client, to_app);
    let mut downwards = OneWay::new(from_app, to_client);
    let code = tokio::select! {
        // After the app nobody needs what the client sends. After the client the app may still
        // send.
        () = downwards.run() => return,
        () = async { upwards.run().await; pending().await } => return,
        code = stops => code,
    };
    let farewell = async {
        downwards.say_goodbye(code).await?;
        if code == GOING_AWAY {
            // The app gets the client's answer to the goodbye.
            upwards.run_to_close().await?;
            upwards.to.shutdown().await?;
        }
        downwards.to.shutdown().await
    };
    // Whatever came of it, the tunnel is over.
    let _over = tokio::time::timeout(FAREWELL, farewell).await;
}

/// What one side sends to the other.
struct OneWay<R, W> {
    from: R,
    to: W,
    buffer: Box<[u8]>,
    /// The part of the buffer that is still to be sent.
    pending: Range<usize>,
    frames: Frames,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> OneWay<R, W> {
    fn new(from: R, to: W) -> Self {
        let buffer = vec![0; 8 * 1024].into_boxed_slice();
        Self { from, to, buffer, pending: 0..0, frames: Frames::default() }
    }

    /// Passes everything on until either side closes. If this is dropped, nothing is lost.
    async fn run(&mut self) {
        // An error means that one side closed the connection, which is normal.
        while let Ok(true) = self.step(false).await {}
        let _closed = self.to.shutdown().await;
    }

    /// Passes everything on until the sender has said that it closes, or either side does.
    async fn run_to_close(&mut self) -> io::Result<()> {
        while !(self.frames.is_closed() && self.frames.is_between()) && self.step(false).await? {}
        Ok(())
    }

    /// Reads or writes once, and returns whether more may come. To finish a frame, nothing after it
    /// is written.
    async fn step(&mut self, to_finish_a_frame: bool) -> io::Result<bool> {
        if self.pending.is_empty() {
            let read = self.from.read(&mut self.buffer).await?;
            self.pending = 0..read;
            return Ok(read > 0);
        }
        let octets = self.buffer.get(self.pending.clone()).unwrap_or_default();
        let end = if to_finish_a_frame { self.frames.up_to_end(octets) } else { octets.len() };
        let octets = octets.get(..end).unwrap_or_default();
        let written = self.to.write(octets).await?;
        self.frames.follow(octets.get(..written).unwrap_or_default());
        self.pending.start += written;
        Ok(written > 0)
    }

    /// Finishes the frame that has begun, and sends one that closes. After the session ended, a
    /// frame with much to come is not finished.
    async fn say_goodbye(&mut self, code: u16) -> io::Result<()> {
        let longest = if code == POLICY_VIOLATION { REST_OF_FRAME } else { u64::MAX };
        while !self.frames.is_between() && self.frames.left() <= longest && self.step(true).await? {}
        if self.frames.is_between() && !self.frames.is_closed() {
            self.to.write_all(&frames::close(code)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn little_of_a_frame_passes_after_the_session_ended() {
        for (payload, code, expected) in [
            (60_000_u64, POLICY_VIOLATION, 60_000 + 10 + 4),
            (1 << 20, GOING_AWAY, (1 << 20) + 10 + 4),
            (1 << 20, POLICY_VIOLATION, 10),
        ] {
            let head = [&[0x82, 127][..], &payload.to_be_bytes()].concat();
            let (to_client, mut client) = duplex(1 << 21);
            let from_app = io::Cursor::new(head).chain(tokio::io::repeat(7));
            let mut downwards = OneWay::new(from_app, to_client);
            // The head is read, and then passed on.
            assert!(downwards.step(false).await.unwrap() && downwards.step(false).await.unwrap());
            downwards.say_goodbye(code).await.unwrap();
            drop(downwards);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard.len(), expected, "{payload} {code}");
            assert_eq!(heard.ends_with(&frames::close(code)), expected > 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_frame_of_the_client_ends_what_it_sends() {
        let (mut client, from_client) = duplex(1024);
        let (to_app, mut app) = duplex(1024);
        let mut upwards = OneWay::new(from_client, to_app);
        let frames = [&[0x82, 0x81, 1, 2, 3, 4, 5][..], &[0x88, 0x82, 1, 2, 3, 4, 2, 235]].concat();
        client.write_all(&frames).await.unwrap();
        // The client leaves the connection open.
        let passed = tokio::time::timeout(FAREWELL, upwards.run_to_close()).await;
        passed.expect("the close frame was the end").unwrap();
        let mut heard = vec![0; frames.len()];
        app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, frames);
    }
}
