//! The open requests of each session. They close when it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use claviger_core::SessionId;
use claviger_engine::Ending;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The open requests of all sessions, and the tunnels among them.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    open: Arc<Mutex<HashMap<SessionId, Open>>>,
    tunnels: TaskTracker,
    stopping: CancellationToken,
}

/// The open requests of one session.
#[derive(Debug)]
struct Open {
    ended: CancellationToken,
    holders: usize,
}

impl Streams {
    /// A token that is cancelled when the gateway stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Ends what would go on until somebody ends it: tunnels and streams of events.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Registers a request of this session. Call it before authenticating, or an end may be missed.
    pub fn hold(&self, session: SessionId) -> Hold {
        let mut open = self.lock();
        let entry =
            open.entry(session).or_insert_with(|| Open { ended: CancellationToken::new(), holders: 0 });
        entry.holders += 1;
        Hold { streams: self.clone(), session, ended: entry.ended.clone() }
    }

    /// Closes requests when their sessions end, until the channel closes. After endings were
    /// missed, it closes the requests of all sessions that `doubts` says may have ended.
    pub async fn watch(
        &self,
        mut endings: broadcast::Receiver<Ending>,
        doubts: impl Fn(SessionId) -> bool + Send,
    ) {
        loop {
            match endings.recv().await {
                Ok(Ending::Of(session)) => self.end(session),
                Ok(Ending::Unheard) => {
                    let open: Vec<_> = self.lock().keys().copied().collect();
                    open.into_iter().filter(|session| doubts(*session)).for_each(|session| self.end(session));
                }
                // It is unknown which ones were missed.
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "missed the ends of some sessions; all streams are closed");
                    self.end_all();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Runs a tunnel, which ends soon after [`Streams::stopping`].
    pub fn tunnel(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tunnels.spawn(work);
    }

    /// Waits until all tunnels are closed.
    pub async fn closed(&self) {
        self.tunnels.close();
        self.tunnels.wait().await;
    }

    /// The number of sessions with open requests.
    pub fn sessions(&self) -> usize {
        self.lock().len()
    }

    fn end(&self, session: SessionId) {
        if let Some(open) = self.lock().remove(&session) {
            open.ended.cancel();
        }
    }

    fn end_all(&self) {
        for (_, open) in std::mem::take(&mut *self.lock()) {
            open.ended.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Open>> {
        // A panic cannot leave the map inconsistent, because each critical section is short.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open request of a session.
#[derive(Debug)]
pub struct Hold {
    streams: Streams,
    session: SessionId,
    ended: CancellationToken,
}

impl Hold {
    /// A token that is cancelled when the session ends.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The entry of an ended session is gone. A new entry would belong to a later request.
        if self.ended.is_cancelled() {
            return;
        }
        let mut open = self.streams.lock();
        if let Some(entry) = open.get_mut(&self.session) {
            entry.holders -= 1;
            if entry.holders == 0 {
                open.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::Timestamp;

    use super::*;

    fn id(number: u8) -> SessionId {
        SessionId::new(Timestamp::from_millis(1), [number; 10])
    }

    #[test]
    fn an_ending_closes_all_requests_of_its_session_and_no_others() {
        let streams = Streams::default();
        let (one, two, other) = (streams.hold(id(1)), streams.hold(id(1)), streams.hold(id(2)));
        streams.end(id(1));
        assert!(one.ended().is_cancelled() && two.ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
        assert_eq!(streams.sessions(), 1);
    }

    #[test]
    fn closed_requests_are_removed() {
        let streams = Streams::default();
        let (one, two) = (streams.hold(id(1)), streams.hold(id(1)));
        drop(one);
        assert_eq!(streams.sessions(), 1);
        drop(two);
        assert_eq!(streams.sessions(), 0);
        let late = streams.hold(id(1));
        streams.end(id(1));
        let new = streams.hold(id(1));
        drop(late);
        assert_eq!(streams.sessions(), 1);
        drop(new);
        assert_eq!(streams.sessions(), 0);
    }

    #[tokio::test]
    async fn missed_endings_close_everything() {
        let streams = Streams::default();
        let (sender, receiver) = broadcast::channel(1);
        let held = streams.hold(id(9));
        sender.send(Ending::Of(id(1))).unwrap();
        sender.send(Ending::Of(id(2))).unwrap();
        drop(sender);
        streams.watch(receiver, |_| false).await;
        assert!(held.ended().is_cancelled());
    }

    #[tokio::test]
    async fn after_missed_changes_the_doubtful_sessions_are_closed() {
        let streams = Streams::default();
        let (sender, receiver) = broadcast::channel(1);
        let (doubtful, other) = (streams.hold(id(8)), streams.hold(id(9)));
        sender.send(Ending::Unheard).unwrap();
        drop(sender);
        streams.watch(receiver, |session| session == id(8)).await;
        assert!(doubtful.ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
    }
}
