//! The socket of a connection. It reports what it writes, and closes so that the last answer
//! arrives.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{activity::Activity, listener::Stream, places::Place};
use tokio_util::either::Either;

use crate::timer;

/// How long a closing connection waits for more of what the client still sends.
const LINGER_PAUSE: Duration = Duration::from_secs(1);
/// The same, once more has come.
const LINGER_PAUSE_OF_SENDER: Duration = Duration::from_secs(5);
/// How long a closing connection lingers in all.
const LINGER: Duration = Duration::from_secs(10);

/// Maximum number of octets that wait in the system without being sent. Otherwise it would report
/// room only when a third of a buffer of megabytes is free, and a slow client would seem to read
/// nothing for minutes.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;
/// How long a client may be silent until the system asks whether it is still there, and between
/// further questions. A vanished client of a quiet stream or tunnel would keep its place for ever.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection that has a place.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) place: Place,
}

/// A connection's socket, and its place among the others.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    activity: Arc<Activity>,
    /// Whether the client will send no more.
    read_all: bool,
    closing: Option<Closing>,
    _place: Place,
}

/// Our end of the connection is closed.
#[derive(Debug)]
struct Closing {
    until: Instant,
    pause: Pin<Box<Sleep>>,
}

impl Socket {
    pub(super) fn new(accepted: Accepted, activity: Arc<Activity>) -> Self {
        let Accepted { stream, place } = accepted;
        if let Either::Left(stream) = &stream
            && let Err(error) = set_options(stream)
        {
            tracing::debug!(%error, "the options of a connection could not be set");
        }
        Self { stream, activity, read_all: false, closing: None, _place: place }
    }

    /// Reports what came of a write.
    fn wrote(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.wrote(wrote.is_ready());
        wrote
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = buffer.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.read_all |= left > 0 && buffer.remaining() == left;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says that we send no more, and discards what the client still sends. If it were left unread,
    /// the system would reset the connection, and the last answer could be lost with it (RFC 9112
    /// section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let now = timer::now();
        let closing = this.closing.get_or_insert_with(|| Closing {
            until: now + LINGER,
            pause: Box::pin(sleep_until(now + LINGER_PAUSE)),
        });
        let mut discarded = [0; 8 * 1024];
        while !this.read_all {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && now < closing.until => {
                    closing.pause.as_mut().reset(closing.until.min(now + LINGER_PAUSE_OF_SENDER));
                }
                Poll::Ready(_) => this.read_all = true,
                Poll::Pending => {
                    ready!(closing.pause.as_mut().poll(context));
                    this.read_all = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
