//! A FIFO queue of slots, so that the longest due is validated first.

use tokio::sync::oneshot;

/// The queue.
#[derive(Default)]
pub(super) struct Fifo {
    last: Option<oneshot::Receiver<()>>,
}

/// A place in the queue. Dropping it lets the next one pass: when all rows of its slot were handed
/// out, or when the slot was lost to another instance.
pub(super) struct Ticket {
    before: Option<oneshot::Receiver<()>>,
    _passes: oneshot::Sender<()>,
}

impl Fifo {
    /// Gives out a ticket behind all others.
    pub(super) fn join(&mut self) -> Ticket {
        let (passes, next) = oneshot::channel();
        Ticket { before: self.last.replace(next), _passes: passes }
    }
}

impl Ticket {
    /// Waits until the ticket before is dropped.
    pub(super) async fn first(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the channel closes when the ticket before is dropped.
            let _ = before.await;
        }
    }
}
