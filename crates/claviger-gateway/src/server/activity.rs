//! What a connection is doing, and when that is nothing.
//!
//! Hyper limits the time of a head, and pings HTTP/2 clients. It does not see a client that answers
//! pings and asks for nothing, or one that asks and never reads. [`Watch`] does for a connection,
//! and [`Taking`] for each answer over HTTP/2.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;

use super::places::Place;
use crate::{keeping::Keeping, timer};

/// Counts what moves on a connection. It reads no clock, since every request passes here.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answer has not ended.
    open: AtomicUsize,
    /// Grows with each beginning of a request and each end of an answer.
    moves: AtomicU64,
    /// Whether the socket takes no more octets.
    blocked: AtomicBool,
    /// Grows with each write to the socket.
    writes: AtomicU64,
}

/// An [`Activity`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    open: usize,
    moves: u64,
    blocked: bool,
    writes: u64,
}

impl Activity {
    /// A request arrived.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Relaxed);
        self.moves.fetch_add(1, Relaxed);
        Open { activity: Arc::clone(self) }
    }

    /// The socket took octets, or takes no more.
    pub(super) fn wrote(&self, took: bool) {
        if took {
            self.writes.fetch_add(1, Relaxed);
        }
        if self.blocked.load(Relaxed) == took {
            self.blocked.store(!took, Relaxed);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            open: self.open.load(Relaxed),
            moves: self.moves.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            writes: self.writes.load(Relaxed),
        }
    }
}

/// A request whose answer has not ended.
#[derive(Debug)]
pub(super) struct Open {
    activity: Arc<Activity>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.activity.open.fetch_sub(1, Relaxed);
        self.activity.moves.fetch_add(1, Relaxed);
    }
}

/// A request's place over HTTP/2. The request's body and its answer share it.
pub(super) type SharedPlace = Option<Arc<Place>>;

/// The body of a request. Until it was read, discarded or closed, the request keeps its place.
pub(super) type Arriving<B> = Keeping<B, SharedPlace>;

/// How much of an answer over HTTP/2 the client has taken. Over HTTP/1.1 an answer has the
/// connection for itself, so the socket shows that.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// Pieces that wait for the client.
    waiting: AtomicUsize,
    /// Grows with each part of a piece that the client takes.
    moves: AtomicU64,
    /// What sends the answer, while it waits for the last piece to be taken.
    sender: AtomicWaker,
}

tokio::task_local! {
    /// The answer that this task sends over HTTP/2.
    static TAKING: Arc<Taking>;
}

impl Taking {
    /// Serves a request over HTTP/2 until the client takes nothing of an answer that waits for it,
    /// for this long. The work is dropped then, which resets the stream.
    ///
    /// The limit counts from the first look that finds nothing new, so it is exceeded by up to a
    /// quarter.
    pub(super) async fn watch(work: impl Future<Output = ()>, untaken: Duration) {
        let taking = Arc::<Self>::default();
        let mut work = pin!(TAKING.scope(Arc::clone(&taking), work));
        let (mut seen, mut since) = (None, timer::now());
        while timeout(untaken / 4, work.as_mut()).await.is_err() {
            let waits = taking.waiting.load(Relaxed) > 0;
            let state = waits.then(|| taking.moves.load(Relaxed));
            if state.is_none() || state != seen {
                (seen, since) = (state, timer::now());
            } else if since.elapsed() >= untaken {
                return;
            }
        }
    }

    /// Waits until the client has taken all that it was sent.
    fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        self.sender.register(context.waker());
        if self.waiting.load(Relaxed) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The body of an answer.
///
/// Over HTTP/2 its end is sent when the client has taken everything before, and not with the last
/// octets. Otherwise nothing could reset a stream whose last octets the client does not take.
#[derive(Debug)]
pub(super) struct Outbound {
    rest: Rest,
    _open: Open,
    _place: SharedPlace,
    taking: Option<Arc<Taking>>,
}

/// What is still to be sent of an answer.
#[derive(Debug)]
enum Rest {
    Body(Body),
    /// Nothing but the trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Outbound {
    pub(super) fn new(body: Body, open: Open, place: SharedPlace) -> Self {
        let taking = TAKING.try_with(Arc::clone).ok();
        Self { rest: Rest::Body(body), _open: open, _place: place, taking }
    }
}

impl HttpBody for Outbound {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let this = &mut *self;
        if let Rest::Body(body) = &mut this.rest {
            let end = match ready!(Pin::new(body).poll_frame(context)) {
                None => None,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(octets) => {
                        let piece = Piece::new(octets, this.taking.as_ref());
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
            };
            this.rest = Rest::End(end);
        }
        if let Some(taking) = &this.taking {
            ready!(taking.poll_taken(context));
        }
        let Rest::End(trailers) = &mut this.rest else { return Poll::Ready(None) };
        Poll::Ready(trailers.take().map(Frame::trailers).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.taking.as_ref().is_some_and(|taking| taking.waiting.load(Relaxed) > 0);
        match &self.rest {
            Rest::Body(body) => body.is_end_stream() && !waits,
            Rest::End(trailers) => trailers.is_none() && !waits,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Body(body) => body.size_hint(),
            Rest::End(_) => SizeHint::with_exact(0),
        }
    }
}

/// A piece of an answer. Over HTTP/2 it waits until the client takes it.
#[derive(Debug)]
pub(super) struct Piece {
    octets: Bytes,
    taking: Option<Arc<Taking>>,
}

impl Piece {
    fn new(octets: Bytes, taking: Option<&Arc<Taking>>) -> Self {
        if let Some(taking) = taking {
            taking.waiting.fetch_add(1, Relaxed);
        }
        Self { octets, taking: taking.cloned() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
        if let Some(taking) = &self.taking {
            taking.moves.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(taking) = &self.taking
            && taking.waiting.fetch_sub(1, Relaxed) == 1
        {
            taking.sender.wake();
        }
    }
}

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until its first request.
    pub(super) first_request: Duration,
    /// Without an open request.
    pub(super) idle: Duration,
    /// Without taking any octet of what waits for the client.
    pub(super) untaken: Duration,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on. Look again after this time.
    Fine(Duration),
    /// It is idle, so it may finish.
    Idle,
    /// The client sends no request, or reads nothing at all, so it is cut.
    Stuck,
}

/// Watches one connection. Times count from its beginning.
#[derive(Debug)]
pub(super) struct Watch {
    activity: Arc<Activity>,
    patience: Patience,
    seen: Snapshot,
    /// When the last move was seen, and the last write.
    moved: Duration,
    wrote: Duration,
}

impl Watch {
    pub(super) fn new(activity: Arc<Activity>, patience: Patience) -> Self {
        Self { activity, patience, seen: Snapshot::default(), moved: Duration::ZERO, wrote: Duration::ZERO }
    }

    /// Looks at the connection. A limit counts from the first look that finds nothing new, so it is
    /// exceeded by up to a quarter.
    pub(super) fn look(&mut self, now: Duration) -> Verdict {
        let Patience { first_request, idle, untaken } = self.patience;
        let state = self.activity.snapshot();
        if state.moves != self.seen.moves {
            self.moved = now;
        }
        // Until the socket is blocked, nothing waits for it.
        if state.writes != self.seen.writes || !state.blocked || !self.seen.blocked {
            self.wrote = now;
        }
        self.seen = state;
        if state.moves == 0 {
            return match first_request.checked_sub(now) {
                // Only over HTTP/2 anything is written before the first request.
                None | Some(Duration::ZERO) if state.writes > 0 => Verdict::Idle,
                None | Some(Duration::ZERO) => Verdict::Stuck,
                Some(left) => Verdict::Fine(left),
            };
        }
        if now.saturating_sub(self.wrote) >= untaken {
            Verdict::Stuck
        } else if state.open == 0 && now.saturating_sub(self.moved) >= idle {
            Verdict::Idle
        } else {
            Verdict::Fine(idle.min(untaken) / 4)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use futures_util::StreamExt as _;
    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Patience = Patience {
        first_request: Duration::from_secs(10),
        idle: Duration::from_secs(130),
        untaken: Duration::from_secs(60),
    };

    /// Looks as often as asked, until something happens or ten minutes are over.
    fn fate(activity: &Arc<Activity>, mut between: impl FnMut(Duration)) -> (Verdict, u64) {
        let (mut watch, mut now) = (Watch::new(Arc::clone(activity), PATIENCE), Duration::ZERO);
        loop {
            match watch.look(now) {
                Verdict::Fine(pause) if now.as_secs() < 600 => {
                    between(now);
                    now += pause;
                }
                verdict => return (verdict, now.as_secs()),
            }
        }
    }

    fn goes_on(fate: (Verdict, u64)) -> bool {
        matches!(fate.0, Verdict::Fine(_))
    }

    #[test]
    fn a_connection_without_a_request_is_cut_or_over_http2_may_finish() {
        let activity = Arc::new(Activity::default());
        assert_eq!(fate(&activity, |_| ()), (Verdict::Stuck, 10));
        assert_eq!(fate(&activity, |_| activity.wrote(true)), (Verdict::Idle, 10), "pings are no request");
    }

    #[test]
    fn an_idle_connection_may_finish() {
        let activity = Arc::new(Activity::default());
        drop(activity.begin());
        let (verdict, after) = fate(&activity, |_| activity.wrote(true));
        assert_eq!(verdict, Verdict::Idle, "pings are no request");
        assert!((130..=165).contains(&after), "{after}");
        assert!(goes_on(fate(&activity, |_| drop(activity.begin()))), "requests come");
    }

    /// How many seconds an answer over HTTP/2 is served to this client, up to ten minutes.
    async fn served<T: Future<Output = ()>>(answer: Body, client: impl FnOnce(Outbound) -> T) -> u64 {
        let open = Arc::new(Activity::default()).begin();
        let begun = timer::now();
        let work = async { client(Outbound::new(answer, open, None)).await };
        let _over = timeout(Duration::from_secs(600), Taking::watch(work, PATIENCE.untaken)).await;
        begun.elapsed().as_secs()
    }

    async fn next(answer: &mut Outbound) -> Piece {
        answer.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_over_http2_that_the_client_does_not_take_is_cut() {
        let cut_after = async |octets: usize| {
            served(Body::from("answer"), async |mut answer| {
                let mut piece = next(&mut answer).await;
                for _ in 0..octets {
                    sleep(Duration::from_secs(50)).await;
                    piece.advance(1);
                }
                pending().await
            })
            .await
        };
        for (octets, expected) in [(0, 60..=90), (1, 110..=140), (5, 310..=340)] {
            let after = cut_after(octets).await;
            assert!(expected.contains(&after), "{octets} octets: {after}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_over_http2_may_wait_for_the_app() {
        let events = futures_util::stream::once(async { Ok::<_, Infallible>("event") });
        let events = Body::from_stream(events.chain(futures_util::stream::pending()));
        let after = served(events, async |mut answer| {
            drop(next(&mut answer).await);
            answer.frame().await;
        });
        assert_eq!(after.await, 600);
    }

    #[tokio::test]
    async fn the_end_of_an_answer_over_http2_waits_until_the_rest_is_taken() {
        let trailers = HeaderMap::from_iter([(http::header::EXPIRES, "never".parse().unwrap())]);
        for trailers in [None, Some(trailers)] {
            let frames =
                [Some(Frame::data(Bytes::from_static(b"answer"))), trailers.clone().map(Frame::trailers)];
            let frames = frames.into_iter().flatten().map(Ok::<_, Infallible>);
            let body = Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
            served(body, async |mut answer| {
                let piece = next(&mut answer).await;
                let mut waiting = pin!(answer.frame());
                assert!(futures_util::poll!(waiting.as_mut()).is_pending());
                drop(piece);
                let end = waiting.await.map(|frame| frame.unwrap().into_trailers().unwrap());
                assert_eq!(end, trailers);
                assert!(answer.is_end_stream());
            })
            .await;
        }
    }

    #[test]
    fn a_large_piece_may_be_taken_slowly_over_http1() {
        let activity = Arc::new(Activity::default());
        let _body = Outbound::new(Body::from("large"), activity.begin(), None);
        let slowly = fate(&activity, |_| {
            activity.wrote(true);
            activity.wrote(false);
        });
        assert!(goes_on(slowly));
        assert_eq!(fate(&activity, |_| ()).0, Verdict::Stuck);
    }

    #[test]
    fn an_answer_that_waits_for_the_app_goes_on() {
        let activity = Arc::new(Activity::default());
        let open = activity.begin();
        assert!(goes_on(fate(&activity, |_| ())), "no answer yet");
        let stream = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut body = Outbound::new(Body::from_stream(stream), open, None);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        assert!(goes_on(fate(&activity, |_| ())), "no event yet");
    }

    #[test]
    fn a_socket_that_takes_nothing_is_cut() {
        let activity = Arc::new(Activity::default());
        drop(activity.begin());
        activity.wrote(false);
        let (verdict, after) = fate(&activity, |_| ());
        assert_eq!(verdict, Verdict::Stuck);
        assert!((60..=90).contains(&after), "{after}");
        let slowly = fate(&activity, |_| {
            drop(activity.begin());
            activity.wrote(true);
            activity.wrote(false);
        });
        assert!(goes_on(slowly), "it takes some now and then");
    }
}
