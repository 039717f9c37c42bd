//! What a connection is doing, and when that is nothing.
//!
//! Hyper limits the time of a head, and pings HTTP/2 clients. It does not see a client that answers
//! pings and asks for nothing, or one that asks and never reads. [`Watch`] does.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::places::Place;

/// Counts what moves on a connection. It reads no clock, since every request passes here.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answer is not over.
    open: AtomicUsize,
    /// Answers whose next piece waits for the client.
    untaken: AtomicUsize,
    /// Grows with each request, and with each piece of an answer.
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
    untaken: usize,
    moves: u64,
    blocked: bool,
    writes: u64,
}

impl Activity {
    /// A request arrived, and took this place.
    pub(super) fn begin(self: &Arc<Self>, place: Option<Place>) -> Arc<Open> {
        self.open.fetch_add(1, Relaxed);
        self.moves.fetch_add(1, Relaxed);
        Arc::new(Open { activity: Arc::clone(self), waits_for_client: AtomicBool::new(false), place })
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
            untaken: self.untaken.load(Relaxed),
            moves: self.moves.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            writes: self.writes.load(Relaxed),
        }
    }
}

/// A request whose answer is not over.
#[derive(Debug)]
pub(super) struct Open {
    activity: Arc<Activity>,
    waits_for_client: AtomicBool,
    place: Option<Place>,
}

impl Open {
    /// Only HTTP/2 needs this, where pings may pass while an answer waits. There a request has a
    /// place. Over HTTP/1.1 the socket shows what the client takes, however large a piece is.
    fn wait_for_client(&self, waits: bool) {
        let waits = waits && self.place.is_some();
        match (self.waits_for_client.swap(waits, Relaxed), waits) {
            (false, true) => self.activity.untaken.fetch_add(1, Relaxed),
            (true, false) => self.activity.untaken.fetch_sub(1, Relaxed),
            _ => return,
        };
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wait_for_client(false);
        self.activity.open.fetch_sub(1, Relaxed);
    }
}

/// The body of an answer. The server asks for the next piece when the client has room for it.
#[derive(Debug)]
pub(super) struct Outbound {
    inner: Body,
    open: Arc<Open>,
}

impl Outbound {
    pub(super) fn new(inner: Body, open: Arc<Open>) -> Self {
        open.wait_for_client(true);
        Self { inner, open }
    }
}

impl HttpBody for Outbound {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        self.open.wait_for_client(frame.is_ready());
        if frame.is_ready() {
            self.open.activity.moves.fetch_add(1, Relaxed);
        }
        let open = &self.open;
        frame.map(|next| {
            next.map(|frame| frame.map(|frame| frame.map_data(|octets| Piece::new(octets, open))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A piece of an answer. Over HTTP/2 it waits until the client takes it, and the answer is not over
/// before. Over HTTP/1.1 the next request waits as well, so there the connection's place suffices.
#[derive(Debug)]
pub(super) struct Piece {
    octets: Bytes,
    open: Option<Arc<Open>>,
}

impl Piece {
    fn new(octets: Bytes, open: &Arc<Open>) -> Self {
        let open = open.place.is_some().then(|| Arc::clone(open));
        Self { octets, open }
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
        if let Some(open) = &self.open {
            open.activity.moves.fetch_add(1, Relaxed);
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
    /// Without taking any octet of an answer that waits for the client.
    pub(super) untaken: Duration,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on. Look again after this time.
    Fine(Duration),
    /// It is idle, so it may finish.
    Idle,
    /// The client does not send or does not read, so it is cut.
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
        if state.untaken > 0 && self.seen.untaken == 0 {
            self.moved = now;
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
        let quiet = now.saturating_sub(self.moved);
        if (state.untaken > 0 && quiet >= untaken) || now.saturating_sub(self.wrote) >= untaken {
            Verdict::Stuck
        } else if state.open == 0 && quiet >= idle {
            Verdict::Idle
        } else {
            Verdict::Fine(idle.min(untaken) / 4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::places::{Places, Trusted};

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

    fn place() -> Place {
        Places::new(1, 1, Trusted::default()).take_at_once(None).unwrap()
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
        drop(activity.begin(None));
        let (verdict, after) = fate(&activity, |_| activity.wrote(true));
        assert_eq!(verdict, Verdict::Idle, "pings are no request");
        assert!((130..=165).contains(&after), "{after}");
        assert!(goes_on(fate(&activity, |_| drop(activity.begin(None)))), "requests come");
    }

    #[test]
    fn an_answer_that_the_client_does_not_take_is_cut() {
        let activity = Arc::new(Activity::default());
        let mut body = Outbound::new(Body::from("answer"), activity.begin(Some(place())));
        let (verdict, after) = fate(&activity, |_| activity.wrote(true));
        assert_eq!(verdict, Verdict::Stuck, "pings take nothing");
        assert!((60..=75).contains(&after), "{after}");
        let mut context = Context::from_waker(std::task::Waker::noop());
        let slowly = fate(&activity, |_| drop(Pin::new(&mut body).poll_frame(&mut context)));
        assert!(goes_on(slowly), "the client takes a piece now and then");
    }

    #[test]
    fn an_answer_over_http2_is_over_when_its_last_octet_is_taken() {
        let activity = Arc::new(Activity::default());
        let mut body = Outbound::new(Body::from("answer"), activity.begin(Some(place())));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
            panic!("no piece")
        };
        drop(body);
        let mut piece = frame.into_data().unwrap();
        assert!(goes_on(fate(&activity, |_| piece.advance(usize::from(piece.has_remaining())))));
        assert_eq!(fate(&activity, |_| ()).0, Verdict::Stuck);
        drop(piece);
        assert_eq!(fate(&activity, |_| ()).0, Verdict::Idle);
    }

    #[test]
    fn a_large_piece_may_be_taken_slowly_over_http1() {
        let activity = Arc::new(Activity::default());
        let _body = Outbound::new(Body::from("large"), activity.begin(None));
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
        let open = activity.begin(None);
        assert!(goes_on(fate(&activity, |_| ())), "no answer yet");
        let stream = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut body = Outbound::new(Body::from_stream(stream), open);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        assert!(goes_on(fate(&activity, |_| ())), "no event yet");
    }

    #[test]
    fn a_socket_that_takes_nothing_is_cut() {
        let activity = Arc::new(Activity::default());
        drop(activity.begin(None));
        activity.wrote(false);
        let (verdict, after) = fate(&activity, |_| ());
        assert_eq!(verdict, Verdict::Stuck);
        assert!((60..=90).contains(&after), "{after}");
        let slowly = fate(&activity, |_| {
            drop(activity.begin(None));
            activity.wrote(true);
            activity.wrote(false);
        });
        assert!(goes_on(slowly), "it takes some now and then");
    }
}
