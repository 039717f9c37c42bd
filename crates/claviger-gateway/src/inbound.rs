//! The body of a request: how slowly it may come, and what becomes of the part that nobody reads.
//!
//! Most answers of ours are given before the body was read, and so are some of the app's. The code
//! that gives one drops the body, and [`Inbound`] does the rest: it reads on and discards, while
//! the answer is already on its way. If the octets were left unread, the answer could be lost with
//! the connection.
//!
//! | the part that nobody read | what follows |
//! |---|---|
//! | ends within `limits.discard_bytes` and `limits.discard_time` | the connection stays open |
//! | is longer, or takes longer, or a second more when the gateway stops | HTTP/1.1: our end closes, and lingers. HTTP/2: the stream is reset without an error |
//! | is known to be longer (HTTP/1.1) | the same, and the answer says `Connection: close` |
//! | comes too slowly | the same |
//! | waits for `100 Continue` (HTTP/1.1) | is not asked for, and the answer says `Connection: close` |
//! | is left in a connection to the app, which reads nothing | may be read for `limits.discard_time` after the answer ended, and is then closed as if it were longer |
//!
//! The lingering is in [`server`](crate::server). Decision 0022 says why.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, body::Body, response::Response};
use bytes::Bytes;
use claviger_core::request::path::is_below;
use http::{HeaderValue, Version, header, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{config::Limits, keeping::Keeping, rules, timer};

/// How long the client may take for any body of a request that is for us.
const GRACE: Duration = Duration::from_secs(10);
/// Number of octets per second that such a body must bring, beyond that.
const LEAST_RATE: u64 = 4 * 1024;
/// How long the gateway reads on what nobody needs while it stops.
const DISCARD_TIME_AT_STOP: Duration = Duration::from_secs(1);

/// The limits of all bodies.
#[derive(Clone, Debug)]
pub struct Bodies {
    limits: Arc<BodyLimits>,
    /// Where calls of the provider's API arrive.
    api_path: String,
}

#[derive(Debug)]
struct BodyLimits {
    pause: Duration,
    discard_bytes: u64,
    discard_time: Duration,
    stopping: CancellationToken,
}

impl Bodies {
    /// Bodies with these limits. What is for us has a least rate, since we hold it in memory.
    /// After `stopping`, little is read of what nobody needs.
    pub fn new(limits: &Limits, api_path: String, stopping: CancellationToken) -> Self {
        let limits = BodyLimits {
            pause: limits.body_pause.0,
            discard_bytes: u64::try_from(limits.discard_bytes).unwrap_or(u64::MAX),
            discard_time: limits.discard_time.0,
            stopping,
        };
        Self { limits: Arc::new(limits), api_path }
    }

    /// Limits for a test.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let limits = BodyLimits {
            pause: Duration::from_secs(60),
            discard_bytes: 1000,
            discard_time: Duration::from_secs(30),
            stopping: CancellationToken::new(),
        };
        Self { limits: Arc::new(limits), api_path: "/api/twitch".to_owned() }
    }

    /// Takes the body of a request, if it has one.
    pub fn take<B>(&self, request: &Parts, body: B) -> Option<Inbound>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            return None;
        }
        let path = request.uri.path();
        let ours = rules::own(&self.api_path).iter().any(|own| is_below(path, own));
        let waits = request.headers.contains_key(header::EXPECT);
        let closes = waits || body.size_hint().lower() > self.limits.discard_bytes;
        let announced = request.version < Version::HTTP_2;
        Some(Inbound {
            body: Some(Arc::new(Shared::new(Body::new(body)))),
            limits: Arc::clone(&self.limits),
            least_rate: ours.then_some(LEAST_RATE),
            waits_for_100: waits,
            closes: announced.then(|| Arc::new(AtomicBool::new(closes))),
            received: 0,
            waited: Duration::ZERO,
            pause: None,
        })
    }
}

/// The body of a request. It fails if it is too slow. Its trailers are dropped: they could repeat
/// headers that were removed from the head.
#[derive(Debug)]
pub struct Inbound {
    /// None after its end.
    body: Option<Arc<Shared>>,
    limits: Arc<BodyLimits>,
    /// Number of octets per second after [`GRACE`].
    least_rate: Option<u64>,
    /// Whether the client sends nothing before we ask for it.
    waits_for_100: bool,
    /// Whether the connection closes after the answer, if that is to be announced.
    closes: Option<Arc<AtomicBool>>,
    received: u64,
    /// How long the client was waited for.
    waited: Duration,
    pause: Option<Pause>,
}

/// A wait for the client.
#[derive(Debug)]
struct Pause {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

/// A body that can be closed from outside, since hyper's client may hold it without polling it.
#[derive(Debug)]
struct Shared(Mutex<Option<Body>>);

impl Shared {
    fn new(body: Body) -> Self {
        Self(Mutex::new(Some(body)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        // A panic cannot leave it inconsistent: it is there or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Body> {
        self.lock().take()
    }
}

/// The body was still unread long after the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer had ended long before the body was read")]
struct TooLate;

/// The client sent nothing for too long, or too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body paused for too long, or came too slowly")]
pub struct TooSlow;

impl Inbound {
    /// Sees later to what this body means for the answer.
    pub fn closing(&self) -> Closing {
        let unread = self.body.as_ref().map(Arc::downgrade).unwrap_or_default();
        Closing { closes: self.closes.clone(), unread, limit: self.limits.discard_time }
    }

    /// Gives the body up unread, because it is unknown where it ends.
    pub fn abandon(mut self) {
        self.end(true);
    }

    /// How long the client may take for its next octets.
    fn patience(&self) -> Duration {
        let Some(rate) = self.least_rate else { return self.limits.pause };
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / rate);
        self.limits.pause.min((GRACE + earned).saturating_sub(self.waited))
    }

    /// Reads no more of it.
    fn end(&mut self, connection_closes: bool) {
        self.body = None;
        if let Some(closes) = &self.closes {
            closes.store(connection_closes, Ordering::Relaxed);
        }
    }
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.waits_for_100 = false;
        let Some(shared) = &this.body else { return Poll::Ready(None) };
        let polled = shared.lock().as_mut().map(|body| {
            let frame = Pin::new(&mut *body).poll_frame(context);
            (frame, body.is_end_stream())
        });
        let Some((frame, ends)) = polled else {
            this.end(true);
            return Poll::Ready(Some(Err(axum::Error::new(TooLate))));
        };
        if let Poll::Ready(frame) = frame {
            let now = timer::now();
            this.waited += this.pause.take().map_or(Duration::ZERO, |pause| now - pause.since);
            return Poll::Ready(match frame {
                Some(Ok(frame)) if !frame.is_trailers() => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    this.received = this.received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                    if ends {
                        this.end(false);
                    }
                    Some(Ok(frame))
                }
                Some(Err(error)) => {
                    this.end(true);
                    Some(Err(error))
                }
                Some(Ok(_)) | None => {
                    this.end(false);
                    None
                }
            });
        }
        let patience = this.patience();
        let pause = this.pause.get_or_insert_with(|| {
            let since = timer::now();
            Pause { since, end: Box::pin(sleep_until(since + patience)) }
        });
        ready!(pause.end.as_mut().poll(context));
        this.end(true);
        Poll::Ready(Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.body else { return SizeHint::with_exact(0) };
        shared.lock().as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // Reading would ask the client for a body that nobody needs.
        let rest = self.body.take().filter(|_| !self.waits_for_100).and_then(|shared| shared.take());
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(discard(rest, Arc::clone(&self.limits)));
        }
    }
}

/// Reads and discards, up to the limits. Dropping what is left closes the stream or the connection.
async fn discard(mut rest: Body, limits: Arc<BodyLimits>) {
    let reading = async {
        let mut left = limits.discard_bytes;
        while let Some(Ok(frame)) = rest.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) {
                Some(still) => left = still,
                None => return,
            }
        }
    };
    let stopping = async {
        limits.stopping.cancelled().await;
        sleep(DISCARD_TIME_AT_STOP).await;
    };
    tokio::select! {
        () = reading => {}
        () = sleep(limits.discard_time) => {}
        () = stopping => {}
    }
}

/// What the body of a request means for the answer.
#[derive(Debug, Default)]
pub struct Closing {
    /// Whether the connection closes after the answer, if that is to be announced.
    closes: Option<Arc<AtomicBool>>,
    unread: Weak<Shared>,
    /// How long the body may be read after the answer ended.
    limit: Duration,
}

impl Closing {
    /// Announces in the answer that the connection closes. Without that a client could send its
    /// next request to a connection that is being closed. An answer that ends before the body was
    /// read closes the body after a while.
    pub fn finish(self, mut answer: Response) -> Response {
        if self.closes.as_ref().is_some_and(|closes| closes.load(Ordering::Relaxed)) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.unread.strong_count() == 0 {
            return answer;
        }
        let (unread, limit) = (self.unread, self.limit);
        answer.map(|body| Body::new(Keeping::new(body, Unread { body: unread, limit })))
    }
}

/// Closes a body that is still unread this long after the answer ended.
#[derive(Debug)]
struct Unread {
    body: Weak<Shared>,
    limit: Duration,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let unread = self.body.strong_count() > 0;
        if let (true, Ok(runtime)) = (unread, tokio::runtime::Handle::try_current()) {
            let (body, limit) = (Weak::clone(&self.body), self.limit);
            runtime.spawn(async move {
                sleep(limit).await;
                drop(body.upgrade().and_then(|body| body.take()));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;

    use super::*;

    fn request(path: &str, expects: bool) -> Parts {
        let mut request = http::Request::post(path);
        if expects {
            request = request.header(header::EXPECT, "100-continue");
        }
        request.body(()).unwrap().into_parts().0
    }

    fn take(parts: &Parts, body: Body) -> Inbound {
        Bodies::example().take(parts, body).unwrap()
    }

    /// A body of pieces that the test sends.
    fn pieces() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        (sender, Body::from_stream(stream.map(Ok::<_, Infallible>)))
    }

    /// How long a client that sends this many octets each second is listened to, up to ten minutes.
    async fn listened(path: &str, octets: usize) -> u64 {
        let (sender, body) = pieces();
        let mut body = take(&request(path, false), body);
        tokio::spawn(async move {
            while sender.send(vec![0; octets].into()).is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = timer::now();
        while begun.elapsed().as_secs() < 600 && body.frame().await.unwrap().is_ok() {}
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_we_hold_has_a_least_rate() {
        for path in ["/api/twitch/users", "/auth/webhook", "/auth/callback"] {
            assert!((10..20).contains(&listened(path, 1).await), "{path}");
            assert!((15..40).contains(&listened(path, 2048).await), "{path}");
            assert_eq!(listened(path, 8192).await, 600, "{path}");
        }
        assert_eq!(listened("/upload", 1).await, 600, "the app decides");
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_for_the_client_counts_as_slow() {
        let (sender, body) = pieces();
        let mut body = take(&request("/api/twitch/users", false), body);
        for _ in 0..10 {
            sender.send(Bytes::from_static(b"x")).unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_does_not_hold_up_a_stop() {
        let (sender, body) = pieces();
        let bodies = Bodies::example();
        drop(bodies.take(&request("/", false), body).unwrap());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!sender.is_closed());
        bodies.limits.stopping.cancel();
        let begun = timer::now();
        while sender.send(Bytes::from_static(b"x")).is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!((1000..1200).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_discarded_up_to_a_limit() {
        let (sender, body) = pieces();
        drop(take(&request("/", false), body));
        for _ in 0..10 {
            sender.send(Bytes::from_static(&[0; 100])).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert!(!sender.is_closed(), "the limit of octets is reached, not exceeded");
        sender.send(Bytes::from_static(b"x")).unwrap();
        sender.closed().await;

        let (sender, body) = pieces();
        let begun = timer::now();
        drop(take(&request("/", false), body));
        sender.closed().await;
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_100_is_asked_for_nothing() {
        let (sender, body) = pieces();
        drop(take(&request("/", true), body));
        assert!(sender.is_closed());
        let (sender, body) = pieces();
        let mut body = take(&request("/", true), body);
        sender.send(Bytes::from_static(b"x")).unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(!sender.is_closed(), "the client was asked to send");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_read_for_a_while_after_the_answer_ended() {
        let (sender, body) = pieces();
        let mut body = take(&request("/", false), body);
        let answer = body.closing().finish(Response::new(Body::empty()));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!sender.is_closed(), "the answer has not ended");
        drop(answer);
        tokio::time::sleep(Duration::from_secs(29)).await;
        sender.send(Bytes::from_static(b"x")).unwrap();
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(sender.is_closed());
        body.frame().await.unwrap().expect_err("a body that was closed is not whole");
    }

    #[tokio::test]
    async fn the_answer_says_that_the_connection_closes() {
        let long = || Body::from(vec![0; 1001]);
        type Case = (&'static str, bool, fn() -> Body, bool, bool);
        let table: [Case; 5] = [
            ("short", false, || Body::from(vec![0; 1000]), false, false),
            ("long", false, long, false, true),
            ("long, but read", false, long, true, false),
            ("waits for 100", true, || Body::from("x"), false, true),
            ("of unknown length", false, || pieces().1, false, false),
        ];
        for (name, expects, body, read, expected) in table {
            let inbound = take(&request("/", expects), body());
            let closing = inbound.closing();
            if read {
                inbound.collect().await.unwrap();
            } else {
                drop(inbound);
            }
            let answer = closing.finish(Response::new(Body::empty()));
            assert_eq!(answer.headers().contains_key(header::CONNECTION), expected, "{name}");
        }
    }
}
