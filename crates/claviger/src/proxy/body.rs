//! Bodies on their way through: never waited for without end, and over when their session is.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, body::Body};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::streams::Hold;

/// A request's body: given up if it pauses for too long, and without its trailers, which could carry headers that were
/// removed from its head.
#[derive(Debug)]
pub struct Inbound {
    inner: Body,
    pause: Duration,
    given_up: Option<Pin<Box<Sleep>>>,
}

/// The client sent nothing for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body paused for too long")]
pub struct TooSlow;

impl Inbound {
    /// A body that may pause for so long.
    pub fn new(inner: Body, pause: Duration) -> Self {
        Self { inner, pause, given_up: None }
    }
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.given_up = None;
            return Poll::Ready(frame.filter(|frame| !frame.as_ref().is_ok_and(Frame::is_trailers)));
        }
        let pause = self.pause;
        let given_up = self.given_up.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        given_up.as_mut().poll(context).map(|()| Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why the rest of an answer does not come.
#[derive(Debug, thiserror::Error)]
pub enum CutOff {
    /// The session ended.
    #[error("the session ended")]
    SessionEnded,
    /// The app, or the provider, broke off.
    #[error(transparent)]
    Sender(BoxError),
}

/// An answer's body that breaks off when its session ends.
pub struct OfSession<B> {
    inner: B,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    hold: Hold,
}

impl<B> OfSession<B> {
    /// Ties a body to a session.
    pub fn new(inner: B, hold: Hold) -> Self {
        Self { inner, ended: Box::pin(hold.ended().clone().cancelled_owned()), hold }
    }
}

impl<B> HttpBody for OfSession<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.hold.ended().is_cancelled() {
            return Poll::Ready(Some(Err(CutOff::SessionEnded)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| CutOff::Sender(error.into()))));
        }
        self.ended.as_mut().poll(context).map(|()| Some(Err(CutOff::SessionEnded)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
