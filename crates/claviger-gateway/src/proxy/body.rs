//! Bodies on their way to the app and back. They stop at the end of the session.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::streams::Hold;
use crate::timer;

/// What moves between a client and the app before the app answers.
#[derive(Debug)]
pub struct Flow {
    begun: Instant,
    /// When the app last took octets, in milliseconds.
    moved: AtomicU64,
    /// Whether the client has to send next.
    waits_for_client: AtomicBool,
}

impl Default for Flow {
    fn default() -> Self {
        Self { begun: timer::now(), moved: AtomicU64::new(0), waits_for_client: AtomicBool::new(false) }
    }
}

impl Flow {
    fn note(&self, moved: bool) {
        self.waits_for_client.store(!moved, Relaxed);
        if moved {
            let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.moved.store(now, Relaxed);
        }
    }

    /// How long the app may still be silent. None: for too long already.
    fn left(&self, limit: Duration) -> Option<Duration> {
        if self.waits_for_client.load(Relaxed) {
            return Some(limit);
        }
        let end = Duration::from_millis(self.moved.load(Relaxed)) + limit;
        end.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero())
    }

    /// Waits for the app's answer until it has been silent for this long. A flow is missing if the
    /// request has no body.
    pub async fn answered<T>(
        flow: Option<&Self>,
        limit: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let mut answer = pin!(answer);
        let mut left = limit;
        loop {
            if let Ok(answer) = tokio::time::timeout(left, answer.as_mut()).await {
                return Some(answer);
            }
            left = flow?.left(limit)?;
        }
    }
}

/// The body of a request on its way to the app.
#[derive(Debug)]
pub struct Upload {
    inner: Body,
    flow: Option<Arc<Flow>>,
}

impl Upload {
    /// A body, and what moves of it, unless it is empty.
    pub fn new(inner: Body) -> (Self, Option<Arc<Flow>>) {
        let flow = (!inner.is_end_stream()).then(Arc::<Flow>::default);
        (Self { inner, flow: flow.clone() }, flow)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Some(flow) = &self.flow {
            flow.note(frame.is_ready());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why an answer was cut off.
#[derive(Debug, thiserror::Error)]
pub enum CutOff {
    /// The session ended.
    #[error("the session ended")]
    SessionEnded,
    /// The app or the provider closed the connection.
    #[error(transparent)]
    Sender(BoxError),
}

/// The body of an answer. It is cut off when its session ends.
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

/// The body of an answer that goes on until somebody ends it, such as a stream of events. When the
/// gateway stops, it ends cleanly.
pub struct UntilStop {
    inner: Body,
    stopping: CancellationToken,
    stops: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilStop {
    /// Lets the body of an answer end at this token if it is a stream of events.
    pub fn wrap(answer: Response, stopping: CancellationToken) -> Response {
        if !is_event_stream(answer.headers()) {
            return answer;
        }
        answer.map(|body| Body::new(Self::new(body, stopping)))
    }

    fn new(inner: Body, stopping: CancellationToken) -> Self {
        Self { inner, stops: Box::pin(stopping.clone().cancelled_owned()), stopping }
    }
}

/// Whether a body is a stream of events. Browsers ask for it again when it ends.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

impl HttpBody for UntilStop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // A stream that always has more must end too.
        if self.stopping.is_cancelled() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        self.stops.as_mut().poll(context).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer to HEAD that says nothing of its length.
pub struct Unsaid;

impl HttpBody for Unsaid {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// How many seconds an app is waited for that takes a piece of the body in each of these
    /// intervals, and then nothing more. The client pauses before each piece.
    async fn waited(intervals: &[u64], client_pauses: u64) -> u64 {
        let pieces = stream::repeat(()).then(move |()| async move {
            sleep(Duration::from_secs(client_pauses)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"piece"))
        });
        let (mut upload, flow) = Upload::new(Body::from_stream(pieces));
        let begun = timer::now();
        let app = async {
            for interval in intervals {
                sleep(Duration::from_secs(*interval)).await;
                upload.frame().await.unwrap().unwrap();
            }
            pending::<()>().await;
        };
        assert_eq!(Flow::answered(flow.as_deref(), LIMIT, app).await, None);
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_may_be_silent_for_the_limit_after_it_last_took_octets() {
        assert_eq!(waited(&[], 0).await, 60);
        assert_eq!(waited(&[0], 0).await, 60);
        assert_eq!(waited(&[59, 59, 59], 0).await, 3 * 59 + 60);
        assert_eq!(waited(&[59, 61], 0).await, 59 + 60);
    }

    #[tokio::test]
    async fn a_stream_that_always_has_more_ends_at_a_stop() {
        let stopping = CancellationToken::new();
        let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"event")));
        let mut body = UntilStop::new(Body::from_stream(endless), stopping.clone());
        assert!(body.frame().await.unwrap().is_ok());
        stopping.cancel();
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_client_is_no_silence_of_the_app() {
        assert_eq!(waited(&[0, 0], 50).await, 50 + 50 + 60);
        assert_eq!(waited(&[0, 0], 130).await, 130 + 130 + 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_body_has_the_limit_once() {
        let begun = timer::now();
        let (_, flow) = Upload::new(Body::empty());
        assert!(flow.is_none());
        assert_eq!(Flow::answered(None, LIMIT, pending::<()>()).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
